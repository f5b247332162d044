"""Tool calls as text: what a model should write, and what it wrote. One place, for training, scoring and serving.

hermes   <tool_call>
         {"name": "transfer_money", "arguments": {"amount": 1000}}
         </tool_call>                      once for each call (Qwen, Hermes and most open templates)
json     {"name": "transfer_money", "arguments": {"amount": 1000}}, or a list of such objects
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from slimtune.data import Message, ToolCall, strict_json, strict_json_at
from slimtune.errors import unknown_name

NO_CALL = "No function call is due."
"""What a model is taught to write where nothing is to be called. Any other prose says the same."""

MAX_CHARS = 256 << 10
MAX_CALLS = 64
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_FENCE = re.compile(r"```(?:json)?[ \t]*\n?(.*?)```", re.DOTALL)


def answer_turn(target: str | tuple[ToolCall, ...]) -> Message:
    """The turn that answers rightly: a text, calls, or the words for "no call is due"."""
    if isinstance(target, str):
        return Message("assistant", target)
    return Message("assistant", "" if target else NO_CALL, tuple(target))


def parse_tool_calls(text: str, format: str) -> tuple[ToolCall, ...] | None:
    """The calls in a model's answer, in order, or None where none could be read. `format`: "hermes" or "json".

    All or nothing: one broken call makes the answer unreadable. A thought before the answer is skipped. An object may
    say `parameters` for `arguments`, hold them as a JSON string, or wrap itself in `function`. Text above MAX_CHARS,
    JSON beyond the depth and digit caps of `strict_json`, and more than MAX_CALLS calls count as unreadable. Raises
    UserError for an unknown format.
    """
    read = _format(format).read
    answer = _after_thought(text)
    if answer is None or len(text) > MAX_CHARS:
        return None
    if answer.strip() == NO_CALL:
        return ()
    try:
        values = read(answer)
        calls = tuple(tool_call_from_json(value) for value in values) if values is not None else None
    except ValueError:
        return None
    return calls if calls is None or len(calls) <= MAX_CALLS else None


def render_tool_calls(calls: Iterable[ToolCall], format: str) -> str:
    """The canonical text of `calls`: `parse_tool_calls` gives them back. Raises UserError for an unknown format."""
    write, calls = _format(format).write, tuple(calls)
    return write(calls) if calls else NO_CALL


def attempts_tool_call(text: str) -> bool:
    """Whether an answer looks like a call, well formed or not: prose, where no call is due, is right."""
    answer = _after_thought(text)
    return answer is not None and (_OPEN in answer or answer.lstrip().startswith(("{", "[", "```")))


def tool_call_from_json(value: Any) -> ToolCall:
    """One call from any of the shapes in use (see `parse_tool_calls`). Raises ValueError, a clause about the value."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        raise ValueError("is a tool call without a name")
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):
        arguments = strict_json(arguments) if arguments.strip() else {}
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise ValueError("is a tool call whose arguments are no object")
    return ToolCall(value["name"], arguments)


def _after_thought(text: str) -> str | None:
    """What stands after the thoughts that open an answer; None when one was begun and never ended. The prompt may have
    begun the first. An answer that opens with a call has none, whatever its strings say."""
    answer = text.lstrip()
    while not answer.startswith((_OPEN, "{", "[", "```")):
        _, end, rest = answer.partition("</think>")
        if not end:
            return None if answer.startswith("<think>") else answer
        answer = rest.lstrip()
    return answer


def _read_hermes(answer: str) -> list[Any] | None:
    """JSON is read from each opening tag on, so a closing tag inside a string ends nothing."""
    values: list[Any] = []
    position = answer.find(_OPEN)
    while position >= 0:
        start = position + len(_OPEN)
        start += len(answer[start:]) - len(answer[start:].lstrip())
        value, end = strict_json_at(answer, start)
        rest = answer[end:].lstrip()
        if rest and not rest.startswith(_CLOSE):
            raise ValueError(f"holds something between a call and {_CLOSE}")
        values += value if isinstance(value, list) else [value]
        position = answer.find(_OPEN, end)
    return values or None


def _read_json(answer: str) -> list[Any] | None:
    fenced = _FENCE.search(answer)
    value = strict_json(fenced.group(1) if fenced and not answer.lstrip().startswith(("{", "[")) else answer)
    return value if isinstance(value, list) else [value]


def _write_hermes(calls: tuple[ToolCall, ...]) -> str:
    return "\n".join(f"{_OPEN}\n{_dump(call.as_json())}\n{_CLOSE}" for call in calls)


def _write_json(calls: tuple[ToolCall, ...]) -> str:
    objects = [call.as_json() for call in calls]
    return _dump(objects[0] if len(objects) == 1 else objects)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class _Format:
    read: Callable[[str], list[Any] | None]
    write: Callable[[tuple[ToolCall, ...]], str]


_FORMATS = {"hermes": _Format(_read_hermes, _write_hermes), "json": _Format(_read_json, _write_json)}
TOOL_CALL_FORMATS = tuple(_FORMATS)


def _format(name: str) -> _Format:
    if name not in _FORMATS:
        raise unknown_name("tool call format", name, _FORMATS)
    return _FORMATS[name]
