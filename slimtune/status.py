"""What a run is doing, for whoever looks at its folder: the app, a second terminal, another machine on the same disk.

The process that runs leaves its latest progress in status.json, at most once a second, and how it ended. Whether it
still runs is not in a file, which a SIGKILL would leave behind, but in the lock that the system lets go of.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from slimtune.errors import CannotWrite, Interrupted, ServiceAway, SlimtuneError
from slimtune.files import read_json, write_json
from slimtune.runs import holder, standing

STATUS = "status.json"
_EVERY_S = 1.0
_GOES_ON = (None, 0, *(kind.exit_code for kind in (Interrupted, ServiceAway, CannotWrite)))  # with the same command

Phase = Literal["running", "finished", "stopped", "failed"]


class Listener(Protocol):
    """Hears what happens; the command line draws it, a test collects it."""

    def say(self, text: str) -> None: ...

    def progress(self, stage: str, done: int, total: int, detail: str = "") -> None: ...


class Silent:
    """A listener that nobody is behind: a run's folder has all it hears."""

    def say(self, text: str) -> None: ...

    def progress(self, stage: str, done: int, total: int, detail: str = "") -> None: ...


@dataclass
class Stage:
    """One part of the work, such as "Fine-tune". `seconds` counts from its `first` count, which is not 0 after a
    resume."""

    name: str
    done: int
    total: int
    detail: str
    first: int
    seconds: float

    @property
    def left_s(self) -> float | None:
        """Seconds it will take yet, at the pace so far; None before there is one."""
        came = self.done - self.first
        return self.seconds / came * (self.total - self.done) if came > 0 else None


@dataclass(frozen=True)
class State:
    """What a run's folder says of itself. "stopped" goes on when the same command is given again, whatever stopped it;
    "failed" needs a change first, which `error` names. `updated` is in seconds since the epoch, 0 where unknown."""

    folder: Path
    phase: Phase
    stages: tuple[Stage, ...]
    said: str
    error: str
    owner: dict[str, Any]  # pid, host, since: of the process that runs; empty where none does
    updated: float

    @property
    def name(self) -> str:
        return self.folder.name


class Telling:
    """A listener that passes on what it hears, and leaves the latest of it in the run's folder."""

    def __init__(self, folder: Path, listener: Listener):
        self._folder, self._listener = folder, listener
        self._stages: dict[str, Stage] = {}
        self._began: dict[str, float] = {}
        self._said, self._written = "", 0.0

    def say(self, text: str) -> None:
        self._listener.say(text)
        self._said = text
        self.write()

    def progress(self, stage: str, done: int, total: int, detail: str = "") -> None:
        self._listener.progress(stage, done, total, detail)
        now = time.monotonic()
        if stage not in self._stages:
            self._said = ""  # what was said before it began
        began = self._began.setdefault(stage, now)
        first = self._stages[stage].first if stage in self._stages else done
        self._stages[stage] = Stage(stage, done, total, detail, first, now - began)
        if done == total or now - self._written > _EVERY_S:
            self.write()

    def write(self, *, exit_code: int | None = None, error: str = "") -> None:
        """Put it into the folder. `exit_code` None: the work goes on."""
        self._written = time.monotonic()
        stages = [asdict(stage) for stage in self._stages.values()]
        ended = {"exit_code": exit_code, "error": error}
        write_json(
            standing(self._folder) / STATUS, {"stages": stages, "said": self._said, "updated": time.time()} | ended
        )


@contextlib.contextmanager
def telling(folder: Path, listener: Listener) -> Iterator[Telling]:
    """For as long as the block lasts, what its listener hears stands in the folder too, and afterwards how it ended."""
    told = Telling(folder, listener)
    told.write()
    try:
        yield told
    except BaseException as error:
        code = error.exit_code if isinstance(error, SlimtuneError) else SlimtuneError.exit_code
        with contextlib.suppress(CannotWrite):  # the error on its way up matters more
            told.write(exit_code=code, error=str(error) or type(error).__name__)
        raise
    told.write(exit_code=0)


def read_state(folder: Path) -> State:
    """What the run in `folder` is doing now. A folder that no run was ever in counts as stopped."""
    document, owner = _document(folder / STATUS), holder(folder)
    phase = _phase(folder, document.get("exit_code"), owner)
    said, error = (str(document.get(name) or "") for name in ("said", "error"))
    return State(folder, phase, document.get("stages", ()), said, error, owner, document.get("updated", 0.0))


def _phase(folder: Path, exit_code: Any, owner: dict[str, Any]) -> Phase:
    if owner:
        return "running"
    if (folder / "report.html").is_file() and not exit_code:  # a teacher that could not be asked leaves a report too
        return "finished"
    return "stopped" if exit_code in _GOES_ON else "failed"


def _document(path: Path) -> dict[str, Any]:
    """What stands there; empty where nothing does, or what this version does not know."""
    try:
        document = read_json(path)
        stages = tuple(Stage(**stage) for stage in document["stages"])
        if not all(isinstance(count, int) for stage in stages for count in (stage.done, stage.total, stage.first)):
            return {}
        return {**document, "stages": stages, "updated": float(document["updated"])}
    except (OSError, ValueError, TypeError, KeyError):
        return {}
