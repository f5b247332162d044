"""The three tables of a leaderboard: contestants ranked by what they score tuned, by what tuning gains, and untuned."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from slimtune.report.board import RankTable, Standing
from slimtune.stats import (
    Block,
    LeftOut,
    RankBootstrap,
    RankRow,
    complete_block,
    critical_difference,
    friedman,
    mean_ranks,
    rank_bootstrap,
    tunability,
)
from slimtune.sweep.gather import Grid
from slimtune.wording import counted

_NAMES = {"base": "zero-shot", "few_shot": "few-shot"}


def ranked_block(grid: Grid) -> Block:
    """The trained contestants and the tasks that have every tuned score, and what was left out for it.

    Where that leaves one contestant alone, as early in a study, tasks go instead: one is no order.
    """
    scores = grid.scores("tuned", grid.trained, grid.tasks)
    block = complete_block(scores, grid.trained, grid.tasks)
    there = np.flatnonzero(~np.isnan(scores).all(axis=1))
    shared = np.flatnonzero(~np.isnan(scores[there]).any(axis=0))
    if len(block.contestants) > 1 or len(there) < 2 or not len(shared):
        return block
    gone = [name for at, name in enumerate(grid.trained) if at not in there]
    left_out = [LeftOut(name, "contestant", grid.tasks) for name in gone]
    for at, task in enumerate(grid.tasks):
        if at not in shared:
            lacking = tuple(grid.trained[row] for row in there if np.isnan(scores[row, at]))
            left_out.append(LeftOut(task, "task", lacking))
    return Block(tuple(there.tolist()), tuple(shared.tolist()), tuple(left_out), block.missing)


def untuned_side(grid: Grid, contestants: Sequence[str], tasks: Sequence[str]) -> str | None:
    """What tuning is set against: few-shot, as in the published study, where all have it; else zero-shot; None where
    neither is whole."""
    for side in ("few_shot", "base"):
        if not np.isnan(grid.scores(side, contestants, tasks)).any():
            return side
    return None


def rank_tables(
    grid: Grid, block: Block, rng: np.random.Generator, *, incomplete: bool = False
) -> tuple[RankTable, ...]:
    """Tuned, gain, base; those there are scores for. `incomplete`: over all contestants and the tasks that each has."""
    if incomplete:
        return _incomplete_tables(grid)
    contestants = [grid.trained[at] for at in block.contestants]
    tasks = [grid.tasks[at] for at in block.tasks]
    if not contestants or not tasks:
        return ()
    side = untuned_side(grid, contestants, tasks)
    tables = [_tuned(grid, contestants, tasks, rng)]
    if side is not None:
        tables += [_gain(grid, contestants, tasks, side, rng), _untuned(grid, contestants, tasks, side, rng)]
    return tuple(tables)


def _tuned(grid: Grid, contestants: Sequence[str], tasks: Sequence[str], rng: np.random.Generator) -> RankTable:
    scores = grid.scores("tuned", contestants, tasks)
    drawn = rank_bootstrap([grid.task_rows(task, contestants, "tuned") for task in tasks], rng=rng)
    about = "Mean rank of the tuned models' scores over the tasks, 1 being the best."
    return _table("tuned", "Fine-tuned", about, contestants, scores, mean_ranks(scores), drawn)


def _gain(
    grid: Grid, contestants: Sequence[str], tasks: Sequence[str], side: str, rng: np.random.Generator
) -> RankTable:
    found = tunability(grid.scores(side, contestants, tasks), grid.scores("tuned", contestants, tasks))
    drawn = rank_bootstrap([grid.task_rows(task, contestants, "tuned", side) for task in tasks], rng=rng)
    about = (
        f"Mean rank of what tuning gains over the same model {_NAMES[side]}. This rewards a low start: who begins at "
        "0.9 cannot gain 0.2. The share of the remaining error that tuning removed does not."
    )
    table = _table("gain", "Tunability", about, contestants, found.gain, found.by_gain, drawn)
    if found.error_removed is None:
        return table
    removed = dict(zip(contestants, found.error_removed, strict=True))
    standings = [replace(one, error_removed=removed[one.contestant]) for one in table.standings]
    return replace(table, standings=tuple(standings))


def _untuned(
    grid: Grid, contestants: Sequence[str], tasks: Sequence[str], side: str, rng: np.random.Generator
) -> RankTable:
    scores = grid.scores(side, contestants, tasks)
    drawn = rank_bootstrap([grid.task_rows(task, contestants, side) for task in tasks], rng=rng)
    about = f"Mean rank of the models' {_NAMES[side]} scores, before any training."
    return _table("base", "Base", about, contestants, scores, mean_ranks(scores), drawn)


def _table(
    name: str,
    title: str,
    about: str,
    contestants: Sequence[str],
    scores: np.ndarray,
    rows: Sequence[RankRow],
    drawn: RankBootstrap,
) -> RankTable:
    tasks, means = scores.shape[1], [row.mean for row in rows]
    apart = critical_difference(means, tasks) if tasks > 1 else None
    tested, printed = friedman(scores), mean_ranks(scores, published=True)
    standings = [
        Standing(
            contestant=contestants[at],
            mean_rank=row.mean,
            interval=None if row.half is None else (row.low, row.high),
            tasks=row.n,
            p_best=drawn.p_best[at],
            p_top3=drawn.p_top3[at],
            rank_range=(drawn.rank_low[at], drawn.rank_high[at]),
            mean=float(scores[at].mean()),
            published=None if printed[at].half is None else (printed[at].low, printed[at].high),
        )
        for at, row in enumerate(rows)
    ]
    ordered = _ordered(standings)
    place = {one.contestant: at for at, one in enumerate(ordered)}
    groups = [sorted((contestants[at] for at in group), key=place.get) for group in (apart.groups if apart else ())]
    return RankTable(
        name=name,
        title=title,
        about=about,
        standings=ordered,
        critical_difference=apart.value if apart else None,
        friedman_p=tested.p if tested else None,
        groups=tuple(map(tuple, groups)),
        footnotes=() if tasks > 1 else ("One task has no spread of ranks: there is no interval of the mean rank.",),
    )


def _incomplete_tables(grid: Grid) -> tuple[RankTable, ...]:
    """One table, of the tuned scores; nothing that needs every cell."""
    scores = grid.scores("tuned", grid.trained, grid.tasks)
    there = [at for at in range(len(grid.trained)) if not np.isnan(scores[at]).all()]
    if not there:
        return ()
    scores = scores[there]
    standings = [
        Standing(
            grid.trained[at], row.mean, None if row.half is None else (row.low, row.high), row.n, None, None, None,
            float(np.nanmean(own)),
        )
        for at, row, own in zip(there, mean_ranks(scores, incomplete=True), scores, strict=True)
    ]  # fmt: skip
    about = "Mean rank of the tuned models' scores, each over the tasks that it has, 1 being the best."
    counts = "; ".join(
        f"{one.contestant}: {one.tasks} of {counted(len(grid.tasks), 'task')}" for one in _ordered(standings)
    )
    footnotes = (
        f"Cells are missing, so these ranks are not over the same tasks ({counts}) and do not compare like with like. "
        "Without --incomplete, only contestants and tasks with every cell are ranked.",
    )
    return (RankTable("tuned", "Fine-tuned, incomplete", about, _ordered(standings), None, None, (), footnotes),)


def _ordered(standings: Sequence[Standing]) -> tuple[Standing, ...]:
    return tuple(sorted(standings, key=lambda one: (one.mean_rank, one.contestant)))
