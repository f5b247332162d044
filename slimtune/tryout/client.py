"""The asking end: starts the worker, hands over what it says, and sees to it that it ends. Standard library only."""

import contextlib
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from slimtune.errors import UserError

_LAST_LINES, _LAST_BYTES = 5, 4096
_PATIENCE_S = 5.0  # between asking a worker to end and ending it


class Tryout:
    """A loaded model in a process of its own. One ask at a time; `cancel` and `close` may come from any thread.

    `log` gets what the worker's libraries print. Without one it is a temporary file, removed at a good end.
    """

    def __init__(self, target: str | Path, *, log: Path | None = None):
        self._own_log = log is None
        self.log = log or _temporary_log()
        self.state: Literal["loading", "ready", "failed", "ended"] = "loading"
        self.said = "Starting."  # while it loads: what it is at; where it failed: why
        self.label, self.sides, self.tools, self.window = "", (), False, 0
        self._settled, self._cancelled, self._closed = threading.Event(), threading.Event(), False
        self._asking, self._writing = threading.Lock(), threading.Lock()
        self._ids, self._under_way = itertools.count(1), 0
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()  # None: there will be no more
        with self.log.open("ab") as log_file:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "slimtune.tryout", os.fspath(target), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                start_new_session=True,  # a Ctrl-C in the terminal is for whoever asks: that ends this one too
            )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> "Tryout":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until it is loaded: True, or False after `timeout_s`. Raises UserError where it cannot be, or has ended."""
        settled = self._settled.wait(timeout_s)
        if settled and self.state != "ready":
            raise UserError(self._why_not())
        return settled

    def ask(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        side: str = "both",
        max_new_tokens: int = 256,
    ) -> Iterator[dict[str, Any]]:
        """The worker's events for a prompt (see the package), as they come; a `loading` one first where that goes on.

        The last is an `error`, or the `end` of the last side; cancelled while it loads, there is none. Leaving the
        loop cancels. Raises UserError while another ask is under way, for what is no JSON, and where there is no
        worker (any more), with its last words.
        """
        if not self._asking.acquire(blocking=False):
            raise UserError("One question at a time: an answer is still under way. Wait for it, or cancel it.")
        try:
            self._cancelled.clear()
            if self.state == "loading":
                yield {"event": "loading", "text": self.said}
            while not self.wait(0.1):
                if self._cancelled.is_set():
                    return
            request = {"messages": messages, "tools": tools, "side": side, "max_new_tokens": max_new_tokens}
            yield from self._answers(request, ends=len(self.sides) if side == "both" else 1)
        finally:
            self._asking.release()

    def cancel(self) -> None:
        """End the answer under way, if there is one. Its events go on to their end, which says so."""
        self._cancelled.set()
        if number := self._under_way:
            self._send({"stop": number})

    def close(self) -> None:
        """End the worker. It is gone when this returns."""
        good, self._closed = self.state in ("loading", "ready"), True
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._listener.join()
        if self._own_log and good:
            self.log.unlink(missing_ok=True)

    def _answers(self, request: Mapping[str, Any], *, ends: int) -> Iterator[dict[str, Any]]:
        number = next(self._ids)
        self._send({"ask": number, **request})
        self._under_way = number
        try:
            if self._cancelled.is_set():  # it came before there was something to cancel
                self.cancel()
            while ends:
                event = self._next_event()
                if event.get("ask") not in (number, None):
                    continue  # of an ask that nobody listened to any more
                ends = 0 if event["event"] == "error" else ends - (event["event"] == "end")
                self._under_way = number if ends else 0
                yield event
        finally:
            if self._under_way:
                self.cancel()
                self._under_way = 0

    def _next_event(self) -> dict[str, Any]:
        event = self._events.get()
        if event is None:
            self._events.put(None)
            raise UserError(self._why_not())
        return event

    def _send(self, request: Mapping[str, Any]) -> None:
        try:
            line = json.dumps(request, allow_nan=False).encode() + b"\n"
        except (TypeError, ValueError) as error:
            raise UserError(f"The prompt cannot be sent as JSON: {error}.") from error
        with self._writing, contextlib.suppress(BrokenPipeError):  # it is gone: the end of its events says so
            if not self._process.stdin.closed:
                self._process.stdin.write(line)
                self._process.stdin.flush()

    def _listen(self) -> None:
        """In a thread: the state as the worker tells it, and the events for whoever asks."""
        for line in self._process.stdout:
            if not line.endswith(b"\n"):
                break  # torn by its death
            event = json.loads(line)
            if event["event"] in ("loading", "failed"):
                self.said = event["text"]
                self.state = event["event"]
            elif event["event"] == "ready":
                self.label, self.sides, self.tools = event["label"], tuple(event["sides"]), event["tools"]
                self.window, self.state = event["window"], "ready"
                self._settled.set()
            else:
                self._events.put(event)
        self._process.wait()
        with self._writing, contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self.state = "failed" if self.state == "failed" else "ended"
        self._settled.set()
        self._events.put(None)

    def _why_not(self) -> str:
        if self.state == "failed":
            return self.said
        if self._closed:
            return "This model was closed."
        code = self._process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        memory = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
        return f"The process that held the model {how}{memory}. {self._last_words()} Its log: {self.log}"

    def _last_words(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LAST_BYTES))
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        return "Its last words:\n  " + "\n  ".join(lines[-_LAST_LINES:]) + "\n" if lines else "It said nothing."


def _temporary_log() -> Path:
    with tempfile.NamedTemporaryFile(prefix="slimtune-tryout-", suffix=".log", delete=False) as file:
        return Path(file.name)
