"""The app in a real browser: a whole story on the embedded model, from a plan to an answer; safe, quick, and usable by
everybody. A stand-in recipe keeps it short: few rows, no worked examples."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from children import until
from quiet import is_quiet

from slimtune.errors import UserError

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
gradio = pytest.importorskip("gradio")
sync = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
pytestmark = [
    pytest.mark.xdist_group("app"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: `apt-get install chromium`"),
]
WORK_MS = 150_000  # what a step of the work may take on two busy cores
SIZES = ((1280, 900), (400, 850))
TABS = ("Plan", "Data", "Runs", "Results", "Compare", "Leaderboard", "Try it")


class App:
    """`slimtune app` as one would type it, over a folder of its own."""

    def __init__(self, folder: Path, *options: str, password: str | None = None, log: Path | None = None):
        self.folder, self.options = folder, options
        self.copies = folder.with_name(f"{folder.name}-copies")  # where Gradio puts uploads and downloads
        own = {"GRADIO_TEMP_DIR": str(self.copies)} | ({"SLIMTUNE_APP_PASSWORD": password} if password else {})
        self.environment = os.environ | own
        self.log = log or folder.with_name(f"{folder.name}.log")
        self.start()

    def start(self) -> None:
        self.began = time.monotonic()
        port = str(free_port())
        command = [sys.executable, "-m", "slimtune.cli", "app", str(self.folder), "--port", port, *self.options]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        self.url = until(lambda: re.search(r"http://\S+:\d+", self.said), seconds=60, every=0.02)[0]
        self.served_s = time.monotonic() - self.began

    def restart(self) -> None:
        """Killed outright, and opened again."""
        self.process.kill()
        self.process.wait()
        self.start()

    @property
    def said(self) -> str:
        assert self.process.poll() is None, self.log.read_text()
        return self.log.read_text()

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("app") / "work"
    folder.mkdir()
    app = App(folder)
    yield app
    app.close()


class Page:
    """A page that is open, and everything its console complained of."""

    def __init__(self, browser, url: str, *, size: tuple[int, int] = SIZES[0], theme: str = "light"):
        self.page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        self.complaints: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(f"{url}/?__theme={theme}")
        self.page.wait_for_selector("#outcome .slim-verdict")

    def tab(self, name: str) -> None:
        button = self.page.get_by_role("tab", name=name)
        if button.count() == 0 or not button.is_visible():  # a narrow page keeps the last ones in a menu
            self.page.locator(".overflow-menu > button").click()
            self.page.locator(".overflow-dropdown button", has_text=name).click()
        else:
            button.click()

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def fill(self, selector: str, value: str) -> None:
        field = self.page.locator(f"{selector} input")
        field.fill(value)
        field.press("Tab")

    def choose(self, selector: str, words: str) -> None:
        field = self.page.locator(f"{selector} input")
        field.click()
        field.fill(words)
        self.page.get_by_role("option", name=words, exact=False).first.click()

    def wait_text(self, selector: str, pattern: str, *, ms: int = 30_000) -> str:
        found = self.page.locator(selector).filter(has_text=re.compile(pattern)).first
        found.wait_for(timeout=ms, state="attached")
        return found.inner_text()

    def close(self) -> None:
        self.page.close()
        assert self.complaints == [], "the console complained"


def small(page: Page) -> None:
    """The demo's recipe, cut down to six steps."""
    page.page.get_by_text("More", exact=True).click()
    page.fill("#training-rows-at-most", "48")
    page.fill("#test-rows-at-most", "10")
    page.fill("#worked-examples", "0")
    page.fill("#batch", "16")
    page.wait_text("#outcome", r"3 steps")
    page.fill("#batch", "")  # eight, as rows are few
    page.wait_text("#outcome", r"6 steps")


def test_from_a_plan_to_an_answer(app: App, browser) -> None:
    page = Page(browser, app.url)
    assert "fits" in page.text("#outcome .slim-verdict")
    small(page)

    page.choose("#model", "Qwen3-32B")
    page.wait_text("#outcome", "does not fit")
    page.choose("#card", "H100")
    page.wait_text("#outcome", r"Qwen3-32B fits the H100")
    page.choose("#model", "SmolLM2-135M-Instruct (from")
    page.choose("#card", "This machine")
    page.wait_text("#outcome", r"SmolLM2-135M-Instruct \(from 4-bit GGUF\) fits")

    page.tab("Data")
    page.page.wait_for_selector("#tokens mark", timeout=WORK_MS)
    assert page.text("#tokens mark >> nth=0").endswith("<|im_end|>"), "the stop token is learned"
    assert "Rows longer than the context: 0" in page.text("#tokens")

    page.tab("Plan")
    page.page.click("#start")
    page.wait_text("#run-view", r"\d of 6, loss", ms=WORK_MS)  # the Runs tab comes by itself
    first = float(re.search(r"loss ([\d.]+)", page.text("#run-view"))[1])
    page.close()
    app.restart()  # nothing that it started ends with it

    page = Page(browser, app.url)
    page.tab("Runs")
    page.wait_text("#run-view", r"[2-5] of 6, loss", ms=WORK_MS)
    page.page.click("#stop")
    page.wait_text("#run-said", "Asked to stop")
    page.wait_text("#run-view .slim-badge", "stopped", ms=WORK_MS)
    (folder,) = (path for path in (app.folder / "runs").iterdir() if path.is_dir())
    stopped_at = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert 2 <= stopped_at < 6
    page.page.click("#resume")
    page.wait_text("#run-view .slim-badge", "finished", ms=WORK_MS)
    last = float(re.findall(r"loss ([\d.]+)", page.text("#run-view"))[-1])
    assert last < first
    assert json.loads((folder / "training.json").read_text())["resumed_at_step"] == stopped_at

    page.tab("Results")
    page.page.wait_for_selector("#report .verdict", timeout=WORK_MS)
    report = json.loads((folder / "report.json").read_text())
    assert report["verdict"] in page.text("#report") and "dequantised" in page.text("#report")
    page.page.get_by_text("Every answer", exact=True).click()
    page.wait_text("#answer-rows", "10 rows")
    page.page.fill("#search textarea, #search input", "zzzz-not-there")
    page.wait_text("#answer-rows", "0 rows")
    for button, ending in (("#download-report", ".html"), ("#download-adapter", ".zip")):
        with page.page.expect_download() as download:
            page.page.click(button)
        assert download.value.suggested_filename.endswith(ending) and download.value.path().stat().st_size > 10_000

    page.tab("Compare")
    page.wait_text("#comparison", folder.name)
    page.tab("Try it")
    until(lambda: page.page.locator("#prompt textarea").input_value(), every=0.1)  # a test row's, to start from
    page.page.click("#ask")
    page.wait_text("#base-answer", r"tokens in", ms=WORK_MS)
    page.wait_text("#tuned-answer", r"tokens in", ms=WORK_MS)
    page.close()

    page = Page(browser, app.url)  # whoever loads the page again is told what is loaded
    page.tab("Try it")
    page.wait_text("#try-said", f"is loaded, of the run {folder.name}")
    page.page.click("#unload")
    page.wait_text("#try-said", "its memory is free")
    page.close()


@pytest.mark.parametrize(
    ("size", "theme"),
    [
        (SIZES[0], "dark"),
        (SIZES[1], "light"),
        pytest.param(SIZES[0], "light", marks=pytest.mark.slow),
        pytest.param(SIZES[1], "dark", marks=pytest.mark.slow),
    ],
)
def test_every_tab_fits_its_page_and_shuts_nobody_out(app: App, browser, size, theme: str) -> None:
    page = Page(browser, app.url, size=size, theme=theme)
    for name in TABS:
        page.tab(name)
        page.page.wait_for_timeout(700)
        assert page.page.evaluate("document.documentElement.scrollWidth") <= size[0], f"{name} is wider than the page"
        found = axe.Axe().run(page.page).response["violations"]
        bad = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
        assert bad == [], f"{name} in {theme}"
    page.close()


WATCH = """() => {
  window.seen = {};
  document.addEventListener("mousedown", () => { window.seen.pressed = performance.now(); }, true);
  new MutationObserver(() => { window.seen.answered = performance.now(); })
    .observe(document.querySelector("#outcome"), {subtree: true, childList: true, characterData: true});
}"""


def test_a_change_is_answered_within_300_ms(app: App, browser) -> None:
    page = Page(browser, app.url)
    page.choose("#card", "T4")
    page.wait_text("#outcome", "fits the T4")
    page.page.evaluate(WATCH)
    quiet, took = is_quiet(), []
    for rank, gib in (("32", "0.04"), ("64", "0.07"), ("128", "0.15"), ("8", "0.01")):
        page.page.locator("#rank input").click()
        page.page.get_by_role("option", name=rank, exact=True).click()
        page.wait_text("#outcome .slim-key", f"LoRA weights {gib}")
        took.append(page.page.evaluate("window.seen.answered - window.seen.pressed"))
    page.close()
    print("milliseconds to an answer:", [round(ms) for ms in took])
    assert sorted(took)[1] < (300 if quiet else 1500), took


def test_rows_of_ones_own_are_kept_read_and_planned_for_and_never_run_as_a_page(
    app: App, browser, tmp_path: Path
) -> None:
    hostile = "<img src=x onerror=document.title='owned'> ${document.title='owned'} {{7*7}}"
    rows = "".join(f"parcel {n} {hostile},{'ab'[n % 2]}\n" for n in range(40))
    (tmp_path / "tickets.csv").write_text(f"message,intent\n{rows}lost,\n", encoding="utf-8")
    page = Page(browser, app.url)
    page.page.get_by_label("A file of mine").check()
    page.page.locator("input[type=file]").first.set_input_files(tmp_path / "tickets.csv")
    page.wait_text("#outcome", "tickets.csv:42: has an empty 'intent'")
    page.page.get_by_label("Leave out rows that cannot be read").check()
    page.wait_text("#outcome", "Tickets")
    page.page.get_by_role("button", name="More").click()
    page.page.locator("#batch").wait_for()
    assert not page.page.locator("#labels").is_visible(), "those of a task that comes along"
    page.wait_text("#outcome", "of a batch of 8; 16 steps")  # not the demo's 32, of which there would be one
    assert page.page.locator("#learning-rate input, #lr input").first.input_value() == "0.0004"
    assert not page.page.locator("#start-from").is_visible(), "no recipe is there to start from"
    assert list(app.copies.rglob("tickets.csv")) == [], "the page's own copy is gone once it was taken"
    assert page.page.locator("#asked-column input").input_value() == "message"
    assert page.page.locator("#answer-column input").input_value() == "intent"
    page.tab("Data")
    page.wait_text("#data", "Training rows")
    page.page.wait_for_selector("#tokens mark", timeout=WORK_MS)
    assert hostile in page.text("#tokens") and page.page.title() == "slimtune"
    assert len(list((app.folder / "uploads").glob("*/tickets.csv"))) == 1
    page.close()


def test_two_pages_show_the_same_and_a_page_that_is_loaded_again_too(app: App, browser) -> None:
    one, other = Page(browser, app.url), Page(browser, app.url)
    for page in (one, other):
        page.tab("Runs")
    shown = [page.wait_text("#run-view", r"running|finished|stopped|No run yet") for page in (one, other)]
    assert shown[0] == shown[1]
    one.close()
    other.page.reload()
    other.page.wait_for_selector("#outcome .slim-verdict")
    other.close()


def test_the_app_is_there_within_three_seconds_without_torch(
    tmp_path: Path, browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "compiled"))
    folder = tmp_path / "work"
    folder.mkdir()
    App(folder).close()  # the first start after an installation compiles what it imports
    quiet, took = is_quiet(), []
    while len(took) < 3 and min(took, default=99) > 3:  # what else runs only adds
        app = App(folder)
        page = Page(browser, app.url)
        took.append(time.monotonic() - app.began)
        print(f"served after {app.served_s:.1f} s, a plan on the page after {took[-1]:.1f} s")
        page.choose("#card", "T4")
        page.wait_text("#outcome", "fits the T4")
        maps = Path(f"/proc/{app.process.pid}/maps").read_text()
        page.close()
        app.close()
    assert "libtorch" not in maps
    most = 3 if quiet and is_quiet() else 15
    assert min(took) < most, f"{min(took):.1f} s, and {most} s is the most while the machine is this quiet"


def test_the_page_begins_with_the_answer_to_what_its_form_says() -> None:
    from slimtune.app import plan_tab
    from slimtune.app.page import make_page

    with gradio.Blocks():
        form, _ = plan_tab.build()
    begun = {component: component.value for component in form.components}
    plan, yarn, recipe, models, start = plan_tab._answer(form, begun)
    shown = {block.elem_id: block for block in make_page().blocks.values()}
    assert "fits" in plan and shown["outcome"].value == plan
    assert (shown["recipe"].value, shown["every-model"].value) == (recipe, models)
    assert (shown["yarn"].visible, shown["start"].interactive) == (yarn["visible"], start["interactive"])


def test_what_gradio_is_not_let_do_is_put_back() -> None:
    from slimtune.app import quick

    code = (
        "import inspect, jinja2, ssl, sys\n"
        "before = inspect.getfile, jinja2.Template, ssl.create_default_context\n"
        "import slimtune.app.serve, gradio.caching, gradio.routes\n"
        "made = gradio.routes.App.create_app\n"
        "slimtune.app.serve.serve(host='127.0.0.1', port=None, share=False).close()\n"
        "assert not {'pandas', 'IPython', 'torch'} & set(sys.modules)\n"
        "assert gradio.routes.App.create_app is made\n"
        "assert before == (inspect.getfile, jinja2.Template, ssl.create_default_context)\n"
        "import pandas\n"
        "assert gradio.caching.pd.DataFrame is pandas.DataFrame\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    sys.modules.pop("colorsys", None)
    with quick.later("colorsys"):
        import colorsys as stand_in

        with pytest.raises(ImportError):
            from colorsys.parts import nothing  # noqa: F401
        assert stand_in.rgb_to_hsv(1, 1, 1) == (0, 0, 1), "it comes when it is asked for"
    import colorsys

    assert colorsys is not stand_in and colorsys.rgb_to_hsv is stand_in.rgb_to_hsv


HOSTILE = (
    None,
    "",
    "²",
    "9" * 400,
    "nope/nope",
    "/tmp",
    "../../etc/passwd",
    "a\nb: c",
    float("nan"),
    -1,
    1e308,
    [],
    {},
    True,
)


def test_whatever_is_sent_to_the_form_the_answer_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gradio as gr

    from slimtune.app import answers_view, plan_tab, results_tab, runs_tab, try_tab
    from slimtune.app.form import build_form
    from slimtune.draft import starting_drafts

    monkeypatch.chdir(tmp_path)
    with gr.Blocks():
        form = build_form()
    usual = form.filled(starting_drafts()["gemma-3-1b-squad2-open-book"])
    known = {component: usual.get(component, component.value) for component in form.components}
    known[form.labels] = []
    answer, *_ = plan_tab._answer(form, known)
    assert "fits" in answer or "does not fit" in answer
    for name, component in vars(form).items():
        for value in HOSTILE:
            answer, *_ = plan_tab._answer(form, known | {component: value})
            assert isinstance(answer, str) and answer.strip(), (name, value)
    for component, value in ((form.model, "/tmp"), (form.task, "../../etc"), (form.context, "²"), (form.rank, -1)):
        said, started = plan_tab._start(form, known | {component: value})
        assert started == "" and "slim-bad" in said
    for value in HOSTILE:
        name = value if isinstance(value, str) and value else "nothing"
        with pytest.raises(UserError, match="There is no run"):
            runs_tab._show(name)
        assert "There is no run" in results_tab._show(name)[0]
        assert "There is no run" in runs_tab._do(print, name, "done")
        for run in (None, name):
            shown = answers_view._shown(results_tab._folder, "Nothing.", run, value, value, value, value)
            assert "Nothing." in shown if run is None else "There is no run" in shown
        with pytest.raises(UserError):
            try_tab._tools("[" * 200_000)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_the_table_of_models_has_no_column_that_nothing_stands_in() -> None:
    from slimtune.app.look import html
    from slimtune.forecast import forecast_all
    from slimtune.gpus import get_gpu

    columns = "Longest row", "Rows a second", "Hours", "USD"
    for card, there in ((None, ()), (get_gpu("t4"), columns[:3]), (get_gpu("H100"), columns)):
        page = html("every_model", {"lines": forecast_all(card)})
        assert tuple(name for name in columns if f">{name}<" in page) == there
        cells = {row.count("<td") for row in page.split("<tr>")[2:]}
        assert cells == {3 + len(there)}, "every row has a cell for each heading"


def test_a_prompt_that_goes_on_with_a_conversation_comes_with_the_turns_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slimtune.app import try_tab

    monkeypatch.chdir(tmp_path)
    for name in ("train", "test"):
        turns = [("system", "Be short."), ("user", "Hello"), ("assistant", "Hi"), ("user", f"How are you, {name}?")]
        messages = [{"role": role, "content": text} for role, text in (*turns, ("assistant", "Well."))]
        Path(f"{name}.jsonl").write_text(json.dumps({"messages": messages}) + "\n", encoding="utf-8")
    run = Path("runs/chat")
    run.mkdir(parents=True)
    (run / "owner.json").touch()
    recipe = {"model": "any", "data": {"train": "train.jsonl", "test": "test.jsonl"}}
    (run / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    system, prompt, _, before, shown, drop = try_tab._prefill("chat")
    assert (system, prompt) == ("Be short.", "How are you, test?") and drop["visible"]
    assert [turn["content"] for turn in before] == ["Hello", "Hi"] and "Hello" in shown and "Hi" in shown
    asked = []

    class Stage:
        def load(self, name: str) -> "Stage":
            return self

        def ask(self, messages: list, *_: object, **__: object) -> Iterator[dict]:
            asked.append([turn["content"] for turn in messages])
            return iter(())

    list(try_tab._ask(Stage(), "chat", system, before, prompt, "", 8))
    list(try_tab._ask(Stage(), "chat", system, before, "", "", 8))
    assert asked == [["Be short.", "Hello", "Hi", "How are you, test?"], ["Be short.", "Hello", "Hi"]]


def test_a_page_from_elsewhere_is_turned_away(app: App) -> None:
    base = app.url.rstrip("/")
    for headers in ({"Host": "evil.example:80"}, {"Origin": "http://evil.example"}, {"Host": "127.0.0.1.evil.example"}):
        for path in ("/config", "/gradio_api/queue/join", "/gradio_api/upload", "/"):
            request = urllib.request.Request(base + path, headers=headers)
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request, timeout=20)
            assert refused.value.code == 403
    assert urllib.request.urlopen(base + "/config", timeout=20).status == 200


def test_others_are_let_in_with_a_password_only(tmp_path: Path) -> None:
    app = App(tmp_path, "--host", "0.0.0.0")
    try:
        made = until(lambda: re.search(r"password (\S+)", app.said))[1]
        url = f"http://127.0.0.1:{app.url.rsplit(':', 1)[1].strip('/')}"
        for path, code in (("/config", 401), ("/gradio_api/info", 401), ("/monitoring", 404)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(url + path, timeout=20)
            assert refused.value.code in (code, 401)
        body = f"username=slimtune&password={made}".encode()
        assert urllib.request.urlopen(url + "/login", data=body, timeout=20).status == 200
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(url + "/login", data=b"username=slimtune&password=guess", timeout=20)
    finally:
        app.close()


def test_a_password_that_is_given_is_asked_for_and_never_shown(tmp_path: Path) -> None:
    app = App(tmp_path, password="canary-5150")
    try:
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(app.url.rstrip("/") + "/config", timeout=20)
        assert "canary" not in app.said
    finally:
        app.close()


def test_no_file_of_the_machine_is_served(app: App) -> None:
    (app.folder / "secret.txt").write_text("canary")
    for path in ("/etc/passwd", str(app.folder / "secret.txt"), "../secret.txt", "secret.txt"):
        for route in ("/gradio_api/file=", "/file=", "/static/"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(app.url.rstrip("/") + route + path, timeout=20)
            assert refused.value.code in (403, 404), route + path


def test_in_a_notebook_it_is_for_this_machine_alone(tmp_path: Path) -> None:
    code = (
        "from slimtune.app.serve import show_in_notebook\n"
        "served = show_in_notebook()\n"
        "assert served.public_url is None and served.password is None and '127.0.0.1' in served.url, served\n"
        "served.close()\n"
    )
    colab = os.environ | {"COLAB_RELEASE_TAG": "x", "GRADIO_SHARE": "True"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=colab, check=True, timeout=60)


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "slimtune.cli", "app", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "There is no folder" in done.stderr
