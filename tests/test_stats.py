"""Intervals cover, tests agree with other people's code and with sums done by hand, and nothing has a width of zero."""

import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats as scipy_stats

from slimtune.stats import (
    Comparison,
    Interval,
    bounds_of_draws,
    paired_difference,
    rows_to_separate,
    score_interval,
    share_of_error_removed,
    smallest_detectable_difference,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def own(n):
    """Every row its own group."""
    return [f"row{index}" for index in range(n)]


def conversations(count, turns):
    return [f"c{index // turns}" for index in range(count * turns)]


# one score


def test_an_interval_reads_as_value_and_bounds_and_survives_json():
    interval = Interval(0.73, 0.64, 0.81, 100, 100, "Wilson")
    assert str(interval) == "0.730 [0.640, 0.810]"
    assert Interval.from_json(json.loads(json.dumps(interval.as_json()))) == interval


def test_right_or_wrong_rows_get_wilson_as_computed_by_hand():
    interval = score_interval([1] * 8 + [0] * 2, own(10), rng=rng())
    z = 1.959964
    centre, half = (8 + z * z / 2) / (10 + z * z), z / (10 + z * z) * math.sqrt(8 * 2 / 10 + z * z / 4)
    assert (interval.low, interval.high) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert (interval.low, interval.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert (interval.method, interval.n, interval.groups) == ("Wilson", 10, 10)


def test_wilson_agrees_with_scipy():
    for right, n in [(98, 100), (0, 7), (150, 150), (1, 1)]:
        ours = score_interval([1] * right + [0] * (n - right), own(n), rng=rng())
        theirs = scipy_stats.binomtest(right, n).proportion_ci(method="wilson")
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_wilson_covers_the_truth_19_times_in_20():
    draw, hits = rng(1), 0
    for right in draw.binomial(150, 0.85, size=2000):
        interval = score_interval([1] * right + [0] * (150 - right), own(150), rng=draw)
        hits += interval.low <= 0.85 <= interval.high
    assert 0.93 <= hits / 2000 <= 0.97


def test_graded_scores_get_a_bootstrap_that_agrees_with_scipy():
    values = rng(2).beta(2, 1, size=200)
    ours = score_interval(values, own(200), rng=rng())
    theirs = scipy_stats.bootstrap((values,), np.mean, method="percentile", rng=rng(3)).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)
    assert ours.method == "bootstrap"


def test_the_fewer_the_groups_the_further_out_the_bounds_of_the_draws():
    draws = scipy_stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)  # a bootstrap's own normal, finely cut
    for groups in (10, 50, 1000):
        wanted = math.sqrt(groups / (groups - 1)) * scipy_stats.t.ppf(0.975, groups - 1)
        assert bounds_of_draws(draws, groups) == pytest.approx((-wanted, wanted), abs=0.002)
    assert bounds_of_draws(draws, 1000)[1] == pytest.approx(1.96, abs=0.005)


def clustered_rows(draw, conversations_count=60, turns=8):
    """Conversations that go well or badly as a whole: mean 0.7, rows within one much alike."""
    skill = draw.beta(0.7, 0.3, size=conversations_count)
    return (draw.random((conversations_count, turns)) < skill[:, None]).astype(float).ravel()


def test_the_interval_over_groups_covers_where_the_one_over_rows_does_not():
    draw, groups, over_groups, over_rows = rng(4), conversations(60, 8), 0, 0
    for _ in range(300):
        values = clustered_rows(draw)
        ours, naive = score_interval(values, groups, rng=draw), score_interval(values, own(480), rng=draw)
        over_groups += ours.low <= 0.7 <= ours.high
        over_rows += naive.low <= 0.7 <= naive.high
    assert 0.91 <= over_groups / 300 <= 0.98
    assert over_rows / 300 < 0.75


def test_the_interval_over_groups_covers_a_model_that_is_nearly_always_right():
    draw, groups, hits = rng(5), conversations(50, 4), 0
    for _ in range(400):
        bad = draw.random(50) < 0.07  # such a conversation goes wrong in every turn
        interval = score_interval(np.repeat(1.0 - bad, 4), groups, rng=draw)
        hits += interval.low <= 0.93 <= interval.high
    assert hits / 400 >= 0.93


def test_groups_weigh_by_their_rows():
    interval = score_interval([1.0] * 30 + [0.0] * 10, ["long"] * 30 + own(10), rng=rng())
    assert interval.value == 0.75
    assert (interval.n, interval.groups) == (40, 11)


@pytest.mark.parametrize(
    ("values", "groups"),
    [
        ([1.0], ["a"]),
        ([0.5], ["a"]),
        ([1.0] * 40, conversations(20, 2)),
        ([0.0] * 40, conversations(20, 2)),
        ([0.5] * 40, own(40)),
        ([1.0, 0.0] * 20, ["only one"] * 40),
        ([1.0] * 38 + [0.0] * 2, conversations(20, 2)),
    ],
)
def test_no_score_is_ever_certain(values, groups):
    interval = score_interval(values, groups, rng=rng())
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert interval.high - interval.low > 0.05


def test_all_right_in_twenty_conversations_is_no_surer_than_twenty_rows():
    interval = score_interval([1.0] * 400, conversations(20, 20), rng=rng())
    assert (interval.low, interval.method) == (pytest.approx(20 / (20 + 1.959964**2)), "Wilson over groups")


@pytest.mark.parametrize("values", [[], [0.5, None], [0.5, float("nan")], [0.5, 1.2], [-0.1, 0.2]])
def test_scores_that_are_not_scores_are_refused(values):
    with pytest.raises(ValueError, match=r"[Ss]core"):
        score_interval(values, own(len(values)), rng=rng())


def test_a_missing_group_name_is_refused():
    with pytest.raises(ValueError, match="2 scores but 1 group"):
        score_interval([0.0, 1.0], ["a"], rng=rng())


def test_the_order_of_rows_does_not_matter():
    draw = rng(6)
    a, b, groups = clustered_rows(draw), clustered_rows(draw), conversations(60, 8)
    order = draw.permutation(480)
    shuffled = [groups[index] for index in order]
    assert score_interval(a, groups, rng=rng()) == score_interval(a[order], shuffled, rng=rng())
    assert paired_difference(a, b, groups, rng=rng()) == paired_difference(a[order], b[order], shuffled, rng=rng())


# two models on the same rows


def test_a_paired_difference_of_right_and_wrong_rows_is_bonett_price_and_mcnemar_by_hand():
    a = [0] * 5 + [1] + [1] * 3 + [0]
    b = [1] * 5 + [0] + [1] * 3 + [0]
    found = paired_difference(a, b, own(10), rng=rng())
    # 5 wins, 1 loss of 10: (5 + 1) / 12 - (1 + 1) / 12 = 1/3, variance (8/12 - 1/9) / 12, p = 2 (1 + 6) / 2**6
    half = 1.959964 * math.sqrt((8 / 12 - 1 / 9) / 12)
    assert (found.wins, found.losses, found.ties) == (5, 1, 4)
    assert found.difference.value == pytest.approx(0.4)
    assert (found.difference.low, found.difference.high) == pytest.approx((1 / 3 - half, 1 / 3 + half), abs=1e-6)
    assert (found.p, found.test) == (pytest.approx(14 / 64), "exact McNemar")
    assert not found.clear
    assert Comparison.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_exact_mcnemar_agrees_with_a_binomial_test():
    for wins, losses in [(20, 7), (7, 20), (6, 6), (1, 0), (60, 2)]:
        a, b = [0] * wins + [1] * losses + [1] * 30, [1] * wins + [0] * losses + [1] * 30
        p = paired_difference(a, b, own(len(a)), rng=rng()).p
        assert p == pytest.approx(scipy_stats.binomtest(wins, wins + losses).pvalue, rel=1e-9)


def test_the_paired_interval_covers_the_truth_19_times_in_20():
    draw, hits = rng(7), 0
    for wins, losses, _ in draw.multinomial(150, [0.12, 0.05, 0.83], size=2000):
        a = [0] * wins + [1] * (150 - wins)
        b = [1] * wins + [0] * losses + [1] * (150 - wins - losses)
        difference = paired_difference(a, b, own(150), rng=draw).difference
        hits += difference.low <= 0.07 <= difference.high
    assert 0.93 <= hits / 2000 <= 0.97


@pytest.mark.parametrize(
    ("seeds", "groups", "score", "difference", "test"),
    [
        (1, own(90), "Wilson", "Bonett-Price", "exact McNemar"),
        (1, conversations(30, 3), "bootstrap over groups", "bootstrap over groups", "sign-flip over groups"),
        (3, own(90), "bootstrap", "bootstrap", "sign-flip over groups"),
        (3, conversations(30, 3), "bootstrap over groups", "bootstrap over groups", "sign-flip over groups"),
    ],
)
def test_only_right_or_wrong_rows_that_stand_alone_are_coins(seeds, groups, score, difference, test):
    """What is averaged over seeds is no coin any more, though every seed's rows were."""
    draw = rng(15)
    a, b = ((draw.random((seeds, 90)) < share).mean(axis=0) for share in (0.5, 0.7))
    found = paired_difference(a, b, groups, rng=rng())
    assert score_interval(a, groups, rng=rng()).method == score
    assert (found.difference.method, found.test.split(",")[0]) == (difference, test)


def test_swapping_the_models_turns_the_sign_and_keeps_p():
    draw = rng(8)
    a, b = draw.random(40) < 0.4, draw.random(40) < 0.7
    there = paired_difference(a, b, own(40), rng=rng())
    back = paired_difference(b, a, own(40), rng=rng())
    assert (back.wins, back.losses, back.p) == (there.losses, there.wins, there.p)
    assert (back.difference.low, back.difference.high) == pytest.approx((-there.difference.high, -there.difference.low))


def test_few_groups_have_every_sign_pattern_looked_at():
    # three conversations, all better: of 8 patterns, +++ and --- are as far from zero
    found = paired_difference([0.0] * 6, [0.5] * 6, conversations(3, 2), rng=rng())
    assert (found.p, found.test, found.groups) == (2 / 8, "exact sign-flip over groups", 3)


def test_a_p_value_from_draws_is_never_zero():
    found = paired_difference([0.25] * 60, [0.75] * 60, own(60), rng=rng())
    assert (found.p, found.test) == (1 / 10_001, "sign-flip over groups, 10,000 draws")


def test_the_sign_flip_test_agrees_with_scipy():
    draw = rng(9)
    for n in (12, 60):
        a, b = draw.random(n), np.clip(draw.random(n) + 0.15, 0, 1)
        ours = paired_difference(a, b, own(n), rng=rng()).p
        theirs = scipy_stats.permutation_test(
            (a, b), lambda x, y: (y - x).mean(), permutation_type="samples", n_resamples=20_000, rng=rng(10)
        ).pvalue
        assert ours == pytest.approx(theirs, abs=0.015 if n == 60 else 1e-9)


def test_the_sign_flip_test_finds_nothing_in_nothing_5_times_in_100():
    draw, found = rng(11), 0
    for _ in range(400):
        a, b = clustered_rows(draw, 14, 3), clustered_rows(draw, 14, 3)
        found += paired_difference(a, b, conversations(14, 3), rng=draw).p < 0.05
    assert found / 400 <= 0.075


def test_two_models_that_never_differ_are_a_tie_but_not_a_certainty():
    for groups in (own(40), conversations(20, 2)):
        found = paired_difference([1.0] * 40, [1.0] * 40, groups, rng=rng())
        assert (found.wins, found.losses, found.ties, found.p) == (0, 0, 40, 1.0)
        assert found.difference.low < -0.01 and found.difference.high > 0.01
        assert not found.clear


def test_a_gain_that_is_the_same_everywhere_still_has_an_interval():
    found = paired_difference([0.25] * 40, [0.5] * 40, own(40), rng=rng())
    assert found.difference.low < 0.25 < found.difference.high
    assert found.clear


def test_pairs_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="1 scores but 2"):
        paired_difference([1.0, 0.0], [1.0], own(2), rng=rng())


# what is left to gain, and what can be seen


def test_the_share_of_error_removed_is_the_gain_over_what_was_missing():
    a, b = [1] * 60 + [0] * 40, [1] * 55 + [0] * 5 + [1] * 30 + [0] * 10
    share = share_of_error_removed(a, b, own(100), rng=rng())
    assert share.value == pytest.approx((0.85 - 0.60) / 0.40)
    assert 0.3 < share.low < 0.625 < share.high < 0.9


def test_the_share_of_error_removed_is_never_certain_and_absent_without_errors():
    perfect = share_of_error_removed([1] * 60 + [0] * 40, [1] * 100, own(100), rng=rng())
    assert perfect.value == perfect.high == 1.0 and perfect.low < 0.9
    assert share_of_error_removed([1] * 20, [1] * 19 + [0], own(20), rng=rng()) is None


def test_the_smallest_detectable_difference_shrinks_with_the_root_of_n():
    points = [round(100 * smallest_detectable_difference(n), 1) for n in (150, 300, 1000)]
    assert points == [7.2, 5.1, 2.8]
    assert smallest_detectable_difference(5) == 1.0


@pytest.mark.parametrize("n", [6, 8, 20, 77])
def test_where_rows_are_few_models_that_disagree_one_way_only_are_told_apart_4_times_in_5(n: int):
    draw, gap = rng(14), smallest_detectable_difference(n)
    assert 0.1 < gap < 1.0
    wins = draw.binomial(n, gap, size=500)
    found = sum(paired_difference([0] * n, [1] * k + [0] * (n - k), own(n), rng=draw).p < 0.05 for k in wins)
    assert 0.74 <= found / 500 <= 0.86


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.5])
def test_the_smallest_detectable_difference_never_grows_with_more_rows(share: float):
    found = [smallest_detectable_difference(n, share) for n in range(1, 600)]
    assert all(later <= before + 0.001 for before, later in itertools.pairwise(found))


def test_the_smallest_detectable_difference_is_found_4_times_in_5():
    draw, found = rng(12), 0
    gap = smallest_detectable_difference(300, discordant_share=0.2)
    for wins, losses, _ in draw.multinomial(300, [0.1 + gap / 2, 0.1 - gap / 2, 0.8], size=1000):
        a, b = [0] * wins + [1] * (300 - wins), [1] * wins + [0] * losses + [1] * (300 - wins - losses)
        found += paired_difference(a, b, own(300), rng=draw).p < 0.05
    assert 0.74 <= found / 1000 <= 0.86


def test_a_test_of_no_rows_can_show_nothing():
    with pytest.raises(ValueError, match="n >= 1"):
        smallest_detectable_difference(0)


def test_the_rows_that_separate_are_those_for_which_the_difference_seen_is_the_smallest_detectable():
    # 12 wins, 6 losses of 150: discordant 0.12, seen 0.04; (1.96 + 0.8416)^2 0.12 / 0.04^2 = 588.7
    found = paired_difference([0] * 12 + [1] * 138, [1] * 12 + [0] * 6 + [1] * 132, own(150), rng=rng())
    needed = rows_to_separate(found)
    assert (needed.rows, needed.more, needed.power) == (589, 439, 0.8)
    assert smallest_detectable_difference(589, 0.12) <= 0.04 < smallest_detectable_difference(588, 0.12)
    assert rows_to_separate(found, power=0.9).rows > 589


def test_who_is_apart_already_needs_no_more_rows_and_who_is_level_is_not_parted_by_any():
    apart = paired_difference([0] * 60 + [1] * 40, [1] * 100, own(100), rng=rng())
    assert rows_to_separate(apart).more == 0
    level = paired_difference([1, 0] * 20, [0, 1] * 20, own(40), rng=rng())
    assert rows_to_separate(level) is None


def test_so_many_rows_find_the_difference_4_times_in_5():
    draw, found = rng(13), 0
    first = paired_difference([0] * 12 + [1] * 138, [1] * 12 + [0] * 6 + [1] * 132, own(150), rng=draw)
    n = rows_to_separate(first).rows
    for wins, losses, _ in draw.multinomial(n, [0.08, 0.04, 0.88], size=1000):
        a, b = [0] * wins + [1] * (n - wins), [1] * wins + [0] * losses + [1] * (n - wins - losses)
        found += paired_difference(a, b, own(n), rng=draw).p < 0.05
    assert 0.74 <= found / 1000 <= 0.86


def test_rows_that_come_in_conversations_separate_less():
    draw = rng(14)
    a = (draw.random((60, 1)) < 0.6) * np.ones((60, 8))
    b = np.where(draw.random((60, 1)) < 0.25, 1.0, a)
    grouped = paired_difference(a.ravel(), b.ravel(), conversations(60, 8), rng=draw)
    alone = paired_difference(a.ravel(), b.ravel(), own(480), rng=draw)
    assert rows_to_separate(grouped).rows == pytest.approx(8 * rows_to_separate(alone).rows, rel=0.2)


def test_importing_the_module_leaves_the_slow_libraries_alone():
    slow = "('scipy', 'statsmodels', 'pandas')"
    code = f"import sys, slimtune.stats; print([name for name in {slow} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
