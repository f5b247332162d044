"""Calls as Gemma 4 writes them: <|tool_call>call:name{argument:<|"|>text<|"|>,other:3}<tool_call|>

A text stands between two <|"|>, with nothing escaped; names and most keys stand bare, other values as in JSON. Gemma 3
has no form of its own: it writes what the prompt asks for, here the hermes format.

Source: the chat template of Gemma 4 (Google), which ends an answer with a call in <|tool_response>, not in the turn's
stop token: calls in this form are read and written, but no model is trained on them yet.
"""

import re
from collections.abc import Mapping
from typing import Any

from slimtune.data import ToolCall
from slimtune.errors import UserError
from slimtune.models.toolcalls.json_text import dump
from slimtune.models.toolcalls.pythonic import Text

OPEN, CLOSE, QUOTE = "<|tool_call>", "<tool_call|>", '<|"|>'
_CALL = "call:"
_NAME = re.compile(r"[^\s,:{}\[\]<>|\"]+")


def read_calls(answer: str, tools: Any) -> list[Any]:
    """The calls between the tokens. A token inside of a text opens and closes nothing."""
    start = answer.find(OPEN)
    if start < 0:
        raise ValueError(f"holds no {OPEN}")
    calls = []
    while start >= 0:
        text = _GemmaText(answer, start + len(OPEN))
        calls.append(text.call())
        if text.skip() < len(answer) and not text.takes(CLOSE):
            raise ValueError(f"holds something between a call and {CLOSE}")
        start = answer.find(OPEN, text.at)
    return calls


def write_calls(calls: tuple[ToolCall, ...]) -> str:
    return "".join(map(_write_call, calls))


def _write_call(call: ToolCall) -> str:
    if not _NAME.fullmatch(call.name):
        raise UserError(f"{call.name!r} cannot be written as a name in a call of the format gemma.")
    return f"{OPEN}{_CALL}{call.name}{_write_value(call.arguments)}{CLOSE}"


def _write_value(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = ((key if _NAME.fullmatch(key) else _quote(key), _write_value(item)) for key, item in value.items())
        return f"{{{','.join(f'{key}:{item}' for key, item in pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_write_value, value))}]"
    return _quote(value) if isinstance(value, str) else dump(value)


def _quote(text: str) -> str:
    if QUOTE in text:
        raise UserError(f"{text[:40]!r} holds {QUOTE}, which no text in a call of the format gemma can hold.")
    return f"{QUOTE}{text}{QUOTE}"


class _GemmaText(Text):
    """The same reader, for other names and quotes, and with an object for the list of arguments."""

    quotes = (QUOTE,)

    def call(self) -> dict[str, Any]:
        if not self.takes(_CALL):
            raise self.wrong(f"{_CALL!r} is due")
        name = self.name()
        if not self.takes("{"):
            raise self.wrong("a call has no '{'")
        return {"name": name, "arguments": self.object(0)}

    def name(self) -> str:
        return self.match(_NAME, "a name is due")

    def key(self) -> str:
        self.skip()
        return self.quoted() if self.text.startswith(QUOTE, self.at) else self.name()

    def quoted(self) -> str:
        start = self.at + len(QUOTE)
        end = self.text.find(QUOTE, start)
        if end < 0:
            raise self.wrong("a text has no end")
        self.at = end + len(QUOTE)
        return self.text[start:end]
