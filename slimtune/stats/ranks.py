"""Mean ranks: contestants ranked on each task by score, ranks averaged over tasks, with an interval over tasks.

    complete_block    contestants and tasks without a missing cell, and what was left out for it
    mean_ranks        the mean rank of each contestant and its interval

A rank depends on who else is ranked: five weak contestants more, and the leaders' ranks tighten. Intervals here are
over tasks, given these contestants: they hold neither the noise of the test rows (rank_draws.py) nor that of seeds
(gains.py). Every interval is a 95% interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from slimtune.stats.intervals import ALPHA

DIGITS = 9  # scores that agree to so many decimals tie: a mean of thirds comes out in more than one way


@dataclass(frozen=True)
class RankRow:
    """One contestant's ranks and their mean. `half`, half the width of the interval, is None where there is one task
    only, and where all ranks are the same: their deviation is zero then, and t says nothing. `ranks` has None for a
    task on which the contestant has no score; `n` counts the others."""

    mean: float
    half: float | None
    n: int
    contestants: int
    ranks: tuple[float | None, ...]
    method: str

    @property
    def low(self) -> float | None:
        return None if self.half is None else max(1.0, self.mean - self.half)

    @property
    def high(self) -> float | None:
        return None if self.half is None else min(float(self.contestants), self.mean + self.half)


@dataclass(frozen=True)
class LeftOut:
    """A contestant or a task that is not in the block, and where its scores are missing."""

    name: str
    kind: Literal["contestant", "task"]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} (no score {'on' if self.kind == 'contestant' else 'of'} {', '.join(self.missing)})"


@dataclass(frozen=True)
class Block:
    """Places, in the order they came in, of the contestants and tasks that have every cell; and what is missing."""

    contestants: tuple[int, ...]
    tasks: tuple[int, ...]
    left_out: tuple[LeftOut, ...]
    missing: tuple[tuple[str, str], ...]  # every (contestant, task) without a score


def complete_block(scores: np.ndarray, contestants: Sequence[str], tasks: Sequence[str]) -> Block:
    """The block that is ranked where cells are missing (NaN). `scores`: shape (contestants, tasks); names are unique.

    While a cell is missing, the contestant or task that lacks the largest share of its cells goes: the loss is smallest
    then. Of equals, contestants before tasks, and in the order of their names, so that the order given cannot matter.
    """
    if scores.shape != (len(contestants), len(tasks)):
        raise ValueError(f"Scores of shape {scores.shape} for {len(contestants)} contestants and {len(tasks)} tasks.")
    gone = np.isnan(scores)
    rows, columns, left_out = list(range(len(contestants))), list(range(len(tasks))), []
    while gone[np.ix_(rows, columns)].any():
        lacking = gone[np.ix_(rows, columns)]
        worst = min(
            *((-lacking[at].mean(), 0, contestants[row], row) for at, row in enumerate(rows)),
            *((-lacking[:, at].mean(), 1, tasks[column], column) for at, column in enumerate(columns)),
        )
        if worst[1] == 0:
            rows.remove(worst[3])
            left_out.append(LeftOut(worst[2], "contestant", tuple(tasks[at] for at in np.flatnonzero(gone[worst[3]]))))
        else:
            columns.remove(worst[3])
            names = tuple(contestants[at] for at in np.flatnonzero(gone[:, worst[3]]))
            left_out.append(LeftOut(worst[2], "task", names))
    missing = tuple((contestants[row], tasks[column]) for row, column in np.argwhere(gone))
    return Block(tuple(rows), tuple(columns), tuple(left_out), missing)


def mean_ranks(
    scores: np.ndarray,
    *,
    published: bool = False,
    lower_is_better: bool | Sequence[bool] = False,
    incomplete: bool = False,
) -> list[RankRow]:
    """Ranks of `scores`, shape (contestants, tasks), and their mean over tasks; 1 is best. In the order given.

    The interval is Student's t over tasks. `published`: 1.96 s / sqrt(n), which gives the printed tables of the
    published study to the digit and is too narrow, by a sixth for nine tasks. Ranks end at 1 and depend on each other,
    so neither is exact. `lower_is_better` may differ from task to task.

    Raises ValueError for a missing cell (NaN), unless `incomplete`: then each task is ranked over the contestants that
    have a score on it, and a mean is over a contestant's own tasks. Such means do not compare like with like.
    """
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"Need scores of shape (contestants, tasks), at least one of each, not {scores.shape}.")
    missing = np.isnan(scores)
    if missing.any() and not incomplete:
        raise ValueError(f"{missing.sum()} cells have no score: take the complete block, or ask for incomplete ranks.")
    if (empty := np.flatnonzero(missing.all(axis=1))).size:
        raise ValueError(f"Contestants {empty.tolist()} have no score on any task: leave them out.")
    found = ranks(np.where(lower_is_better, -scores, scores).T).T
    return [_row(own, len(scores), published) for own in found]


def ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks along the last axis; the highest score is 1, NaN has no rank and counts for nobody's. Shape as `scores`.

    Ties get the average of their ranks.
    """
    rounded = scores.round(DIGITS)
    better = (rounded[..., None, :] > rounded[..., :, None]).sum(axis=-1)
    alike = (rounded[..., None, :] == rounded[..., :, None]).sum(axis=-1)
    return np.where(np.isnan(rounded), np.nan, better + (alike + 1) / 2)


def _row(own: np.ndarray, contestants: int, published: bool) -> RankRow:
    from scipy.special import stdtrit

    held = own[~np.isnan(own)]
    n, deviation = len(held), float(held.std(ddof=1)) if len(held) > 1 else math.nan
    if published:
        half = 1.96 * deviation / math.sqrt(n)
    else:
        half = float(stdtrit(n - 1, 1 - ALPHA / 2)) * deviation / math.sqrt(n) if deviation > 0 else math.nan
    method = "1.96 s / sqrt(n)" if published else "t over tasks"
    each = tuple(None if math.isnan(rank) else float(rank) for rank in own)
    return RankRow(float(held.mean()), None if math.isnan(half) else half, n, contestants, each, method)
