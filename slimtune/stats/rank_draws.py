"""How sure an order is: tasks drawn anew, rows within each drawn anew, contestants ranked anew, many times.

Two levels, because both are samples: other tasks of the kind might have been chosen, and other rows of each task. Rows
of one group (conversation, document) are drawn together. It errs on the wide side: the scores of a drawn task hold the
noise of its rows, which are then drawn again. What it leaves out is the noise of seeds: gains.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slimtune.stats.intervals import ALPHA, CELLS
from slimtune.stats.ranks import ranks

RANK_DRAWS = 2_000  # P(best) is then right to about two points


@dataclass(frozen=True)
class TaskRows:
    """One task's rows: `scores` of shape (contestants, rows), NaN where a row was not scored, and each row's group.

    Gains (tuned minus base, row by row) serve as scores too.
    """

    name: str
    scores: np.ndarray
    groups: Sequence[str]
    lower_is_better: bool = False


@dataclass(frozen=True)
class RankBootstrap:
    """For each contestant, in the order given: the share of draws in which it comes first, and among the first three
    (a tie counts by halves, thirds and so on); and the places 95% of draws keep it within."""

    p_best: tuple[float, ...]
    p_top3: tuple[float, ...]
    rank_low: tuple[int, ...]
    rank_high: tuple[int, ...]
    draws: int


def rank_bootstrap(tasks: Sequence[TaskRows], *, rng: np.random.Generator, draws: int = RANK_DRAWS) -> RankBootstrap:
    """Draws as many tasks as there are, with replacement, and in each as many groups as it has, with replacement; the
    mean rank over the drawn tasks gives the contestants' places. With one task, only its groups are drawn. Few groups
    (under ten or so) are drawn too much alike: what one such task says alone is surer than it should be.

    The same contestants stand in the same order in every task, each with at least one scored row. A contestant's score
    is the mean of its scored rows. Raises ValueError where that does not hold. The order of tasks, rows and
    contestants does not change the result.
    """
    ordered = sorted(tasks, key=lambda task: task.name)
    count = _contestants(ordered)
    drawn = rng.integers(0, len(ordered), size=(draws, len(ordered)))
    found = np.empty((draws, len(ordered), count))
    for place, task in enumerate(ordered):
        held = drawn == place
        found[held] = ranks(_resampled_scores(task, int(held.sum()), rng))
    means = found.mean(axis=1).round(9)
    better = (means[:, None, :] < means[:, :, None]).sum(axis=2)
    alike = (means[:, None, :] == means[:, :, None]).sum(axis=2)
    low = np.quantile(better + 1, ALPHA / 2, axis=0, method="lower")
    high = np.quantile(better + alike, 1 - ALPHA / 2, axis=0, method="higher")
    return RankBootstrap(
        p_best=_chance_within(1, better, alike),
        p_top3=_chance_within(3, better, alike),
        rank_low=tuple(low.astype(int).tolist()),
        rank_high=tuple(high.astype(int).tolist()),
        draws=draws,
    )


def _contestants(tasks: Sequence[TaskRows]) -> int:
    if not tasks:
        raise ValueError("No tasks: there is nothing to rank over.")
    if len({task.name for task in tasks}) < len(tasks):
        raise ValueError(f"Two tasks have the same name: {[task.name for task in tasks]}.")
    counts = {task.scores.shape[0] for task in tasks}
    if len(counts) > 1:
        raise ValueError(f"Tasks have different numbers of contestants: {sorted(counts)}.")
    for task in tasks:
        if task.scores.shape[1] != len(task.groups):
            raise ValueError(f"{task.name}: {task.scores.shape[1]} rows but {len(task.groups)} group names.")
        if (empty := np.flatnonzero(np.isnan(task.scores).all(axis=1))).size:
            raise ValueError(f"{task.name}: contestants {empty.tolist()} have no scored row. Take the complete block.")
    return counts.pop()


def _resampled_scores(task: TaskRows, times: int, rng: np.random.Generator) -> np.ndarray:
    """`times` means over groups drawn with replacement, shape (times, contestants); higher is better.

    Where none of a contestant's scored rows was drawn, its mean over all of them.
    """
    groups = np.unique(np.asarray(task.groups, dtype=str), return_inverse=True)[1]
    scored = ~np.isnan(task.scores)
    sums = _by_group(np.where(scored, task.scores, 0.0), groups)
    sizes = _by_group(scored.astype(float), groups)
    whole, count = sums.sum(axis=0) / sizes.sum(axis=0), len(sums)
    parts, step = [], max(1, CELLS // count)
    for start in range(0, times, step):
        weights = _drawn_weights(count, min(step, times - start), rng)
        tops, bottoms = weights @ sums, weights @ sizes
        parts.append(np.divide(tops, bottoms, out=np.broadcast_to(whole, tops.shape).copy(), where=bottoms > 0))
    means = np.concatenate(parts) if parts else np.empty((0, len(task.scores)))
    return -means if task.lower_is_better else means


def _by_group(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sums over the rows of each group: (contestants, rows) -> (groups, contestants)."""
    return np.stack([np.bincount(groups, own) for own in values], axis=1)


def _drawn_weights(count: int, times: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of `count` groups is drawn when `count` are drawn with replacement. Shape (times, count)."""
    chosen = rng.integers(0, count, size=(times, count)) + count * np.arange(times)[:, None]
    return np.bincount(chosen.ravel(), minlength=times * count).reshape(times, count).astype(float)


def _chance_within(places: int, better: np.ndarray, alike: np.ndarray) -> tuple[float, ...]:
    """The share of draws in which a contestant is among the first `places`, ties broken by lot."""
    return tuple(np.clip((places - better) / alike, 0, 1).mean(axis=0).tolist())
