"""BFCL's AST check: our verdict is that of the package bfcl-eval, case by case, and each of its ways has a test."""

import gzip
import json
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from slimtune.data import Completion, Example, ToolCall
from slimtune.errors import Problems
from slimtune.models.toolcalls import parse_tool_calls
from slimtune.scorers import get_scorer
from slimtune.tasks import get_task

FIXTURE = Path(__file__).parent / "fixtures" / "bfcl_verdicts.json.gz"
EXPLAINED: dict[tuple[str, str], str] = {}  # (row, change) -> why we say otherwise than the package; nothing so far
bfcl_ast = get_scorer("bfcl_ast")


@cache
def verdicts() -> dict:
    """What the package said, with the command that asked it: see fixtures/make_bfcl_verdicts.py."""
    return json.loads(gzip.decompress(FIXTURE.read_bytes()))


def example(accepted: list, tools: list, *, due: int | None = None) -> Example:
    target = tuple(ToolCall(name, {}) for call in accepted for name in call)
    return Example("1", (), target[:due], tuple(tools), meta={"accepted": accepted})


def said(*calls: ToolCall) -> Completion:
    return Completion("calls", tool_calls=calls)


def test_every_verdict_is_that_of_bfcl_eval(record_property):
    changes, disagreements = Counter(), []
    for row in verdicts()["rows"]:
        asked = example(row["accepted"], row["tools"])
        for change, calls, verdict in row["cases"]:
            score = bfcl_ast(said(*(ToolCall(*call) for call in calls)), asked)
            changes[change, verdict] += 1
            if score.value != float(verdict == 1):
                disagreements.append((row["id"], change))
    cases = sum(changes.values())
    share = 1 - len(disagreements) / cases
    print(f"\n{verdicts()['package']}: {cases:,} verdicts on {len(verdicts()['rows'])} rows, {share:.2%} the same")
    record_property("agreement", share)
    assert share >= 0.99 and set(disagreements) <= EXPLAINED.keys()
    assert len(verdicts()["rows"]) >= 500 and len({change for change, _ in changes}) >= 40
    assert sum(number for (_, verdict), number in changes.items() if verdict == 1) > cases / 5


def test_the_verdicts_say_where_they_come_from():
    assert verdicts()["package"].startswith("bfcl-eval 20") and "Apache" in verdicts()["licence"]
    script = FIXTURE.parent / verdicts()["command"].split()[1].rpartition("/")[2]
    assert script.is_file() and verdicts()["command"] in script.read_text(encoding="utf-8").replace("bfcl/bin/", "")


def taking(**schemas) -> dict:
    """A function f with these arguments, none of them required."""
    return {"type": "function", "function": {"name": "f", "parameters": {"properties": schemas}}}


TEXT, WHOLE, REAL, YES = {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}
TEXTS, REALS = {"type": "array", "items": TEXT}, {"type": "array", "items": REAL}
OBJECT, OBJECTS = {"type": "object"}, {"type": "array", "items": {"type": "object"}}


@pytest.mark.parametrize(
    ("schema", "options", "value", "right"),
    [
        (TEXT, ["New York, NY"], "new york-ny.", True),
        (TEXT, ["it's"], 'it"s', True),
        (TEXT, ["C+"], "C", False),  # a plus is no punctuation to BFCL
        (TEXT, ["5"], 5, False),
        (TEXT, [5], 5, True),  # the accepted value says what is meant, not the schema
        (TEXT, [5, "Five"], "five", False),  # and then a text is compared to the letter
        (TEXT, ["a"], ["a"], False),
        (TEXT, ["", "all"], "", True),
        (TEXT, ["a"], None, False),
        (WHOLE, [5], 5.0, False),
        (WHOLE, [5], "5", False),
        (WHOLE, [1], True, False),
        (YES, [True], True, True),
        (YES, [True], 1, False),
        (YES, [True], "true", False),
        (REAL, [5.0], 5, True),
        (REAL, [5], 5, True),
        (REAL, [0.3], 0.1 + 0.2, False),  # there is no tolerance
        (TEXTS, [["Price", "Volume"]], ["price", "volume"], True),
        (TEXTS, [["a", "b"]], ["b", "a"], False),
        (TEXTS, [["a", "b"]], ["a"], False),
        (TEXTS, [["a"]], [1], False),
        (TEXTS, [["a"]], "a", False),
        (TEXTS, ["", ["a"]], [], True),
        (TEXTS, [["a"]], [], False),
        (REALS, [[1.0, 2.5]], [1, 2.5], False),  # inside of a list a whole number is no float
        (REALS, [[1, 2]], [1, 2], True),
        (OBJECT, [{"k": ["Red", ""]}], {"k": "red"}, True),
        (OBJECT, [{"k": ["Red", ""]}], {}, True),
        (OBJECT, [{"k": ["Red"]}], {}, False),
        (OBJECT, [{"k": ["Red"]}], {"k": "red", "l": 1}, False),
        (OBJECT, [{"k": [{"in": "Red"}]}], {"k": {"in": "red"}}, False),  # below that, to the letter
        (OBJECT, ["", {"k": [1]}], "", False),
        (OBJECTS, [[{"k": ["A"]}, {"k": ["b"]}]], [{"k": "a"}, {"k": "B"}], True),
        (OBJECTS, [[{"k": ["A"]}, {"k": ["b"]}]], [{"k": "b"}, {"k": "a"}], False),
        (OBJECTS, [[{"k": ["A"]}]], ["a"], False),
        (OBJECTS, [[{"k": ["A"]}]], [{"k": "a"}, {"k": "a"}], False),
        ({}, ["a"], "A", True),  # no type: that of what is accepted
        ({"type": ["string", "null"]}, [None], None, True),
        (None, [7], 7, True),
    ],
)
def test_a_value_is_accepted_as_bfcl_does(schema, options, value, right):
    result = bfcl_ast(said(ToolCall("f", {"a": value})), example([{"f": {"a": options}}], [taking(a=schema)]))
    assert result.value == float(right) and bool(result.why) is not right


def test_an_argument_is_left_out_only_where_that_is_accepted():
    asked = example([{"f": {"a": [1], "b": ["", 2]}}], [taking(a=WHOLE, b=WHOLE, c=WHOLE)])
    assert bfcl_ast(said(ToolCall("f", {"a": 1})), asked).value == 1.0
    assert bfcl_ast(said(ToolCall("f", {"b": 2})), asked).why == "left out a of f"
    assert "gave c to f" in bfcl_ast(said(ToolCall("f", {"a": 1, "c": 3})), asked).why
    assert "gave d to f" in bfcl_ast(said(ToolCall("f", {"a": 1, "d": 3})), asked).why


def test_a_required_argument_is_due_whatever_is_accepted():
    tool = taking(a=WHOLE)
    tool["function"]["parameters"]["required"] = ["a"]
    assert bfcl_ast(said(ToolCall("f", {})), example([{"f": {"a": ["", 1]}}], [tool])).value == 0.0


def test_parallel_calls_come_in_any_order_each_once():
    asked = example([{"f": {"a": [1]}}, {"f": {"a": [1, 2]}}], [taking(a=WHOLE)])
    one, two = ToolCall("f", {"a": 1}), ToolCall("f", {"a": 2})
    assert bfcl_ast(said(two, one), asked).value == bfcl_ast(said(one, one), asked).value == 1.0
    assert "no call is right for f" in bfcl_ast(said(two, two), asked).why
    assert bfcl_ast(said(one), asked).why == "made 1 calls where 2 are due"
    assert bfcl_ast(said(one, two, two), asked).value == 0.0
    assert bfcl_ast(said(one, ToolCall("F", {"a": 2})), asked).value == 0.0


@pytest.mark.parametrize(
    ("text", "value"),
    [("Which city?", 1.0), ("", 1.0), ('<tool_call>{"name": ', 1.0), ('<tool_call>{"name": "f"}</tool_call>', 0.0)],
)
def test_where_no_call_is_due_only_a_call_that_can_be_read_is_wrong(text, value):
    """BFCL's irrelevance: it asks whether calls could be decoded, so a broken one passes there as prose does."""
    answer = Completion(text, tool_calls=parse_tool_calls(text, "hermes").calls)
    assert bfcl_ast(answer, Example("1", (), (), (taking(a=WHOLE),))).value == value


def test_without_accepted_values_each_expected_one_is_the_only_one():
    tool = taking(a=OBJECTS, b={"type": "string", "default": "All"}, c={"type": "object", "default": {"x": 1}})
    due = Example("1", (), (ToolCall("f", {"a": [{"k": "Red"}]}),), (tool,))
    for extra, value in (({}, 1.0), ({"b": "all", "c": {"x": 1}}, 1.0), ({"b": "none"}, 0.0), ({"c": {}}, 0.0)):
        assert bfcl_ast(said(ToolCall("f", {"a": [{"k": "red"}], **extra})), due).value == value
    assert bfcl_ast(said(ToolCall("f", {})), due).value == 0.0


ROW = {"messages": [{"role": "user", "content": "Go"}], "expected": [{"name": "f", "arguments": {"a": 1}}]}


def write_task(folder: Path, **changes) -> Path:
    job = {"kind": "tool_calling", "description": "Call.", "scorer": "bfcl_ast", "tools": [taking(a=WHOLE)]}
    (folder / "job.json").write_text(json.dumps(job))
    for side, text in (("train", "Go on"), ("test", "Go")):
        row = {**ROW, "messages": [{"role": "user", "content": text}], **changes}
        (folder / f"{side}.jsonl").write_text(json.dumps(row) + "\n")
    return folder


def test_a_task_scored_with_bfcl_reports_the_published_measures_too(tmp_path):
    task = get_task(str(write_task(tmp_path, accepted=[{"f": {"a": [1, 2]}}])))
    assert task.scorer == "bfcl_ast"
    assert task.also == ("tool_call_equivalence", "staged_tool_call", "binary_tool_call")
    assert task.test[0].meta["accepted"] == [{"f": {"a": [1, 2]}}]


def test_bfcls_own_task_is_scored_with_it_and_its_gold_is_right():
    task = get_task("bfcl_single_turn")
    assert (task.scorer, task.also[0]) == ("bfcl_ast", "tool_call_equivalence")
    assert [row.id for row in (*task.train, *task.test) if bfcl_ast(said(*row.target), row).why] == []


@pytest.mark.parametrize("accepted", [{"f": {}}, ["f"], [{"f": {"a": 1}}], [{"f": {}, "g": {}}], [{}], "f"])
def test_accepted_values_of_another_form_are_refused_with_their_row(tmp_path, accepted):
    with pytest.raises(Problems, match=r"train.jsonl:1.*accepted"):
        get_task(str(write_task(tmp_path, accepted=accepted)))
