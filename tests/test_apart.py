"""Who is apart, as SciPy, statsmodels, scikit-posthocs and Demsar's paper have it."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests

from slimtune.stats import critical_difference, friedman, holm, mean_ranks


def scores_of(contestants, tasks, step, seed=0):
    """Contestants that get better by `step`, on tasks that differ in hardness; whole per cents, so that some tie."""
    draw = np.random.default_rng(seed)
    noise = draw.normal(0, 0.05, size=(contestants, tasks)) + draw.normal(0, 0.1, size=(1, tasks))
    return (0.5 + step * np.arange(contestants)[:, None] + noise).round(2)


def means(scores):
    return [row.mean for row in mean_ranks(scores)]


def test_friedman_by_hand():
    # three contestants in the same order on four tasks: 12 / (n k (k + 1)) sum of squared rank sums - 3 n (k + 1)
    found = friedman(np.array([[0.9] * 4, [0.5] * 4, [0.1] * 4]))
    assert found.statistic == pytest.approx(12 / (4 * 3 * 4) * (4**2 + 8**2 + 12**2) - 3 * 4 * 4)
    assert found.p == pytest.approx(math.exp(-4))  # chi squared with two degrees
    assert (found.contestants, found.tasks) == (3, 4)


def test_friedman_is_scipys_ties_included():
    scores = scores_of(6, 9, 0.01)
    theirs = scipy_stats.friedmanchisquare(*scores)
    assert (friedman(scores).statistic, friedman(scores).p) == pytest.approx((theirs.statistic, theirs.pvalue))


def test_friedman_finds_nothing_among_equals_and_is_not_for_two():
    assert (friedman(np.full((4, 5), 0.7)).statistic, friedman(np.full((4, 5), 0.7)).p) == (0.0, 1.0)
    assert friedman(np.zeros((2, 9))) is None and friedman(np.zeros((5, 1))) is None
    with pytest.raises(ValueError, match="complete block"):
        friedman(np.array([[0.1, math.nan], [0.2, 0.3], [0.4, 0.5]]))


@pytest.mark.parametrize(
    ("contestants", "tasks", "printed"),
    # the published sizes; Demsar 2006, section 3.2.4: four classifiers on 14 data sets, q = 2.569
    [(15, 9, 7.15), (12, 8, 5.89), (4, 14, 1.25)],
)
def test_the_critical_difference_of_known_sizes(contestants, tasks, printed):
    found = critical_difference(range(1, contestants + 1), tasks)
    assert found.value == pytest.approx(printed, abs=0.005)


def test_the_bars_of_the_diagram_are_the_longest_runs_of_those_not_apart():
    # the difference for four on 14 tasks is 1.25
    assert critical_difference([3.143, 2.000, 2.893, 1.964], 14).groups == ((3, 1, 2, 0),)  # Demsar: none is apart
    assert critical_difference([1.0, 2.0, 3.0, 4.5], 14).groups == ((0, 1), (1, 2))
    assert critical_difference([1.0, 4.0, 2.6, 2.4], 14).groups == ((3, 2),)
    assert critical_difference([1.0, 3.0], 200).groups == ()
    assert critical_difference([1.5, 1.5], 3).groups == ((0, 1),)


def test_one_contestant_has_no_difference_and_a_missing_mean_is_refused():
    assert critical_difference([1.0], 9) is None
    for given in (([1.0, math.nan], 9), ([1.0, 2.0], 0)):
        with pytest.raises(ValueError, match="mean ranks"):
            critical_difference(*given)


@pytest.mark.parametrize("seed", range(4))
def test_the_same_pairs_are_apart_for_scikit_posthocs(seed):
    posthocs = pytest.importorskip("scikit_posthocs", reason="scikit-posthocs is in constraints/dev.txt: make test")
    scores = scores_of(7, 12, 0.03, seed)
    theirs = posthocs.posthoc_nemenyi_friedman(scores.T).to_numpy()
    groups = critical_difference(means(scores), 12).groups
    ours = {pair for group in groups for pair in combinations(sorted(group), 2)}
    assert ours == {(a, b) for a, b in combinations(range(7), 2) if theirs[a, b] >= 0.05}
    assert 0 < len(ours) < 21


def test_the_order_of_contestants_does_not_change_who_is_apart():
    scores = scores_of(7, 12, 0.03)
    order = np.random.default_rng(1).permutation(7)
    straight, shuffled = critical_difference(means(scores), 12), critical_difference(means(scores[order]), 12)
    assert {frozenset(group) for group in straight.groups} == {
        frozenset(order[list(group)].tolist()) for group in shuffled.groups
    }
    assert friedman(scores[order]).statistic == pytest.approx(friedman(scores).statistic)


def test_holm_is_statsmodels_in_the_order_given():
    for p_values in ([0.01, 0.04, 0.03, 0.2], [0.5, 0.5], [0.02], [0.001, 0.9, 0.001]):
        theirs = multipletests(p_values, method="holm")[1]
        assert holm(p_values) == pytest.approx(tuple(theirs))
    assert holm([]) == ()


def test_what_is_no_p_value_is_refused():
    for p_values in ([0.1, 1.2], [-0.1], [math.nan]):
        with pytest.raises(ValueError, match="p values"):
            holm(p_values)
