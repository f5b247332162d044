"""Scorers give 1 to what is right, 0 with a reason to what is not, and tell an unreadable answer from a wrong one."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimtune.data import Completion, Example, Message, Score, ToolCall
from slimtune.errors import UserError
from slimtune.models.toolcalls import parse_tool_calls
from slimtune.scorers import SCORERS, get_scorer, gold_completion

LABELS = ("card_arrival", "Refund_not_showing_up", "age_limit")
TOOL_SCORERS = ("tool_call_equivalence", "binary_tool_call", "staged_tool_call", "bfcl_ast")
SCHEMA = {
    "type": "function",
    "function": {
        "name": "transfer",
        "parameters": {
            "type": "object",
            "properties": {"amount": {"type": "number"}, "to": {"type": "string", "default": "savings"}},
        },
    },
}

RULES = {name: scorer for name, scorer in SCORERS.items() if name != "judge"}  # a judge is asked: test_judge.py


def labelled(target="card_arrival", labels=LABELS):
    return Example("1", (Message("user", "Where is it?"),), target, meta={"labels": labels} if labels else {})


def answered(*answers):
    return Example("1", (Message("user", "Who?"),), answers[0], meta={"answers": answers})


def calling(*calls):
    return Example("1", (Message("user", "Pay"),), tuple(calls), tools=(SCHEMA,))


def querying():
    return Example("1", (Message("user", "Who?"),), "SELECT a FROM t", meta={"schema": "CREATE TABLE t (a TEXT)"})


def naming(target):
    """A text with one entity, to be listed or to be redacted."""
    meta = {"entities": [{"text": "Ann", "type": "person"}], "text": "Call Ann"}
    return Example("1", (Message("user", "Call Ann"),), target, meta=meta)


def fitting(name):
    """An example of the kind that a scorer is for."""
    if name in TOOL_SCORERS:
        return calling(PAY)
    if name == "sql_execution":
        return querying()
    if name.startswith("span"):
        return naming('[{"text": "Ann", "type": "person"}]')
    if name.startswith("redaction") or name == "text_kept":
        return naming("Call [person]")
    return labelled("123456", ()) if name == "six_digit_code" else labelled()


def said(text, *, format="hermes"):
    return Completion(text, tool_calls=parse_tool_calls(text, format).calls)


def called(*calls):
    return Completion("calls", tool_calls=tuple(calls))


def score(name, completion, example):
    return get_scorer(name)(completion, example)


def test_exact_match_forgives_outer_spaces_and_nothing_else():
    assert score("exact_match", Completion(" card_arrival\n"), labelled()) == Score(1.0, "card_arrival")
    assert score("exact_match", Completion("age_limit"), labelled()) == Score(0.0, "age_limit")
    assert score("exact_match", Completion("Card_Arrival"), labelled(labels=())).value == 0.0


def test_an_answer_that_is_no_label_is_unparseable_not_only_wrong():
    for text in ("card arrival", "The label is card_arrival.", "CARD_ARRIVAL", ""):
        result = score("exact_match", Completion(text), labelled())
        assert result.value == 0.0 and result.answer is None and result.why
    assert "cut off" in score("exact_match", Completion("card_arr", stopped="length"), labelled()).why


@pytest.mark.parametrize(
    "text", ["Card arrival", '"card_arrival".', "card-arrival", "**CARD_ARRIVAL**", "\uff43ard_arrival"]
)
def test_normalised_match_forgives_the_dress_of_a_label(text):
    assert score("exact_match_normalised", Completion(text), labelled()).value == 1.0


@pytest.mark.parametrize("text", ["card arrivals", "cardarrival", "It is card_arrival"])
def test_normalised_match_forgives_no_other_words(text):
    assert score("exact_match_normalised", Completion(text), labelled()) == Score(0.0, None, "not one of the 3 labels")


def test_normalised_match_folds_case_beyond_ascii():
    example = labelled(target="Straße", labels=("Straße", "Weg"))
    assert score("exact_match_normalised", Completion("STRASSE"), example).value == 1.0


def test_normalised_match_reads_a_wrong_label_as_an_answer():
    result = score("exact_match_normalised", Completion("Refund not showing up"), labelled())
    assert result == Score(0.0, "refund not showing up")


@pytest.mark.parametrize(
    ("text", "answers", "em", "f1"),
    [
        ("Denver Broncos", ("Denver Broncos", "The Broncos"), 1.0, 1.0),
        ("the denver broncos!", ("Denver Broncos",), 1.0, 1.0),
        ("Broncos", ("Denver Broncos", "Carolina"), 0.0, 2 / 3),
        ("a cat sat on the mat", ("cat sat", "dog"), 0.0, 2 / 3),  # cat sat on mat: 2 of 4 and 2 of 2
        ("Normandy", ("France",), 0.0, 0.0),
        ("10.5", ("105",), 1.0, 1.0),  # so the official script has it: punctuation goes first
        ("the the cat cat", ("cat",), 0.0, 2 / 3),  # a token counts as often as both have it
        ("", ("France",), 0.0, 0.0),
        ("an", ("the",), 1.0, 1.0),  # nothing is left of either
    ],
)
def test_squad_scores_are_those_of_the_official_script(text, answers, em, f1):
    assert score("squad_em", Completion(text), answered(*answers)).value == em
    assert score("squad_f1", Completion(text), answered(*answers)).value == pytest.approx(f1)


def test_an_empty_answer_is_unreadable_and_a_cut_one_says_so():
    assert score("squad_em", Completion("  "), answered("x")) == Score(0.0, None, "empty answer")
    assert "cut off" in score("squad_f1", Completion("x y", stopped="length"), answered("x")).why


PAY = ToolCall("transfer", {"amount": 10})


@pytest.mark.parametrize(
    ("got", "want", "value"),
    [
        ([PAY], [PAY], 1.0),
        ([ToolCall("transfer", {"to": "savings", "amount": 10})], [PAY], 1.0),  # equal to its default: as if left out
        ([PAY], [ToolCall("transfer", {"amount": 10, "to": "savings"})], 1.0),
        ([ToolCall("transfer", {"amount": 10, "to": "checking"})], [PAY], 0.0),
        ([ToolCall("transfer", {"amount": 10.0})], [PAY], 1.0),
        ([ToolCall("transfer", {"amount": "10"})], [PAY], 0.0),
        ([ToolCall("transfer", {"amount": True})], [ToolCall("transfer", {"amount": 1})], 0.0),
        ([ToolCall("transfer", {"amount": 10, "memo": ""})], [PAY], 0.0),
        ([ToolCall("transfer", {})], [PAY], 0.0),
        ([ToolCall("Transfer", {"amount": 10})], [PAY], 0.0),
        ([ToolCall("f", {"x": {"b": [1, 2], "a": 1}})], [ToolCall("f", {"x": {"a": 1.0, "b": [1, 2]}})], 1.0),
        ([ToolCall("f", {"x": [2, 1]})], [ToolCall("f", {"x": [1, 2]})], 0.0),
        ([ToolCall("f", {"n": 2**53 + 1})], [ToolCall("f", {"n": float(2**53)})], 0.0),
        ([ToolCall("g", {}), PAY], [PAY, ToolCall("g", {})], 1.0),
        ([PAY, PAY], [PAY], 0.0),
        ([PAY], [PAY, PAY], 0.0),
        ([], [PAY], 0.0),
        ([PAY], [], 0.0),
    ],
)
def test_tool_calls_are_equivalent_as_documented(got, want, value):
    result = score("tool_call_equivalence", called(*got), calling(*want))
    assert result.value == value and result.answer is not None
    assert bool(result.why) is (value == 0.0)


def test_a_call_that_cannot_be_read_has_no_answer():
    result = score("tool_call_equivalence", said("<tool_call>{"), calling(PAY))
    assert result.value == 0.0 and result.answer is None
    cut = replace(said('<tool_call>{"name": "tr'), stopped="length")
    assert "cut off" in score("tool_call_equivalence", cut, calling(PAY)).why


def test_where_no_call_is_due_prose_is_right_and_a_broken_call_is_not():
    assert score("tool_call_equivalence", said("Which account?"), calling()).value == 1.0
    assert score("tool_call_equivalence", said("<tool_call>{broken"), calling()).value == 0.0
    assert score("tool_call_equivalence", said(gold_completion(calling()).text), calling()).value == 1.0


@settings(deadline=None)
@given(text=st.text(), stopped=st.sampled_from(["stop", "length"]))
def test_every_scorer_gives_a_value_between_0_and_1_for_any_text(text, stopped):
    for name, scorer in RULES.items():
        example = answered("some answer", "other") if name.startswith("squad") else fitting(name)
        result = scorer(replace(said(text), stopped=stopped), example)
        assert result.value is not None and 0.0 <= result.value <= 1.0
        assert not scorer.binary or result.value in (0.0, 1.0)


@pytest.mark.parametrize("name", RULES)
def test_every_scorer_survives_huge_text_and_knows_a_perfect_answer(name):
    example = fitting(name)
    assert SCORERS[name](said("x " * 200_000), example).value == 0.0
    assert SCORERS[name](said(gold_completion(example).text), example).value == 1.0
    assert "\n" not in SCORERS[name].description and SCORERS[name].name == name


def test_an_unknown_scorer_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"Did you mean 'squad_f1'\?"):
        get_scorer("squad_f2")
