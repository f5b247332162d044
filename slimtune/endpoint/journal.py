"""Every call in an append-only file, before it is made and after: an answer that was paid for is not asked for again.

    {"call": KEY, "sent": [prompt tokens, answer tokens]}     what it may cost at most; on the disk before it is sent
    {"call": KEY, "answer": {...}, "status": ..., "model": ..., "without": [...]}
    {"call": KEY, "failed": "answered 503", "free": true}     free: nothing was made, so nothing is to be paid
    {"call": KEY, "forgotten": true}     its answer so far is paid for and not used again

What was sent and has neither answer nor failure was under way when the process was killed: it may have been paid for.
The order of calls means nothing, so they may be under way side by side.
"""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slimtune.data import Completion, ToolCall
from slimtune.endpoint.budget import taken
from slimtune.endpoint.wire import Answer, Request
from slimtune.errors import UserError
from slimtune.files import append_line, read_log, writing


class Journal:
    """The calls of a file, held by this process. `answers` is what is known; `lost` what calls without an answer may
    have cost at most, in (prompt, answer) tokens."""

    def __init__(self, path: Path):
        self.path = path
        self.answers: dict[str, Answer] = {}
        self.lost: list[tuple[int, int]] = []
        under_way: dict[str, list[tuple[int, int]]] = {}
        for line in read_log(path) if path.exists() else []:
            self._take(line, under_way)
        self.lost += [sent for calls in under_way.values() for sent in calls]

    def _take(self, line: dict[str, Any], under_way: dict[str, list[tuple[int, int]]]) -> None:
        calls = under_way.setdefault(line["call"], [])
        if "sent" in line:
            calls.append(tuple(line["sent"]))
            return
        if "forgotten" in line:
            self.lost.append(taken(self.answers.pop(line["call"])))
            return
        sent = calls.pop() if calls else (0, 0)
        if "answer" in line:
            self.answers[line["call"]] = _answer(line)
        elif not line["free"]:
            self.lost.append(sent)

    def sent(self, request: Request) -> None:
        self._write(request, {"sent": [request.prompt_tokens, request.max_tokens], "at": _now()})

    def answered(self, request: Request, answer: Answer) -> None:
        self.answers[request.key] = answer
        entry = {"answer": asdict(answer.completion), "status": answer.status, "model": answer.model}
        self._write(request, {**entry, "without": list(answer.without), "at": _now()})

    def failed(self, request: Request, why: str, *, free: bool) -> None:
        if not free:
            self.lost.append((request.prompt_tokens, request.max_tokens))
        self._write(request, {"failed": why, "free": free, "at": _now()})

    def forget(self) -> None:
        """Use no answer so far again. What they took stays spent."""
        for key in list(self.answers):
            self.lost.append(taken(self.answers.pop(key)))
            append_line(self.path, json.dumps({"call": key, "forgotten": True, "at": _now()}), synced=True)

    def _write(self, request: Request, entry: dict[str, Any]) -> None:
        append_line(self.path, json.dumps({"call": request.key, "row": request.id, **entry}), synced=True)


@contextlib.contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """The journal at `path`, this process's own for as long as the block lasts. Raises UserError where another process
    has it: both would pay for the same answers."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"Another process is asking for the answers of {path}. Wait for it, or stop it.") from error
        yield Journal(path)


def _answer(line: dict[str, Any]) -> Answer:
    entry = line["answer"]
    calls = entry["tool_calls"]
    known = None if calls is None else tuple(ToolCall(**call) for call in calls)
    return Answer(Completion(**{**entry, "tool_calls": known}), line["status"], line["model"], tuple(line["without"]))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
