"""Tool calls as text: what a model should write, and what it wrote. One place, for training, scoring and serving.

hermes    <tool_call>
          {"name": "transfer_money", "arguments": {"amount": 1000}}
          </tool_call>                      once for each call (Qwen, Hermes and most open templates)
json      {"name": "transfer_money", "arguments": {"amount": 1000}}, or a list of such objects (Llama 3)
granite   <|tool_call|>[{"name": "transfer_money", "arguments": {"amount": 1000}}]
pythonic  <|tool_call_start|>[transfer_money(amount=1000)]<|tool_call_end|> (LFM2)
qwen_xml  <tool_call>
          <function=transfer_money>
          <parameter=amount>
          1000
          </parameter>
          </function>
          </tool_call>                      once for each call (Qwen3.5)
gemma     <|tool_call>call:transfer_money{amount:1000,to:<|"|>savings<|"|>}<tool_call|> (Gemma 4; Gemma 3 has no form
          of its own and is asked for hermes)
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slimtune.data import Message, ToolCall, strict_json
from slimtune.errors import unknown_name
from slimtune.models.thoughts import split_thought
from slimtune.models.toolcalls import gemma, json_text, pythonic, qwen_xml

NO_CALL = "No function call is due."
"""What a model is taught to write where nothing is to be called. Any other prose says the same."""

MAX_CHARS = 256 << 10
MAX_CALLS = 64
Tools = Sequence[Mapping[str, Any]]
_OPENINGS = (json_text.HERMES_OPEN, json_text.GRANITE_OPEN, json_text.PYTHON_TAG, pythonic.OPEN, gemma.OPEN)
_STARTS = (*_OPENINGS, "{", "[", "```")
_MARKS = {  # in this order: qwen_xml has hermes' tag around it; not gemma, of which no model is trained yet
    "qwen_xml": "<function=",
    "pythonic": pythonic.OPEN,
    "granite": json_text.GRANITE_OPEN,
    "hermes": json_text.HERMES_OPEN,
    "json": '"parameters": ',
}


@dataclass(frozen=True)
class Reading:
    """What was read from an answer: its calls, in order, or None and `why`, a clause about the answer."""

    calls: tuple[ToolCall, ...] | None
    why: str = ""


def format_in(template: str) -> str | None:
    """The format in which a chat template writes calls, by its marks; None for a template that writes none of ours."""
    return next((format for format, mark in _MARKS.items() if mark in template), None)


def answer_turn(target: str | tuple[ToolCall, ...]) -> Message:
    """The turn that answers rightly: a text, calls, or the words for "no call is due"."""
    if isinstance(target, str):
        return Message("assistant", target)
    return Message("assistant", "" if target else NO_CALL, tuple(target))


def parse_tool_calls(text: str, format: str, tools: Tools = ()) -> Reading:
    """The calls in a model's answer. `format`: one of TOOL_CALL_FORMATS. `tools`: the functions on offer; their
    schemas give values a type where the format has none (qwen_xml).

    All or nothing: one broken call makes the answer unreadable. A thought that the answer opens with is skipped; one
    that the prompt opened is taken off before (`split_thought`). A JSON object
    may say `parameters` for `arguments`, hold them as a JSON string, or wrap itself in `function`. Unreadable, too:
    more than MAX_CHARS or MAX_CALLS, and values beyond the caps of `strict_json`. Raises UserError for an unknown
    format, and nothing for any text.
    """
    read = _format(format).read
    try:
        return Reading(_read(text, read, tools))
    except ValueError as error:
        return Reading(None, str(error)[:200])


def render_tool_calls(calls: Iterable[ToolCall], format: str) -> str:
    """The canonical text of `calls`: `parse_tool_calls` gives them back. Raises UserError for an unknown format, and
    for a name that the format cannot hold."""
    write, calls = _format(format).write, tuple(calls)
    return write(calls) if calls else NO_CALL


def attempts_tool_call(text: str) -> bool:
    """Whether an answer looks like a call, well formed or not: prose, where no call is due, is right."""
    answer = split_thought(text).answer.lstrip()
    return answer.startswith(_STARTS) or any(opening in answer for opening in _OPENINGS)


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


def _read(text: str, read: Callable[[str, Tools], list[Any]], tools: Tools) -> tuple[ToolCall, ...]:
    """The calls in `text`. Raises ValueError, a clause about it."""
    if len(text) > MAX_CHARS:
        raise ValueError(f"is longer than {MAX_CHARS:,} characters")
    split = split_thought(text)
    if not split.closed:
        raise ValueError("begins a thought and does not end it")
    answer = split.answer[json_text.after_space(split.answer, 0) :]
    if answer.strip() == NO_CALL:
        return ()
    calls = tuple(tool_call_from_json(value) for value in read(answer, tools))
    if len(calls) > MAX_CALLS:
        raise ValueError(f"makes {len(calls)} calls; {MAX_CALLS} are allowed")
    return calls


@dataclass(frozen=True)
class _Format:
    """`read` gives the calls of an answer as JSON values, or raises ValueError; `write` is its inverse."""

    read: Callable[[str, Tools], list[Any]]
    write: Callable[[tuple[ToolCall, ...]], str]


_FORMATS = {
    "hermes": _Format(json_text.read_hermes, json_text.write_hermes),
    "json": _Format(json_text.read_json, json_text.write_json),
    "granite": _Format(json_text.read_granite, json_text.write_granite),
    "pythonic": _Format(pythonic.read_calls, pythonic.write_calls),
    "gemma": _Format(gemma.read_calls, gemma.write_calls),
    "qwen_xml": _Format(qwen_xml.read_calls, qwen_xml.write_calls),
}
TOOL_CALL_FORMATS = tuple(_FORMATS)


def _format(name: str) -> _Format:
    if name not in _FORMATS:
        raise unknown_name("tool call format", name, _FORMATS)
    return _FORMATS[name]
