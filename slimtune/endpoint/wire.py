"""An example as a request of OpenAI's chat completions, and a response as an answer. Pure functions.

Requests are as repeatable as a service allows: temperature 0 and a seed. A service that refuses one of these keys is
asked without it (`without`), and the answer says so.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from slimtune.data import Completion, Example, Message, json_type, strict_json
from slimtune.files import digest_json
from slimtune.models.thoughts import CLOSE, OPEN
from slimtune.models.toolcalls import Reading, render_tool_calls, tool_call_from_json

_SEED = 17
_LENGTH = "max_tokens"
_LENGTH_NOW = "max_completion_tokens"  # what newer models of OpenAI call it
_OPTIONAL = ("temperature", "seed")
_BYTES_PER_TOKEN = 3.0  # for a reservation before the service has counted; English text has 4 to 5

Status = Literal["ok", "refused", "filtered"]


class Unusable(Exception):
    """A response that is no chat completion. Its text is a clause about the service."""


@dataclass(frozen=True)
class Request:
    """One question to a model. `key` is what an answer is kept under: where, whom and what is asked."""

    id: str  # of the example, for messages
    key: str
    body: Mapping[str, Any]

    @property
    def max_tokens(self) -> int:
        return self.body[_LENGTH]

    @property
    def prompt_tokens(self) -> int:
        """A guess on the high side, before the service counts."""
        asked = json.dumps([self.body["messages"], self.body.get("tools", [])], ensure_ascii=False)
        return round(len(asked.encode()) / _BYTES_PER_TOKEN) + 16


@dataclass(frozen=True)
class Answer:
    """What came back. `model` is what the answer says of itself; `without` the keys that the service refused."""

    completion: Completion
    status: Status
    model: str
    without: tuple[str, ...] = ()


def request_of(example: Example, *, url: str, model: str, max_tokens: int) -> Request:
    """The request that asks a model what an example asks."""
    body: dict[str, Any] = {"model": model, "messages": _messages(example.messages)}
    if example.tools:
        body["tools"] = [dict(tool) if "function" in tool else _function(tool) for tool in example.tools]
    body |= {_LENGTH: max_tokens, "temperature": 0, "seed": _SEED}
    return Request(example.id, digest_json([url, body]), body)


def body_without(body: Mapping[str, Any], without: Sequence[str]) -> dict[str, Any]:
    """The request's body for a service that refuses some of its keys."""
    kept = {key: value for key, value in body.items() if key not in without}
    return kept | ({_LENGTH_NOW: body[_LENGTH]} if _LENGTH in without else {})


def refused_key(error: Mapping[str, Any], sent: Mapping[str, Any]) -> str | None:
    """The key of a request that a service refuses and that can be left out; None where the error is another."""
    named, said = error.get("param"), str(error.get("message") or "")
    for key in (*_OPTIONAL, _LENGTH):
        if key in sent and (named == key or (named is None and key in said)):
            return key
    return None


def read_error(text: str) -> dict[str, Any]:
    """What an error's body says: message, code, param, as far as it says them."""
    try:
        value = strict_json(text)
    except ValueError:
        return {"message": text}
    found = value.get("error", value) if isinstance(value, Mapping) else value
    if not isinstance(found, Mapping):
        return {"message": found if isinstance(found, str) else text}
    return {**found, "message": found.get("message") or found.get("detail") or text}


def read_answer(text: str, *, seconds: float) -> Answer:
    """The answer in a body that came with 200. Raises Unusable where it is none."""
    try:
        value = strict_json(text)
    except ValueError as error:
        raise Unusable(f"answered with what {error}") from error
    choice = _first_choice(value)
    message = choice["message"]
    refusal, stopped = message.get("refusal"), choice.get("finish_reason")
    text = _text(message.get("content")) or (refusal if isinstance(refusal, str) else "")
    reading = _read_calls(message.get("tool_calls"))
    usage = value.get("usage") if isinstance(value.get("usage"), Mapping) else {}
    completion = Completion(
        text or _shown(message.get("tool_calls"), reading),
        "length" if stopped == "length" else "stop",
        reading.calls,
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        seconds,
        reading.why,
        thought_begun=_begun(text),
        thinking_tokens=_reasoning(usage),
    )
    status: Status = "filtered" if stopped == "content_filter" else "refused" if refusal else "ok"
    return Answer(completion, status, str(value.get("model") or ""))


def filtered_answer(*, seconds: float) -> Answer:
    """The answer to a prompt that the service's own filter keeps from the model."""
    return Answer(Completion("", seconds=seconds), "filtered", "")


def _first_choice(value: Any) -> Mapping[str, Any]:
    choices = value.get("choices") if isinstance(value, Mapping) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, Mapping) or not isinstance(first.get("message"), Mapping):
        raise Unusable("answered with JSON that is no chat completion")
    return first


def _text(content: Any) -> str:
    """The text of a message: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return "".join(part for part in parts if isinstance(part, str))
    return ""


def _read_calls(given: Any) -> Reading:
    """The calls that the service has read, or why they cannot be used; neither where it gave none."""
    if not given:
        return Reading(None)
    if not isinstance(given, list):
        return Reading(None, f"holds {json_type(given)} for tool_calls, not a list")
    try:
        return Reading(tuple(tool_call_from_json(call) for call in given))
    except ValueError as error:
        return Reading(None, str(error)[:200])


def _shown(given: Any, reading: Reading) -> str:
    """Calls as text, for those who read answers: as slimtune writes them, or as they came."""
    if reading.calls:
        return render_tool_calls(reading.calls, "json")
    return json.dumps(given, ensure_ascii=False) if given else ""


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _begun(text: str) -> bool:
    """Whether the service's prompt had opened a thought, of which it does not tell: the text closes one that it does
    not open."""
    head, close, _ = text.partition(CLOSE)
    return bool(close) and OPEN not in head


def _reasoning(usage: Mapping[str, Any]) -> int:
    """Tokens of a thought that the service counts and does not show, or shows apart."""
    details = usage.get("completion_tokens_details")
    return _count(details.get("reasoning_tokens")) if isinstance(details, Mapping) else 0


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The turns with ids for the calls: services match results to calls by id, and refuse a call without a result, as
    a worked example's is."""
    turns: list[dict[str, Any]] = []
    open_calls: list[str] = []
    made = 0
    for message in messages:
        if message.role == "tool" and open_calls:
            turns.append({"role": "tool", "tool_call_id": open_calls.pop(0), "content": message.content})
            continue
        turns += [{"role": "tool", "tool_call_id": call, "content": ""} for call in open_calls]
        open_calls = [f"call_{made + place}" for place in range(len(message.tool_calls))]
        made += len(message.tool_calls)
        turns.append(_turn(message, open_calls))
    return turns


def _turn(message: Message, ids: Sequence[str]) -> dict[str, Any]:
    if message.role == "tool":  # of no call that was made
        return {"role": "user", "content": message.content}
    if not message.tool_calls:
        return {"role": message.role, "content": message.content}
    functions = [{"name": call.name, "arguments": json.dumps(dict(call.arguments))} for call in message.tool_calls]
    calls = [
        {"id": made, "type": "function", "function": function} for made, function in zip(ids, functions, strict=True)
    ]
    return {"role": message.role, "content": message.content or None, "tool_calls": calls}


def _function(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": dict(schema)}
