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
    Reading,
    attempts_tool_call,
    parse_tool_calls,
    render_tool_calls,
)

PAY = ToolCall("transfer_money", {"amount": 1000, "to_account": "savings"})
PAY_JSON = '{"name": "transfer_money", "arguments": {"amount": 1000, "to_account": "savings"}}'

JSON_FORMATS = ("hermes", "json", "granite")
plain = st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)
tricky = st.sampled_from(
    ["it's", '"quoted"', "\\", "a\\'b", "\n", " x\n", "\r\n", "\0", "True", "null", "5", "[1]", "</think>"]
)
texts = st.text(st.characters(exclude_categories=["Cs"])) | tricky
values = st.recursive(
    plain | texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
calls = st.builds(ToolCall, texts.filter(bool), st.dictionaries(texts, values, max_size=4))
names = st.text(st.characters(categories=["L", "N"], include_characters="_-.$:/"), min_size=1) | st.sampled_from(
    ["from"]
)
named_calls = st.builds(ToolCall, names, st.dictionaries(names, values, max_size=4))


def kind(value) -> str:
    """What a JSON schema calls the type of a value."""
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return kinds.get(type(value), "null")


def schema_of(call: ToolCall) -> dict:
    """The function that takes this call's arguments, each of the type it has here."""
    arguments = {name: {"type": kind(value)} for name, value in call.arguments.items()}
    return {"function": {"name": call.name, "parameters": {"type": "object", "properties": arguments}}}


@pytest.mark.parametrize("format", JSON_FORMATS)
@settings(deadline=None)
@given(expected=st.lists(calls, max_size=4).map(tuple))
def test_calls_in_json_are_read_back_unchanged(format, expected):
    assert parse_tool_calls(render_tool_calls(expected, format), format) == Reading(expected)


@settings(deadline=None)
@given(expected=st.lists(named_calls, max_size=4).map(tuple))
def test_calls_like_python_are_read_back_unchanged(expected):
    assert parse_tool_calls(render_tool_calls(expected, "pythonic"), "pythonic") == Reading(expected)


@settings(deadline=None)
@given(expected=st.lists(named_calls, max_size=4, unique_by=lambda call: call.name).map(tuple))
def test_calls_in_tags_are_read_back_unchanged_where_the_schema_has_types(expected):
    text = render_tool_calls(expected, "qwen_xml")
    assert parse_tool_calls(text, "qwen_xml", [schema_of(call) for call in expected]) == Reading(expected)


bare_names = st.text(st.characters(categories=["L", "N"], include_characters="_-.$/"), min_size=1)
gemmas_calls = st.builds(ToolCall, bare_names, st.dictionaries(texts, values, max_size=4)).filter(
    lambda call: '<|"|>' not in repr(call)
)


@settings(deadline=None)
@given(expected=st.lists(gemmas_calls, max_size=4).map(tuple))
def test_calls_in_gemmas_form_are_read_back_unchanged(expected):
    assert parse_tool_calls(render_tool_calls(expected, "gemma"), "gemma") == Reading(expected)


GARBAGE = st.text() | st.text(alphabet="{}[]()<>/\"'\\,:=|_tolcarguments019e.- \n")


@settings(deadline=None)
@given(text=GARBAGE)
def test_any_text_is_read_or_refused_with_a_reason_and_never_raises(text):
    written = (
        text,
        f"<tool_call>{text}</tool_call>",
        f"```json\n{text}\n```",
        f"<|tool_call|>[{text}]",
        f"<|tool_call_start|>[f({text})]<|tool_call_end|>",
        f"<|tool_call>call:f{{a:{text}}}<tool_call|>",
        f"<tool_call>\n<function=f>\n<parameter=a>{text}</parameter>{text}</function>",
    )
    for format in TOOL_CALL_FORMATS:
        for answer in written:
            found = parse_tool_calls(answer, format, [schema_of(PAY)])
            assert bool(found.why) == (found.calls is None)
            assert all(isinstance(call, ToolCall) for call in found.calls or ())


def test_the_hermes_text_is_the_one_that_templates_teach():
    assert render_tool_calls((PAY,), "hermes") == f"<tool_call>\n{PAY_JSON}\n</tool_call>"
    assert render_tool_calls((PAY,), "json") == PAY_JSON
    assert render_tool_calls((PAY,), "granite") == f"<|tool_call|>[{PAY_JSON}]"


def test_the_pythonic_text_is_python_outside_and_json_inside():
    mixed = ToolCall("f", {"a": "it's\n", "b": True, "c": None, "d": [True, None], "e": 1.5})
    assert render_tool_calls((mixed, ToolCall("g", {})), "pythonic") == (
        "<|tool_call_start|>[f(a='it\\'s\\n', b=True, c=None, d=[true, null], e=1.5), g()]<|tool_call_end|>"
    )


def test_gemmas_text_has_its_own_quotes_and_bare_keys():
    mixed = ToolCall("f", {"a": 'it\'s\n"so"', "b": True, "c": None, "d": [1.5, "x"], "e": {"k": "v", "n": 3}})
    assert render_tool_calls((mixed, ToolCall("g", {})), "gemma") == (
        '<|tool_call>call:f{a:<|"|>it\'s\n"so"<|"|>,b:true,c:null,d:[1.5,<|"|>x<|"|>],e:{k:<|"|>v<|"|>,n:3}}<tool_call|>'
        "<|tool_call>call:g{}<tool_call|>"
    )


def test_the_text_in_tags_has_each_value_on_lines_of_its_own():
    mixed = ToolCall("f", {"a": "x\ny", "b": True, "c": {"d": None}})
    assert render_tool_calls((mixed,), "qwen_xml") == (
        "<tool_call>\n<function=f>\n<parameter=a>\nx\ny\n</parameter>\n<parameter=b>\nTrue\n</parameter>\n"
        '<parameter=c>\n{"d": null}\n</parameter>\n</function>\n</tool_call>'
    )


@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>{PAY_JSON}</tool_call>",
        f"Sure.\n<tool_call>\n{PAY_JSON}\n</tool_call>",
        f"<tool_call>\n{PAY_JSON}",  # the stop token came in the place of the closing tag
        f"<think>Call <tool_call> perhaps?</think>\n<tool_call>{PAY_JSON}</tool_call>",
    ],
)
def test_hermes_calls_are_found_in_what_models_write(text):
    assert parse_tool_calls(text, "hermes").calls == (PAY,)


@pytest.mark.parametrize(
    "text",
    [
        PAY_JSON,
        f"[{PAY_JSON}]",
        f"```json\n{PAY_JSON}\n```",
        f"Here:\n```\n{PAY_JSON}\n```\nDone.",
        PAY_JSON.replace("arguments", "parameters"),
        '{"type": "function", "function": ' + PAY_JSON + "}",
        f"<|python_tag|>{PAY_JSON}",
        json.dumps({"name": PAY.name, "arguments": json.dumps(dict(PAY.arguments))}),
    ],
)
def test_json_calls_are_found_in_every_shape_in_use(text):
    assert parse_tool_calls(text, "json").calls == (PAY,)


@pytest.mark.parametrize(
    "text",
    [
        f"<|tool_call|>[{PAY_JSON}]",
        f"<|tool_call|>{PAY_JSON}",
        f"<tool_call>[{PAY_JSON}]</tool_call>",
        f"[{PAY_JSON}]",  # a server that drops special tokens
    ],
)
def test_granite_calls_are_found_in_what_models_write(text):
    assert parse_tool_calls(text, "granite").calls == (PAY,)


@pytest.mark.parametrize(
    "text",
    [
        "<|tool_call_start|>[transfer_money(amount=1000, to_account='savings')]<|tool_call_end|>",
        '<|tool_call_start|>[transfer_money(amount=1000, to_account="savings")]<|tool_call_end|>Done.',
        "Sure. <|tool_call_start|>[transfer_money( amount = 1e3 ,to_account='savings',)]",
        "<|tool_call_start|>transfer_money(amount=1000, to_account='savings')<|tool_call_end|>",
        "[transfer_money(amount=1000, to_account='savings')]",
        '<|tool_call_start|>[transfer_money(amount=+1000.0, to_account="""savings""")]<|tool_call_end|>',
    ],
)
def test_pythonic_calls_are_found_in_what_models_write(text):
    assert parse_tool_calls(text, "pythonic").calls == (PAY,)


def test_pythonic_values_may_be_json_and_names_may_be_words_of_python():
    text = (
        r"""<|tool_call_start|>[get-it(from='\u00e9', class=true, n=null, o={'k': [False, {"s": "\ud83d\ude00"}]},"""
        "t='two\nlines \\d')]<|tool_call_end|>"
    )
    expected = {"from": "é", "class": True, "n": None, "o": {"k": [False, {"s": "😀"}]}, "t": "two\nlines \\d"}
    assert parse_tool_calls(text, "pythonic").calls == (ToolCall("get-it", expected),)


@pytest.mark.parametrize(
    "argument",
    [
        "a=__import__('os')",
        "a=b",
        "a=1+1",
        "a=f'{x}'",
        "a=(1, 2)",
        "a={1: 2}",
        "a={'k': 1, 'k': 2}",
        "a=1, a=2",
        "a=1 b=2",
        "'positional'",
        "**a",
        "a='open",
        "a='\\x'",
        "a='\\ud800'",
        "a=007",
        "a=1e999",
        "a=-",
        "a=nan",
        "a=",
        "a=" + "9" * 400,
    ],
)
def test_pythonic_text_that_is_no_plain_value_is_refused(argument):
    found = parse_tool_calls(f"<|tool_call_start|>[f({argument})]<|tool_call_end|>", "pythonic")
    assert found.calls is None and found.why


def in_tags(*values: str) -> str:
    written = "".join(f"<parameter=a{n}>\n{value}\n</parameter>\n" for n, value in enumerate(values))
    return f"<tool_call>\n<function=f>\n{written}</function>\n</tool_call>"


def typed(*schemas) -> list[dict]:
    return [{"name": "f", "parameters": {"properties": {f"a{n}": schema for n, schema in enumerate(schemas)}}}]


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("5", {"type": "string"}, "5"),
        ("5", {"type": "integer"}, 5),
        ("5", {"type": "number"}, 5),
        ("five", {"type": "integer"}, "five"),
        ("5.5", {"type": "integer"}, "5.5"),
        ("True", {"type": "boolean"}, True),
        ("false", {"type": "boolean"}, False),
        ("None", {"type": ["string", "null"]}, None),
        ("None", {"type": "string"}, "None"),
        ("x", {"anyOf": [{"type": "null"}, {"type": "string"}]}, "x"),
        ("2", {"enum": ["1", "2"]}, "2"),
        ("2", {"enum": [1, 2]}, 2),
        ('{"k": [1]}', {"type": "object"}, {"k": [1]}),
        ('["x"]', {"type": "array"}, ["x"]),
        ("5", {}, 5),
        ("x", None, "x"),
        ('"x"', {}, '"x"'),
        ("NaN", {}, "NaN"),
        (" two\n\nlines ", {}, " two\n\nlines "),
        ("</tool_call></parameter> <tool_call>", {}, "</tool_call></parameter> <tool_call>"),
    ],
)
def test_a_value_in_tags_has_the_type_of_its_schema(text, schema, value):
    (call,) = parse_tool_calls(in_tags(text), "qwen_xml", typed(schema)).calls
    assert call == ToolCall("f", {"a0": value}) and type(call.arguments["a0"]) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        in_tags("1") + " and more",
        "Sure.\n" + in_tags("1") + "\n" + in_tags("1"),
        in_tags("1").removesuffix("</tool_call>"),
        in_tags("1").replace("\n", ""),
    ],
)
def test_calls_in_tags_are_found_in_what_models_write(text):
    assert {call.name for call in parse_tool_calls(text, "qwen_xml").calls} == {"f"}
    assert parse_tool_calls(text, "qwen_xml").calls[0].arguments == {"a0": 1}


@pytest.mark.parametrize(
    "text",
    [
        in_tags("1", "2").replace("a1", "a0"),
        in_tags("1").replace("</function>", ""),
        in_tags("1").replace("</parameter>", ""),
        in_tags("1").replace("</tool_call>", "and more"),
        f"<tool_call>{PAY_JSON}</tool_call>",
        "<tool_call>",
        "No tags at all.",
    ],
)
def test_broken_tags_are_refused_with_a_reason(text):
    found = parse_tool_calls(text, "qwen_xml")
    assert found.calls is None and found.why


GEMMA_PAY = '<|tool_call>call:transfer_money{amount:1000,to_account:<|"|>savings<|"|>}<tool_call|>'


@pytest.mark.parametrize(
    "text",
    [
        GEMMA_PAY,
        "Sure. " + GEMMA_PAY + "<|tool_response>",
        GEMMA_PAY.removesuffix("<tool_call|>"),
        GEMMA_PAY.replace(":", " : ").replace(",", " , ").replace("call : ", "call:"),
        GEMMA_PAY.replace("to_account", '<|"|>to_account<|"|>').replace("1000", "1e3"),
    ],
)
def test_gemmas_calls_are_found_in_what_models_write(text):
    assert parse_tool_calls(text, "gemma").calls == (PAY,)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<|tool_call>transfer{}", "'call:' is due"),
        ("<|tool_call>call:f", "has no '{'"),
        ('<|tool_call>call:f{a:<|"|>open}<tool_call|>', "has no end"),
        ("<|tool_call>call:f{a:b}<tool_call|>", "b is no value"),
        ("<|tool_call>call:f{a:1,a:2}<tool_call|>", "key twice"),
        ("<|tool_call>call:f{a:1} and more<tool_call|>", "between a call and"),
        ("<|tool_call>call:f{a:" + "[" * 100 + "}", "nested deeper"),
        (PAY_JSON, "holds no <|tool_call>"),
    ],
)
def test_broken_calls_in_gemmas_form_are_refused_with_a_reason(text, why):
    found = parse_tool_calls(text, "gemma")
    assert found.calls is None and why in found.why


def test_what_gemmas_form_cannot_hold_is_refused():
    for call in (ToolCall("f", {"a": 'x<|"|>'}), ToolCall("f", {"a": {'<|"|>': 1}}), ToolCall("f g", {})):
        with pytest.raises(UserError, match="the format gemma"):
            render_tool_calls((call,), "gemma")


@pytest.mark.parametrize("format", ["pythonic", "qwen_xml"])
def test_a_name_that_a_format_cannot_hold_is_refused(format):
    with pytest.raises(UserError, match="cannot be written as a name"):
        render_tool_calls((ToolCall("f", {"a\n='>": 1}),), format)


def test_a_closing_tag_inside_a_string_ends_nothing():
    marks = ("</tool_call>", "<tool_call>", "<|tool_call_end|>", "<|tool_call_start|>", "</function>", "<|tool_call>")
    odd = ToolCall("say", {"text": " ".join((*marks, "<tool_call|>"))})
    for format in TOOL_CALL_FORMATS:
        assert parse_tool_calls(render_tool_calls((odd, PAY), format), format).calls == (odd, PAY)


def test_several_calls_keep_their_order():
    other = ToolCall("greeting", {})
    for format in TOOL_CALL_FORMATS:
        assert parse_tool_calls(render_tool_calls((PAY, other), format), format).calls == (PAY, other)
    assert parse_tool_calls('{"name": "greeting"}', "json").calls == (other,)


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
def test_what_cannot_be_read_is_none_with_a_reason(text):
    for format in ("hermes", "granite", "json"):
        if format == "json":
            text = text.replace("<tool_call>", "").replace("</tool_call>", "")
        found = parse_tool_calls(text, format)
        assert found.calls is None and found.why


@pytest.mark.parametrize(
    ("text", "format", "why"),
    [
        ("Hello.", "hermes", "holds no <tool_call>"),
        ("<tool_call>{", "hermes", "is not JSON"),
        ("<think>Hm", "json", "begins a thought"),
        ("<|tool_call_start|>[f(a=b)]", "pythonic", "b is no value at column 25"),
        ("<tool_call><function=f>", "qwen_xml", "'f' that is cut off"),
        ("x" * (MAX_CHARS + 1), "json", "longer than"),
        (render_tool_calls([PAY] * (MAX_CALLS + 1), "pythonic"), "pythonic", "makes 65 calls"),
    ],
)
def test_the_reason_says_what_is_wrong(text, format, why):
    assert why in parse_tool_calls(text, format).why


@pytest.mark.parametrize("text", ["[f()] and more", "<|tool_call_start|>[f()] and more<|tool_call_end|>"])
def test_nothing_may_stand_between_pythonic_calls_and_their_end(text):
    found = parse_tool_calls(text, "pythonic")
    assert found.calls is None and found.why


def test_a_reason_is_no_longer_than_a_line():
    text = "<tool_call><function=" + "f" * 5000 + ">"
    assert len(parse_tool_calls(text, "qwen_xml").why) == 200


@pytest.mark.parametrize(
    "bomb",
    [
        "[" * 100_000,
        '{"name": "f", "arguments": {"a": ' + "[" * 100_000 + "]" * 100_000 + "}}",
        '{"name": "f", "arguments": {"a": ' + "9" * 5_000 + "}}",
        '{"name": "f", "arguments": {"a": "' + "x" * MAX_CHARS + '"}}',
        "<tool_call>" * 20_000,
        json.dumps([PAY.as_json()] * (MAX_CALLS + 1)),
        "[f(a=" + "[" * 100_000,
        "[f(a=" + "-" * 100_000,
        "[f(a='" + "\\'" * 100_000,
        "[f()" * 50_000,
        "<function=f>" + "<parameter=a>" * 15_000,
        "<|tool_call>" * 20_000,
        '<|"|>' * 50_001,
        "<function=f>" + "<parameter=a></parameter>" * 9_000,
        "<function=f><parameter=a>" + "\n" * 100_000 + "</parameter>" * 5_000,
    ],
)
def test_a_bomb_is_none_and_costs_no_time(bomb):
    start = time.perf_counter()
    for format in TOOL_CALL_FORMATS:
        for text in (
            bomb,
            f"<tool_call>{bomb}</tool_call>",
            f"<|tool_call_start|>{bomb}<|tool_call_end|>",
            f"<|tool_call>call:f{{a:{bomb}}}<tool_call|>",
        ):
            assert parse_tool_calls(text, format).calls is None
    assert time.perf_counter() - start < 2


def test_prose_is_no_attempt_at_a_call_and_broken_json_is():
    assert not attempts_tool_call("Which account do you mean?")
    assert attempts_tool_call("<tool_call>{broken") and attempts_tool_call(' {"name": ')
    assert attempts_tool_call("So: <|tool_call_start|>[f(") and attempts_tool_call("<|tool_call|>[")


def test_an_unknown_format_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"Did you mean 'hermes'\?"):
        parse_tool_calls("", "herms")
    with pytest.raises(UserError):
        render_tool_calls((), "xml")
