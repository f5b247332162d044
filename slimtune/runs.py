"""The folder of one run: who owns it, what it is a run of, and which steps are complete.

A step whose output is there is not done again: outputs appear whole (see files.py), so being there is being complete.
"""

import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slimtune.errors import CannotWrite, UserError
from slimtune.files import append_line, digest_json, read_json, sweep, write_json

_IDENTITY = "fingerprint.json"
_OWNER = "owner.json"


@dataclass(frozen=True)
class Run:
    """A run folder held by this process."""

    folder: Path

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def step(self, name: str, do: Callable[[], Any]) -> Any:
        """The JSON value of the step `name`: from its file, or made by `do` and written."""
        if not self.has(name):
            write_json(self.folder / name, do())
        return read_json(self.folder / name)

    def log(self, value: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        append_line(self.folder / "metrics.jsonl", json.dumps(value))


def fingerprint(identity: Mapping[str, Any]) -> str:
    """SHA-256 of everything that decides a run's result."""
    return digest_json(dict(identity))


@contextmanager
def open_run(folder: Path, identity: Mapping[str, Any]) -> Iterator[Run]:
    """Own a run folder for as long as the block lasts.

    `identity` names what the run is of, part by part. Raises UserError where another process owns the folder, or where
    the folder holds a run of something else; CannotWrite where it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        owner = (folder / _OWNER).open("a+")
    except OSError as error:
        raise CannotWrite(f"Cannot write {folder}: {error.strerror}. Choose another --out.") from error
    with owner:
        _own(folder, owner)
        sweep(folder)
        _same_run(folder, identity)
        yield Run(folder)


def _own(folder: Path, owner: Any) -> None:
    """Take the lock; the system lets go of it when the process ends, however it ends."""
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner.seek(0)
        holder = json.loads(owner.read() or "{}")
        raise UserError(
            f"{folder} is owned by process {holder.get('pid', '?')} on {holder.get('host', '?')} since "
            f"{holder.get('since', '?')}. Wait for it, stop it, or choose another --out."
        ) from error
    owner.truncate(0)
    json.dump(
        {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat(timespec="seconds")},
        owner,
    )
    owner.flush()


def _same_run(folder: Path, identity: Mapping[str, Any]) -> None:
    path = folder / _IDENTITY
    if not path.exists():
        write_json(path, dict(identity))
        return
    before = read_json(path)
    changed = sorted(part for part in {*before, *identity} if before.get(part) != identity.get(part))
    if changed:
        raise UserError(
            f"{folder} holds a run of another {' and '.join(changed)}. It is not continued with this one: "
            "choose another --out, or leave --out away."
        )


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The steps in metrics.jsonl in order, each once: of a step that was trained again after a resume the last counts,
    and a torn last line is dropped."""
    return list({step["step"]: step for step in _lines(folder)}.values())


def training_seconds(folder: Path) -> float:
    """Seconds of training over all processes of a run: each counts from its own beginning."""
    total = before = 0.0
    for step in _lines(folder):
        total += step["seconds"] - (before if step["seconds"] >= before else 0.0)
        before = step["seconds"]
    return total


def _lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    whole = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in whole if line.endswith(b"}")]
