"""Answers to questions are scored as SQuAD's script and the rouge-score package do, also where there is no answer."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import write_rows

from slimtune.data import Completion, Example, Message, Score
from slimtune.evaluate import evaluate, read_evaluation, write_evaluation
from slimtune.scorers import get_scorer
from slimtune.tasks import get_task

AGREEMENT = json.loads((Path(__file__).parent / "fixtures" / "other_scorers.json").read_text(encoding="utf-8"))
NAMES = ("squad_em", "squad_f1", "rouge_l")


def asked(answers, part="HasAns"):
    """As a row is read: without an answer, it is "unanswerable"."""
    answers = tuple(answers) or ("unanswerable",)
    return Example("1", (Message("user", "Who?"),), answers[0], meta={"answers": answers, "part": part})


def score(name, text, example, stopped="stop"):
    return get_scorer(name)(Completion(text, stopped=stopped), example)


def test_em_and_f1_are_those_of_the_official_script():
    judged = AGREEMENT["squad"]
    rows = [(text, asked(answers, "HasAns" if answers else "NoAns")) for answers, text in judged["pairs"]]
    for name, theirs in (("squad_em", "exact"), ("squad_f1", "f1")):
        ours = [score(name, *one).value for one in rows]
        assert ours == pytest.approx(judged[theirs], abs=1e-9)
        for part in ("HasAns", "NoAns"):
            own = [value for value, (_, example) in zip(ours, rows, strict=True) if example.meta["part"] == part]
            assert len(own) == judged[part]["total"]
            assert 100 * sum(own) / len(own) == pytest.approx(judged[part][theirs], abs=1e-9)
        assert 100 * sum(ours) / len(ours) == pytest.approx(judged["all"][theirs], abs=1e-9)


def test_rouge_l_is_that_of_the_package_for_ascii():
    pairs = [
        (answers, text, theirs)
        for (answers, text), theirs in zip(AGREEMENT["squad"]["pairs"], AGREEMENT["rouge_l"], strict=True)
        if theirs is not None and "".join([*answers, text]).isascii() and any(map(str.isalnum, "".join(answers)))
    ]
    assert len(pairs) > 80
    assert [score("rouge_l", text, asked(answers)).value for answers, text, _ in pairs] == pytest.approx(
        [theirs for _, _, theirs in pairs], abs=1e-9
    )


@pytest.mark.parametrize(
    ("answer", "text", "value"),
    [
        ("the quick brown fox", "the brown quick fox", 0.75),  # an order of its own costs
        ("Ren\u00e9 Descartes", "ren\u00e9, DESCARTES", 1.0),
        ("\u6771\u4eac", "\u6771\u4eac", 1.0),
        ("\u20ac!", "\u20ac!", 1.0),
        ("\u20ac", "$", 0.0),
    ],
)
def test_rouge_l_knows_words_of_any_script(answer, text, value):
    assert score("rouge_l", text, asked([answer])).value == pytest.approx(value)


@pytest.mark.parametrize("name", NAMES)
def test_where_there_is_no_answer_saying_so_or_nothing_is_right(name):
    for text in ("unanswerable", "Unanswerable.", "No answer", "", " "):
        assert score(name, text, asked([], "NoAns")) == Score(1.0, text.strip())
    wrong = score(name, "Paris", asked([], "NoAns"))
    assert (wrong.value, wrong.why) == (0.0, "the text has no answer to this")
    assert score(name, "", asked([], "NoAns"), "length").value == 0.0  # it was still thinking
    assert score(name, "unanswerable", asked(["Paris"])).value == 0.0
    assert score(name, "", asked(["Paris"])) == Score(0.0, None, "empty answer")


def test_questions_with_and_without_an_answer_have_scores_of_their_own(tmp_path):
    rows = [
        {"question": f"q{n}?", "context": "c", "answers": [] if n % 3 == 0 else ["Paris"], "is_impossible": n % 3 == 0}
        for n in range(30)
    ]
    (tmp_path / "job.json").write_text('{"kind": "qa", "description": "Where nothing says it: unanswerable."}')
    for side in ("train", "test"):
        write_rows(tmp_path / f"{side}.jsonl", rows)
    task = get_task(tmp_path)
    assert {example.target for example in task.test} == {"Paris", "unanswerable"}
    made = evaluate(
        task, task.test, lambda rows, _: ((n, Completion("Paris")) for n in range(len(rows))), name="base", label="x"
    )
    parts = made.summary()["parts"]
    assert list(parts) == ["HasAns", "NoAns"] and made.score.value == pytest.approx(2 / 3)
    assert [(part["score"]["value"], part["score"]["n"]) for part in parts.values()] == [(1.0, 20), (0.0, 10)]
    assert parts["NoAns"]["also"]["rouge_l"]["value"] == 0.0 and parts["HasAns"]["score"]["low"] < 1
    write_evaluation(tmp_path / "base", made)
    assert read_evaluation(tmp_path / "base") == made


def test_a_task_whose_questions_all_have_answers_has_no_parts():
    task = get_task("squad2_open_book")
    assert {example.meta.get("part") for example in task.test} == {None} and task.also == ("squad_f1", "rouge_l")


def holds(text, stopped, answers, part):
    example = asked(answers, part)
    for name in NAMES:
        began = time.process_time()
        found = score(name, text, example, stopped)
        assert time.process_time() - began < 1 and 0.0 <= found.value <= 1.0
        assert found.answer is not None or found.value == 0.0 or not text.strip()
        assert name != "squad_em" or found.value in (0.0, 1.0)


WORDS = st.lists(st.sampled_from(["the", "an", "Seine", "river,", "1066", "!", "\ud800", "\u00e9"]), max_size=9).map(
    " ".join
)
CASE = (
    st.text() | WORDS,
    st.sampled_from(["stop", "length"]),
    st.lists(WORDS.filter(str.strip) | st.text(min_size=1), min_size=1, max_size=3),
    st.sampled_from(["HasAns", "NoAns"]),
)


@settings(max_examples=200, deadline=None)
@given(*CASE)
def test_any_answer_gets_a_score_in_no_time(text, stopped, answers, part):
    holds(text, stopped, answers, part)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(*CASE)
def test_any_of_ten_thousand_answers_gets_a_score_in_no_time(text, stopped, answers, part):
    holds(text, stopped, answers, part)


@pytest.mark.parametrize("piece", ["x ", "the ", "Seine ", "Seine river 1066 ", "!", "\ud800", "\u0130", "9", "\n"])
def test_a_megabyte_of_anything_takes_less_than_a_second(piece):
    text = piece * (1_000_000 // len(piece))
    holds(text, "stop", ["Seine", "the river Seine in the year 1066"], "HasAns")
    holds(text, "length", ["unanswerable"], "NoAns")


def test_ten_thousand_scorings_take_less_than_two_seconds():
    task = get_task("squad2_open_book")
    for name in NAMES:
        scorer, began = get_scorer(name), time.process_time()
        for number in range(10_000):
            example = task.test[number % len(task.test)]
            scorer(Completion(f"It is {example.target}, of the {number}th century"), example)
        seconds = time.process_time() - began
        print(f"{name}: 10,000 scorings in {seconds:.2f} s of processor time")
        assert seconds < 2
