"""Calls written as JSON: in tags (hermes), after a token (granite), or bare (json). See the package's docstring.

Source: the chat templates of Qwen3, Llama 3.1 and Granite 3.3, and what these models write beside them.
"""

import json
import re
from typing import Any

from slimtune.data import ToolCall, strict_json, strict_json_at

HERMES_OPEN, HERMES_CLOSE = "<tool_call>", "</tool_call>"
GRANITE_OPEN = "<|tool_call|>"
PYTHON_TAG = "<|python_tag|>"  # Llama 3 puts it before a call now and then
_SPACE = re.compile(r"\s*")
_FENCE = re.compile(r"```(?:json)?[ \t]*\n?(.*?)```", re.DOTALL)


def read_hermes(answer: str, tools: Any) -> list[Any]:
    """JSON is read from each opening tag on, so a closing tag inside a string ends nothing."""
    values: list[Any] = []
    position = answer.find(HERMES_OPEN)
    while position >= 0:
        value, end = strict_json_at(answer, after_space(answer, position + len(HERMES_OPEN)))
        after = after_space(answer, end)
        if after < len(answer) and not answer.startswith(HERMES_CLOSE, after):
            raise ValueError(f"holds something between a call and {HERMES_CLOSE}")
        values += value if isinstance(value, list) else [value]
        position = answer.find(HERMES_OPEN, end)
    if not values:
        raise ValueError(f"holds no {HERMES_OPEN}")
    return values


def read_granite(answer: str, tools: Any) -> list[Any]:
    """A list after <|tool_call|>, after the <tool_call> of some versions, or bare where the token was left out."""
    start = min((answer.find(tag) + len(tag) for tag in (GRANITE_OPEN, HERMES_OPEN) if tag in answer), default=0)
    if not start and not answer.lstrip().startswith("["):
        raise ValueError(f"holds no {GRANITE_OPEN}")
    value = strict_json(answer[start:].rstrip().removesuffix(HERMES_CLOSE))
    return value if isinstance(value, list) else [value]


def read_json(answer: str, tools: Any) -> list[Any]:
    """An object or a list of them, alone or in a fenced block."""
    answer = answer.lstrip().removeprefix(PYTHON_TAG)
    fenced = _FENCE.search(answer)
    value = strict_json(fenced.group(1) if fenced and not answer.lstrip().startswith(("{", "[")) else answer)
    return value if isinstance(value, list) else [value]


def write_hermes(calls: tuple[ToolCall, ...]) -> str:
    return "\n".join(f"{HERMES_OPEN}\n{dump(call.as_json())}\n{HERMES_CLOSE}" for call in calls)


def write_granite(calls: tuple[ToolCall, ...]) -> str:
    return GRANITE_OPEN + dump([call.as_json() for call in calls])


def write_json(calls: tuple[ToolCall, ...]) -> str:
    objects = [call.as_json() for call in calls]
    return dump(objects[0] if len(objects) == 1 else objects)


def dump(value: Any) -> str:
    """JSON as chat templates write it."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def after_space(text: str, at: int) -> int:
    """Where the white space that begins at `at` ends."""
    return _SPACE.match(text, at).end()
