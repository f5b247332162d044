"""The scorers of tool calls: how strict each is, that no answer breaks or stops one, and that they are quick."""

import gzip
import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_toolcalls import GARBAGE, named_calls, schema_of

from slimtune.data import Completion, Example, ToolCall
from slimtune.models.toolcalls import TOOL_CALL_FORMATS, parse_tool_calls, render_tool_calls
from slimtune.scorers import SCORERS, gold_completion
from slimtune.tasks import get_task

NAMES = ("tool_call_equivalence", "binary_tool_call", "staged_tool_call", "bfcl_ast")
TOOL = {
    "type": "function",
    "function": {
        "name": "transfer",
        "parameters": {
            "type": "object",
            "properties": {
                "amount": {"type": "number"},
                "to": {"type": "string", "default": "savings"},
                "tags": {"type": "array", "items": {"type": "object"}},
            },
            "required": ["amount"],
        },
    },
}
PAY = ToolCall("transfer", {"amount": 10})


def due(*calls: ToolCall) -> Example:
    return Example("1", (), calls, (TOOL,))


def said(text: str, format: str = "hermes") -> Completion:
    reading = parse_tool_calls(text, format, (TOOL,))
    return Completion(text, tool_calls=reading.calls, unread=reading.why)


def values(calls: list[ToolCall], example: Example) -> tuple[float | None, ...]:
    """What each of NAMES says, in their order."""
    return tuple(SCORERS[name](Completion("", tool_calls=tuple(calls)), example).value for name in NAMES)


@pytest.mark.parametrize(
    ("got", "equivalent", "binary", "staged"),
    [
        ({"amount": 10}, 1.0, 1.0, 1.0),
        ({"amount": 10.0}, 1.0, 1.0, 1.0),
        ({"amount": 10, "to": "savings"}, 1.0, 0.0, 1.0),  # equal to its default: only the strict one minds
        ({"amount": 10, "to": "checking"}, 0.0, 0.0, 0.75),  # a default counts as given: its value is wrong
        ({"amount": 11}, 0.0, 0.0, 0.75),
        ({"amount": "10"}, 0.0, 0.0, 0.75),
        ({}, 0.0, 0.0, 0.5),
        ({"amount": 10, "memo": ""}, 0.0, 0.0, 0.5),
        ({"sum": 10}, 0.0, 0.0, 0.5),
    ],
)
def test_three_measures_of_one_call(got, equivalent, binary, staged):
    assert values([ToolCall("transfer", got)], due(PAY))[:3] == (equivalent, binary, staged)


@pytest.mark.parametrize(
    ("got", "staged"),
    [
        ([ToolCall("Transfer", {"amount": 10})], 0.25),
        ([PAY, PAY], 0.25),
        ([ToolCall("lock", {}), PAY], 0.25),
        ([], 0.0),
    ],
)
def test_the_functions_come_before_their_arguments(got, staged):
    assert values(got, due(PAY))[:3] == (0.0, 0.0, staged)


def test_several_calls_are_as_far_as_the_worst_of_them_in_any_order():
    lock = ToolCall("lock", {"card": "a"})
    assert values([lock, PAY], due(PAY, lock))[:3] == (1.0, 1.0, 1.0)
    assert values([ToolCall("lock", {"card": "b"}), PAY], due(PAY, lock))[:3] == (0.0, 0.0, 0.75)
    assert values([ToolCall("lock", {}), PAY], due(PAY, lock))[:3] == (0.0, 0.0, 0.5)


def test_an_answer_that_cannot_be_read_has_no_stage_and_no_answer():
    for text in ("", "Sure!", '<tool_call>{"name": "transfer", "arguments": {', "<tool_call>[1, 2]</tool_call>"):
        for name in NAMES:
            result = SCORERS[name](said(text), due(PAY))
            assert (result.value, result.answer) == (0.0, None) and result.why


def test_where_no_call_is_due_prose_is_whole_and_a_call_is_only_readable():
    for name, value in zip(NAMES, (0.0, 0.0, 0.25, 0.0), strict=True):
        assert SCORERS[name](said("Which account?"), due()).value == 1.0
        assert SCORERS[name](said(gold_completion(due(PAY)).text), due()).value == value
    broken = [SCORERS[name](said("<tool_call>{broken"), due()).value for name in NAMES]
    assert broken == [0.0, 0.0, 0.0, 1.0]  # BFCL takes for prose what it cannot read


def test_an_example_of_another_kind_is_refused():
    for name in NAMES:
        with pytest.raises(TypeError, match="example 7 expects text"):
            SCORERS[name](said("hello"), Example("7", (), "text"))


def test_tool_tasks_report_all_measures_and_gold_is_whole_in_each():
    task = get_task("voice_banking")
    assert (task.scorer, *task.also) == ("tool_call_equivalence", "staged_tool_call", "binary_tool_call")
    for example in task.test:
        for name in NAMES:
            assert SCORERS[name](said(gold_completion(example).text), example).value == 1.0


ANSWERS = {
    "empty": "",
    "a megabyte of text": "x " * 500_000,
    "a megabyte of call": '<tool_call>{"name": "transfer", "arguments": {"to": "' + "x" * 1_000_000 + '"}}</tool_call>',
    "a megabyte of calls": '<tool_call>{"name": "transfer"}</tool_call>' * 24_000,
    "as long as is read": '<tool_call>{"name": "transfer", "arguments": {"to": "' + "x" * 200_000 + '"}}</tool_call>',
    "many keys": json.dumps({"name": "transfer", "arguments": {f"a{n}": n for n in range(10_000)}}),
    "64 calls": render_tool_calls([ToolCall("transfer", {"amount": n}) for n in range(64)], "hermes"),
    "a number": "<tool_call>5</tool_call>",
    "a list for a name": '<tool_call>{"name": ["transfer"], "arguments": {}}</tool_call>',
    "a list for arguments": '<tool_call>{"name": "transfer", "arguments": []}</tool_call>',
    "objects where values are due": '<tool_call>{"name": "transfer", "arguments": {"amount": {}, "to": {}, "tags": {}}}'
    "</tool_call>",
    "nested": '<tool_call>{"name": "transfer", "arguments": {"tags": ' + "[" * 60 + "]" * 60 + "}}</tool_call>",
    "nested too deep": '<tool_call>{"name": "transfer", "arguments": {"tags": ' + "[" * 90_000,
    "a huge number": '<tool_call>{"name": "transfer", "arguments": {"amount": ' + "9" * 300 + "}}</tool_call>",
    "a float beyond": '<tool_call>{"name": "transfer", "arguments": {"amount": 1e308}}</tool_call>',
    "code": "__import__('os').system('true')",
    "a python call": "<|tool_call_start|>[__import__('os').system(cmd='true')]<|tool_call_end|>",
    "NUL and controls": '<tool_call>{"name": "tr\\u0000ansfer", "arguments": {"to": "\\u001b[2J"}}</tool_call>',
    "thoughts that end and end": "</think>" * 125_000,
    "a thought without end": "<think>" * 50_000,
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_hostile_answer_scores_0_within_a_second(answer):
    for format in TOOL_CALL_FORMATS:
        start = time.process_time()
        completion = said(answer, format)
        for name in NAMES:
            result = SCORERS[name](completion, due(PAY))
            assert result.value <= (0.75 if name == "staged_tool_call" else 0.0)
            json.dumps([result.answer, result.why]).encode("utf-8")
        assert time.process_time() - start < 1


def bent(text: str, at: int, piece: str, times: int) -> str:
    """`text` with a piece put into it, again and again."""
    at %= len(text) + 1
    return text[:at] + piece * times + text[at:]


writable_calls = named_calls.filter(lambda call: ":" not in call.name and '<|"|>' not in repr(call))  # in any format
calls_due = st.lists(writable_calls, max_size=3, unique_by=lambda call: call.name)
pieces = st.text(max_size=4) | st.sampled_from(
    ["{", "[", '"', "\\", "<tool_call>", "</think>", "(a=", "{'a':", "\n", "9"]
)
formats = st.sampled_from(TOOL_CALL_FORMATS)
right_answers = st.tuples(calls_due, formats).map(lambda drawn: render_tool_calls(*drawn))
bent_answers = st.builds(
    bent, right_answers, st.integers(0, 10_000), pieces, st.sampled_from([1, 1, 1, 2, 100, 50_000])
)
answers = GARBAGE | right_answers | bent_answers


def check_any_answer(answer: str, calls: list[ToolCall], format: str) -> None:
    """Read and scored within a second: values in range, and the measures in their order."""
    example = Example("1", (), tuple(calls), tuple(schema_of(call) for call in calls))
    start = time.process_time()
    reading = parse_tool_calls(answer, format, example.tools)
    completion = Completion(answer, tool_calls=reading.calls, unread=reading.why)
    equivalent, binary, staged, bfcl = (SCORERS[name](completion, example) for name in NAMES)
    assert time.process_time() - start < 1
    assert binary.value <= equivalent.value <= staged.value
    assert (staged.value == 1.0) == (equivalent.value == 1.0) and staged.value in (0.0, 0.25, 0.5, 0.75, 1.0)
    assert bfcl.value in (0.0, 1.0) and bfcl.value >= equivalent.value
    for score in (equivalent, binary, staged, bfcl):
        assert bool(score.why) == (score.value < 1.0)
        assert not score.answer or json.loads(score.answer) == [call.as_json() for call in reading.calls]


@settings(deadline=None, max_examples=200)
@given(answer=answers, calls=calls_due, format=formats)
def test_any_answer_is_scored(answer, calls, format):
    check_any_answer(answer, calls, format)


@pytest.mark.slow
@settings(deadline=None, max_examples=10_000)
@given(answer=answers, calls=calls_due, format=formats)
def test_any_answer_is_scored_10_000_times(answer, calls, format):
    check_any_answer(answer, calls, format)


def check_gold(calls: list[ToolCall], format: str) -> None:
    """The right answer, written and read, is right by every measure."""
    example = Example("1", (), tuple(calls), tuple(schema_of(call) for call in calls))
    text = gold_completion(example, tool_format=format).text
    completion = Completion(text, tool_calls=parse_tool_calls(text, format, example.tools).calls)
    assert [SCORERS[name](completion, example).value for name in NAMES] == [1.0] * 4


@settings(deadline=None, max_examples=200)
@given(calls=calls_due, format=formats)
def test_gold_is_right_in_every_format(calls, format):
    check_gold(calls, format)


@pytest.mark.slow
@settings(deadline=None, max_examples=10_000)
@given(calls=calls_due, format=formats)
def test_gold_is_right_in_every_format_10_000_times(calls, format):
    check_gold(calls, format)


@pytest.mark.parametrize("name", NAMES)
def test_ten_thousand_scorings_take_under_two_seconds(name):
    """Over real functions, called rightly and wrongly. Time of this process: what else the machine does is left out."""
    fixture = Path(__file__).parent / "fixtures" / "bfcl_verdicts.json.gz"
    asked = []
    for row in json.loads(gzip.decompress(fixture.read_bytes()))["rows"]:
        example_calls = [[ToolCall(*call) for call in calls] for _, calls, _ in row["cases"]]
        example = Example(
            row["id"], (), tuple(example_calls[0]), tuple(row["tools"]), meta={"accepted": row["accepted"]}
        )
        asked += [(Completion("calls", tool_calls=tuple(calls)), example) for calls in example_calls]
    asked = (asked * 2)[:10_000]
    start = time.process_time()
    for completion, example in asked:
        SCORERS[name](completion, example)
    seconds = time.process_time() - start
    print(f"\n{name}: {len(asked):,} scorings in {seconds:.2f} s")
    assert len(asked) == 10_000 and seconds < 2
