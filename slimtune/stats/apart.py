"""Which contestants are apart over tasks: Friedman's test, the critical difference, and Holm for several comparisons.

Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006). With few tasks little can be
told apart: 15 contestants on 9 tasks have to differ by 7.15 mean ranks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slimtune.stats.intervals import ALPHA
from slimtune.stats.ranks import DIGITS


@dataclass(frozen=True)
class Friedman:
    """Could all contestants be alike? The statistic, corrected for ties, and its p value from chi squared."""

    statistic: float
    p: float
    contestants: int
    tasks: int


@dataclass(frozen=True)
class CriticalDifference:
    """How far apart two mean ranks have to be. `groups`: the bars of the diagram, each the places (in the order given)
    of contestants that are not apart, best first; who stands in no group is apart from everybody."""

    value: float
    groups: tuple[tuple[int, ...], ...]
    tasks: int


def friedman(scores: np.ndarray) -> Friedman | None:
    """Of scores of shape (contestants, tasks), NaN refused. None for fewer than three contestants or two tasks."""
    from scipy.stats import friedmanchisquare

    if np.isnan(scores).any():
        raise ValueError("Friedman's test needs every cell: take the complete block.")
    contestants, tasks = scores.shape
    if contestants < 3 or tasks < 2:
        return None
    rounded = scores.round(DIGITS)
    if (rounded == rounded[0]).all():
        return Friedman(0.0, 1.0, contestants, tasks)
    found = friedmanchisquare(*rounded)
    return Friedman(float(found.statistic), float(found.pvalue), contestants, tasks)


def critical_difference(means: Sequence[float], tasks: int) -> CriticalDifference | None:
    """Nemenyi's critical difference at 5% for mean ranks over so many tasks. None for one contestant.

    q sqrt(k (k + 1) / (6 n)), with q the studentised range of k over infinitely many degrees, divided by sqrt(2).
    """
    from scipy.stats import studentized_range

    count = len(means)
    if tasks < 1 or np.isnan(means).any():
        raise ValueError(f"Need mean ranks over at least one task, not {list(means)} over {tasks}.")
    if count < 2:
        return None
    value = float(studentized_range.ppf(1 - ALPHA, count, np.inf)) / math.sqrt(2)
    value *= math.sqrt(count * (count + 1) / (6 * tasks))
    return CriticalDifference(value, _not_apart(means, value), tasks)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """The p values of several planned comparisons, raised so that 5% is the chance of one false find among them all.

    Holm, Scandinavian Journal of Statistics 6 (1979). Planned: chosen before the scores were seen. In the order given.
    """
    values = np.asarray(p_values, dtype=float)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p values lie in [0, 1], not {list(p_values)}.")
    order = np.argsort(values, kind="stable")
    raised = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    found = np.empty(len(values))
    found[order] = raised
    return tuple(found.tolist())


def _not_apart(means: Sequence[float], difference: float) -> tuple[tuple[int, ...], ...]:
    """The longest runs, in the order of mean ranks, whose ends are no further apart than that; none of one, and none
    within another."""
    order = np.argsort(means, kind="stable").tolist()
    groups, reached = [], 0
    for start, first in enumerate(order):
        end = start + 1
        while end < len(order) and means[order[end]] - means[first] <= difference + 1e-9:
            end += 1
        if end - start > 1 and end > reached:
            groups.append(tuple(order[start:end]))
            reached = end
    return tuple(groups)
