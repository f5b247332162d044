"""The end of a study that does the work: a process for all cells of one model, told one cell after the other.

A request is a line of JSON on standard input: {"folder": a cell's, "attempt": "HOST-1", "usd_per_hour": null or x}. A
reply is one on standard output: {"exit_code", "why"}; what libraries print goes to standard error. It ends when its
input does, and stops at the next whole step on SIGTERM, or when whoever started it is gone.
"""

import contextlib
import fcntl
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from slimtune.errors import CannotWrite, Interrupted, SlimtuneError
from slimtune.files import append_line, read_log, writing
from slimtune.jobs import stop_flag
from slimtune.sweep.store import publish, read_result

BUSY = -1  # in place of an exit code: another process is at this attempt
_WALL = "wall.jsonl"

Do = Callable[[Path, Path, Callable[[], bool]], None]
"""Does one cell: (its folder, the attempt's folder, whether to stop) -> a finished run in the attempt's folder. Raises
SlimtuneError."""


def work(do: Do) -> None:
    """Answer requests until there are no more."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints, it is no reply
    asked_to_stop, parent = stop_flag(), os.getppid()

    def should_stop() -> bool:
        return asked_to_stop() or os.getppid() != parent

    for line in sys.stdin:
        replies.write(json.dumps(_answer(do, json.loads(line), should_stop)) + "\n")
        replies.flush()


def _answer(do: Do, request: Mapping[str, Any], should_stop: Callable[[], bool]) -> dict[str, Any]:
    folder = Path(request["folder"])
    try:
        if should_stop():
            raise Interrupted("Stopped before it began.")
        if not (folder / "cell.json").is_file():
            raise CannotWrite(f"{folder} is gone.")
        with _own(folder / "attempts", request["attempt"]) as attempt:
            if attempt is None:
                return {"exit_code": BUSY, "why": ""}
            said = _one(do, folder, attempt, request["usd_per_hour"], should_stop)
        return {"exit_code": 0, "why": said}
    except SlimtuneError as error:
        return {"exit_code": error.exit_code, "why": str(error)}
    except Exception as error:  # the boundary of a cell: the others go on, and the log has the traceback
        traceback.print_exc()
        return {"exit_code": SlimtuneError.exit_code, "why": f"{type(error).__name__}: {error}"}


def _one(do: Do, folder: Path, attempt: Path, usd_per_hour: float | None, should_stop: Callable[[], bool]) -> str:
    if (read_result(folder) or {}).get("attempt") == f"attempts/{attempt.name}":
        return ""
    began = time.monotonic()
    try:
        do(folder, attempt, should_stop)
    finally:
        with contextlib.suppress(CannotWrite):  # the error on its way up matters more
            if attempt.is_dir():
                append_line(attempt / _WALL, json.dumps({"seconds": time.monotonic() - began}))
    wall_s = sum(entry["seconds"] for entry in read_log(attempt / _WALL))
    return publish(folder, attempt, wall_s=wall_s, usd_per_hour=usd_per_hour)


@contextlib.contextmanager
def _own(attempts: Path, name: str) -> Iterator[Path | None]:
    """The attempt's folder, ours for as long as the block lasts; None where another process has it."""
    with writing(attempts):
        attempts.mkdir(parents=True, exist_ok=True)
        lock = (attempts / f"{name}.lock").open("ab")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield attempts / name
