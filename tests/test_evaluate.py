"""Anything that answers is scored on the same rows, each row once, and nothing is hidden or asked twice."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimtune.data import Completion, Example, Message, Score, ToolCall
from slimtune.errors import SlimtuneError, UserError
from slimtune.evaluate import (
    Evaluation,
    choose_shots,
    evaluate,
    prompt_digest,
    read_evaluation,
    with_shots,
    write_evaluation,
)
from slimtune.files import damage
from slimtune.models.toolcalls import parse_tool_calls
from slimtune.scorers import SCORERS, Scorer, gold_completion
from slimtune.scorers.judge import JUDGE, Judged
from slimtune.tasks import Task, get_task, list_tasks

TASKS = sorted(job.name for job in list_tasks() if not job.hub)


def answering(answer: Callable[[Example], str | Completion], asked: list[str] | None = None):
    """A function as a model; it answers the last question first, as a batch sorted by length may."""

    def generate(examples: Sequence[Example], limit: int) -> Iterator[tuple[int, Completion]]:
        for index in reversed(range(len(examples))):
            if asked is not None:
                asked.append(examples[index].id)
            said = answer(examples[index])
            yield index, Completion(said) if isinstance(said, str) else said

    return generate


def gold(example: Example) -> Completion:
    return gold_completion(example, tool_format="json")


def rows(name: str, count: int = 40) -> tuple[Task, tuple[Example, ...]]:
    task = get_task(name)
    return task, task.test[:count]


def scored(task: Task, examples: Sequence[Example], generate, **more: object) -> Evaluation:
    return evaluate(task, examples, generate, name="base", label="a lambda", **more)


@pytest.mark.parametrize("name", TASKS)
def test_the_right_answers_score_one_and_silence_scores_nothing(name: str) -> None:
    task, examples = rows(name)
    right, silent = scored(task, examples, answering(gold)), scored(task, examples, answering(lambda _: ""))
    assert right.score.value == 1.0 and right.score.high == 1.0 and right.score.low < 1.0
    assert silent.score.value < 0.5 and silent.summary()["unparseable"] > 0
    assert [record.id for record in right.records] == [example.id for example in examples]
    assert right.summary()["unparseable"] == 0 and right.score.n == len(examples)


def test_rows_of_one_group_are_resampled_together_and_single_rows_get_wilson() -> None:
    task, examples = rows("squad2_open_book", 100)
    assert len({example.group for example in examples}) < len(examples)
    some = scored(task, examples, answering(lambda asked: gold(asked) if len(asked.messages[-1].content) % 3 else "?!"))
    assert "group" in some.score.method and some.score.groups < some.score.n and 0 < some.score.value < 1
    single, examples = rows("banking77")
    assert scored(single, examples, answering(gold)).score.method == "Wilson"
    twice = [*examples, *(replace(example, id=f"{example.id}-again") for example in examples)]
    doubled = scored(single, twice, answering(gold)).score
    assert (doubled.n, doubled.groups) == (2 * len(examples), len(examples)), "who asks the same is one group"


def test_a_thought_is_not_the_answer_and_an_unclosed_one_is_no_answer() -> None:
    task, examples = rows("banking77")
    thinking = scored(task, examples, answering(lambda e: f"<think>is it {task.labels[0]}?</think>\n\n{e.target}"))
    endless = scored(task, examples, answering(lambda e: f"<think>is it {e.target}"))
    assert thinking.score.value == 1.0 and endless.score.value == 0.0
    assert thinking.records[0].output.startswith("<think>")


def test_what_is_cut_off_unreadable_or_counted_shows_in_the_summary() -> None:
    task, examples = rows("banking77", 4)
    said = iter([Completion("no label at all"), Completion("", "length"), gold(examples[1]), gold(examples[0])])
    made = scored(
        task, examples, answering(lambda _: replace(next(said), prompt_tokens=9, completion_tokens=2, seconds=0.5))
    )
    summary = made.summary()
    assert summary["score"]["value"] == 0.5 and summary["unparseable"] == 0.5 and summary["truncated"] == 0.25
    assert (summary["n"], summary["prompt_tokens"], summary["completion_tokens"], summary["seconds"]) == (4, 36, 8, 2.0)
    assert [record.answer is None for record in made.records] == [False, False, True, True]


def test_what_we_could_not_judge_is_counted_and_is_no_zero() -> None:
    task, examples = rows("banking77", 10)
    made = scored(task, examples, answering(gold))
    unjudged = replace(made, records=(*(replace(one, score=None) for one in made.records[:4]), *made.records[4:]))
    assert unjudged.summary()["unscored"] == 4 and unjudged.score.n == 6 and unjudged.score.value == 1.0


@pytest.fixture
def brittle(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A scorer that some answers break, as any may: entered like the others."""

    def score(completion: Completion, example: Example) -> Score:
        return Score(1.0 / (completion.text != "breaks it"), completion.text)

    monkeypatch.setitem(SCORERS, "brittle", Scorer("brittle", "Breaks.", score))
    yield


def breaking(task: Task, examples: Sequence[Example], count: int, **more: object) -> Evaluation:
    """All answers right but for the first `count`, which the brittle scorer cannot take."""
    broken = {example.id for example in examples[:count]}
    return scored(
        task, examples, answering(lambda asked: "breaks it" if asked.id in broken else str(asked.target)), **more
    )


@pytest.mark.usefixtures("brittle")
def test_an_answer_that_breaks_the_scorer_is_not_judged_says_why_and_costs_no_other(tmp_path: Path) -> None:
    task, examples = rows("banking77", 200)
    for way in (replace(task, scorer="brittle"), replace(task, also=("brittle",))):
        made = breaking(way, examples, 2)
        first = made.records[0]
        assert first.score is None and {*first.also.values()} <= {None} and first.output == first.answer == "breaks it"
        assert "ZeroDivisionError: float division by zero" in first.why and made.records[2].score == 1.0
        assert made.summary()["unscored"] == 2 and made.score.n == 198 and made.score.value == 1.0
        write_evaluation(tmp_path / way.scorer, made)
        assert read_evaluation(tmp_path / way.scorer) == made
    assert breaking(way, examples[:9], 1).summary()["unscored"] == 1, (
        "one broken row ends nothing, however few there are"
    )


@pytest.mark.usefixtures("brittle")
def test_more_than_a_hundredth_of_such_answers_ends_it_names_the_first_and_loses_none(tmp_path: Path) -> None:
    task, examples = rows("banking77", 200)
    journal, said = (
        tmp_path / "journal",
        rf"brok.* 3 of 200 .*more than 1%: ZeroDivisionError.*\({examples[0].id} first\)",
    )
    with pytest.raises(RuntimeError, match=said) as caught:
        breaking(replace(task, scorer="brittle"), examples, 3, journal=journal)
    assert isinstance(caught.value.__cause__, ZeroDivisionError) and not isinstance(caught.value, SlimtuneError)
    asked: list[str] = []
    mended = scored(task, examples, answering(gold, asked), journal=journal)
    assert asked == [] and mended.score.n == 200 and mended.summary()["unscored"] == 0


@pytest.mark.usefixtures("brittle")
def test_what_a_judge_says_of_an_answer_that_broke_the_scorer_does_not_stand_alone() -> None:
    task, examples = rows("banking77", 8)

    def verdicts(pairs: Sequence[tuple[Completion, Example]]) -> Judged:
        return Judged(tuple(Score(1.0, completion.text) for completion, _ in pairs), {})

    made = breaking(replace(task, scorer=JUDGE, also=("brittle",)), examples, 1, judge=verdicts)
    assert [record.score for record in made.records] == [None, *[1.0] * 7]
    assert made.records[0].also == {"brittle": None} and "ZeroDivisionError" in made.records[0].why


def test_a_reader_that_breaks_costs_one_row_and_an_error_with_a_sentence_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task, examples = rows("voice_banking", 5)
    made = scored(task, examples, answering(lambda asked: "[" * 100_000 if asked is examples[0] else gold(asked)))
    assert [record.score for record in made.records] == [0.0, *[1.0] * 4]
    deep = iter([RecursionError("too deep"), *[None] * 4])

    def reader(*asked: object) -> object:
        if (error := next(deep)) is not None:
            raise error
        return parse_tool_calls(*asked)

    monkeypatch.setattr("slimtune.scorers.parse_tool_calls", reader)
    made = scored(task, examples, answering(gold))
    assert [record.score for record in made.records] == [None, *[1.0] * 4]
    assert made.records[0].why == "our scoring broke: RecursionError: too deep" and made.records[0].answer
    deep = iter([UserError("No such scorer.")])
    with pytest.raises(UserError, match="No such scorer"):
        scored(task, examples, answering(gold))


def test_calls_that_a_server_has_parsed_are_scored_as_they_are(tmp_path: Path) -> None:
    task, examples = rows("voice_banking")
    asked: list[str] = []
    served = answering(lambda example: Completion("", tool_calls=tuple(example.target)), asked)
    calling = [example for example in examples if example.target]
    for _ in range(2):
        made = scored(task, calling, served, journal=tmp_path / "journal")
        assert made.score.value == 1.0
    assert len(asked) == len(calling)


def test_an_evaluation_reads_back_as_it_was_written(tmp_path: Path) -> None:
    for name in TASKS:
        task, examples = rows(name, 12)
        said = iter(["", "\0 \u2028 \U0001f600", *[None] * 10])
        made = scored(task, examples, answering(lambda example, said=said: next(said) or gold(example)), few_shot_k=3)
        made = replace(made, records=(replace(made.records[0], score=None, answer=None), *made.records[1:]))
        write_evaluation(tmp_path / name, made)
        again = read_evaluation(tmp_path / name)
        assert again == made and again.summary() == made.summary() and damage(tmp_path / name) is None
    nothing = replace(made, records=tuple(replace(one, answer=None, label=None) for one in made.records))
    write_evaluation(tmp_path / "nothing", nothing)
    assert read_evaluation(tmp_path / "nothing") == nothing


class Stopped(Exception):
    pass


def stopping_after(count: int):
    def on_progress(done: int, total: int) -> None:
        if done >= count:
            raise Stopped

    return on_progress


@settings(max_examples=25, deadline=None)
@given(stops=st.lists(st.integers(1, 9), max_size=4), torn=st.binary(max_size=30))
def test_however_often_it_is_stopped_every_row_is_asked_once_and_stands_once(tmp_path_factory, stops, torn) -> None:
    journal = tmp_path_factory.mktemp("evaluation") / "journal"
    task, examples = rows("banking77", 10)
    asked: list[str] = []
    for stop in stops:
        with pytest.raises(Stopped):
            scored(task, examples, answering(gold, asked), journal=journal, on_progress=stopping_after(stop))
        if journal.exists():
            with journal.open("ab") as file:
                file.write(torn.replace(b"\n", b""))
    made = scored(task, examples, answering(gold, asked), journal=journal)
    assert sorted(asked) == sorted(example.id for example in examples)
    assert [record.id for record in made.records] == [example.id for example in examples] and made.score.value == 1.0


def test_an_answer_torn_in_the_journal_is_asked_for_again_and_no_other(tmp_path: Path) -> None:
    task, examples = rows("banking77", 5)
    journal = tmp_path / "journal"
    scored(task, examples, answering(gold), journal=journal)
    journal.write_bytes(journal.read_bytes()[:-5])
    asked: list[str] = []
    made = scored(task, examples, answering(gold, asked), journal=journal)
    assert asked == [examples[0].id] and made.score.value == 1.0
    assert len([json.loads(line) for line in journal.read_text().splitlines()]) == 5


def test_the_answers_of_another_model_in_the_journal_are_not_used(tmp_path: Path) -> None:
    task, examples = rows("banking77", 5)
    for answerer, answer, value in (("one", gold, 1.0), ("two", lambda _: "?", 0.0), ("one", lambda _: "?", 1.0)):
        made = scored(task, examples, answering(answer), journal=tmp_path / "journal", answerer=answerer)
        assert made.score.value == value


def test_another_question_is_another_prompt() -> None:
    example = get_task("voice_banking").test[0]
    others = [
        replace(example, id="other"),
        replace(example, messages=(*example.messages, Message("user", "and?"))),
        replace(example, tools=()),
        replace(example, messages=(*example.messages, Message("assistant", "", (ToolCall("a", {"b": 1}),)))),
    ]
    assert len({prompt_digest(one) for one in (example, *others)}) == 5
    assert prompt_digest(replace(example, target="other", meta={})) == prompt_digest(example)


def test_a_model_that_leaves_a_row_out_is_noticed() -> None:
    task, examples = rows("banking77", 5)
    with pytest.raises(AssertionError, match="1 examples were never answered"):
        scored(task, examples, lambda asked, limit: ((index, Completion("x")) for index in range(1, len(asked))))


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("k", [0, 1, 3, 20])
def test_shots_are_training_rows_of_different_classes_first(name: str, k: int) -> None:
    task = get_task(name)
    shots = choose_shots(task, k, seed=4)
    due = max(k, len(task.labels)) if k and len(task.labels) <= 16 else k  # few classes: one shot of each
    assert len(shots) == len({shot.id for shot in shots}) == due
    assert all(shot in task.train for shot in shots)
    assert not {prompt_digest(shot) for shot in shots} & {prompt_digest(example) for example in task.test}
    if task.labels:
        assert len({shot.target for shot in shots}) == min(due, len(task.labels))
    assert shots == choose_shots(task, k, seed=4)
    assert k == 0 or shots != choose_shots(task, k, seed=5)


def test_with_few_classes_each_has_a_shot_and_the_rest_follow() -> None:
    task = get_task("banking77")
    few = replace(task, labels=task.labels[:5], train=tuple(row for row in task.train if row.target in task.labels[:5]))
    assert [len({shot.target for shot in choose_shots(few, k, seed=0)}) for k in (1, 3, 9)] == [5, 5, 5]
    assert len(choose_shots(few, 9, seed=0)) == 9 and choose_shots(few, 0, seed=0) == ()


@pytest.mark.parametrize("name", TASKS)
def test_shots_stand_between_the_instruction_and_the_question(name: str) -> None:
    task = get_task(name)
    shots = choose_shots(task, 2, seed=0)
    asked = with_shots(task.test[0], shots)
    system = [message for message in asked.messages if message.role == "system"]
    assert system == [message for message in task.test[0].messages if message.role == "system"]
    assert asked.messages[0] == task.test[0].messages[0] and asked.messages[-1] == task.test[0].messages[-1]
    assert sum(message.role == "assistant" for message in asked.messages) >= 2
    assert (asked.target, asked.id) == (task.test[0].target, task.test[0].id) and with_shots(asked, ()) == asked
