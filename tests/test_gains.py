"""Gains and the share of the error removed rank differently, and the noise between seeds widens what it should."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from slimtune.stats import Interval, paired_difference, seed_noise, tunability, widened


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_low_start_gains_most_and_a_high_one_may_still_remove_more_of_its_error():
    found = tunability(np.array([[0.2, 0.3], [0.9, 0.8]]), np.array([[0.6, 0.6], [0.99, 0.95]]))
    assert found.gain == pytest.approx(np.array([[0.4, 0.3], [0.09, 0.15]]))
    assert found.error_removed == pytest.approx((13 / 28, 0.825))
    assert [row.mean for row in found.by_gain] == [1, 2]


def test_a_base_without_errors_has_no_share_and_its_task_is_left_out_for_everybody():
    found = tunability(np.array([[1.0, 0.5], [0.5, 0.5]]), np.array([[0.9, 0.6], [0.6, 0.9]]))
    assert found.error_removed == pytest.approx((0.2, 0.8)) and [row.n for row in found.by_gain] == [2, 2]
    assert tunability(np.ones((2, 1)), np.ones((2, 1))).error_removed is None


def test_a_loss_is_a_negative_gain():
    found = tunability(np.array([[0.97], [0.5]]), np.array([[0.96], [0.6]]))
    assert (found.gain[0, 0], found.error_removed[0]) == (pytest.approx(-0.01), pytest.approx(-1 / 3))
    assert [row.mean for row in found.by_gain] == [2, 1]


def test_tunability_refuses_missing_cells_and_other_shapes():
    with pytest.raises(ValueError, match="no score"):
        tunability(np.array([[math.nan, 0.5]]), np.array([[0.5, 0.5]]))
    with pytest.raises(ValueError, match="shape"):
        tunability(np.zeros((2, 2)), np.zeros((2, 3)))


def test_seed_noise_is_pooled_over_cells():
    found = seed_noise([[0.80, 0.82, 0.84], [0.50, 0.52], [0.9]])
    squares = 2 * 0.02**2 + 2 * 0.01**2
    assert found.sd == pytest.approx(math.sqrt(squares / 3))
    assert (found.cells, found.runs, found.degrees) == (2, 5, 3)
    low, high = (math.sqrt(squares / scipy_stats.chi2.ppf(level, 3)) for level in (0.975, 0.025))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert seed_noise([[0.9], [0.8]]) is None and seed_noise([]) is None
    with pytest.raises(ValueError, match="seed has no score"):
        seed_noise([[0.9, math.nan]])


def test_the_interval_of_seed_noise_covers_19_times_in_20():
    draw, hits = rng(1), 0
    for _ in range(1000):
        found = seed_noise(draw.normal(0.7, 0.02, size=(4, 3)))
        hits += found.low <= 0.02 <= found.high
    assert 0.93 <= hits / 1000 <= 0.97


def test_a_difference_widens_by_the_noise_of_the_trained_sides():
    difference, noise = Interval(0.05, 0.02, 0.09, 300, 300, "Bonett-Price"), seed_noise([[0.80, 0.82, 0.84]] * 4)
    extra = scipy_stats.t.ppf(0.975, 8) * 0.02 * math.sqrt(1 / 3 + 1 / 3)
    both = widened(difference, noise, seeds_a=3, seeds_b=3)
    assert both.low == pytest.approx(0.05 - math.hypot(0.03, extra))
    assert both.high == pytest.approx(0.05 + math.hypot(0.04, extra))
    one = widened(difference, noise, seeds_a=None, seeds_b=3)
    assert both.low < one.low < difference.low and difference.high < one.high < both.high
    assert both.method == "Bonett-Price, seed noise added" and both.value == 0.05
    assert widened(difference, noise, seeds_a=None, seeds_b=None).low == pytest.approx(0.02)
    assert widened(Interval(0.95, 0.9, 0.99, 9, 9, "x"), noise, seeds_a=1, seeds_b=1).high == 1.0


def test_widened_differences_of_single_seeds_cover_where_plain_ones_do_not():
    draw, plain, wide = rng(2), 0, 0
    for _ in range(2000):
        trained = draw.normal([0.7, 0.7], 0.03)  # two trainings of equal worth, one seed each
        noise = seed_noise(draw.normal(0.7, 0.03, size=(4, 3)))
        value = draw.normal(trained[1] - trained[0], 0.02)
        difference = Interval(value, value - 1.96 * 0.02, value + 1.96 * 0.02, 300, 300, "normal")
        plain += difference.low <= 0 <= difference.high
        found = widened(difference, noise, seeds_a=1, seeds_b=1)
        wide += found.low <= 0 <= found.high
    assert plain / 2000 < 0.7 and 0.94 <= wide / 2000 <= 0.98


def rows_by_seed(draw, hardness, skills):
    """Right/wrong rows of one contestant's seeds, each training a little luckier or less: shape (seeds, rows)."""
    chances = 1 / (1 + np.exp(-(hardness + np.asarray(skills)[:, None])))
    return (draw.random(chances.shape) < chances).astype(float)


def test_rows_averaged_over_seeds_cover_once_the_noise_of_the_seeds_is_added(monkeypatch):
    monkeypatch.setattr("slimtune.stats.intervals.DRAWS", 500)
    draw, plain, wide, times = rng(3), 0, 0, 300
    own = [str(at) for at in range(200)]
    for _ in range(times):
        hardness = draw.normal(1, 1.5, size=200)
        a, b = (rows_by_seed(draw, hardness, draw.normal(0, 0.5, size=3)) for _ in range(2))  # of equal worth
        noise = seed_noise([a.mean(axis=1), b.mean(axis=1), *(draw.normal(0.7, noise_of_a_seed(), size=(6, 3)))])
        difference = paired_difference(a.mean(axis=0), b.mean(axis=0), own, rng=draw).difference
        plain += difference.low <= 0 <= difference.high
        found = widened(difference, noise, seeds_a=3, seeds_b=3)
        wide += found.low <= 0 <= found.high
    assert plain / times < 0.75 and 0.92 <= wide / times <= 0.985


def noise_of_a_seed():
    """How much a score over 200 rows differs between seeds, the rows being the same."""
    draw = rng(4)
    hardness = draw.normal(1, 1.5, size=200)
    return float(rows_by_seed(draw, hardness, draw.normal(0, 0.5, size=2000)).mean(axis=1).std())
