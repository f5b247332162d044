"""A needle is hidden where it says it is, in as much real text as fits, and only finding it scores; a run whose context
is stretched looks for needles in short and in long texts."""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from samples import write_rows

from slimtune.check import Ready, ready
from slimtune.data import Completion
from slimtune.errors import Interrupted, Problems
from slimtune.evaluate import prompt_digest, read_evaluation
from slimtune.models import Extension, get_model
from slimtune.pipeline import evaluate_target, run_recipe
from slimtune.recipe import Context, read_recipe
from slimtune.report import read_report
from slimtune.scorers import get_scorer
from slimtune.tasks import Selection, get_task
from slimtune.tasks.needle import DEPTHS, needle
from slimtune.tasks.needle_check import needle_checks, needle_names

CODE = re.compile(r"\d{6}")


def words(text: str) -> int:
    return len(text.split())


def text_of(example) -> str:
    """The text of a row, without its question."""
    return example.messages[-1].content.rpartition("\n\nQuestion: ")[0]


def row(number: int = 0, *, side: str = "test", depth: float = 0.5, tokens: int = 1500):
    return needle(number=number, side=side, depth=depth, tokens=tokens)


# the text


def test_the_code_stands_once_in_its_text_and_the_question_asks_for_it() -> None:
    task = get_task("needle")
    for example in (*task.train, *task.test):
        text, (code,) = text_of(example), CODE.findall(text_of(example))
        (thing,) = re.findall(r"The code of the (\w+ \w+) is \d{6}\.", text)
        assert code == example.target
        assert example.messages[-1].content.endswith(f"\n\nQuestion: What is the code of the {thing}?")
    assert len({example.target for example in (*task.train, *task.test)}) == 200


@pytest.mark.parametrize("depth", DEPTHS)
def test_it_lies_as_deep_as_it_says(depth: float) -> None:
    for number in range(5):
        text = text_of(row(number, depth=depth, tokens=8000))
        where = text.index("The code of the") / (len(text) - len("The code of the golden compass is 123456."))
        assert abs(where - depth) < 0.04
    assert where == depth or 0 < depth < 1, "the first and the last sentence, not nearly"


def test_the_same_row_is_the_same_text_and_another_is_another() -> None:
    assert row(3) == row(3)
    assert len({text_of(row(number))[:200] for number in range(20)}) > 10
    assert row(3, tokens=3000).target == row(3).target


@pytest.mark.parametrize("tokens", [300, 1500, 9000, 131072])
def test_the_text_fills_its_room_and_never_more(tokens: int) -> None:
    for number in range(3):
        example = needle(number=number, side="test", depth=0.5, tokens=tokens, answer_tokens=50, tokens_in=words)
        taken = words(example.messages[-1].content) + 50
        assert tokens - 210 <= taken <= tokens


def test_training_and_test_texts_share_no_paragraph() -> None:
    paragraphs = {
        side: {part for number in range(9) for part in text_of(row(number, side=side, tokens=8000)).split("\n\n")}
        for side in ("train", "test")
    }
    assert all(len(found) > 25 for found in paragraphs.values()) and not paragraphs["train"] & paragraphs["test"]


def test_a_choice_of_rows_keeps_every_depth() -> None:
    chosen = get_task("needle", selection=Selection(test_rows=10)).test
    assert Counter(example.meta["depth"] for example in chosen) == dict.fromkeys(DEPTHS, 2)


def test_a_row_that_makes_no_text_is_refused_by_line(tmp_path: Path) -> None:
    good = {"number": 1, "side": "test", "depth": 0.5, "tokens": 300}
    bad = [
        good | change for change in ({"number": -1}, {"side": "left"}, {"depth": 2}, {"depth": True}, {"tokens": "9"})
    ]
    write_rows(tmp_path / "train.jsonl", [good])
    write_rows(tmp_path / "test.jsonl", [good, *bad])
    (tmp_path / "job.json").write_text('{"kind": "needle"}')
    with pytest.raises(Problems) as refused:
        get_task(tmp_path)
    assert [problem.where for problem in refused.value.problems] == [
        f"{tmp_path / 'test.jsonl'}:{line}" for line in range(2, 7)
    ]


# the answer


@pytest.mark.parametrize(
    ("answer", "value", "read"),
    [
        ("123456", 1.0, "123456"),
        ("The code is 123456.", 1.0, "123456"),
        ("**123456**, so 123456", 1.0, "123456"),
        ("654321", 0.0, "654321"),
        ("123456 or 654321", 0.0, None),
        ("1234567", 0.0, None),
        ("123 456", 0.0, None),
        ("a code of honour", 0.0, None),
        ("", 0.0, None),
    ],
)
def test_one_code_is_read_and_reciting_the_text_finds_nothing(answer: str, value: float, read: str | None) -> None:
    example = replace(row(), target="123456")
    score = get_scorer("six_digit_code")(Completion(answer), example)
    assert (score.value, score.answer) == (value, read) and bool(score.why) == (read is None)


# the check of a run


def test_the_short_rows_are_those_that_a_model_alone_is_scored_on() -> None:
    checks = needle_checks(Context(length=4096, method="yarn", needles=10), words, answer_tokens=4)
    alone = get_task("needle", selection=Selection(test_rows=10))
    assert list(map(prompt_digest, checks["short"].test)) == list(map(prompt_digest, alone.test))
    assert checks["short"].max_new_tokens == alone.max_new_tokens


def test_the_long_rows_fill_the_context_at_every_depth() -> None:
    context = Context(length=9000, method="yarn", needles=10)
    long = needle_checks(context, words, answer_tokens=200)["long"]
    assert Counter(example.meta["depth"] for example in long.test) == dict.fromkeys(DEPTHS, 2)
    for example in long.test:
        taken = sum(words(turn.content) for turn in example.messages) + long.max_new_tokens
        assert 8800 <= taken <= 9000 and example.messages[0].content == long.instruction
    assert long.max_new_tokens == 200, "a thinking model needs its room here too"


def test_only_a_stretched_context_is_checked_and_not_twice_where_it_is_short() -> None:
    assert needle_names(Context(length=9000), "base") == {}
    assert needle_names(Context(length=1500, method="yarn"), "base") == {"long": "needle-long-base"}
    names = needle_names(Context(length=1501, method="yarn"), "tuned")
    assert names == {"short": "needle-short-tuned", "long": "needle-long-tuned"}


class Hearing:
    """A listener that asks to stop after an answer of one stage."""

    def __init__(self, stop_at: str | None = None):
        self.stop_at, self.heard, self.stopping = stop_at, [], False

    def say(self, text: str) -> None:
        pass

    def progress(self, stage: str, done: int, total: int, detail: str = "") -> None:
        self.heard.append((stage, done))
        self.stopping |= stage == self.stop_at and done > 0

    def should_stop(self) -> bool:
        return self.stopping


@pytest.fixture
def stretched(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ready:
    """The tiny model, its window of 1,024 stretched to 2,048."""
    monkeypatch.setenv("SLIMTUNE_CACHE", str(tmp_path / "cache"))
    prepared = ready(read_recipe(recipe))
    context = Context(length=2048, method="yarn", needles=2)
    train = prepared.recipe.train.model_copy(update={"lr": 5e-2})  # enough to say something else when tuned
    return replace(
        prepared,
        spec=replace(prepared.spec, extension=Extension(1024, 2048)),
        recipe=prepared.recipe.model_copy(update={"context": context, "train": train}),
    )


def test_a_stretched_run_reports_what_it_finds_near_and_far_and_how_to_serve_it(stretched, tmp_path: Path) -> None:
    outcome = run_recipe(stretched, name="far", out=tmp_path / "run", listener=Hearing())
    report = json.loads((outcome.folder / "report.json").read_text())
    assert [(one["name"], one["n"]) for one in report["needles"]] == [
        (f"needle-{reach}-{who}", 2) for reach in ("short", "long") for who in ("base", "tuned")
    ]
    tokens = [one["prompt_tokens"] / 2 for one in report["needles"]]
    assert 1024 < max(tokens[:2]) < 1500 < min(tokens[2:]) and max(tokens[2:]) <= 2048 - 32
    rope = report["environment"]["rope"]
    assert rope["rope_parameters"]["factor"] == 2.0 and rope["length"] == 2048
    assert json.loads((outcome.folder / "adapter" / "slimtune.json").read_text()) == {"rope": rope, "thinking": "off"}
    page = (outcome.folder / "report.md").read_text(encoding="utf-8")
    assert rope["vllm"] in page and rope["llama_cpp"] in page and "2,048 tokens, by YaRN" in page
    assert "--task needle --rows 2" in page and "base, needle in 2,048 tokens" in page
    assert "Long context" in outcome.report.html.read_text(encoding="utf-8")
    shutil.move(outcome.folder / "needle-long-base", tmp_path / "aside")
    assert [line for line in read_report(outcome.folder).missing if "needle" in line] == [
        "needle-long-base/ is missing: the long-context check"
    ]
    shutil.move(tmp_path / "aside", outcome.folder / "needle-long-base")
    assert run_recipe(stretched, name="far", out=tmp_path / "run", listener=Hearing()).already_done


@pytest.mark.parametrize("who", ["base", "tuned"])
def test_a_check_that_was_interrupted_goes_on_where_it_was(stretched, tmp_path: Path, who: str) -> None:
    stage, out = f"Score {who}, needle in 2,048 tokens", tmp_path / "run"
    first = Hearing(stop_at=stage)
    with pytest.raises(Interrupted):
        run_recipe(stretched, name="far", out=out, listener=first, should_stop=first.should_stop)
    whole = {path.name: path.stat().st_mtime_ns for path in out.glob("needle-*") if path.is_dir()}
    assert f"needle-long-{who}" not in whole and f"needle-short-{who}" in whole
    again = Hearing()
    run_recipe(stretched, name="far", out=out, listener=again)
    assert min(done for heard, done in again.heard if heard == stage) == 1, "the first answer was kept"
    assert all((out / name).stat().st_mtime_ns == time for name, time in whole.items())
    assert not list(out.glob("*.journal"))
    run_recipe(stretched, name="far", out=tmp_path / "unbroken", listener=Hearing())
    said = {
        (run.name, model): [record.output for record in read_evaluation(run / f"needle-long-{model}").records]
        for run in (out, tmp_path / "unbroken")
        for model in ("base", "tuned")
    }
    assert said["run", who] == said["unbroken", who] and said["unbroken", "base"] != said["unbroken", "tuned"]


def test_long_prompts_are_answered_few_at_a_time(tiny_model: Path) -> None:
    from slimtune.engine import load, source
    from slimtune.engine.generate import generate

    spec = get_model(str(tiny_model))
    where = source.resolve_source(spec, quantisation="16bit", revision=None)
    renderer = load.load_renderer(spec, where, thinking="off")
    loaded = load.load_model(spec, where, renderer, precision="fp32", quantisation="16bit", window=1024)
    sizes = []
    loaded.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    examples = [row(number, tokens=900) for number in range(12)]
    assert sorted(index for index, _ in generate(loaded, examples, 2)) == list(range(12))
    assert 1500 < max(sizes) <= 4096, "several at a time, but not all"


def test_a_score_without_yarn_is_not_taken_for_one_with_it(stretched, tmp_path: Path) -> None:
    own = stretched.recipe.model_copy(update={"context": Context(length=256)})
    run_recipe(replace(stretched, recipe=own), name="near", out=tmp_path / "near", listener=Hearing())
    heard = Hearing()
    run_recipe(stretched, name="far", out=tmp_path / "far", listener=heard)
    assert ("Score base, zero-shot", 9) in heard.heard, "asked, and not from the cache"
    rows = [json.loads((tmp_path / name / "environment.json").read_text())["rope"] for name in ("near", "far")]
    assert [rope["method"] for rope in rows] == ["none", "yarn"]


# real weights


@pytest.mark.slow
def test_a_real_small_model_finds_needles_inside_its_window(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SLIMTUNE_CACHE", str(tmp_path / "scores"))
    _, evaluation = evaluate_target(
        "smollm2-135m-embedded",
        task_name="needle",
        rows=5,
        few_shot=0,
        out=tmp_path / "needle",
        data_dir=None,
        listener=Hearing(),
    )
    assert evaluation.score.n == 5 and evaluation.score.value >= 0.4
    assert all(record.prompt_tokens > 1000 for record in evaluation.records)


@pytest.mark.slow
def test_beyond_its_window_a_real_model_is_an_experiment_that_runs_to_its_end(tmp_path: Path) -> None:
    """One needle in 8,400 tokens and more, by base and tuned: minutes on two cores."""
    (tmp_path / "recipe.yaml").write_text(
        "model: smollm2-135m-embedded\ntask: banking77\n"
        "data: {train_rows: 8, test_rows: 2, labels: [age_limit, atm_support]}\nlora: {r: 4, alpha: 8}\n"
        "train: {epochs: 1, lr: 2e-3, batch: 4}\nevaluate: {few_shot: 0}\n"
        "context: {length: 8448, method: yarn, needles: 1}\n"
    )
    outcome = run_recipe(
        ready(read_recipe(tmp_path / "recipe.yaml")), name="far", out=tmp_path / "run", listener=Hearing()
    )
    report = json.loads((outcome.folder / "report.json").read_text())
    rope, needles = report["environment"]["rope"], {one["name"]: one for one in report["needles"]}
    assert rope["experimental"] and rope["rope_parameters"]["factor"] == 1.1
    assert all(8192 < needles[f"needle-long-{who}"]["prompt_tokens"] <= 8416 for who in ("base", "tuned"))
    assert "an experiment" in (outcome.folder / "report.md").read_text(encoding="utf-8")
    _, again = evaluate_target(
        str(outcome.folder), task_name="needle", rows=1, few_shot=0, out=None, data_dir=None, listener=Hearing()
    )
    assert again.records[0].output == read_evaluation(outcome.folder / "needle-short-tuned").records[0].output
