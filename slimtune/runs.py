"""The folder of one run: who owns it, what it is a run of, and which steps are complete.

A step whose output is there is not done again: outputs appear whole (see files.py), so being there is being complete.
"""

import errno
import fcntl
import json
import math
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from slimtune.errors import CannotWrite, UserError
from slimtune.files import DISK_GONE, append_line, digest_json, read_json, read_log, sweep, write_json, writing
from slimtune.recipe import Recipe

IDENTITY = "fingerprint.json"
_OWNER = "owner.json"
_TRIES = 5  # for the lock
_NO_LOCKS = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK}


@dataclass(frozen=True)
class Run:
    """A run folder held by this process."""

    folder: Path
    process: str = field(default_factory=lambda: secrets.token_hex(4))

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def step(self, name: str, do: Callable[[], Any]) -> Any:
        """The JSON value of the step `name`: from its file, or made by `do` and written."""
        if not self.has(name):
            value = do()  # it may take hours: where it belongs is looked for afterwards
            write_json(standing(self.folder) / name, value)
        return read_json(self.folder / name)

    def log(self, value: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl, marked with the process that wrote it: see `training_seconds`."""
        finite = {
            key: None if isinstance(item, float) and not math.isfinite(item) else item for key, item in value.items()
        }
        append_line(standing(self.folder) / "metrics.jsonl", json.dumps({**finite, "process": self.process}))


def standing(folder: Path) -> Path:
    """A run's folder, which must still be where the run began. One that went away, as a network drive does, is not made
    anew: half a run would lie in its place. Raises CannotWrite."""
    if not (folder / _OWNER).is_file():
        raise CannotWrite(f"{folder} went away. Bring it back and run the same command: it goes on with what is there.")
    return folder


def fingerprint(identity: Mapping[str, Any]) -> str:
    """SHA-256 of everything that decides a run's result."""
    return digest_json(dict(identity))


@contextmanager
def open_run(folder: Path, identity: Mapping[str, Any]) -> Iterator[Run]:
    """Own a run folder for as long as the block lasts.

    `identity` names what the run is of, part by part. Raises UserError where another process owns the folder, or where
    the folder holds a run of something else; CannotWrite where it cannot be made.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / _OWNER).exists():
            raise UserError(f"{folder} holds other files and is no run. Choose an --out of its own.")
        owner = (folder / _OWNER).open("a+b", buffering=0)
    with owner:
        with writing(folder):
            _own(folder, owner)
            sweep(folder)
        _same_run(folder, identity)
        with writing(folder, only=DISK_GONE):  # whoever meets the full disk: a plot, a library's log
            _sign(owner)
            yield Run(folder)


def holder(folder: Path) -> dict[str, Any]:
    """Who owns a run's folder now: pid, host, since; empty where nobody does."""
    try:
        owner = (folder / _OWNER).open("rb", buffering=0)
    except FileNotFoundError:
        return {}
    with owner:
        try:
            fcntl.flock(owner, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _named(owner)
    return {}


def _own(folder: Path, owner: BinaryIO) -> None:
    """Take the lock; the system lets go of it when the process ends, however it ends."""
    if not _locked(owner):
        named = _named(owner)
        raise UserError(
            f"{folder} is owned by process {named.get('pid') or '?'} on {named.get('host') or '?'} since "
            f"{named.get('since') or '?'}. Wait for it, stop it, or choose another --out."
        )
    owner.truncate(0)


def _sign(owner: BinaryIO) -> None:
    """Say who owns the folder: once its run is known to be this one, for whoever waits for that goes away then."""
    me = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    owner.write(json.dumps(me).encode())


def _locked(owner: BinaryIO) -> bool:
    """Whether the lock is ours now. Whoever only looks (`holder`) has it for a moment, so one refusal is not enough."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            raise UserError(
                f"The disk of {owner.name} keeps no locks ({error.strerror}), and two processes in one run would ruin "
                "it. Choose an --out on another disk."
            ) from error
        else:
            return True
    return False


def _named(owner: BinaryIO) -> dict[str, Any]:
    owner.seek(0)
    try:
        return json.loads(owner.read())
    except ValueError:  # it has the lock, and has not written its name yet
        return {"pid": None, "host": None, "since": None}


def _same_run(folder: Path, identity: Mapping[str, Any]) -> None:
    path = folder / IDENTITY
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
    """Seconds of training over all processes of a run: each counts from its own beginning, and its last step says how
    far it came."""
    return sum({step.get("process"): step["seconds"] for step in _lines(folder)}.values())


def _lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    return read_log(path) if path.exists() else []


def training_totals(folder: Path) -> dict[str, Any]:
    """What metrics.jsonl sums up to, over all processes of a run: time, tokens, losses, and the card's peak in GiB."""
    steps = read_metrics(folder)
    peaks = [step["gpu_reserved_gib"] for step in steps if step["gpu_reserved_gib"] is not None]
    return {
        "seconds": training_seconds(folder),
        "tokens": sum(step["tokens"] for step in steps),
        "supervised_tokens": sum(step["supervised_tokens"] for step in steps),
        "resumed": len({step["process"] for step in _lines(folder)}) - 1,
        "skipped_steps": sum(step["skipped"] for step in steps),
        "peak_gpu_gib": max(peaks, default=None),
        "first_loss": steps[0]["loss"],
        "last_loss": steps[-1]["loss"],
    }


def task_digest(run: Path) -> str:
    """Of all rows that the run in that folder was trained and scored on."""
    return read_json(run / "data.json")["digest"]


def recipe_of(run: Path) -> Recipe:
    """The recipe of a run's folder, its task named by where the rows were when the run began: `--data` is no part of a
    recipe."""
    recipe = Recipe.model_validate(read_json(run / "recipe.json"))
    folder = read_json(run / "data.json").get("folder") if (run / "data.json").is_file() else None
    return recipe.model_copy(update={"task": folder}) if folder and Path(folder).is_dir() else recipe
