"""The cells of a study as arrays: each contestant's answers to each task, its seeds taken together row by row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slimtune.errors import UserError
from slimtune.report.board import Measured
from slimtune.report.text import clean
from slimtune.stats import Interval, TaskRows, score_interval
from slimtune.sweep.store import SIDES, Cell, SideRows, Study, side_rows
from slimtune.tasks.task import TEST
from slimtune.wording import listed, scored_rows

SEED = 20261129  # of all resampling of a study: the same store gives the same figures


@dataclass(frozen=True)
class Scored:
    """Rows that were answered: id -> the mean of its scores over the seeds that judged it. `seeds`: the score of
    each."""

    rows: Mapping[str, float]
    groups: Mapping[str, str]
    seeds: tuple[float, ...]

    @property
    def value(self) -> float:
        return float(np.mean(list(self.rows.values())))


@dataclass(frozen=True)
class Answers(Scored):
    """One side of one contestant on one task. `label`: what answered, in its own words."""

    measured: Measured
    label: str


@dataclass(frozen=True)
class Entry:
    """A contestant on a task: its cells, one a seed, and what those that are done answered, by side."""

    contestant: str
    task: str
    cells: tuple[Cell, ...]
    sides: Mapping[str, Answers]

    @property
    def done(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.state == "done"]


@dataclass(frozen=True)
class Grid:
    """All of a study. `served` are contestants that nobody trained; `scored_on` is what all its scores are of."""

    contestants: tuple[str, ...]
    tasks: tuple[str, ...]
    entries: Mapping[tuple[str, str], Entry]
    served: frozenset[str]
    scored_on: str = TEST

    @property
    def trained(self) -> list[str]:
        return [name for name in self.contestants if name not in self.served]

    def scores(self, side: str, contestants: Sequence[str], tasks: Sequence[str]) -> np.ndarray:
        """Shape (contestants, tasks); NaN where there is no such score."""
        found = [[self.answers(one, task, side) for task in tasks] for one in contestants]
        values = [[np.nan if cell is None else cell.value for cell in row] for row in found]
        return np.array(values, dtype=float).reshape(len(contestants), len(tasks))

    def answers(self, contestant: str, task: str, side: str) -> Answers | None:
        entry = self.entries.get((contestant, task))
        return entry.sides.get(side) if entry else None

    def task_rows(self, task: str, contestants: Sequence[str], side: str, less: str | None = None) -> TaskRows:
        """The rows of a task as every contestant answered them; minus those of the side `less`, where it is given."""
        columns = [_minus(self.entries[one, task].sides, side, less) for one in contestants]
        groups = {key: group for one in contestants for key, group in self.answers(one, task, side).groups.items()}
        scores = np.array([[column.get(key, np.nan) for key in groups] for column in columns])
        return TaskRows(task, scores, list(groups.values()))


def gather(study: Study) -> Grid:
    """Read every answer of a study. Texts are made harmless here. Raises what the store's reader raises, and UserError
    where scores on test rows and on validation rows lie in one."""
    scored_on = {cell.result.get("scored_on", TEST) for cell in study.cells if cell.result} or {TEST}
    if len(scored_on) > 1:
        raise UserError(f"{study.store} holds {listed(sorted(map(scored_rows, scored_on)))}: scores on them never mix.")
    kept: dict[tuple[str, str], list[Cell]] = {}
    for cell in study.cells:
        kept.setdefault((clean(cell.contestant), clean(cell.task)), []).append(cell)
    entries = {key: _entry(key, sorted(cells, key=lambda cell: cell.seed)) for key, cells in kept.items()}
    contestants, tasks = (tuple(dict.fromkeys(key[at] for key in entries)) for at in (0, 1))
    served = {one for one in contestants if _is_served([entry for key, entry in entries.items() if key[0] == one])}
    return Grid(contestants, tasks, entries, frozenset(served), scored_on.pop())


def paired(a: Scored, b: Scored) -> tuple[list[float], list[float], list[str]]:
    """The rows that both have a score for, in the order of their ids: a's scores, b's, and their groups."""
    both = sorted(a.rows.keys() & b.rows.keys())
    return [a.rows[key] for key in both], [b.rows[key] for key in both], [a.groups[key] for key in both]


def _entry(key: tuple[str, str], cells: Sequence[Cell]) -> Entry:
    found = {side: _answers(cells, side) for side in SIDES}
    return Entry(*key, tuple(cells), {side: answers for side, answers in found.items() if answers})


def _is_served(entries: Sequence[Entry]) -> bool:
    """A served model's name says so before its first answer is there."""
    return any("served" in entry.sides or entry.cells[0].model.startswith("openai:") for entry in entries)


def _answers(cells: Sequence[Cell], side: str) -> Answers | None:
    done = [cell for cell in cells if cell.state == "done" and side in cell.result["sides"]]
    read = [(cell.result["sides"][side], rows) for cell in done if (rows := side_rows(cell, side))]
    kept: dict[str, list[float]] = {}
    groups: dict[str, str] = {}
    for _, rows in read:
        _add(rows, kept, groups)
    if not kept:
        return None
    rows = {key: float(np.mean(values)) for key, values in kept.items()}
    facts = [one for one, _ in read]
    measured = _measured(facts, rows, groups)
    seeds = tuple(float(one["score"]["value"]) for one in facts)
    return Answers(rows, {key: groups[key] for key in rows}, seeds, measured, clean(str(facts[0].get("label") or side)))


def _add(rows: SideRows, kept: dict[str, list[float]], groups: dict[str, str]) -> None:
    for key, group, value in zip(rows.ids, rows.groups, rows.values, strict=True):
        groups.setdefault(key, key if group is None else group)
        if value is not None:
            kept.setdefault(key, []).append(value)


def _measured(facts: Sequence[Mapping], rows: Mapping[str, float], groups: Mapping[str, str]) -> Measured:
    scores = [float(one["score"]["value"]) for one in facts]
    unscored = sum(int(one.get("unscored") or 0) for one in facts)
    if len(facts) == 1:
        return Measured(Interval.from_json(facts[0]["score"]), 1, None, unscored)
    rng = np.random.default_rng(SEED)
    interval = score_interval(list(rows.values()), [groups[key] for key in rows], rng=rng)
    return Measured(interval, len(facts), float(np.std(scores, ddof=1)), unscored)


def _minus(sides: Mapping[str, Answers], side: str, less: str | None) -> dict[str, float]:
    own = sides[side].rows
    if less is None:
        return dict(own)
    other = sides[less].rows
    return {key: value - other[key] for key, value in own.items() if key in other}
