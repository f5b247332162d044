"""A chat as it stands in a data file, read into Messages, or refused by the name of what is wrong with it."""

from collections.abc import Mapping
from typing import Any

from slimtune.data import Message, json_type
from slimtune.errors import did_you_mean
from slimtune.models.toolcalls import tool_call_from_json

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_MAY_FOLLOW = {
    "system": {""},
    "user": {"", "system", "assistant"},
    "assistant": {"user", "tool"},
    "tool": {"assistant", "tool"},
}

_WITH_ARTICLE = {
    "system": "a system turn",
    "user": "a user turn",
    "assistant": "an assistant turn",
    "tool": "a tool turn",
}


def read_turns(turns: Any) -> tuple[Message, ...]:
    """OpenAI-style turns as Messages. Raises ValueError for roles out of order, a system turn in the middle, content
    that is no text, and empty turns. Which turn comes last is the caller's business."""
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"holds {json_type(turns)} where a list of chat turns is due" if turns else "holds no turns")
    messages: list[Message] = []
    for number, turn in enumerate(turns, start=1):
        try:
            message = _turn(turn)
            _check_order(messages[-1] if messages else None, message)
        except ValueError as error:
            raise ValueError(f"turn {number} {error}") from error
        messages.append(message)
    return tuple(messages)


def split_answer(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], Message]:
    """A chat as its prompt and its last turn, which must be the assistant's. Raises ValueError."""
    if not any(message.role == "assistant" for message in messages):
        raise ValueError("has no assistant turn: there is nothing to learn from it")
    if messages[-1].role != "assistant":
        raise ValueError(f"ends with a {messages[-1].role} turn: the last turn must be the answer")
    if not any(message.role == "user" for message in messages[:-1]):
        raise ValueError("has no user turn before the answer")
    return messages[:-1], messages[-1]


def _turn(turn: Any) -> Message:
    if not isinstance(turn, Mapping):
        raise ValueError(f"is {json_type(turn)}, not an object with role and content")
    role = turn.get("role")
    if role not in _ROLES:
        raise ValueError(f"has the role {role!r}. {did_you_mean(str(role), _ROLES)}")
    calls = turn.get("tool_calls") or []
    if not isinstance(calls, list):
        raise ValueError(f"has {json_type(calls)} for tool_calls, not a list")
    content = turn.get("content")
    if content is None and calls:
        content = ""
    if not isinstance(content, str):
        raise ValueError(f"has {json_type(content)} for content, not text")
    if not content.strip() and not calls and _ROLES[role] != "tool":
        raise ValueError(f"is an empty {role} turn")
    return Message(_ROLES[role], content, tuple(tool_call_from_json(call) for call in calls))


def _check_order(before: Message | None, message: Message) -> None:
    last = before.role if before else ""
    if message.role == "system" and before:
        raise ValueError("is a system turn in the middle: it may only come first")
    if last not in _MAY_FOLLOW[message.role]:
        raise ValueError(f"is {_WITH_ARTICLE[message.role]} after {_WITH_ARTICLE[last] if last else 'nothing'}")
    if message.role == "tool" and last == "assistant" and before and not before.tool_calls:
        raise ValueError("is a tool turn, but the assistant turn before it called no tool")
    if message.tool_calls and message.role != "assistant":
        raise ValueError(f"is a {message.role} turn with tool calls: only the assistant calls tools")
