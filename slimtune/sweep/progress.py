"""How far a study is, from its folder alone: so any machine that sees the folder can say it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from slimtune.status import Stage, read_state
from slimtune.sweep.lease import spent_usd
from slimtune.sweep.store import Cell, Study, at_work, read_study

_ERRORS = 5


@dataclass(frozen=True)
class Progress:
    """`left_s`: seconds that what is left takes on one machine at the pace so far, None before there is one. `usd`:
    dollars so far. `at_work`: what runs now, and in which stage."""

    study: Study
    left_s: float | None
    usd: float | None
    at_work: tuple[tuple[Cell, Stage | None], ...]

    @property
    def errors(self) -> list[Cell]:
        """Cells that have something to say: what failed, then what waits with a reason."""
        told = [cell for cell in self.study.cells if cell.why]
        return sorted(told, key=lambda cell: cell.state != "failed")[:_ERRORS]

    @property
    def contestants(self) -> list[str]:
        return list(dict.fromkeys(cell.contestant for cell in self.study.cells))

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(cell.task for cell in self.study.cells))

    def at(self, contestant: str, task: str) -> list[Cell]:
        """The cells of one place in the grid: its seeds."""
        return [cell for cell in self.study.cells if (cell.contestant, cell.task) == (contestant, task)]


def read_progress(store: Path) -> Progress:
    """Raises UserError where there is no study."""
    study = read_study(store)
    running = [cell for cell in study.cells if cell.state == "running"]
    return Progress(study, _left_s(study.cells), spent_usd(store), tuple((cell, _stage(cell)) for cell in running))


def _stage(cell: Cell) -> Stage | None:
    attempt = at_work(cell.folder)
    stages = read_state(attempt).stages if attempt is not None else ()
    return stages[-1] if stages else None


def _left_s(cells: Sequence[Cell]) -> float | None:
    """Each cell that is left takes what its contestant's took so far, or else what all did; one at work half of it."""
    took: dict[str, list[float]] = {}
    for cell in cells:
        if cell.result is not None:
            took.setdefault(cell.contestant, []).append(cell.result["seconds"]["wall"])
    if not took:
        return None
    overall = mean(mean(seconds) for seconds in took.values())
    share = {"waiting": 1.0, "running": 0.5}
    return sum(share.get(cell.state, 0.0) * mean(took.get(cell.contestant, [overall])) for cell in cells)
