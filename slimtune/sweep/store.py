"""The folder of a study: what was asked, what is done, what failed. Whoever sees the folder can read it, and only it.

    matrix.json                      the cells that were asked for last
    cells/FINGERPRINT/cell.json      what a cell is
                      attempts/HOST-N/   a run's folder, of one machine at a time
                      result.json      of the first attempt that came to its end: never replaced once it is whole
                      failed.json      of the last failure
    runners/HOST-PID.json            what a process that works here has spent, and that it lives

Nothing is ordered by a time of day, and no lock is needed for what is right: a result is created if it is not there.
"""

import socket
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import psutil

from slimtune.errors import CannotWrite, Interrupted, ServiceAway, UserError
from slimtune.files import read_json, write_json
from slimtune.runs import holder
from slimtune.status import STATUS
from slimtune.sweep.created import create_json, read_created
from slimtune.tasks.task import TEST

SCHEMA = 1
SWEEPS = Path("sweeps")  # where studies lie unless told otherwise
_BEGIN = "slimtune sweep run MATRIX --store"
MATRIX = "matrix.json"
RESULT, FAILED = "result.json", "failed.json"
SIDES = ("base", "few_shot", "tuned", "teacher", "served")
KILLED = 137  # the exit code that a shell gives a process which SIGKILL ended
MOST_TRIES = 3  # of a cell whose process is killed
_AGAIN = (Interrupted.exit_code, ServiceAway.exit_code, CannotWrite.exit_code, KILLED)
_ENVIRONMENT = ("gpu", "device", "precision", "quantisation", "attention", "collation", "model", "versions")
_UNFINISHED = "left unfinished by a process that is gone; the same command goes on with it"
_FRESH_S = 120.0  # for showing only: a run on another machine that said something so lately is at work

CellState = Literal["done", "failed", "running", "waiting"]
STATES: tuple[CellState, ...] = get_args(CellState)


@dataclass(frozen=True)
class Cell:
    """One cell as the store has it. `why` says what failed, or why it waits; `result` is there once it is done."""

    fingerprint: str
    contestant: str
    model: str
    task: str
    seed: int
    axes: Mapping[str, Any]
    state: CellState
    why: str
    result: Mapping[str, Any] | None
    folder: Path


@dataclass(frozen=True)
class Study:
    """A store as it is now. `stale` counts the cells that lie in it and are no longer asked for."""

    name: str
    store: Path
    cells: tuple[Cell, ...]
    stale: int

    @property
    def counts(self) -> dict[CellState, int]:
        """How many cells are in each state."""
        return {state: sum(cell.state == state for cell in self.cells) for state in STATES}


@dataclass(frozen=True)
class SideRows:
    """One side's score of every test row, in order; a value is None where it could not be judged."""

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Failure:
    """How a cell ended last when it did not come to its end. `tries` counts how often in a row it ended so."""

    exit_code: int
    why: str
    attempt: str
    tries: int

    @property
    def final(self) -> bool:
        """Whether trying again is for the user to say."""
        often = self.exit_code == KILLED and self.tries >= MOST_TRIES
        return often or self.exit_code not in _AGAIN


def read_study(store: Path) -> Study:
    """What a store holds now. Raises UserError where there is none."""
    try:
        matrix = read_json(store / MATRIX)
    except (FileNotFoundError, NotADirectoryError):
        near = SWEEPS / store.stem
        what = f"Did you mean {near}?" if (near / MATRIX).is_file() else f"`{_BEGIN} {store}` begins one."
        raise UserError(f"There is no study in {store}. {what}") from None
    asked = [entry["cell"] for entry in matrix["cells"]]
    there = {path.parent.name for path in store.glob("cells/*/cell.json")}
    cells = tuple(read_cell(store, entry) for entry in matrix["cells"])
    return Study(matrix["name"], store, cells, len(there - set(asked)))


def read_cell(store: Path, entry: Mapping[str, Any]) -> Cell:
    """One cell; `entry` is its line in matrix.json."""
    folder = store / "cells" / entry["cell"]
    result, failure = read_result(folder), read_failure(folder)
    state, why = "waiting", failure.why if failure else ""
    if result is not None:
        state, why = "done", ""
    elif at_work(folder) is not None:
        state, why = "running", ""
    elif failure is not None and failure.final:
        state = "failed"
    elif failure is None and any(folder.glob("attempts/*-*/owner.json")):
        why = _UNFINISHED
    return Cell(
        entry["cell"], entry["contestant"], read_json(folder / "cell.json")["model"], entry["task"], entry["seed"],
        entry["axes"], state, why, result, folder,
    )  # fmt: skip


def side_rows(cell: Cell, side: str) -> SideRows | None:
    """The rows behind a side's score; None where the cell has no such side, or its attempt is no longer there."""
    import pyarrow.parquet

    if cell.result is None or side not in cell.result["sides"]:
        return None
    path = cell.folder / cell.result["attempt"] / side / "examples.parquet"
    if not path.is_file():
        return None
    rows = pyarrow.parquet.read_table(path, columns=["id", "group", "score"]).to_pydict()
    values = tuple(None if value is None or value != value else float(value) for value in rows["score"])
    return SideRows(tuple(rows["id"]), tuple(rows["group"]), values)


def at_work(folder: Path) -> Path | None:
    """The attempt of a cell that a process is at, as far as can be seen from here; None where there is none. Locks do
    not reach over every network disk, so a run that said something lately counts too."""
    for attempt in sorted(path for path in (folder / "attempts").glob("*-*") if path.is_dir()):
        owner = holder(attempt)
        if owner and not _dead(owner):
            return attempt
        said = _json(attempt / STATUS) or {}
        fresh = abs(time.time() - said.get("updated", 0)) < _FRESH_S  # that machine's clock may be ahead
        if said.get("exit_code", 0) is None and fresh and _foreign(attempt):
            return attempt
    return None


def _dead(owner: Mapping[str, Any]) -> bool:
    """Whether an owner was a process of this machine that is no more: one that it forked may hold its lock on."""
    here = owner.get("host") == socket.gethostname()
    return here and owner.get("pid") is not None and not psutil.pid_exists(owner["pid"])


def _foreign(attempt: Path) -> bool:
    owner = _json(attempt / "owner.json") or {}
    return owner.get("host") not in (None, socket.gethostname())


def read_result(folder: Path) -> Any:
    """What stands in a cell's result.json; None where it has none yet."""
    return read_created(folder / RESULT)


def read_failure(folder: Path) -> Failure | None:
    found = _json(folder / FAILED)
    return Failure(found["exit_code"], found["why"], found["attempt"], found["tries"]) if found else None


def write_matrix(store: Path, name: str, entries: list[Mapping[str, Any]]) -> None:
    """Say what is asked for now: one entry a cell, with its `cell`, `contestant`, `task`, `seed` and `axes`."""
    write_json(store / MATRIX, {"schema": SCHEMA, "name": name, "cells": entries})


def no_longer_asked(store: Path, name: str, cells: Collection[str], *, replace: bool) -> int:
    """How many cells a store was asked for last that are not among these, by fingerprint. Raises UserError where it
    holds a study of another name, unless that is to be replaced."""
    before = _json(store / MATRIX)
    if before is None:
        return 0
    if before["name"] != name and not replace:
        raise UserError(
            f"{store} holds the study {before['name']}; this is {name}. Choose another --store, or --replace to ask "
            "for this one's cells there instead."
        )
    return len({entry["cell"] for entry in before["cells"]} - set(cells))


def write_cell(store: Path, cell: Mapping[str, Any]) -> Path:
    """Put down what a cell is, once; its folder."""
    folder = store / "cells" / cell["cell"]
    if not (folder / "cell.json").is_file():
        write_json(folder / "cell.json", {"schema": SCHEMA, **cell})
    return folder


def write_failure(folder: Path, *, exit_code: int, why: str, attempt: str) -> Failure:
    """Put down how a cell ended, and how often in a row it has ended so: being stopped is no being killed."""
    before = read_failure(folder)
    earlier = before.tries if before and before.exit_code == exit_code else 0
    failure = Failure(exit_code, why, attempt, 1 + earlier)
    write_json(folder / FAILED, vars(failure))
    return failure


def publish(folder: Path, attempt: Path, *, wall_s: float, usd_per_hour: float | None) -> str:
    """Make a finished attempt the cell's result, unless it has one: then the two are compared, and both are kept.

    Returns "" or, for a duplicate, a sentence. Raises CannotWrite.
    """
    result = result_of(folder, attempt, wall_s=wall_s, usd_per_hour=usd_per_hour)
    if create_json(folder / RESULT, result):
        return ""
    first = read_result(folder)
    if first["attempt"] == result["attempt"]:
        return ""
    differs = [side for side in SIDES if _score(first, side) != _score(result, side)]
    said = f"{first['attempt']} was first" + (
        f", and differs in {', '.join(differs)}" if differs else ": the same scores"
    )
    write_json(attempt / "duplicate.json", {"of": first["attempt"], "differs": differs, "said": said})
    return said


def result_of(folder: Path, attempt: Path, *, wall_s: float, usd_per_hour: float | None) -> dict[str, Any]:
    """What stands in result.json, from an attempt that came to its end."""
    cell, training = read_json(folder / "cell.json"), _json(attempt / "training.json")
    environment = _json(attempt / "environment.json") or {}
    sides = {side: _json(attempt / side / "evaluation.json") for side in SIDES}
    data = read_json(attempt / "data.json")
    return {
        "schema": SCHEMA,
        **{name: cell[name] for name in ("cell", "contestant", "model", "task")},
        "kind": data["kind"],
        "scored_on": data.get("scored_on", TEST),  # an attempt begun by an earlier version
        **{name: cell[name] for name in ("seed", "axes")},
        "attempt": str(attempt.relative_to(folder)),
        "sides": {side: found for side, found in sides.items() if found is not None},
        "training": training,
        "environment": {name: environment.get(name) for name in _ENVIRONMENT},
        "seconds": {"wall": wall_s, "training": training["seconds"] if training else None},
        "usd": None if usd_per_hour is None else usd_per_hour * wall_s / 3600,
    }


def _score(result: Mapping[str, Any], side: str) -> Any:
    return result["sides"].get(side, {}).get("score")


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
