"""How often a 95% interval holds the truth, by simulation: few draws in every run of the tests, many in the slow ones.

The slow ones print what they measured (pytest -s).
"""

import numpy as np
import pytest

from slimtune.stats import TaskRows, mean_ranks, rank_bootstrap, ranks, score_interval
from slimtune.stats.intervals import ALPHA

CONTESTANTS, TASKS, ROWS = 15, 9, 300
SLOW = pytest.mark.slow


def rng(seed=0):
    return np.random.default_rng(seed)


def covered_by_wilson(share, n, times):
    draw = rng(round(1000 * share) + n)
    rights, own = draw.binomial(n, share, size=times), [str(index) for index in range(n)]
    counted, often = np.unique(rights, return_counts=True)  # equal counts have equal intervals
    intervals = [score_interval([1.0] * right + [0.0] * (n - right), own, rng=draw) for right in counted]
    held = [found.low <= share <= found.high for found in intervals]
    return float(np.average(held, weights=often))


def covered_by_bootstrap(a, b, groups, turns, times):
    """Conversations of right/wrong turns, each with its own chance from Beta(a, b); where there is one turn, graded."""
    draw, names, hits = rng(groups + turns), [str(at // turns) for at in range(groups * turns)], 0
    for _ in range(times):
        skill = draw.beta(a, b, size=(groups, 1))
        rows = skill if turns == 1 else (draw.random((groups, turns)) < skill).astype(float)
        found = score_interval(rows.ravel(), names, rng=draw)
        hits += found.low <= a / (a + b) <= found.high
    return hits / times


def shares_right(draw, tasks, *, step=0.09, spread=0.15):
    """Contestants of evenly spaced skill on tasks of different hardness, each with its strong and its weak ones: the
    true chances, shape (contestants, tasks). The leader's mean rank comes out near the published 2.33."""
    skill = 1 + step * np.arange(CONTESTANTS)[::-1, None]
    logits = skill + draw.normal(0, 0.8, size=(1, tasks)) + draw.normal(0, spread, size=(CONTESTANTS, tasks))
    return 1 / (1 + np.exp(-logits))


def true_mean_ranks():
    draw = rng(1)
    return ranks((draw.binomial(ROWS, shares_right(draw, 20_000)) / ROWS).T).mean(axis=0)


def covered_by_rank_intervals(times):
    """Of the leader's mean rank and of the middle one's: by t, and by 1.96 s / sqrt(n)."""
    truth, draw, hits = true_mean_ranks(), rng(2), np.zeros((2, 2))
    for _ in range(times):
        scores = draw.binomial(ROWS, shares_right(draw, TASKS)) / ROWS
        for at, published in enumerate((False, True)):
            rows = mean_ranks(scores, published=published)
            for which, place in enumerate((0, CONTESTANTS // 2)):
                row = rows[place]
                hits[at, which] += row.half is not None and abs(row.mean - truth[place]) <= row.half
    return hits / times


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_wilson_covers_19_times_in_20(share):
    assert 0.93 <= covered_by_wilson(share, 200, 4000) <= 0.97


@SLOW
def test_wilson_covers_19_times_in_20_everywhere():
    found = {
        (n, share / 10): covered_by_wilson(share / 10, n, 20_000) for n in (200, 300, 1000) for share in range(1, 10)
    }
    print(f"\nWilson, n 200 to 1,000, shares 0.1 to 0.9: {min(found.values()):.3f} to {max(found.values()):.3f}")
    assert min(found.values()) >= 0.93 and max(found.values()) <= 0.97


def test_the_bootstrap_over_50_groups_covers_19_times_in_20():
    # 300 times: two standard errors are 2.5 points
    assert 0.915 <= covered_by_bootstrap(5, 5, 50, 4, 300) <= 0.98


@SLOW
@pytest.mark.parametrize(("a", "b"), [(0.7, 0.3), (5, 5), (8, 2), (9, 1)])
def test_the_bootstrap_over_50_groups_and_more_covers_19_times_in_20(a, b, monkeypatch):
    monkeypatch.setattr("slimtune.stats.intervals.DRAWS", 2_000)  # 10,000 cover no more often, at five times the cost
    sizes = [(50, 1), (50, 8), (100, 1), (100, 8)]
    found = {size: round(covered_by_bootstrap(a, b, *size, 2000), 3) for size in sizes}
    print(f"\nBootstrap, Beta({a}, {b}): {found} by (groups, rows of each)")
    assert min(found.values()) >= 0.93 and max(found.values()) <= 0.97


def test_the_t_interval_of_a_rank_covers_more_often_than_196_standard_errors():
    by_t, by_196 = covered_by_rank_intervals(300)
    assert (by_t > by_196).all() and (by_t > 0.88).all()


@SLOW
def test_how_often_the_rank_intervals_cover():
    by_t, by_196 = covered_by_rank_intervals(4000)
    print(f"\nMean ranks of the leader, the middle: t {by_t.round(3)}, 1.96 {by_196.round(3)}; nominal {1 - ALPHA}")
    assert 0.89 <= by_t[0] <= 0.94 and 0.85 <= by_196[0] <= 0.89


@SLOW
def test_the_range_of_ranks_holds_the_true_place():
    true_place, draw, held = ranks(-true_mean_ranks()), rng(3), []
    groups = [str(at) for at in range(ROWS)]
    for _ in range(200):
        chances = shares_right(draw, TASKS)
        rows = (draw.random((TASKS, CONTESTANTS, ROWS)) < chances.T[:, :, None]).astype(float)
        tasks = [TaskRows(str(at), scores, groups) for at, scores in enumerate(rows)]
        found = rank_bootstrap(tasks, rng=draw, draws=400)
        held.append((np.array(found.rank_low) <= true_place) & (true_place <= np.array(found.rank_high)))
    share = np.mean(held, axis=0)
    print(f"\nRange of ranks: {share.mean():.3f} over contestants, leader {share[0]:.3f}, least {share.min():.3f}")
    assert share.mean() >= 0.95  # wide: a drawn task brings the noise of its rows, which are then drawn again
