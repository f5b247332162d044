"""Mean ranks by hand, missing cells named, and an order that stays when everything is shuffled."""

import math
import time

import numpy as np
import pytest
from scipy import stats as scipy_stats

from slimtune.stats import TaskRows, complete_block, mean_ranks, rank_bootstrap, ranks

NAN = math.nan


def rng(seed=0):
    return np.random.default_rng(seed)


def task(name, skills, n=60, seed=0, turns=1):
    """Rows that are right with these chances, in conversations of so many turns."""
    scores = (rng(seed).random((len(skills), n)) < np.asarray(skills)[:, None]).astype(float)
    return TaskRows(name, scores, [f"c{index // turns}" for index in range(n)])


# ranks and their mean


def test_mean_ranks_by_hand():
    first, second, third = mean_ranks(np.array([[0.9, 0.8, 0.7], [0.5, 0.8, 0.9], [0.1, 0.2, 0.3]]))
    assert (first.ranks, second.ranks, third.ranks) == ((1, 1.5, 2), (2, 1.5, 1), (3, 3, 3))
    assert (first.mean, first.n, first.contestants) == (1.5, 3, 3)
    assert first.half == pytest.approx(4.302653 * 0.5 / math.sqrt(3), rel=1e-6)  # t(2), s = 0.5
    assert (first.low, first.high) == (1.0, pytest.approx(1.5 + first.half))


def test_the_t_interval_is_scipys_and_the_published_one_is_narrower():
    scores = rng(1).random((6, 9))
    for row, published in zip(mean_ranks(scores), mean_ranks(scores, published=True), strict=True):
        theirs = scipy_stats.ttest_1samp(row.ranks, 0).confidence_interval()
        assert (row.mean - row.half, row.mean + row.half) == pytest.approx(theirs)
        assert published.half == pytest.approx(row.half * 1.96 / scipy_stats.t.ppf(0.975, 8))
        assert (row.method, published.method) == ("t over tasks", "1.96 s / sqrt(n)")


def test_ranks_agree_with_scipy():
    scores = rng(2).integers(0, 5, size=(7, 8)) / 5
    assert (ranks(scores) == scipy_stats.rankdata(-scores, axis=1)).all()


def test_scores_that_differ_in_rounding_only_tie():
    assert ranks(np.array([0.1 + 0.2, 0.3, 0.2])).tolist() == [1.5, 1.5, 3]


def test_where_lower_is_better_the_lowest_is_first():
    seconds_and_scores = np.array([[1.0, 0.9], [2.0, 0.5], [3.0, 0.1]])
    assert [row.mean for row in mean_ranks(seconds_and_scores, lower_is_better=[True, False])] == [1, 2, 3]
    assert [row.mean for row in mean_ranks(-seconds_and_scores, lower_is_better=True)] == [2, 2, 2]


def test_ranks_without_a_deviation_have_no_t_interval():
    one_task, always_first = mean_ranks(np.array([[0.9], [0.5]])), mean_ranks(np.array([[0.9, 0.8], [0.5, 0.4]]))
    assert [(row.half, row.low, row.high) for row in (*one_task, *always_first)] == [(None, None, None)] * 4
    assert mean_ranks(np.array([[0.9, 0.8], [0.5, 0.4]]), published=True)[0].half == 0.0
    assert mean_ranks(np.array([[0.9], [0.5]]), published=True)[0].half is None


def test_equals_share_the_middle_rank_and_one_contestant_is_first():
    assert {row.mean for row in mean_ranks(np.full((5, 4), 0.5))} == {3.0}
    assert [row.mean for row in mean_ranks(np.array([[0.1, 0.2, 0.3]]))] == [1.0]


@pytest.mark.parametrize("scores", [np.empty((0, 3)), np.empty((3, 0)), np.array([0.1, 0.2])])
def test_ranks_of_nothing_are_refused(scores):
    with pytest.raises(ValueError, match="contestants, tasks"):
        mean_ranks(scores)


# missing cells


def test_a_missing_cell_is_refused_until_the_block_is_taken_or_incomplete_ranks_are_asked_for():
    scores = np.array([[0.9, 0.8, 0.7], [0.5, NAN, 0.9], [0.1, 0.2, 0.3]])
    with pytest.raises(ValueError, match="1 cells have no score"):
        mean_ranks(scores)
    first, second, third = mean_ranks(scores, incomplete=True)
    assert (first.ranks, first.n) == ((1, 1, 2), 3)
    assert (second.ranks, second.n, second.mean) == ((2, None, 1), 2, 1.5)
    assert third.ranks == (3, 2, 3)  # on the second task there are two
    with pytest.raises(ValueError, match=r"Contestants \[1\] have no score"):
        mean_ranks(np.array([[0.5, 0.5], [NAN, NAN]]), incomplete=True)


def test_who_is_left_out_is_named_with_the_reason():
    scores = np.array([[0.9, 0.8, 0.7], [0.5, NAN, 0.9], [0.1, 0.2, 0.3]])
    block = complete_block(scores, ["a", "b", "c"], ["trec", "docs", "sql"])
    assert (block.contestants, block.tasks, block.missing) == ((0, 2), (0, 1, 2), (("b", "docs"),))
    assert [str(left) for left in block.left_out] == ["b (no score on docs)"]
    assert [row.mean for row in mean_ranks(scores[np.ix_(block.contestants, block.tasks)])] == [1, 2]


def test_a_task_that_few_have_goes_before_those_who_lack_it():
    scores = np.full((5, 4), 0.5)
    scores[1:, 3] = NAN
    scores[4, 0] = NAN
    block = complete_block(scores, list("abcde"), ["t0", "t1", "t2", "t3"])
    assert (block.contestants, block.tasks) == ((0, 1, 2, 3), (0, 1, 2))
    assert [str(left) for left in block.left_out] == ["t3 (no score of b, c, d, e)", "e (no score on t0, t3)"]


def test_a_block_of_everything_leaves_nobody_out_and_one_of_nothing_is_empty():
    whole = complete_block(np.full((2, 3), 0.5), ["a", "b"], ["t", "u", "v"])
    assert (whole.contestants, whole.tasks, whole.left_out, whole.missing) == ((0, 1), (0, 1, 2), (), ())
    nothing = complete_block(np.full((2, 2), NAN), ["a", "b"], ["t", "u"])
    assert nothing.contestants == () and len(nothing.missing) == 4


def test_names_and_scores_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="2 contestants and 2 tasks"):
        complete_block(np.zeros((2, 3)), ["a", "b"], ["t", "u"])


# how sure the order is


def test_the_best_of_many_rows_is_sure_and_ties_are_shared():
    found = rank_bootstrap([task(f"t{at}", [0.9, 0.5, 0.5], n=400, seed=at) for at in range(5)], rng=rng())
    assert found.p_best[0] == 1.0 and found.p_top3 == (1.0, 1.0, 1.0)
    assert (found.rank_low, found.rank_high) == ((1, 2, 2), (1, 3, 3))


def test_contestants_that_never_differ_share_everything():
    alike = [TaskRows(name, np.tile(rng(1).random(40), (5, 1)), list(range(40))) for name in "abc"]
    found = rank_bootstrap(alike, rng=rng())
    assert found.p_best == pytest.approx((0.2,) * 5) and found.p_top3 == pytest.approx((0.6,) * 5)
    assert (set(found.rank_low), set(found.rank_high)) == ({1}, {5})


def test_chances_add_up_and_few_rows_leave_the_order_open():
    skills = [0.75, 0.7, 0.65, 0.6, 0.55]
    few = rank_bootstrap([task(f"t{at}", skills, n=20, seed=at) for at in range(4)], rng=rng())
    many = rank_bootstrap([task(f"t{at}", skills, n=4000, seed=at) for at in range(4)], rng=rng())
    for found in (few, many):
        assert (sum(found.p_best), sum(found.p_top3)) == (pytest.approx(1), pytest.approx(3))
    assert few.p_best[0] < 0.9 < many.p_best[0]
    assert few.rank_high[0] > many.rank_high[0] == 1


def test_one_contestant_is_always_first_and_one_task_is_ranked_by_its_rows():
    alone = rank_bootstrap([task("t", [0.5])], rng=rng())
    assert (alone.p_best, alone.rank_low, alone.rank_high) == ((1.0,), (1,), (1,))
    pair = rank_bootstrap([task("t", [0.9, 0.3], n=200)], rng=rng())
    assert pair.p_best == (1.0, 0.0)


def test_rows_of_one_conversation_tell_less_than_as_many_alone():
    right = np.repeat(rng(3).random((2, 30)) < np.array([[0.7], [0.5]]), 10, axis=1).astype(float)
    grouped = rank_bootstrap([TaskRows("t", right, [str(at // 10) for at in range(300)])], rng=rng())
    alone = rank_bootstrap([TaskRows("t", right, [str(at) for at in range(300)])], rng=rng())
    assert alone.p_best[0] > grouped.p_best[0] > 0.5


def test_one_task_agrees_with_the_share_of_resampled_means_that_are_higher():
    rows = task("t", [0.62, 0.55], n=150, seed=4)
    drawn = rng(5).integers(0, 150, size=(20_000, 150))
    ahead = (rows.scores[0] - rows.scores[1])[drawn].sum(axis=1)
    found = rank_bootstrap([rows], rng=rng(), draws=20_000)
    assert found.p_best[0] == pytest.approx((ahead > 0).mean() + (ahead == 0).mean() / 2, abs=0.015)


def test_an_unscored_row_counts_for_nobody():
    scores = np.array([[1.0, NAN, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0]])
    found = rank_bootstrap([TaskRows("t", scores, list("abcd"))], rng=rng())
    assert found.p_best[0] > 0.9
    with pytest.raises(ValueError, match=r"contestants \[0\] have no scored row"):
        rank_bootstrap([TaskRows("t", np.array([[NAN], [1.0]]), ["a"])], rng=rng())


def test_a_contestant_none_of_whose_scored_rows_was_drawn_keeps_its_own_mean():
    # three draws from three, its 1 drawn k times, its 0 m times: it loses with k = 0 < m (7 of 27), k = 1 and m = 2 (3)
    scores = np.array([[1.0, 0.0, NAN], [0.4, 0.4, 0.4]])
    found = rank_bootstrap([TaskRows("t", scores, list("abc"))], rng=rng(), draws=20_000)
    assert found.p_best[0] == pytest.approx(17 / 27, abs=0.015)


def test_seconds_are_ranked_from_the_lowest():
    quick_and_slow = TaskRows("s", np.array([[1.0] * 20, [2.0] * 20]), [str(at) for at in range(20)], True)
    assert rank_bootstrap([quick_and_slow], rng=rng()).p_best == (1.0, 0.0)


def test_tasks_that_do_not_belong_together_are_refused():
    for tasks, why in (
        ([], "No tasks"),
        ([task("t", [0.5]), task("t", [0.5])], "same name"),
        ([task("t", [0.5]), task("u", [0.5, 0.6])], "different numbers"),
        ([TaskRows("t", np.zeros((1, 2)), ["a"])], "2 rows but 1 group"),
    ):
        with pytest.raises(ValueError, match=why):
            rank_bootstrap(tasks, rng=rng())


def test_no_order_of_contestants_tasks_or_rows_matters():
    skills, draw = [0.7, 0.65, 0.6, 0.5, 0.5], rng(6)
    tasks = [task(f"t{at}", skills, seed=at, turns=3) for at in range(4)]
    straight = rank_bootstrap(tasks, rng=rng())
    people = draw.permutation(5)
    shuffled = []
    for at in draw.permutation(4):
        rows = draw.permutation(60)
        groups = [tasks[at].groups[row] for row in rows]
        shuffled.append(TaskRows(tasks[at].name, tasks[at].scores[people][:, rows], groups))
    found = rank_bootstrap(shuffled, rng=rng())
    for name in ("p_best", "p_top3", "rank_low", "rank_high"):
        assert [getattr(straight, name)[at] for at in people] == list(getattr(found, name))


def test_no_order_of_contestants_or_tasks_matters_to_mean_ranks_and_blocks():
    draw = rng(7)
    scores = draw.integers(0, 6, size=(6, 5)) / 6
    people, columns = draw.permutation(6), draw.permutation(5)
    there, back = mean_ranks(scores), mean_ranks(scores[people][:, columns])
    assert [there[at].mean for at in people] == [row.mean for row in back]
    assert [there[at].half for at in people] == pytest.approx([row.half for row in back])
    names, tasks = np.array(list("abcdef")), np.array(list("tuvwx"))
    scores[draw.random((6, 5)) < 0.3] = NAN
    left = complete_block(scores, names, tasks).left_out
    assert left
    swapped = complete_block(scores[people][:, columns], names[people], tasks[columns]).left_out
    assert [(one.name, one.kind, set(one.missing)) for one in left] == [
        (one.name, one.kind, set(one.missing)) for one in swapped
    ]


def test_the_published_size_takes_seconds():
    tasks = [task(f"t{at}", np.linspace(0.5, 0.8, 15), n=1000, seed=at) for at in range(9)]
    start = time.process_time()
    rank_bootstrap(tasks, rng=rng())
    assert time.process_time() - start < 15  # 135 cells of 1,000 rows, 2,000 draws; half a second where it was written
