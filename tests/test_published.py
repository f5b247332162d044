"""The published figures are there as printed, and each printed interval can be made from whole ranks in one way only.

Nothing says how the intervals were made, but ranks are whole numbers: the sum and the sum of squares of n ranks are
whole, and a printed mean and interval follow from these two. `reachable` finds every pair of sums that some n ranks in
1..models have, one rank at a time, so that no pair is tried that no ranks could give (a sum of 21 over 9 ranks with a
sum of squares of 50, say). Sums suffice: mean and deviation hold nothing else of the ranks.
"""

import json
import math
from functools import cache
from itertools import combinations_with_replacement

import numpy as np
import pytest
from scipy.stats import t

from slimtune.models import MODELS
from slimtune.published import (
    TABLES,
    published_edition,
    published_ranks,
    published_scores,
    score_caveats,
)
from slimtune.stats import mean_ranks
from slimtune.tasks.folders import SHIPPED
from slimtune.tasks.kinds import KINDS

MODELS_RANKED = {1: 12, 2: 15}
ROWS = [row for edition in (1, 2) for row in published_ranks(edition) if row.half is not None]


@cache
def reachable(n: int, models: int) -> dict[tuple[int, int], tuple[int, ...]]:
    """(sum, sum of squares) of every n whole ranks in 1..models, each with ranks that have them."""
    pairs = {(0, 0): ()}
    for _ in range(n):
        pairs = {
            (total + rank, squares + rank * rank): (*ranks, rank)
            for (total, squares), ranks in pairs.items()
            for rank in range(1, models + 1)
        }
    return pairs


def sample(n):
    return n - 1


def population(n):
    return n


def normal(n):
    return 1.96


def student(n):
    return t.ppf(0.975, n - 1)


def gives(row, multiplier, divisor) -> set[int]:
    """Over which numbers of tasks some whole ranks print as this row, digit by digit."""
    tasks = (7, 8, 9) if row.edition == 1 else (9,)
    return {n for n in tasks if any(prints_as(row, pair, n, multiplier, divisor) for pair in near(row, n))}


def near(row, n):
    return [pair for pair in reachable(n, MODELS_RANKED[row.edition]) if abs(pair[0] / n - row.mean) < 0.01]


def prints_as(row, pair, n, multiplier, divisor):
    total, squares = pair
    deviation = math.sqrt((squares - total * total / n) / divisor(n))
    printed = f"{total / n:.2f}", f"{multiplier(n) * deviation / math.sqrt(n):.2f}"
    return printed == (f"{row.mean:.2f}", f"{row.half:.2f}")


def with_ranks(own, models):
    """Scores, shape (models, tasks), in which the first model has these ranks."""
    others = np.arange(1, models)[:, None]
    return np.vstack([np.zeros(len(own)), np.where(others < np.array(own), others, -others)])


def fitting(edition, multiplier, divisor):
    return [row for row in ROWS if row.edition == edition and gives(row, multiplier, divisor)]


def test_the_sums_are_those_of_all_rank_vectors():
    vectors = combinations_with_replacement(range(1, 6), 4)
    assert reachable(4, 5).keys() == {(sum(ranks), sum(rank * rank for rank in ranks)) for ranks in vectors}
    assert all(sum(ranks) == total for (total, _), ranks in reachable(4, 5).items())


def test_18_and_16_rows_are_printed():
    assert [sum(row.edition == edition for row in ROWS) for edition in (1, 2)] == [16, 18]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.edition}-{row.table}-{row.label}")
def test_whole_ranks_give_the_printed_row_by_196_standard_errors(row):
    assert gives(row, normal, sample) == set(row.tasks)
    n, models = max(row.tasks), MODELS_RANKED[row.edition]
    own = next(reachable(n, models)[pair] for pair in near(row, n) if prints_as(row, pair, n, normal, sample))
    ranked = mean_ranks(with_ranks(own, models), published=True)[0]
    assert ranked.ranks == own
    assert f"{ranked.mean:.2f} {ranked.half:.2f}" == f"{row.mean:.2f} {row.half:.2f}"
    by_t = mean_ranks(with_ranks(own, models))[0]
    assert by_t.half / ranked.half == pytest.approx(student(n) / 1.96)


@pytest.mark.parametrize(
    ("multiplier", "divisor", "first", "second"),
    [(normal, sample, 16, 18), (normal, population, 5, 7), (student, sample, 2, 4), (student, population, 5, 3)],
    ids=["1.96, sample", "1.96, population", "t, sample", "t, population"],
)
def test_no_other_formula_gives_all_rows(multiplier, divisor, first, second):
    assert (len(fitting(1, multiplier, divisor)), len(fitting(2, multiplier, divisor))) == (first, second)


def test_what_students_t_cannot_give():
    impossible = [(row.edition, row.label) for row in ROWS if not gives(row, student, sample)]
    assert len(impossible) == 28
    assert (2, "Qwen3-8B") in impossible and (1, "Qwen3-4B-Instruct-2507") in impossible


def test_by_students_t_the_intervals_are_wider_by_a_sixth_and_more():
    halves = {(row.edition, row.table, row.label): row.t_half for row in ROWS}
    assert halves[2, "fine-tuned", "Qwen3-8B"] == pytest.approx(0.67, abs=0.005)
    assert halves[1, "base", "granite-3.3-8b-instruct"] == pytest.approx(1.05, abs=0.005)
    assert halves[1, "tunability", "gemma-3-270m-it"] == pytest.approx(3.46, abs=0.005)  # over seven tasks, the widest


def test_only_edition_1_mixes_numbers_of_tasks():
    assert {row.tasks for row in ROWS if row.edition == 2} == {(9,)}
    assert {n for row in ROWS if row.edition == 1 for n in row.tasks} == {7, 8, 9}


def kind_of(task):
    return json.loads((SHIPPED / task / "job.json").read_text(encoding="utf-8"))["kind"]


def test_every_published_model_and_task_is_one_of_ours_or_none():
    for edition in (1, 2):
        assert set(published_edition(edition).models) <= MODELS.keys()
        assert len(published_edition(edition).models) == MODELS_RANKED[edition]
        assert {row.model for row in published_ranks(edition)} <= set(published_edition(edition).models)
        for score in published_scores(edition):
            assert score.kind in KINDS and score.student in MODELS
            assert score.task is None or kind_of(score.task) == score.kind


def test_each_table_is_in_order_and_a_place_without_figures_says_so():
    for edition in (1, 2):
        for table in TABLES:
            rows = [row for row in published_ranks(edition) if row.table == table]
            means = [row.mean for row in rows if row.mean is not None]
            assert means == sorted(means) and [row.place for row in rows] == list(range(1, len(rows) + 1))
    seventh = [row for edition in (1, 2) for row in published_ranks(edition) if row.half is None]
    assert [(row.label, row.place, row.mean, row.t_half) for row in seventh] == [
        ("Llama-3.2-1B-Instruct", 7, None, None),
        ("LFM2-1.2B", 7, 5.89, None),
    ]


def test_the_scores_by_task_are_those_of_the_edition():
    names = {edition: {score.name for score in published_scores(edition)} for edition in (1, 2)}
    assert all(names[edition] == set(published_edition(edition).tasks) for edition in (1, 2))
    (home,) = [score for score in published_scores(2) if score.name == "Smart Home"]
    assert (home.base_score, home.tuned_score, home.teacher_score, home.same_source) == (0.97, 0.96, 0.92, False)
    off = {
        (score.edition, score.name)
        for edition in (1, 2)
        for score in published_scores(edition)
        if round(score.tuned_score - score.teacher_score, 2) != score.difference
    }
    assert off == {(1, "TREC"), (1, "Ecommerce"), (2, "Ecommerce")}  # as score_caveats says


def test_no_figure_comes_without_its_source_and_what_to_know_of_it():
    for found in (published_edition(1), published_edition(2)):
        assert found.sources and found.caveats
    assert any("Smart Home" in caveat for caveat in score_caveats())
    with pytest.raises(ValueError, match="editions"):
        published_ranks(3)
