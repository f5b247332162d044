"""Mean ranks by hand, missing cells named, and an order that stays when everything is shuffled."""

import math

import numpy as np
import pytest

from slimtune.stats import TaskRows, complete_block, mean_ranks, rank_bootstrap


def rng(seed=0):
    return np.random.default_rng(seed)


def rows(name, skills, n=60, seed=0, turns=1):
    """Right or wrong with these chances, rows in conversations of so many turns."""
    scores = (rng(seed).random((len(skills), n)) < np.asarray(skills)[:, None]).astype(float)
    return TaskRows(name, scores, [f"c{index // turns}" for index in range(n)])


def test_mean_ranks_by_hand():
    first, second, third = mean_ranks(np.array([[0.9, 0.8, 0.7], [0.5, 0.8, 0.9], [0.1, 0.2, 0.3]]))
    assert (first.ranks, second.ranks, third.ranks) == ((1, 1.5, 2), (2, 1.5, 1), (3, 3, 3))
    assert (first.mean, first.n, first.contestants) == (1.5, 3, 3)
    assert first.half == pytest.approx(4.302653 * 0.5 / math.sqrt(3), rel=1e-6)  # t(2), s = 0.5
    assert (first.low, first.high) == (1.0, pytest.approx(1.5 + first.half))


def test_who_is_left_out_is_named_with_the_reason():
    scores = np.array([[0.9, 0.8, 0.7], [0.5, math.nan, 0.9], [0.1, 0.2, 0.3]])
    block = complete_block(scores, ["a", "b", "c"], ["trec", "docs", "sql"])
    assert (block.contestants, block.tasks) == ((0, 2), (0, 1, 2))
    assert [str(left) for left in block.left_out] == ["b (no score on docs)"]
    assert [row.mean for row in mean_ranks(block.of(scores))] == [1, 2]


def test_the_best_of_many_rows_is_found_and_ties_are_shared():
    tasks = [rows(f"t{at}", [0.9, 0.5, 0.5], n=400, seed=at) for at in range(5)]
    found = rank_bootstrap(tasks, rng=rng())
    assert found.p_best[0] == 1.0 and found.p_top3 == (1.0, 1.0, 1.0)
    assert (found.rank_low[0], found.rank_high[0]) == (1, 1)
