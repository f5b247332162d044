"""A study on this machine: one worker process a model, one cell after the other, whatever happens to them.

This process never loads a model, so what ends a worker (a kill, a lack of memory, a bug) does not end the study. What
is done stands in the store, so after any end of this process the same command goes on.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slimtune.errors import CannotWrite, Diverged, Interrupted, ServiceAway, SlimtuneError, UserError
from slimtune.files import writing
from slimtune.runs import holder
from slimtune.sweep.asked import Asked
from slimtune.sweep.lease import WATCH_S, Lease, spent_usd
from slimtune.sweep.process import Reply, Worker
from slimtune.sweep.store import (
    FAILED,
    KILLED,
    MATRIX,
    read_failure,
    read_result,
    write_cell,
    write_failure,
    write_matrix,
)
from slimtune.sweep.worker import BUSY

_AWAY_TRIES = 3  # of a service, in one call of the command
_WORST = (SlimtuneError.exit_code, Diverged.exit_code, UserError.exit_code, ServiceAway.exit_code)
_MEANS = {KILLED: UserError.exit_code}  # killed for good: it needs more memory, or fewer others on the machine


@dataclass(frozen=True)
class Limits:
    """When to stop: after so many hours of this call, at so many dollars of the whole study. None: no limit."""

    hours: float | None = None
    usd: float | None = None
    usd_per_hour: float | None = None

    def __post_init__(self) -> None:
        if self.usd is not None and self.usd_per_hour is None:
            raise UserError("--usd needs a price, and none is known of this machine: give --usd-per-hour.")


@dataclass
class Ended:
    """How a call ended: `exit_code` as the command line has it, and why, in a sentence."""

    done: int = 0
    left: list[Asked] = field(default_factory=list)
    failed: dict[str, Reply] = field(default_factory=dict)
    stopped: str = ""
    elsewhere: int = 0

    @property
    def exit_code(self) -> int:
        if self.stopped:
            return Interrupted.exit_code
        codes = {_MEANS.get(reply.exit_code, reply.exit_code) for reply in self.failed.values()}
        worst = next((code for code in _WORST if code in codes), max(codes, default=0))
        return worst or (Interrupted.exit_code if self.elsewhere else 0)

    def counts(self, store: Path, cell: Asked) -> bool:
        """Count a cell that is done or has failed for good, by its folder; whether it is one."""
        folder = store / "cells" / cell.fingerprint
        failure = read_failure(folder)
        if read_result(folder) is not None:
            self.done += 1
        elif failure is not None and failure.final:
            self.failed[cell.fingerprint] = Reply(failure.exit_code, failure.why)
        else:
            return False
        return True


def run_study(
    store: Path,
    name: str,
    cells: Sequence[Asked],
    *,
    chosen: Iterable[str] | None = None,
    command: Sequence[str],
    limits: Limits,
    should_stop: Callable[[], bool] = lambda: False,
    again: bool = False,
    on_tick: Callable[[], None] = lambda: None,
) -> Ended:
    """Do what is not done of `cells`; of those whose fingerprints are `chosen`, where that is given.

    `command` starts a worker; `on_tick` is called about twice a second. Cells that failed for good are left alone,
    unless `again`. Raises CannotWrite where the store is full or gone.
    """
    todo = prepare(store, name, cells, chosen=chosen, again=again)
    return _Local(store, command, limits, should_stop, on_tick).run(todo)


def prepare(
    store: Path, name: str, cells: Sequence[Asked], *, chosen: Iterable[str] | None, again: bool
) -> list[Asked]:
    """Put down what is asked for, and return the chosen cells; `again`: what failed of them is forgotten. Raises
    CannotWrite."""
    with writing(store):
        (store / "runners").mkdir(parents=True, exist_ok=True)
    folders = {cell.fingerprint: write_cell(store, cell.as_json()) for cell in cells}
    write_matrix(store, name, [_entry(cell) for cell in cells])
    wanted = folders.keys() if chosen is None else set(chosen)
    todo = [cell for cell in cells if cell.fingerprint in wanted]
    if again:
        for cell in todo:
            (folders[cell.fingerprint] / FAILED).unlink(missing_ok=True)
    return todo


def _entry(cell: Asked) -> dict[str, object]:
    named = ("contestant", "task", "seed")
    return {"cell": cell.fingerprint, **{name: getattr(cell, name) for name in named}, "axes": dict(cell.axes)}


class _Local:
    """One call of the runner."""

    def __init__(
        self,
        store: Path,
        command: Sequence[str],
        limits: Limits,
        should_stop: Callable[[], bool],
        on_tick: Callable[[], None],
    ):
        self.store, self.command, self.limits, self.should_stop = store, command, limits, should_stop
        self.on_tick = on_tick
        self.lease = Lease(store, usd_per_hour=limits.usd_per_hour)
        self.log = self.lease.path.with_suffix(".log")
        self.worker: Worker | None = None
        self.ended = Ended()
        self.away: dict[str, int] = {}
        self.taken: set[str] = set()  # what another process was at when it was last looked at

    def run(self, cells: Sequence[Asked]) -> Ended:
        try:
            self._rounds(list(cells))
        finally:
            self._let_go()
            self.lease.end()
        return self.ended

    def _rounds(self, waiting: list[Asked]) -> None:
        """Over what is left until nothing more can be done here. What another process is at is looked at again."""
        since = time.monotonic()
        waiting = [cell for cell in waiting if not self._stands(cell)]
        while waiting and not self._stopped():
            before = len(waiting)
            self.taken.clear()
            waiting = [cell for cell in self._by_model(waiting) if not self._settled(cell)]
            if len(waiting) < before:
                since = time.monotonic()
            elif len(self.taken) == len(waiting) and time.monotonic() - since > WATCH_S:
                break
            elif not self._stopped():
                time.sleep(0.5)
                self._tick()
        if not waiting:
            self.ended.stopped = ""  # a limit that nothing is left for stops nothing
        self.ended.left = waiting
        self.ended.elsewhere = len(waiting) if not self.ended.stopped else 0

    def _by_model(self, cells: Sequence[Asked]) -> Iterable[Asked]:
        """Model by model, each with a worker of its own."""
        model = None
        for cell in cells:
            if cell.model != model:
                self._let_go()
            model = cell.model
            yield cell

    def _stands(self, cell: Asked) -> bool:
        """Whether a cell is done or has failed for good, and count it so."""
        if not (self.store / MATRIX).is_file():
            raise CannotWrite(
                f"{self.store} is gone. Bring it back and run the same command: what was done stands in it."
            )
        return self.ended.counts(self.store, cell)

    def _settled(self, cell: Asked) -> bool:
        """Do one cell, unless it is done; whether it needs no more of this call."""
        if self._stands(cell):
            return True
        if self._stopped():
            return False
        folder = self.store / "cells" / cell.fingerprint
        attempt = self._attempt(folder)
        if attempt is None:
            self.taken.add(cell.fingerprint)
            return False
        reply = Reply(ServiceAway.exit_code, cell.wrong) if cell.wrong else self._asked(folder, attempt)
        return self._took(cell, folder, attempt, reply)

    def _took(self, cell: Asked, folder: Path, attempt: str, reply: Reply) -> bool:
        if reply.exit_code == 0:
            self.ended.done += 1
            return True
        if reply.exit_code == BUSY:
            self.taken.add(cell.fingerprint)
            return False
        if reply.exit_code == CannotWrite.exit_code:
            raise CannotWrite(reply.why)
        failure = write_failure(folder, exit_code=reply.exit_code, why=reply.why, attempt=f"attempts/{attempt}")
        if reply.exit_code == Interrupted.exit_code:
            self._stop(reply.why)
            return False
        if reply.exit_code not in (UserError.exit_code, ServiceAway.exit_code):
            self._let_go()  # what it was at may have left it in a bad state
        if reply.exit_code == ServiceAway.exit_code:
            self.away[cell.fingerprint] = self.away.get(cell.fingerprint, 0) + 1
        if failure.final or self.away.get(cell.fingerprint, 0) >= _AWAY_TRIES:
            self.ended.failed[cell.fingerprint] = reply
            return True
        return self._settled(cell) if reply.exit_code == KILLED else False

    def _asked(self, folder: Path, attempt: str) -> Reply:
        if self.worker is None:
            self.worker = Worker(self.command, self.log)
        request = {"folder": str(folder), "attempt": attempt, "usd_per_hour": self.limits.usd_per_hour}
        return self.worker.ask(request, self._tick)

    def _attempt(self, folder: Path) -> str | None:
        """The attempt to go on with: ours, or one whose machine is gone, which becomes ours; else a new one. None where
        a process that lives is at the cell."""
        host, attempts = self.lease.host, folder / "attempts"
        names = sorted(path.name for path in attempts.glob("*-*") if path.is_dir())
        if any(holder(attempts / name) for name in names):
            return None
        own = [name for name in names if name.rpartition("-")[0] == host]
        if own:
            return own[-1]
        for name in names:
            if not self.lease.others.gone(name.rpartition("-")[0]):
                return None
        new = f"{host}-1"
        if names:
            try:
                with writing(attempts):
                    (attempts / names[-1]).rename(attempts / new)
            except FileNotFoundError:  # another runner that waited for the same machine was first
                return None
        return new

    def _tick(self) -> bool:
        self.lease.beat()
        self.on_tick()
        return self._stopped()

    def _stopped(self) -> bool:
        """Whether to begin nothing more, and to stop what runs at its next whole step."""
        limits = self.limits
        if self.should_stop():
            self._stop("It was asked to stop.")
        elif limits.hours is not None and self.lease.seconds > limits.hours * 3600:
            self._stop(f"The {limits.hours:g} hours are over.")
        elif limits.usd is not None and (spent_usd(self.store, own=self.lease) or 0) >= limits.usd:
            self._stop(f"The {limits.usd:g} dollars are spent.")
        return bool(self.ended.stopped)

    def _stop(self, why: str) -> None:
        self.ended.stopped = self.ended.stopped or why

    def _let_go(self) -> None:
        if self.worker is not None:
            self.worker.close()
            self.worker = None
