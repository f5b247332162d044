"""Tool calls survive the way to text and back, and no text that a model may write breaks the reader."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimtune.data import ToolCall
from slimtune.errors import UserError
from slimtune.models.toolcalls import (
    MAX_CALLS,
    MAX_CHARS,
    TOOL_CALL_FORMATS,
    attempts_tool_call,
    parse_tool_calls,
    render_tool_calls,
)

PAY = ToolCall("transfer_money", {"amount": 1000, "to_account": "savings"})
PAY_JSON = '{"name": "transfer_money", "arguments": {"amount": 1000, "to_account": "savings"}}'

plain = st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    plain | texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
calls = st.builds(ToolCall, texts.filter(bool), st.dictionaries(texts, values, max_size=4))


@pytest.mark.parametrize("format", TOOL_CALL_FORMATS)
@settings(deadline=None)
@given(expected=st.lists(calls, max_size=4).map(tuple))
def test_rendered_calls_are_read_back_unchanged(format, expected):
    assert parse_tool_calls(render_tool_calls(expected, format), format) == expected


@settings(deadline=None)
@given(text=st.text() | st.text(alphabet='{}[]<>/"\\,:_tolcarguments019e.- \n'))
def test_any_text_is_read_or_none_and_never_raises(text):
    for format in TOOL_CALL_FORMATS:
        for answer in (text, f"<tool_call>{text}</tool_call>", f"```json\n{text}\n```"):
            found = parse_tool_calls(answer, format)
            assert found is None or all(isinstance(call, ToolCall) for call in found)


def test_the_hermes_text_is_the_one_that_templates_teach():
    assert render_tool_calls((PAY,), "hermes") == f"<tool_call>\n{PAY_JSON}\n</tool_call>"
    assert render_tool_calls((PAY,), "json") == PAY_JSON


@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>{PAY_JSON}</tool_call>",
        f"Sure.\n<tool_call>\n{PAY_JSON}\n</tool_call>",
        f"<tool_call>\n{PAY_JSON}",  # the stop token came in the place of the closing tag
        f"<think>Call <tool_call> perhaps?</think>\n<tool_call>{PAY_JSON}</tool_call>",
        f"reasoned already</think><tool_call>{PAY_JSON}</tool_call>",
    ],
)
def test_hermes_calls_are_found_in_what_models_write(text):
    assert parse_tool_calls(text, "hermes") == (PAY,)


@pytest.mark.parametrize(
    "text",
    [
        PAY_JSON,
        f"[{PAY_JSON}]",
        f"```json\n{PAY_JSON}\n```",
        f"Here:\n```\n{PAY_JSON}\n```\nDone.",
        PAY_JSON.replace("arguments", "parameters"),
        '{"type": "function", "function": ' + PAY_JSON + "}",
        json.dumps({"name": PAY.name, "arguments": json.dumps(dict(PAY.arguments))}),
    ],
)
def test_json_calls_are_found_in_every_shape_in_use(text):
    assert parse_tool_calls(text, "json") == (PAY,)


def test_a_closing_tag_inside_a_string_ends_nothing():
    tricky = ToolCall("say", {"text": "</tool_call> <tool_call>"})
    assert parse_tool_calls(render_tool_calls((tricky, PAY), "hermes"), "hermes") == (tricky, PAY)


def test_several_calls_keep_their_order():
    other = ToolCall("greeting", {})
    for format in TOOL_CALL_FORMATS:
        assert parse_tool_calls(render_tool_calls((PAY, other), format), format) == (PAY, other)
    assert parse_tool_calls('{"name": "greeting"}', "json") == (other,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Your balance is 12 dollars.",
        '<tool_call>{"name": "f", "arguments": </tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        '<tool_call>{"name": 3, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"a": 1, "a": 2}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>',
        f"<tool_call>{PAY_JSON}</tool_call><tool_call>broken</tool_call>",
        f"<tool_call>{PAY_JSON} and more</tool_call>",
        f"<think><tool_call>{PAY_JSON}</tool_call>",
    ],
)
def test_what_cannot_be_read_is_none(text):
    assert parse_tool_calls(text, "hermes") is None
    assert parse_tool_calls(text.replace("<tool_call>", "").replace("</tool_call>", ""), "json") is None


@pytest.mark.parametrize(
    "bomb",
    [
        "[" * 100_000,
        '{"name": "f", "arguments": {"a": ' + "[" * 100_000 + "]" * 100_000 + "}}",
        '{"name": "f", "arguments": {"a": ' + "9" * 5_000 + "}}",
        '{"name": "f", "arguments": {"a": "' + "x" * MAX_CHARS + '"}}',
        "<tool_call>" * 20_000,
        json.dumps([PAY.as_json()] * (MAX_CALLS + 1)),
    ],
)
def test_a_bomb_is_none_and_costs_no_time(bomb):
    start = time.perf_counter()
    assert parse_tool_calls(bomb, "json") is None
    assert parse_tool_calls(f"<tool_call>{bomb}</tool_call>", "hermes") is None
    assert time.perf_counter() - start < 2


def test_prose_is_no_attempt_at_a_call_and_broken_json_is():
    assert not attempts_tool_call("Which account do you mean?")
    assert attempts_tool_call("<tool_call>{broken") and attempts_tool_call(' {"name": ')


def test_an_unknown_format_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"Did you mean 'hermes'\?"):
        parse_tool_calls("", "herms")
    with pytest.raises(UserError):
        render_tool_calls((), "xml")
