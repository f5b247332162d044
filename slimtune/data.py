"""The rows everything is made of: what is asked, what should be answered, what was answered, and how good it was.

    Example    -> prompt as chat messages, and its target: text, or tool calls
    Completion -> what a model said
    Score      -> a number in [0, 1], or None when *we* could not judge

and JSON Lines read so that nothing is lost, guessed or doubled in silence: `read_jsonl`, `strict_json`.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from slimtune.errors import Problem, Problems, UserError, did_you_mean

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class ToolCall:
    """One call of a function: its name and its arguments as an object, never as a JSON string."""

    name: str
    arguments: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "arguments": dict(self.arguments)}


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Example:
    """One row of a task. `group` names the conversation or document it came from: rows that share it are not
    independent, and intervals resample groups."""

    id: str
    messages: tuple[Message, ...]
    target: str | tuple[ToolCall, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    group: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Completion:
    """What a model answered. `tool_calls` is None where none could be read from the text, and `unread` says why.
    "repetition": it went round in circles and was ended. `thought_begun`: the prompt had opened the thought."""

    text: str
    stopped: Literal["stop", "length", "repetition"] = "stop"
    tool_calls: tuple[ToolCall, ...] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    unread: str = ""
    thought_begun: bool = False
    thinking_tokens: int = 0  # of `completion_tokens`, tags included

    @property
    def cut_off(self) -> bool:
        """Whether it was ended before it had ended itself."""
        return self.stopped != "stop"


@dataclass(frozen=True)
class Tally:
    """Of one type of thing, in one answer or in many: how many were found, made up, and missed."""

    found: int = 0
    made_up: int = 0
    missed: int = 0


@dataclass(frozen=True)
class Score:
    """How good an answer is. `value` None: we could not judge (counted, never 0). `answer` None: nothing could be read
    from the output (a parse failure, which scores 0). `counts`, by type, for what is summed over all rows before a
    ratio is taken: see slimtune/tallies.py."""

    value: float | None
    answer: str | None
    why: str = ""
    counts: Mapping[str, Tally] = field(default_factory=dict)


LINE_CAP_BYTES = 4 << 20
MAX_DEPTH = 64  # levels of nesting; real rows and tool calls stay below ten
MAX_DIGITS = 308  # a longer integer is no number anybody meant, and Python itself gives up at 4,300
_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class JsonlRows:
    """The objects of a JSON Lines file, each with its line number (from 1), and the lines that were left out."""

    rows: tuple[tuple[int, dict[str, Any]], ...]
    skipped: tuple[Problem, ...] = ()


def read_jsonl(path: Path, *, skip_bad: bool = False, line_cap_bytes: int = LINE_CAP_BYTES) -> JsonlRows:
    """Read a UTF-8 file of one JSON object a line, in one pass that never holds more than one line beside the rows.

    Lines end at b"\\n" only, so U+2028 inside a string is text. CRLF, a byte order mark and blank lines are fine.
    Refused with file and line: another encoding, NUL, a cut-off last line, a line above `line_cap_bytes`, a line that
    is no object, and all that `strict_json` refuses. All of it is raised at once as Problems; with `skip_bad` such
    lines are left out and returned in `skipped`. Raises UserError for a file that is not there or is not UTF-8 at all.
    """
    rows: list[tuple[int, dict[str, Any]]] = []
    bad: list[Problem] = []
    with open_data(path) as file:
        for number, line in _lines(file, line_cap_bytes):
            try:
                if (row := _row(line, number, line_cap_bytes)) is not None:
                    rows.append((number, row))
            except ValueError as error:
                bad.append(Problem(f"{path.name}:{number}", str(error)))
    if bad and not skip_bad:
        raise Problems(str(path), listed(bad))
    return JsonlRows(tuple(rows), tuple(bad))


def open_data(path: Path) -> BinaryIO:
    """Open a data file for reading in binary. Raises UserError when it is missing, unreadable, UTF-16 or UTF-32."""
    try:
        file = path.open("rb")
    except OSError as error:
        near = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
        hint = f" {did_you_mean(path.name, near)}" if near and isinstance(error, FileNotFoundError) else ""
        raise UserError(f"Cannot read {path}: {error.strerror}.{hint}") from error
    if encoding := _wide_encoding(file.read(1024)):
        file.close()
        raise UserError(
            f"{path} is {encoding}, not UTF-8. Convert it: iconv -f {encoding} -t UTF-8 {path.name} > utf8-{path.name}"
        )
    file.seek(0)
    return file


def strict_json(text: str) -> Any:
    """`json.loads` without its kindness. Raises ValueError, with the reason as a clause about the text, for duplicate
    keys, NaN and Infinity, numbers that overflow, lone surrogates, and what is nested or long beyond reason."""
    value, end = strict_json_at(text, len(text) - len(text.lstrip(" \t\r\n")))
    if rest := text[end:].strip(" \t\r\n"):
        raise ValueError(f"is not JSON: something follows the value at column {end + 1}: {rest[:20]!r}")
    return value


def strict_json_at(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins at `start`, and where it ends. Raises ValueError as `strict_json` does."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        line = "" if error.lineno == 1 else f"line {error.lineno}, "
        raise ValueError(f"is not JSON: {error.msg.lower()} at {line}column {error.colno}") from error
    except RecursionError:
        raise ValueError(f"is nested deeper than {MAX_DEPTH} levels") from None
    _check_depth(value)
    if _SURROGATE.search(text, start, end):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("holds half of a surrogate pair (\\ud800 to \\udfff), which is no character") from None
    return value, end


def decode_utf8(line: bytes) -> str:
    """The text of UTF-8 bytes. Raises ValueError with a guess at the encoding when they are something else."""
    if b"\0" in line:
        raise ValueError("holds a NUL byte: the file is binary, damaged, or UTF-16 in part")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = line[error.start]
        if error.reason == "unexpected end of data":
            guess = "it is cut off inside a character"
        else:
            guess = f"it looks like {'Windows-1252' if 0x80 <= byte <= 0x9F else 'Latin-1'}"
        raise ValueError(f"is not UTF-8 at byte {error.start + 1} (0x{byte:02x}): {guess}") from error


def listed(problems: Iterable[Problem], *, at_most: int = 20) -> tuple[Problem, ...]:
    """The first `at_most` problems and a line that counts the rest: what a person can read."""
    problems = tuple(problems)
    if (more := len(problems) - at_most) <= 0:
        return problems
    return (*problems[:at_most], Problem("...", f"and {more:,} more."))


def _lines(file: BinaryIO, cap_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Line numbers and lines, of which no more than `cap_bytes` and a few bytes are ever held."""
    number = 0
    while line := file.readline(cap_bytes + 5):  # room for a byte order mark and CRLF
        number += 1
        yield number, line.removeprefix(_BOM) if number == 1 else line
        while line and not line.endswith(b"\n"):
            line = file.readline(1 << 20)


def _row(line: bytes, number: int, cap_bytes: int) -> dict[str, Any] | None:
    """The object on a line, or None for a blank one. Raises ValueError."""
    if len(line.rstrip(b"\r\n")) > cap_bytes:
        raise ValueError(f"is longer than {cap_bytes:,} bytes, the cap for one line")
    cut = "" if line.endswith(b"\n") else " (the last line has no end: the file may be cut off)"
    try:
        text = decode_utf8(line)
        if not text.strip(" \t\r\n"):
            return None
        value = strict_json(text)
    except ValueError as error:
        raise ValueError(f"{error}{cut}") from error
    if not isinstance(value, dict):
        raise ValueError(f"is {json_type(value)}, not an object in braces")
    return value


def json_type(value: Any) -> str:
    """What JSON calls this value, with its article."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _wide_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32, told by its byte order mark, or by zeros where ASCII text in it has them."""
    for mark, name in ((b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32")):
        if head.startswith(mark):
            return name
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    even, odd = head[0::2], head[1::2]
    if len(head) >= 4 and odd.count(0) > 0.4 * len(odd) and even.count(0) < 0.1 * len(even):
        return "UTF-16LE"
    if len(head) >= 4 and even.count(0) > 0.4 * len(even) and odd.count(0) < 0.1 * len(odd):
        return "UTF-16BE"
    return None


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return
    raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for index, key in enumerate(keys) if key in keys[:index])
        raise ValueError(f"has the key {twice!r} twice in one object")
    return value


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"holds an integer of {len(digits):,} digits; {MAX_DIGITS} are allowed")
    return int(digits)


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"holds {digits[:20]}, which is too large for a number")
    return number


def _no_constant(name: str) -> float:
    raise ValueError(f"holds {name}, which is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_finite, parse_constant=_no_constant
)
