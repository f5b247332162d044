"""Who works on a study: each process counts up in a file of its own, and one that stops counting is gone.

A machine's lock does not reach over every network disk, so an attempt of another machine is taken over only when that
machine ended, or did not count on for LEASE_S of our own, monotonic time. Clocks are not compared.

A card that several processes share costs its price once: each pays its part of every stretch between two beats.
"""

import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from slimtune.files import read_json, write_json
from slimtune.gpus import first_visible

LEASE_S = 90.0
WATCH_S = LEASE_S + 15.0  # how long to look on: a little longer than it takes to see that a machine is gone
_BEAT_S = 10.0


class Lease:
    """This process's line in the list of those who work here, and what it has spent so far."""

    def __init__(self, store: Path, *, usd_per_hour: float | None):
        self.host, self.card, self.price = socket.gethostname(), first_visible(), usd_per_hour
        self.path = store / "runners" / f"{self.host}-{os.getpid()}.json"
        self.others = Others(store)
        self._began = self._written = time.monotonic()
        before = read_json(self.path) if self.path.is_file() else {}  # another process had this number once
        self._earlier_s, self._beats, self._usd = (before.get(name) or 0 for name in ("seconds", "beats", "usd"))
        self._write(ended=False)

    def beat(self) -> None:
        """Count on, if it is time."""
        if time.monotonic() - self._written > _BEAT_S:
            self._write(ended=False)

    def end(self) -> None:
        self._write(ended=True)

    @property
    def seconds(self) -> float:
        """How long this process has worked here."""
        return time.monotonic() - self._began

    @property
    def usd(self) -> float | None:
        """Dollars so far; None where the card's price is not known."""
        if self.price is None:
            return None
        return self._usd + (time.monotonic() - self._written) / 3600 * self.price / self._sharing

    def _write(self, *, ended: bool) -> None:
        self._sharing = self.others.sharing(self)
        usd, seconds = self.usd, self._earlier_s + self.seconds
        self._written, self._beats, self._usd = time.monotonic(), self._beats + 1, usd or 0.0
        facts = {"host": self.host, "card": self.card, "pid": os.getpid(), "beats": self._beats, "seconds": seconds}
        write_json(self.path, facts | {"usd": usd, "ended": ended})


class Others:
    """The other machines of a study, watched since this was made."""

    def __init__(self, store: Path):
        self.store = store
        self._seen: dict[Path, tuple[int, float]] = {}

    def gone(self, host: str) -> bool:
        """Whether no process of that machine works here any more, as far as we have watched."""
        return all(self._ended(path, found) for path, found in self._of(host))

    def sharing(self, own: Lease) -> int:
        """How many processes, `own` among them, work here on its card now."""
        beside = [(path, found) for path, found in self._of(own.host) if path != own.path]
        return 1 + sum(found.get("card") == own.card and not self._ended(path, found) for path, found in beside)

    def _of(self, host: str) -> Iterator[tuple[Path, Any]]:
        """The files of a machine's processes; not of one whose name begins with its name."""
        files = ((path, read_json(path)) for path in (self.store / "runners").glob(f"{host}-*.json"))
        return ((path, found) for path, found in files if found["host"] == host)

    def _ended(self, path: Path, found: Mapping[str, Any]) -> bool:
        now = time.monotonic()
        beats, since = self._seen.get(path, (None, now))
        if found["beats"] != beats:
            self._seen[path] = (found["beats"], since := now)
        here = found["host"] == socket.gethostname()
        return found["ended"] or now - since > LEASE_S or (here and not psutil.pid_exists(found["pid"]))


def spent_usd(store: Path, *, own: Lease | None = None) -> float | None:
    """Dollars that all processes of a study have cost so far, with what `own` has to this moment; None where none of
    them knew its price."""
    files = (path for path in (store / "runners").glob("*.json") if own is None or path != own.path)
    found = [*(read_json(path)["usd"] for path in files), own.usd if own else None]
    known = [usd for usd in found if usd is not None]
    return sum(known) if known else None
