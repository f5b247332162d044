"""How a study looks on the terminal: a grid of its cells while it runs and after, and what it would take before."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from slimtune.gpus import PRICES_AS_OF
from slimtune.sweep.asked import Asked
from slimtune.sweep.local import Ended
from slimtune.sweep.outlook import Ends, Outlook
from slimtune.sweep.progress import Progress, read_progress
from slimtune.sweep.store import MATRIX, Cell
from slimtune.wording import counted, in_common

_EVERY_S = 1.0
_STYLE = {"done": "green", "running": "cyan", "failed": "red", "waiting": "dim"}
_MISFITS = 12


class Watch:
    """Shows a study while it runs: a grid that changes on a terminal, a line a cell elsewhere."""

    def __init__(self, console: Console, store: Path):
        self.console, self.store = console, store
        # a notebook's cell is a terminal that shows every frame below the one before
        animated = console.is_terminal and "COLAB_RELEASE_TAG" not in os.environ
        self._live = Live(console=console, auto_refresh=False) if animated else None
        self._drawn, self._states = 0.0, {}

    def __enter__(self) -> "Watch":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.tick(now=True)
        if self._live:
            self._live.stop()

    def tick(self, *, now: bool = False) -> None:
        """Draw anew, if it is time."""
        if (not now and time.monotonic() - self._drawn < _EVERY_S) or not (self.store / MATRIX).is_file():
            return
        self._drawn, progress = time.monotonic(), read_progress(self.store)
        if self._live:
            self._live.update(drawn(progress), refresh=True)
        else:
            self._lines(progress)

    def _lines(self, progress: Progress) -> None:
        done = progress.study.counts["done"]
        for cell in progress.study.cells:
            before = self._states.get(cell.fingerprint, "waiting")
            if cell.state != before and (cell.state != "waiting" or cell.why):
                why = f" {cell.why}" if cell.why else ""
                head = f"{done} of {len(progress.study.cells)} done. {cell.state}: {named(cell)}.{why}"
                self.console.print(Text(head), soft_wrap=True)
            self._states[cell.fingerprint] = cell.state


def named(cell: Cell | Asked) -> str:
    return f"{cell.contestant} on {cell.task}, seed {cell.seed}"


def show_left_out(console: Console, cells: int) -> None:
    """Cells that the store was asked for before, and this matrix does not ask for."""
    are = "is" if cells == 1 else "are"
    console.print(f"{counted(cells, 'cell')} of before {are} no longer asked for. Results stay in the store.")


def show_progress(console: Console, progress: Progress) -> None:
    console.print(drawn(progress))


def drawn(progress: Progress) -> Group:
    """The grid, what runs, the last errors, and a line of totals."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    alike = in_common(progress.contestants)
    down = [(name, name.removeprefix(alike)) for name in progress.contestants]
    across = [(task, task) for task in progress.tasks]
    turned = len(across) > len(down)
    if turned:
        down, across = across, down
    longest = max((len(shown) for _, shown in down), default=0)
    table.add_column(progress.study.name, style="bold", no_wrap=True, min_width=min(longest, 40))
    for _, shown in across:
        table.add_column(Text(shown))
    for row, shown in down:
        places = [progress.at(column, row) if turned else progress.at(row, column) for column, _ in across]
        table.add_row(Text(shown), *map(_place, places))
    parts = [table, Text()]
    for cell, stage in progress.at_work:
        how = f": {stage.name}, {stage.done} of {stage.total} {stage.detail}".rstrip() if stage else ""
        parts.append(Text(f"{named(cell)}{how}", style="cyan"))
    for cell in progress.errors:
        first = cell.why.splitlines()[0]
        parts.append(Text(f"{cell.state}: {named(cell)}: {first}", style="red" if cell.state == "failed" else "yellow"))
    return Group(*parts, Text(_totals(progress)))


def _place(cells: Sequence[Cell]) -> Text:
    """One place of the grid: how many of its seeds are in which state."""
    states = Counter(cell.state for cell in cells)
    if not states:
        return Text("")
    worst = next(state for state in ("failed", "running", "waiting", "done") if states[state])
    mark = {"failed": "failed", "running": "at work", "waiting": "-", "done": "done"}[worst]
    return Text(f"{mark} {states['done']}/{len(cells)}" if len(cells) > 1 else mark, style=_STYLE[worst])


def _totals(progress: Progress) -> str:
    counts = progress.study.counts
    said = [f"{count} {state}" for state, count in counts.items() if count or state == "done"]
    parts = [f"{', '.join(said)} of {counted(len(progress.study.cells), 'cell')}"]
    if progress.study.stale:
        parts.append(f"{counted(progress.study.stale, 'cell')} more in the store, no longer asked for")
    if progress.left_s and counts["waiting"] + counts["running"]:
        parts.append(f"about {_span(progress.left_s)} left on one machine")
    if progress.usd is not None:
        parts.append(f"{progress.usd:.2f} USD so far")
    return "; ".join(parts) + "."


def _span(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{max(1, round(seconds / 60))} min"


def _spans(hours: Ends) -> str:
    """Low to high: "2 to 9 min", "50 min to 1.6 h"; once where both read the same."""
    low, high = (_span(end * 3600) for end in hours)
    number, _, unit = low.partition(" ")
    return low if low == high else f"{number if high.endswith(unit) else low} to {high}"


def _usd(ends: Ends) -> str:
    return "under 0.01" if ends[1] < 0.005 else f"{ends[0]:.2f} to {ends[1]:.2f}"


def show_ended(console: Console, ended: Ended, command: str) -> None:
    """How a call of the runner ended, and what to type next."""
    if ended.exit_code == 0:
        console.print(f"[green]Done:[/green] all {counted(ended.done, 'cell')}.")
        return
    parts = [ended.stopped] if ended.stopped else []
    if ended.stopped or ended.elsewhere:
        left = counted(len(ended.left), "cell")
        parts.append(f"{left} left" + (", which another process is at." if ended.elsewhere else "."))
        parts.append("The same command goes on.")
    if ended.failed:
        parts.append(f"{counted(len(ended.failed), 'cell')} failed, as said above; the others are not held up by it.")
        parts.append(f"When what is wrong is mended: {command} --again")
    console.print(Text(" ".join(parts), style="yellow"), soft_wrap=True)


def show_emitted(console: Console, engine: str, files: Sequence[Path], cells: Sequence[Asked]) -> None:
    """What was written, and what to type; and what no machine is rented for."""
    starts = {"sky": "sky jobs launch", "slurm": "sbatch"}[engine]
    for file in files:
        console.print(Text(f"  {starts} {file}" if file.suffix != ".cells" else f"  {file}: its cells"), soft_wrap=True)
    served = dict.fromkeys(cell.model for cell in cells if cell.served is not None)
    if engine == "sky" and served:
        models = " ".join(f"--model {model}" for model in served)
        said = f"Not in these: served models, which need no card. `slimtune sweep run MATRIX {models}` where the bucket"
        console.print(Text(f"{said} is mounted, with --store, scores them.", style="yellow"), soft_wrap=True)


def show_outlooks(console: Console, cells: Sequence[Asked], found: Sequence[Outlook]) -> None:
    """Cells, and time and dollars on each card; then what does not fit, and why."""
    served = sum(cell.served is not None for cell in cells)
    trained = len(cells) - served
    more = f", and {served} of served models, which are only scored" if served else ""
    console.print(
        f"{counted(trained, 'cell')} to train and score{more}. In all: training and scoring, one cell after the other "
        "on one card; downloads and loading come on top.\n",
        soft_wrap=True,
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("card", "fit", "training", "scoring", "in all", "USD"):
        table.add_column(name, justify="left" if name == "card" else "right")
    for one in found:
        spans = (one.training_hours, one.scoring_hours, one.hours)
        times = (_spans(hours) if one.fits else "" for hours in spans)
        table.add_row(one.card.name, f"{one.fits}", *times, _usd(one.usd) if one.fits and one.usd else "")
    console.print(table)
    prices = f"Prices of {PRICES_AS_OF} unless given; none where none is known."
    console.print(Text(f"Estimated, not measured. {prices}", style="dim"))
    for why, unplanned in _unplanned(cells).items():
        tasks = ", ".join(dict.fromkeys(cell.task for cell in unplanned))
        said = f"Not planned: {counted(len(unplanned), 'cell')} on {tasks}. {why}"
        console.print(Text(said, style="yellow"), soft_wrap=True)
    for one in found:
        for misfit in one.misfits[:_MISFITS]:
            why = misfit.why.splitlines()[0]
            said = f"{one.card.name} has no room for {misfit.contestant} on {misfit.task}: {why}"
            console.print(Text(said, style="yellow"), soft_wrap=True)
        if len(one.misfits) > _MISFITS:
            console.print(Text(f"{one.card.name}: {len(one.misfits) - _MISFITS} more.", style="yellow"))


def _unplanned(cells: Sequence[Asked]) -> dict[str, list[Asked]]:
    """The cells that could not be planned, by the reason."""
    found: dict[str, list[Asked]] = {}
    for cell in cells:
        if cell.wrong:
            found.setdefault(str(cell.wrong), []).append(cell)
    return found
