"""Calls written as tags, a value on lines of its own: <tool_call>, <function=NAME>, <parameter=ARGUMENT>.

The text of a value does not say its type: the function's schema does. Without one, what reads as JSON is JSON, but for
texts, which stand without quotes.

Source: the chat template of Qwen3.5 (Alibaba).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from slimtune.data import ToolCall, strict_json
from slimtune.errors import UserError
from slimtune.models.toolcalls.json_text import after_space, dump

_FUNCTION = re.compile(r"<tool_call>\s*<function=([^>\n]+)>\s*")
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>\s*(?=<parameter=|</function>)", re.DOTALL)
_END = "</function>"
_NAME = re.compile(r"[^>\n]+")
_WORDS = {"True": True, "False": False, "None": None}  # the template writes them as Python does


def read_calls(answer: str, tools: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The calls between the tags. A value ends where its tag is followed by another value or by the function's end."""
    calls: list[Any] = []
    at = answer.find("<tool_call>")
    while at >= 0:
        found = _FUNCTION.match(answer, at)
        if found is None:
            raise ValueError("holds a <tool_call> that does not go on with <function=NAME>")
        schemas, arguments, at = _arguments_of(tools, found[1]), {}, found.end()
        while value := _PARAMETER.match(answer, at):
            if value[1] in arguments:
                raise ValueError(f"gives the argument {value[1]!r} twice")
            arguments[value[1]] = _typed(value[2], schemas.get(value[1]))
            at = value.end()
        if not answer.startswith(_END, at):
            raise ValueError(f"holds a call of {found[1]!r} that is cut off or broken")
        at = after_space(answer, at + len(_END))
        if at < len(answer) and not answer.startswith("</tool_call>", at):
            raise ValueError("holds something between a call and </tool_call>")
        calls.append({"name": found[1], "arguments": arguments})
        at = answer.find("<tool_call>", at)
    if not calls:
        raise ValueError("holds no <tool_call>")
    return calls


def write_calls(calls: tuple[ToolCall, ...]) -> str:
    return "\n".join(map(_write_call, calls))


def _write_call(call: ToolCall) -> str:
    for name in (call.name, *call.arguments):
        if not _NAME.fullmatch(name):
            raise UserError(f"{name!r} cannot be written as a name in a call of the format qwen_xml.")
    values = (f"<parameter={name}>\n{_write_value(value)}\n</parameter>\n" for name, value in call.arguments.items())
    return f"<tool_call>\n<function={call.name}>\n{''.join(values)}{_END}\n</tool_call>"


def _write_value(value: Any) -> str:
    return dump(value) if isinstance(value, list | Mapping) else str(value)


def _arguments_of(tools: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """The schemas of a function's arguments; empty for a function that was not offered."""
    for tool in tools:
        function = tool.get("function", tool)
        if function.get("name") == name:
            properties = (function.get("parameters") or {}).get("properties")
            return properties if isinstance(properties, Mapping) else {}
    return {}


def _typed(text: str, schema: Any) -> Any:
    """The value that a text stands for under a JSON schema; the text itself where it is no value of that type."""
    kinds = _kinds(schema)
    try:
        value = _WORDS[text] if text in _WORDS else strict_json(text)
    except ValueError:
        return text
    return text if isinstance(value, str) or (kinds and not kinds & _kinds_of(value)) else value


def _kinds(schema: Any) -> set[str]:
    """The types that a schema allows; none where it does not say."""
    if not isinstance(schema, Mapping):
        return set()
    said = schema.get("type") or ()
    kinds = {said} if isinstance(said, str) else set(said)
    for choice in (*(schema.get("anyOf") or ()), *(schema.get("oneOf") or ())):
        kinds |= _kinds(choice)
    if not kinds:
        kinds = {kind for value in schema.get("enum") or () for kind in _kinds_of(value)}
    return kinds


def _kinds_of(value: Any) -> set[str]:
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int | float):
        return {"number", "integer"} if float(value).is_integer() else {"number"}
    return {{str: "string", list: "array", dict: "object"}.get(type(value), "null")}
