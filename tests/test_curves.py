"""Scores along an axis that is a number, and what a leaderboard says of ties, of several runs and of the published
formula."""

import re

import numpy as np
import pytest
from study_store import Made, put_study

from slimtune.report.board_page import write_board
from slimtune.stats import mean_ranks
from slimtune.sweep.leaderboard import make_board
from slimtune.sweep.store import read_study

TASKS = ("banking77", "trec")
SIZES = {50: 0.3, 100: 0.5, 400: 0.8}
LR = (1e-4, 1e-3)


def name(size: int, lr: float) -> str:
    return f"Small, lr {lr:g}, {size} rows"


CURVED = Made(
    {name(size, lr): good + 100 * lr for size, good in SIZES.items() for lr in LR},
    TASKS,
    axes={name(size, lr): {"data.train_rows": size, "train.lr": lr} for size in SIZES for lr in LR},
)


def board_of(store):
    return make_board(read_study(store), out=store / "leaderboard", rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return put_study(tmp_path_factory.mktemp("sweeps") / "t4-small", CURVED)


def test_a_curve_goes_over_an_axis_with_a_line_for_all_that_differ_in_nothing_else(store):
    (curve,) = board_of(store).curves  # two rates are no curve
    assert curve.key == "data.train_rows" and list(curve.lines) == [f"Small, lr {lr:g}" for lr in LR]
    for points in curve.lines.values():
        assert [point.x for point in points] == sorted(SIZES)
        scores = [point.score for point in points]
        assert scores == sorted(scores) and scores[-1] - scores[0] > 0.3
        assert all(0.02 < point.high - point.score < 0.2 and point.low < point.score for point in points)


def test_a_point_is_the_mean_over_tasks_and_two_tasks_leave_less_open_than_one(store, tmp_path):
    both = board_of(store)
    one = board_of(put_study(tmp_path / "one", Made(CURVED.contestants, TASKS[:1], axes=CURVED.axes)))
    squares = {task: both.squares[name(50, LR[0]), task].sides["tuned"].score for task in TASKS}
    first = both.curves[0].lines[f"Small, lr {LR[0]:g}"][0]
    assert first.score == pytest.approx(np.mean([score.value for score in squares.values()]))
    alone = one.curves[0].lines[f"Small, lr {LR[0]:g}"][0]
    of_one = squares[TASKS[0]]
    assert (alone.score, alone.low, alone.high) == pytest.approx((of_one.value, of_one.low, of_one.high))
    assert first.high - first.low < 0.85 * (alone.high - alone.low)


def test_the_curve_is_drawn_and_told(store):
    paths = write_board(board_of(store), store / "leaderboard")
    page, text = (paths[kind].read_text(encoding="utf-8") for kind in ("html", "markdown"))
    assert "Along an axis" in page and "## Along data.train\\_rows" in text
    assert (store / "leaderboard/plots/curve-data.train_rows.png").stat().st_size > 5000
    assert "| 50 (Small, lr 0.0001) | " in text


def test_a_bar_joins_all_that_cannot_be_told_apart_whatever_order_equals_were_asked_for_in(tmp_path):
    """The bar is drawn from the first of a group to its last: they have to be in the order of the page."""
    alike = Made(dict.fromkeys(("d", "b", "c", "a"), 0.5), TASKS)
    tables = board_of(put_study(tmp_path / "s", alike)).tables
    for table in tables:
        places = [one.contestant for one in table.standings]
        for group in table.groups:
            assert list(group) == sorted(group, key=places.index)
        assert any(set(group) == set(places) for group in table.groups)


def test_every_number_of_a_rank_or_a_price_leads_on(store):
    page = write_board(board_of(store), store / "leaderboard")["html"].read_text(encoding="utf-8")
    page, cells = page.split("<h2>Every cell</h2>")
    assert cells.count('<a class="plain" href=') == 3 * len(SIZES) * len(LR) * len(TASKS)
    cells = re.findall(r'<td class="number">(.*?)</td>', page, re.DOTALL)
    bare = [cell for cell in cells if re.search(r"\d", re.sub(r"<[^>]*>", "", cell)) and "<a " not in cell]
    assert len(cells) > 40 and bare == []


def test_the_interval_by_the_published_formula_stands_beside_students(store):
    board = board_of(store)
    scores = [[board.squares[one, task].sides["tuned"].score.value for task in TASKS] for one in CURVED.contestants]
    by_name = dict(zip(CURVED.contestants, mean_ranks(np.array(scores), published=True), strict=True))
    shown = 0
    for one in board.tables[0].standings:
        row = by_name[one.contestant]
        assert one.published == (None if row.half is None else pytest.approx((row.low, row.high)))
        shown += one.published is not None
    assert shown == len(by_name)
    assert "as published" in write_board(board, store / "leaderboard")["markdown"].read_text(encoding="utf-8")


def test_several_runs_show_their_mean_and_their_deviation(tmp_path):
    served = Made({"small": 0.5, "large": 0.8}, TASKS[:1], seeds=(0, 1, 2), served={"openai:gpt-oss-120b": 0.8})
    store = put_study(tmp_path / "s", served)
    board = board_of(store)
    deviation = board.squares["openai:gpt-oss-120b", TASKS[0]].shown.seed_sd
    paths = write_board(board, store / "leaderboard")
    said = f"3 runs, sd {deviation:.3f}"
    assert deviation > 0 and all(said in paths[kind].read_text(encoding="utf-8") for kind in ("html", "markdown"))


def test_a_line_is_named_by_what_its_contestants_have_in_common_wherever_it_stands(tmp_path):
    turned = {f"Small, {size} rows, lr {lr:g}": (size, lr) for size in SIZES for lr in LR}
    made = Made(
        {one: SIZES[size] for one, (size, _) in turned.items()},
        TASKS[:1],
        axes={one: {"data.train_rows": size, "train.lr": lr} for one, (size, lr) in turned.items()},
    )
    (curve,) = board_of(put_study(tmp_path / "s", made)).curves
    assert list(curve.lines) == [f"Small, lr {lr:g}" for lr in LR]
    assert {len(points) for points in curve.lines.values()} == {len(SIZES)}
