"""The teacher's column: a served model on the same rows, in a run and alone, and the key that opens it nowhere."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import ChatServer, Reply, failed, said
from samples import LABELS

from slimtune.answering import score_served
from slimtune.check import as_json, plan_of, ready
from slimtune.cli.scoring import Given, served_model
from slimtune.data import Completion
from slimtune.endpoint import Endpoint
from slimtune.errors import ServiceAway, UserError
from slimtune.evaluate import evaluate, read_evaluation, write_evaluation
from slimtune.files import damage, write_json
from slimtune.pipeline import run_recipe
from slimtune.recipe import load_recipe, read_recipe
from slimtune.report import read_report
from slimtune.report.collect import collect
from slimtune.report.write import report_fragment
from slimtune.status import read_state
from slimtune.tasks import get_task

KEY, KEY_ENV = "sk-canary-5d41402abc4b2a76", "SLIMTUNE_TEST_KEY"


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.stages: set[str] = set()

    def say(self, text: str) -> None:
        self.said.append(text)

    def progress(self, stage: str, done: int, total: int, detail: str = "") -> None:
        self.stages.add(stage)


def label(body: dict, number: int) -> Reply:
    """A teacher that knows: the word is the label."""
    question = body["messages"][-1]["content"]
    return said(next(word for word in LABELS if f"please {word} " in question), model="big-2026")


@pytest.fixture
def teacher() -> Iterator[ChatServer]:
    with ChatServer(label) as server:
        yield server


def command(*words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "slimtune.cli", *map(str, words)]
    env = {name: value for name, value in os.environ.items() if name != KEY_ENV}
    env |= {"COLUMNS": "200", "PYTHONPATH": str(Path(__file__).parents[1]), **environment}
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, env=env, timeout=120)


def holding(folder: Path, word: str) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and word.encode() in file.read_bytes()]


def test_a_served_model_fills_a_column_from_the_command_line(
    tmp_path: Path, task: Path, teacher: ChatServer, monkeypatch
) -> None:
    line = ["evaluate", "openai:org/big", "--base-url", teacher.url, "--key-env", KEY_ENV, "--task", task]
    done = command(*line, "--rows", 6, "--few-shot", 2, cwd=tmp_path, **{KEY_ENV: KEY})
    assert done.returncode == 0, done.stderr
    assert "org/big, 3-shot: exact_match 1.000" in done.stdout and "n = 6" in done.stdout
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    evaluation = read_evaluation(folder)
    assert re.match(r"org-big-at-127\.0\.0\.1-\d+-on-actions-", folder.name), "another server has another folder"
    assert damage(folder) is None
    assert evaluation.served["answered_by"] == {"big-2026": 6} and evaluation.few_shot_k == 3
    assert len(teacher.asked) == 6 and set(teacher.keys) == {f"Bearer {KEY}"}
    assert [turn["role"] for turn in teacher.asked[0]["messages"]] == ["system", *["user", "assistant"] * 3, "user"]
    assert teacher.asked[0]["max_tokens"] == get_task(task).max_new_tokens

    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.chdir(tmp_path)  # all nine rows, six of them paid for
    _, more = score_served(
        Endpoint("org/big", teacher.url, KEY_ENV), get_task(task), few_shot=2, out=None, listener=Heard()
    )
    assert len(more.records) == 9 and len(teacher.asked) == 9
    assert holding(tmp_path, KEY) == [] and KEY not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("target", "base_url", "key_env", "budget", "words"),
    [
        ("openai:big", "", None, None, "Say where big is served: --base-url"),
        ("openai:big", "big.example", None, None, "must begin with http"),
        (
            "smollm2-135m-embedded",
            "http://h/v1",
            None,
            None,
            "slimtune evaluate openai:smollm2-135m-embedded --base-url",
        ),
        ("smollm2-135m-embedded", "", None, 1.0, "the budget and the prices are for a served model"),
        ("openai:big", "http://h/v1", KEY, None, "never the key"),
        ("openai:big", "http://h/v1", None, 1.0, "both prices"),
    ],
)
def test_what_is_wrong_with_a_served_model_is_a_sentence(target, base_url, key_env, budget, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        served_model(target, Given(base_url, key_env, budget_usd=budget))
    assert caught.value.exit_code == 2 and KEY not in str(caught.value)


def test_a_key_that_is_not_set_ends_the_command_with_what_to_do(tmp_path: Path) -> None:
    line = ["--task", "banking77", "--base-url", "http://127.0.0.1:1/v1", "--key-env", KEY_ENV]
    done = command("evaluate", "openai:big", *line, cwd=tmp_path)
    assert done.returncode == 2 and f"export {KEY_ENV}=" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_service_that_holds_off_for_an_hour_is_69_and_its_answers_are_kept(tmp_path: Path, task: Path) -> None:
    def script(body: dict, number: int) -> Reply:
        return failed(429, headers={"Retry-After": "3600"}) if number == 4 else label(body, number)

    with ChatServer(script) as server:
        line = ["evaluate", "openai:big", "--base-url", server.url, "--task", task, "--concurrency", 1]
        away, again = command(*line, cwd=tmp_path), command(*line, cwd=tmp_path)
        assert away.returncode == 69 and "asks to wait 3,600 s" in away.stderr
        assert again.returncode == 0 and len(server.asked) == 10


def recipe_with(recipe: Path, **sections: str) -> Path:
    text = recipe.read_text() + "".join(f"{name}: {value}\n" for name, value in sections.items())
    path = recipe.with_name("served.yaml")
    path.write_text(text)
    return path


def test_a_teacher_is_no_part_of_what_a_run_is_and_a_judge_is(recipe: Path) -> None:
    plain = load_recipe(recipe)
    teacher = load_recipe(recipe_with(recipe, teacher="{model: big, base_url: 'http://h/v1'}"))
    judge = load_recipe(recipe_with(recipe, judge="{model: big, base_url: 'http://h/v1'}"))
    other = load_recipe(recipe_with(recipe, judge="{model: big, base_url: 'http://h/v1', concurrency: 9}"))
    assert plain.digest == teacher.digest != judge.digest == other.digest
    assert not {"teacher", "judge"} & plain.as_json().keys() and teacher.as_json()["teacher"]["few_shot"] == 0


def test_a_check_says_that_a_key_is_not_set_or_goes_unencrypted(recipe: Path, monkeypatch) -> None:
    monkeypatch.delenv(KEY_ENV, raising=False)
    served = f"{{model: big, base_url: 'http://teacher.example/v1', key_env: {KEY_ENV}}}"
    prepared = ready(read_recipe(recipe_with(recipe, teacher=served)))
    notes = as_json(prepared, "", plan_of(prepared, gpu=None))["notes"]
    assert any(f"environment variable {KEY_ENV}, which is not set" in note for note in notes)
    assert any("The teacher's key goes to teacher.example unencrypted." in note for note in notes)
    monkeypatch.setenv(KEY_ENV, KEY)
    assert len(prepared.recipe.key_notes) == 1 and ready(read_recipe(recipe)).recipe.key_notes == []


def test_mistakes_about_a_served_model_are_named_and_no_key_is_repeated(recipe: Path) -> None:
    wrong = f"{{model: big, base_url: 'https://u:{KEY}@h/v1', key_env: {KEY}, api_key: {KEY}, budget_usd: -1}}"
    problems = "\n".join(map(str, read_recipe(recipe_with(recipe, teacher=wrong)).problems))
    for place in ("teacher.base_url: ", "teacher.key_env: ", "teacher.api_key: ", "teacher.budget_usd: "):
        assert place in problems
    assert KEY not in problems


def test_a_run_shows_its_teacher_beside_base_and_tuned_and_those_alone_while_it_is_away(
    recipe: Path, tmp_path: Path, monkeypatch, teacher
) -> None:
    monkeypatch.setenv("SLIMTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(KEY_ENV, KEY)
    out, heard = tmp_path / "run", Heard()

    def run(path: Path):
        return run_recipe(ready(read_recipe(path)), name="taught", out=out, listener=heard)

    assert run(recipe).already_done is False and not (out / "teacher").exists()
    trained = (out / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns
    section = f"model: big, base_url: {teacher.url}, key_env: {KEY_ENV}, usd_per_m_input: 2, usd_per_m_output: 8"
    taught = recipe_with(recipe, teacher=f"{{{section}, concurrency: 1}}")
    for file in [*out.glob("report.*"), out / "status.json"]:  # as a run is that comes to its teacher
        file.unlink()
    away = failed(503, headers={"Retry-After": "900"})
    teacher.script = lambda body, number: away if number == 4 else label(body, number)
    with pytest.raises(ServiceAway):
        run(taught)
    assert [row.name for row in read_report(out).scores] == ["base", "few_shot", "tuned"]
    assert "teacher/ is missing" in (out / "report.html").read_text() and not (out / "teacher").exists()
    assert read_state(out).phase == "stopped" and "answered 503" in read_state(out).error

    heard.said.clear()
    outcome = run(taught)
    assert not any("Loading" in text for text in heard.said) and read_state(out).phase == "finished"
    assert sorted(Counter(map(json.dumps, teacher.asked)).values()) == [1] * 8 + [2]
    assert not outcome.already_done and len(teacher.asked) == 10 and "Score teacher, big" in heard.stages
    assert (out / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == trained
    assert [row.name for row in outcome.report.scores] == ["base", "few_shot", "tuned", "teacher"]
    assert outcome.report.scores[-1].score.value == 1.0
    difference = outcome.report.differences[-1]
    assert difference.label == "Tuned - teacher" and difference.comparison.n == 9 and difference.comparison.losses > 0

    document = json.loads((out / "report.json").read_text())
    served = document["served"]["teacher"]["served"]
    assert served["answered_by"] == {"big-2026": 9} and served["usd"] == pytest.approx(9 * (10 * 2 + 2 * 8) / 1e6)
    assert document["recipe"]["teacher"]["model"] == "big"
    for page in (outcome.report.html.read_text(), (out / "report.md").read_text(), report_fragment(out)):
        assert "The teacher" in page and "big-2026 (9)" in page and "Tuned - teacher" in page.replace("\\", "")
    assert holding(out, KEY) == [] and KEY not in "".join(heard.said)

    assert run(taught).already_done and run(recipe).already_done and len(teacher.asked) == 10
    shots = recipe_with(recipe, teacher=f"{{{section}, few_shot: 1}}")
    assert not run(shots).already_done and len(teacher.asked) == 19
    assert read_report(out).scores[-1].label == "teacher, big, 3-shot"
    assert collect(out).missing == ()


@pytest.mark.parametrize(
    ("reply", "error"),
    [(failed(401), UserError), (failed(404), UserError), (failed(503, headers={"Retry-After": "900"}), ServiceAway)],
    ids=["key", "model", "away"],
)
def test_a_teacher_that_cannot_answer_is_known_before_anything_is_loaded(recipe, tmp_path, reply, error) -> None:
    heard = Heard()
    with ChatServer(lambda body, number: reply) as server:
        path = recipe_with(recipe, teacher=f"{{model: big, base_url: {server.url}}}")
        with pytest.raises(error):
            run_recipe(ready(read_recipe(path)), name="taught", out=tmp_path / "run", listener=heard)
    assert not any("Loading" in text for text in heard.said) and not (tmp_path / "run" / "base").exists()


def test_a_served_model_on_a_task_that_needs_a_judge_is_told_where_one_is_named(tmp_path: Path, monkeypatch, teacher):
    folder = tmp_path / "capitals"
    folder.mkdir()
    (folder / "job.json").write_text('{"kind": "qa", "scorer": "judge"}')
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text(json.dumps({"question": f"{split}?", "answers": ["yes"]}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="give `judge:` in a recipe; a served model is scored there as its `teacher:`"):
        score_served(Endpoint("big", teacher.url), get_task(folder), few_shot=0, out=None, listener=Heard())
    assert not teacher.asked


def test_the_example_sets_a_teacher_beside_a_finished_run_and_asks_each_row_once(
    tmp_path: Path, task: Path, teacher: ChatServer
) -> None:
    run, rows = tmp_path / "runs" / "done", get_task(task).test
    run.mkdir(parents=True)
    write_json(run / "recipe.json", {"model": "smollm2-135m-embedded", "task": str(task)})
    for name, right in (("base", 2), ("tuned", 7)):
        answers = [Completion(row.target if at < right else "none") for at, row in enumerate(rows)]
        scored = evaluate(get_task(task), rows, lambda *_, answers=answers: enumerate(answers), name=name, label=name)
        write_evaluation(run / name, scored)
    example = Path(__file__).parents[1] / "examples/teacher_column.py"
    line = [sys.executable, str(example), str(run), "big", teacher.url]
    done = [subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, timeout=120) for _ in range(2)]
    assert [one.returncode for one in done] == [0, 0], done[0].stderr
    assert "teacher  1.000 [" in done[0].stdout and "tuned    0.778 [" in done[0].stdout
    assert "tuned - teacher: -0.222 [" in done[0].stdout and "tuned - base:    +0.556 [" in done[0].stdout
    assert len(teacher.asked) == 9, "the second time, the answers are there"
    assert damage(tmp_path / "runs" / "done-teacher") is None and not (run / "teacher").exists()
    wrong = subprocess.run([*line[:-1], "big.example"], capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 1 and "must begin with http" in wrong.stderr and "Traceback" not in wrong.stderr
