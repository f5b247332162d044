"""The rows everything is made of: what is asked, what should be answered, what was answered, and how good it was.

    Example    -> prompt as chat messages, and its target: text, or tool calls
    Completion -> what a model said
    Score      -> a number in [0, 1], or None when *we* could not judge
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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

    @property
    def cluster(self) -> str:
        return self.group if self.group is not None else self.id


@dataclass(frozen=True)
class Completion:
    """What a model answered. `tool_calls` is None where none could be read from the text."""

    text: str
    stopped: Literal["stop", "length"] = "stop"
    tool_calls: tuple[ToolCall, ...] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Score:
    """How good an answer is. `value` None: we could not judge (counted, never 0). `answer` None: nothing could be read
    from the output (a parse failure, which scores 0)."""

    value: float | None
    answer: str | None
    why: str = ""
