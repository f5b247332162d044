"""Calls written like Python: <|tool_call_start|>[name(arg='v', n=3), other()]<|tool_call_end|>

They are read piece by piece and never run: only a quoted text or a number goes through `ast.literal_eval`. So a name
may be a keyword of Python or hold a hyphen, and a value may be JSON (true, null, {"a": [1]}), as templates write it.

Source: the chat templates of LFM2 and LFM2.5 (Liquid AI).
"""

import ast
import math
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from slimtune.data import MAX_DEPTH, MAX_DIGITS, ToolCall
from slimtune.errors import UserError
from slimtune.models.toolcalls.json_text import after_space, dump

OPEN, CLOSE = "<|tool_call_start|>", "<|tool_call_end|>"
_NAME = re.compile(r"[^\s,=()\[\]{}'\"]+")
_TEXT = re.compile(
    r"'''(?:[^\\]|\\.)*?'''|\"\"\"(?:[^\\]|\\.)*?\"\"\"|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL
)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_WORDS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
_RAW = str.maketrans({"\n": "\\n", "\r": "\\r", "\0": "\\x00"})  # a text may hold them as they are


def read_calls(answer: str, tools: Any) -> list[Any]:
    """The calls of every list between the two tokens, or of a bare list that is the whole answer."""
    start = answer.find(OPEN)
    if start < 0:
        if not answer.lstrip().startswith("["):
            raise ValueError(f"holds no {OPEN}")
        text = Text(answer, 0)
        calls = text.calls()
        if text.skip() < len(answer):
            raise ValueError(f"goes on after the calls at column {text.at + 1}")
        return calls
    calls = []
    while start >= 0:
        text = Text(answer, start + len(OPEN))
        calls += text.calls()
        if text.skip() < len(answer) and not text.takes(CLOSE):
            raise ValueError(f"holds something between a call and {CLOSE}")
        start = answer.find(OPEN, text.at)
    return calls


def write_calls(calls: tuple[ToolCall, ...]) -> str:
    return f"{OPEN}[{', '.join(map(_write_call, calls))}]{CLOSE}"


def _write_call(call: ToolCall) -> str:
    for name in (call.name, *call.arguments):
        if not _NAME.fullmatch(name):
            raise UserError(f"{name!r} cannot be written as a name in a call of the format pythonic.")
    arguments = (f"{name}={_write_value(value)}" for name, value in call.arguments.items())
    return f"{call.name}({', '.join(arguments)})"


def _write_value(value: Any) -> str:
    """As LFM2's template does: JSON inside of lists and objects, Python outside."""
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r") + "'"
    return dump(value) if isinstance(value, list | Mapping) else repr(value)


class Text:
    """A text and the place up to which it was read. Every method raises ValueError, a clause about the text."""

    quotes = ("'", '"')  # what a text in it begins with

    def __init__(self, text: str, at: int) -> None:
        self.text, self.at = text, at

    def skip(self) -> int:
        self.at = after_space(self.text, self.at)
        return self.at

    def takes(self, mark: str) -> bool:
        found = self.text.startswith(mark, self.skip())
        self.at += len(mark) * found
        return found

    def calls(self) -> list[Any]:
        return self.several("]", self.call) if self.takes("[") else [self.call()]

    def call(self) -> dict[str, Any]:
        name, arguments = self.name(), {}
        if not self.takes("("):
            raise self.wrong("a call has no '('")
        for key, value in self.several(")", lambda: self.pair("=", self.name, 0)):
            if key in arguments:
                raise self.wrong(f"the argument {key!r} comes twice")
            arguments[key] = value
        return {"name": name, "arguments": arguments}

    def name(self) -> str:
        return self.match(_NAME, "a name is due")

    def several(self, end: str, read: Callable[[], Any]) -> list[Any]:
        """What `read` reads, once for each item between commas, up to `end`."""
        items: list[Any] = []
        while not self.takes(end):
            if items and not self.takes(","):
                raise self.wrong(f"a comma or {end!r} is due")
            if items and self.takes(end):
                break
            items.append(read())
        return items

    def pair(self, mark: str, key: Callable[[], str], depth: int) -> tuple[str, Any]:
        name = key()
        if not self.takes(mark):
            raise self.wrong(f"{name!r} is not followed by {mark!r}")
        return name, self.value(depth)

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")
        if self.takes("["):
            return self.several("]", lambda: self.value(depth + 1))
        if self.takes("{"):
            return self.object(depth + 1)
        return self.quoted() if self.text.startswith(self.quotes, self.at) else self.word()

    def object(self, depth: int) -> dict[str, Any]:
        pairs = self.several("}", lambda: self.pair(":", self.key, depth))
        if len(dict(pairs)) < len(pairs):
            raise self.wrong("an object has a key twice")
        return dict(pairs)

    def key(self) -> str:
        return self.quoted()

    def quoted(self) -> str:
        source = self.match(_TEXT, "a text in quotes is due").translate(_RAW)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" is a warning in Python, and text here
            try:
                text = ast.literal_eval(source)
            except SyntaxError:
                raise self.wrong("a text has a broken escape") from None
        return text.encode("utf-16", "surrogatepass").decode("utf-16")  # JSON writes one character as two halves

    def word(self) -> Any:
        start, word = self.skip(), self.match(_NAME, "a value is due")
        if word in _WORDS:
            return _WORDS[word]
        if not _NUMBER.fullmatch(word) or len(word) > MAX_DIGITS:
            raise self.wrong(f"{word[:20]} is no value", start)
        try:
            number = ast.literal_eval(word)
        except SyntaxError:
            raise self.wrong(f"{word[:20]} is no number", start) from None
        if not math.isfinite(number):
            raise self.wrong(f"{word[:20]} is too large for a number", start)
        return number

    def match(self, pattern: re.Pattern[str], due: str) -> str:
        found = pattern.match(self.text, self.skip())
        if found is None:
            raise self.wrong(due)
        self.at = found.end()
        return found.group()

    def wrong(self, why: str, at: int | None = None) -> ValueError:
        return ValueError(f"is no list of calls: {why} at column {(self.at if at is None else at) + 1}")
