"""Micro and macro measures are ratios of sums, their intervals hold the truth 19 times in 20; groups count as one."""

import math

import numpy as np
import pytest

from slimtune.data import Tally
from slimtune.stats import score_interval
from slimtune.tallies import aggregate, f1

ALL = ("f1", "precision", "recall")


def rng(seed=0):
    return np.random.default_rng(seed)


def rows(draw, count, *, types=("a", "b", "c"), right=(0.9, 0.7, 0.5), group=1, spread=0.0):
    """Rows with up to three entities each; each is found, missed, or found as another; a group shares its luck."""
    found, luck = [], 0.0
    for number in range(count):
        if number % group == 0:
            luck = draw.normal(0, spread)
        counts = dict.fromkeys(types, Tally())
        for _ in range(draw.integers(0, 4)):
            at = draw.choice(len(types), p=[0.6, 0.3, 0.1])
            old = counts[types[at]]
            if draw.random() < right[at] + luck:
                counts[types[at]] = Tally(old.found + 1, old.made_up, old.missed)
            else:
                counts[types[at]] = Tally(old.found, old.made_up + int(draw.random() < 0.5), old.missed + 1)
        found.append(counts)
    return found


def total(rows, name, side):
    return sum(getattr(row[name], side) for row in rows)


def test_sums_come_first_and_the_ratio_of_them_after():
    made = rows(rng(), 200)
    names = [str(number) for number in range(200)]
    whole = aggregate(made, names, measures=ALL, rng=rng())
    by_hand = {}
    for name in "abc":
        found, made_up, missed = (total(made, name, side) for side in ("found", "made_up", "missed"))
        by_hand[name] = 2 * found / (2 * found + made_up + missed)
        assert whole.per_type[name].scores["f1"].value == pytest.approx(by_hand[name])
        assert whole.per_type[name].scores["precision"].value == pytest.approx(found / (found + made_up))
        assert whole.per_type[name].scores["recall"].value == pytest.approx(found / (found + missed))
        assert (whole.per_type[name].tally, whole.per_type[name].support) == (
            Tally(found, made_up, missed),
            found + missed,
        )
    assert whole.macro["f1"].value == pytest.approx(sum(by_hand.values()) / 3)
    sums = [sum(total(made, name, side) for name in "abc") for side in ("found", "made_up", "missed")]
    assert whole.micro["f1"].value == pytest.approx(2 * sums[0] / (2 * sums[0] + sums[1] + sums[2]))
    assert whole.micro["f1"].value != pytest.approx(np.mean([f1(row) for row in made]), abs=1e-3)
    assert whole.micro["f1"].n == whole.micro["f1"].groups == 200


def test_what_is_defined_for_no_row_is_left_out():
    each = [{"a": Tally(1, 0, 0)}, {"b": Tally(0, 0, 2)}, {"c": Tally(0, 1, 0)}, {"d": Tally()}]
    whole = aggregate(each, list("1234"), measures=ALL, rng=rng())
    assert {name: list(score.scores) for name, score in whole.per_type.items()} == {
        "a": ["f1", "precision", "recall"], "b": ["f1", "recall"], "c": ["f1", "precision"],
    }  # fmt: skip
    assert (whole.macro["f1"].value, whole.macro["recall"].value) == (pytest.approx(1 / 3), 0.5)
    nothing = aggregate([{}, {"a": Tally()}], ["1", "2"], measures=ALL, rng=rng())
    assert (nothing.scores, nothing.as_json()) == ({}, {"per_type": {}})
    with pytest.raises(ValueError, match="2 rows but 1 group names"):
        aggregate([{}, {}], ["1"], measures=ALL, rng=rng())


def test_a_perfect_score_still_has_a_width_and_every_interval_holds_its_value():
    perfect = aggregate([{"a": Tally(1), "b": Tally(1)}] * 30, [str(n) for n in range(30)], measures=ALL, rng=rng())
    assert all(one.value == one.high == 1.0 and 0.7 < one.low < 0.95 for one in perfect.scores.values())
    for seed in range(20):
        whole = aggregate(rows(rng(seed), 12), [str(n // 2) for n in range(12)], measures=ALL, rng=rng(seed))
        each = [one for score in whole.per_type.values() for one in score.scores.values()]
        for one in (*whole.scores.values(), *each):
            assert 0 <= one.low <= one.value <= one.high <= 1 and one.high - one.low > 0.02
            assert (one.n, one.groups) == (12, 6) and not math.isnan(one.low + one.high)


@pytest.mark.parametrize("rows", [1, 12])
def test_rows_that_are_all_of_one_group_have_intervals_that_say_little(rows):
    alone = aggregate([{"a": Tally(3, 1, 2), "b": Tally(1, 0, 1)}] * rows, ["one"] * rows, measures=ALL, rng=rng())
    for one in alone.scores.values():
        assert one.groups == 1 and one.low < one.value < one.high and one.high - one.low > 0.2, one


def test_right_or_wrong_rows_get_the_wilson_interval_that_their_score_has():
    hits = [{"a": Tally(1)} if n % 7 else {"a": Tally(0, 0, 1)} for n in range(100)]
    names = [str(n) for n in range(100)]
    plain = score_interval([float(n % 7 > 0) for n in range(100)], names, rng=rng())
    assert aggregate(hits, names, measures=("recall",), rng=rng()).micro["recall"] == plain


def test_rows_of_one_group_are_resampled_together():
    made = rows(rng(5), 400, group=8, spread=0.25)
    alone = aggregate(made, [str(n) for n in range(400)], measures=ALL, rng=rng()).scores
    grouped = aggregate(made, [str(n // 8) for n in range(400)], measures=ALL, rng=rng()).scores
    for name in ("micro_f1", "micro_recall", "macro_f1"):
        assert grouped[name].high - grouped[name].low > 1.2 * (alone[name].high - alone[name].low)
        assert grouped[name].groups == 50 and "over groups" in grouped[name].method
    assert grouped == aggregate(made, [str(n // 8) for n in range(400)], measures=ALL, rng=rng()).scores


@pytest.mark.slow
@pytest.mark.parametrize(("count", "group"), [(60, 1), (300, 1), (300, 6)])
def test_the_intervals_hold_the_truth_about_19_times_in_20(count, group):
    spread = 0.15 if group > 1 else 0.0
    truth = aggregate(rows(rng(99), 60_000, group=group, spread=spread), ["x"] * 60_000, measures=ALL, rng=rng()).scores
    held, times = dict.fromkeys(truth, 0), 300
    for seed in range(times):
        made = rows(rng(1000 + seed), count, group=group, spread=spread)
        got = aggregate(made, [str(n // group) for n in range(count)], measures=ALL, rng=rng(seed)).scores
        for name, one in got.items():
            held[name] += one.low <= truth[name].value <= one.high
    shares = {name: right / times for name, right in held.items()}
    print(f"{count} rows in groups of {group}: {shares}")
    assert all(share > 0.91 for share in shares.values()), shares
