"""What comes in on the worker's stdin: asks, read strictly, and stops, which must not wait for an answer's end."""

import os
import queue
import select
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from slimtune.data import Example, decode_utf8, strict_json
from slimtune.errors import did_you_mean
from slimtune.tasks.chat import read_turns
from slimtune.tasks.job import Job
from slimtune.tasks.kinds import tools_of

Put = Callable[[Mapping[str, Any]], None]
SIDES = ("base", "tuned")
MAX_NEW_TOKENS = 256
_KEYS = ("ask", "messages", "tools", "side", "max_new_tokens")
_NO_JOB = Job(name="", kind="")


@dataclass(frozen=True)
class Ask:
    """One prompt for one side or both. `stopped` is set from the reading thread."""

    id: str | int
    example: Example
    side: str = "both"
    max_new_tokens: int = MAX_NEW_TOKENS
    stopped: threading.Event = field(default_factory=threading.Event)


def read_ask(value: Mapping[str, Any]) -> Ask:
    """An ask from its JSON object. Raises ValueError, a sentence about it."""
    if unknown := sorted(value.keys() - {*_KEYS}):
        raise ValueError(f"{unknown[0]!r} is no key of an ask. {did_you_mean(unknown[0], _KEYS)}")
    side, limit = value.get("side", "both"), value.get("max_new_tokens", MAX_NEW_TOKENS)
    if side not in (*SIDES, "both"):
        raise ValueError(f"There is no side {side!r}. {did_you_mean(str(side), (*SIDES, 'both'))}")
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise ValueError(f"max_new_tokens is a number from 1 on, not {limit!r}.")
    try:
        messages = read_turns(value.get("messages"))
        tools = tools_of({"tools": value.get("tools") or []}, _NO_JOB)
    except ValueError as error:
        raise ValueError(f"The prompt: {error}.") from error
    if messages[-1].role not in ("user", "tool"):
        raise ValueError(f"The prompt ends with the {messages[-1].role}'s turn: there is nothing to answer.")
    return Ask(value["ask"], Example("prompt", messages, "", tools), side, limit)


class Inbox:
    """Asks in their order. The end of stdin, or of the parent, is the end of this process, whatever it is doing."""

    def __init__(self, put: Put, *, parent: int):
        self._put, self._parent, self._asks = put, parent, queue.SimpleQueue[Ask]()
        self._due: dict[str | int, Ask] = {}
        threading.Thread(target=self._watch, daemon=True).start()

    def next(self) -> Ask:
        """Wait for an ask. It can be stopped until it is `done`."""
        return self._asks.get()

    def done(self, ask: Ask) -> None:
        self._due.pop(ask.id, None)

    def _watch(self) -> None:
        try:
            self._read()
        except BaseException:  # deaf, it would only hold the memory
            traceback.print_exc()
            os._exit(70)
        os._exit(0)

    def _read(self) -> None:
        rest = b""
        while os.getppid() == self._parent:
            if not select.select([0], [], [], 1.0)[0]:
                continue
            if not (read := os.read(0, 1 << 16)):
                return
            *lines, rest = (rest + read).split(b"\n")
            for line in filter(bytes.strip, lines):
                self._take(line)

    def _take(self, line: bytes) -> None:
        number = None
        try:
            value = _request(line)
            number = value.get("ask")
            if "stop" in value:
                self._stop(value["stop"])
                return
            if number in self._due:
                raise ValueError("An ask with this id is under way.")
            ask = read_ask(value)
        except ValueError as error:
            self._put({"event": "error", "ask": number, "text": str(error)})
            return
        self._due[ask.id] = ask
        self._asks.put(ask)

    def _stop(self, number: str | int) -> None:
        if ask := self._due.get(number):
            ask.stopped.set()


def _request(line: bytes) -> dict[str, Any]:
    try:
        value = strict_json(decode_utf8(line))
    except ValueError as error:
        raise ValueError(f"The line {error}.") from error
    if not isinstance(value, dict) or not ("ask" in value or "stop" in value):
        raise ValueError("The line is no object with `ask` or `stop`.")
    for number in (value[name] for name in ("ask", "stop") if name in value):
        if not isinstance(number, str | int) or isinstance(number, bool):
            raise ValueError("The id of an ask is a text or a whole number.")
    return value
