"""What a leaderboard says, as values: who was measured on what, how they rank and how sure that is, and what it took.

The study fills it in (slimtune/sweep/leaderboard.py); board_plots draws it, board_page writes it, a terminal shows it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slimtune.stats import Comparison, Interval
from slimtune.wording import counted, in_common


@dataclass(frozen=True)
class Measured:
    """One side of a contestant on a task, its seeds taken together: a row's score is the mean over the seeds.
    `seed_sd` is the standard deviation of the seeds' scores; None with one seed."""

    score: Interval
    seeds: int
    seed_sd: float | None
    unscored: int


@dataclass(frozen=True)
class Link:
    """Where to read on: a path from the leaderboard's own folder, for a browser."""

    label: str
    href: str

    @property
    def is_report(self) -> bool:
        return self.href.endswith("report.html")


@dataclass(frozen=True)
class Square:
    """One contestant on one task. `state`: done, partly (some seeds), failed, running, waiting, or not asked for. `why`
    is of those that are not done. `shade` is where the tuned score stands between the task's lowest and highest, 0 to
    10."""

    contestant: str
    task: str
    state: str
    why: str
    sides: Mapping[str, Measured]
    links: tuple[Link, ...]
    shade: int = 0
    ranked: bool = True

    @property
    def shown(self) -> Measured | None:
        return self.sides.get("tuned") or self.sides.get("served")


@dataclass(frozen=True)
class Standing:
    """One contestant's place in a table. `interval`: of the mean rank over tasks. Chances and the rank range are of the
    two-level bootstrap; `mean` is the mean over tasks of what was ranked: a score, or a gain."""

    contestant: str
    mean_rank: float
    interval: tuple[float, float] | None
    tasks: int
    p_best: float | None
    p_top3: float | None
    rank_range: tuple[int, int] | None
    mean: float
    error_removed: float | None = None  # of the gains: the mean share of the remaining error
    published: tuple[float, float] | None = None  # the interval by the published formula, 1.96 s / sqrt(n)


@dataclass(frozen=True)
class RankTable:
    """Contestants by their mean rank, the best first. `groups` are those that the critical difference cannot tell
    apart, by name; `friedman_p` None where there is too little to test."""

    name: str  # "tuned" | "gain" | "base"
    title: str
    about: str
    standings: tuple[Standing, ...]
    critical_difference: float | None
    friedman_p: float | None
    groups: tuple[tuple[str, ...], ...]
    footnotes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CurvePoint:
    """A contestant at a value of an axis: its mean score, and the 95% interval that its test rows leave."""

    x: float
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """Scores along an axis, `key` of a recipe; a line for each lot of contestants that differ in nothing else."""

    key: str
    lines: Mapping[str, tuple[CurvePoint, ...]]


@dataclass(frozen=True)
class Against:
    """A tuned student minus a teacher on one task, paired by row. `p` is adjusted after Holm over all of them."""

    student: str
    teacher: str
    task: str
    comparison: Comparison
    p: float
    outcome: str  # better | worse | not clear


@dataclass(frozen=True)
class Spent:
    """What a contestant takes, over the tasks that are ranked; None where it was not measured. `fronts` names the
    measures in which no other scores as high for less."""

    number: int
    contestant: str
    score: float
    usd: float | None
    hours: float | None
    peak_gib: float | None
    rows_per_s: float | None
    ran_on: str
    fronts: tuple[str, ...]


@dataclass(frozen=True)
class Noise:
    """How much a score moves from seed to seed: a standard deviation pooled over the squares with several seeds, with
    its interval."""

    sd: float
    low: float
    high: float
    squares: int
    runs: int


@dataclass(frozen=True)
class CellLine:
    """One cell with all its figures, in the order of the CSV."""

    figures: Mapping[str, Any]
    links: tuple[Link, ...]


@dataclass(frozen=True)
class PublishedTable:
    """One printed table, as cells of text: what others printed, and what stands in this study beside it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    source: str
    caveats: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """A whole leaderboard. All texts are free of control characters; nothing in it is escaped yet."""

    name: str
    headline: str
    counts: Mapping[str, int]  # by state of the cells; "stale" are kept and not ranked
    contestants: tuple[str, ...]
    tasks: tuple[str, ...]
    squares: Mapping[tuple[str, str], Square]
    tables: tuple[RankTable, ...]
    against: tuple[Against, ...]
    against_summary: tuple[str, ...]
    spent: tuple[Spent, ...]
    noise: Noise | None
    cells: tuple[CellLine, ...]
    remarks: tuple[str, ...]
    cost_remarks: tuple[str, ...] = ()
    published: tuple[PublishedTable, ...] = ()
    curves: tuple[Curve, ...] = ()
    scored_rows: str = "test rows"  # that all scores are of
    trouble: tuple[Square, ...] = field(default=())  # what is missing, failed or not whole, with its reason

    @property
    def who(self) -> str:
        """Who is ranked: how many, and of what they all are."""
        alike = in_common(self.contestants)
        return counted(len(self.contestants), "contestant") + (f", all of {alike.removesuffix(', ')}" if alike else "")

    def short(self, name: str) -> str:
        """A contestant's name without what is common to all."""
        return name.removeprefix(in_common(self.contestants))
