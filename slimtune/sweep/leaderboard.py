"""A study's leaderboard: its cells in, every table and sentence of it out. Nothing is drawn or written here.

gather      the answers, row by row            ranking    the three tables
versus      students against teachers          spent      cost, memory, speed
lines       each cell, with all its figures    beside_published    what others printed
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slimtune.errors import UserError
from slimtune.report.board import Board, Noise, RankTable, Square
from slimtune.report.collect import section
from slimtune.report.text import clean
from slimtune.stats import Block, SeedNoise, seed_noise
from slimtune.sweep.beside_published import beside_published
from slimtune.sweep.curves import curves
from slimtune.sweep.gather import Entry, Grid, gather
from slimtune.sweep.lines import cell_lines, links_of
from slimtune.sweep.ranking import rank_tables, ranked_block
from slimtune.sweep.spent import cost_remarks, ran_on, spent
from slimtune.sweep.store import SIDES, Study
from slimtune.sweep.versus import Apart, against_teachers, apart_from, summaries
from slimtune.tasks.task import TEST
from slimtune.wording import counted, listed, scored_rows

_RANKS = (
    "A rank depends on who else is ranked: add weak contestants, and the leaders' ranks tighten. Intervals of mean "
    "ranks are Student's t over tasks, given these contestants; chances and rank ranges are of a bootstrap over tasks "
    "and over the rows of each, which leaves the noise of seeds out."
)


def make_board(
    study: Study, *, out: Path, rng: np.random.Generator, incomplete: bool = False, published: bool = False
) -> Board:
    """The leaderboard of a study; `out` is the folder its links are read from. `incomplete`: rank over missing cells
    too. `published`: put the published study's figures beside. The same store gives the same numbers."""
    grid = gather(study)
    if published and grid.scored_on != TEST:
        raise UserError("--published sets scores on test rows beside; this study's are of validation rows.")
    block, noise = ranked_block(grid), seed_noise(_by_seed(grid))
    tables = rank_tables(grid, block, rng, incomplete=incomplete)
    names = _in_order(grid, tables)
    against = against_teachers(grid, noise, rng)
    ranked = [grid.trained[at] for at in block.contestants] if block.tasks else []
    found = spent(grid, ranked, [grid.tasks[at] for at in block.tasks])
    squares = _squares(grid, names, out)
    return Board(
        name=clean(study.name),
        headline=_headline(tables, seeds=noise is not None),
        counts={**study.counts, "stale": study.stale},
        contestants=names,
        tasks=grid.tasks,
        squares=squares,
        tables=tables,
        against=against,
        against_summary=summaries(against),
        spent=found,
        noise=Noise(noise.sd, noise.low, noise.high, noise.cells, noise.runs) if noise else None,
        cells=cell_lines(study, out),
        remarks=(*((_RANKS,) if tables else ()), *_remarks(grid, block, noise, incomplete)),
        cost_remarks=cost_remarks(found),
        published=beside_published(grid, tables) if published else (),
        curves=curves(grid, ranked, [grid.tasks[at] for at in block.tasks]),
        scored_rows=scored_rows(grid.scored_on),
        trouble=tuple(one for one in squares.values() if one.state != "done"),
    )


def set_against(study: Study, chosen: str, rng: np.random.Generator) -> tuple[Apart, ...]:
    """Every contestant of a study minus a chosen one, paired by row. Raises UserError for a name it does not have."""
    grid = gather(study)
    return apart_from(grid, chosen, seed_noise(_by_seed(grid)), rng)


def _by_seed(grid: Grid) -> list[tuple[float, ...]]:
    """The tuned scores of each contestant on each task, a seed each."""
    return [entry.sides["tuned"].seeds for entry in grid.entries.values() if "tuned" in entry.sides]


def _in_order(grid: Grid, tables: Sequence[RankTable]) -> tuple[str, ...]:
    """Ranked contestants by their place, then the other trained ones, then the served."""
    ranked = [one.contestant for one in tables[0].standings] if tables else []
    rest = [one for one in grid.contestants if one not in ranked]
    return (*ranked, *sorted(rest, key=lambda one: one in grid.served))


def _squares(grid: Grid, contestants: Sequence[str], out: Path) -> dict[tuple[str, str], Square]:
    found = {}
    for task in grid.tasks:
        shades = _shades(grid, task)
        for one in contestants:
            entry = grid.entries.get((one, task))
            found[one, task] = _square(entry, one, task, shades.get(one, 0), out, ranked=one not in grid.served)
    return found


def _square(entry: Entry | None, contestant: str, task: str, shade: int, out: Path, *, ranked: bool) -> Square:
    if entry is None:
        return Square(contestant, task, "not asked for", "", {}, (), ranked=ranked)
    sides = {side: answers.measured for side, answers in entry.sides.items() if side != "teacher"}
    links = tuple(link for cell in entry.cells for link in links_of(cell, out))
    return Square(contestant, task, *_state(entry), sides, links, shade, ranked)


def _state(entry: Entry) -> tuple[str, str]:
    """What came of a contestant on a task, over its seeds, and why where it is not whole."""
    states = {cell.seed: cell.state for cell in entry.cells}
    whys = list(dict.fromkeys(clean(cell.why) for cell in entry.cells if cell.why))
    if all(state == "done" for state in states.values()):
        if gone := _gone(entry):
            state = "partly" if entry.sides else "failed"
            return state, f"its result is there, and the answers behind it are not: {gone}"
        return "done", ""
    if "done" in states.values():
        open_ = ", ".join(f"seed {seed} {state}" for seed, state in states.items() if state != "done")
        return "partly", "; ".join([open_, *whys])
    worst = next(state for state in ("failed", "running", "waiting") if state in states.values())
    return worst, "; ".join(whys)


def _gone(entry: Entry) -> str:
    """The sides that have a score in some seed's result and no answers any more: "base, tuned"."""
    found = []
    for side in SIDES:
        said = sum(side in cell.result["sides"] for cell in entry.done)
        if said > (entry.sides[side].measured.seeds if side in entry.sides else 0):
            found.append(side)
    return ", ".join(found)


def _shades(grid: Grid, task: str) -> dict[str, int]:
    """Where each stands between the lowest and the highest score of a task: 0 to 10."""
    values = {
        one: answers.value
        for one in grid.contestants
        if (answers := grid.answers(one, task, "tuned") or grid.answers(one, task, "served"))
    }
    low, high = min(values.values(), default=0), max(values.values(), default=0)
    return {one: round(10 * (value - low) / (high - low)) if high > low else 5 for one, value in values.items()}


def _headline(tables: Sequence[RankTable], *, seeds: bool) -> str:
    """Who leads, how surely, and who cannot be told apart from it. `seeds`: whether several were trained."""
    if not tables:
        return "Nothing to rank yet: no contestant has a tuned score on a task that the others have too."
    table = tables[0]
    first = table.standings[0]
    over = counted(first.tasks, "task")
    if len(table.standings) == 1:
        return f"Only {first.contestant} is ranked, over {over}: there is nothing to compare it with."
    level = [one.contestant for one in table.standings if math.isclose(one.mean_rank, first.mean_rank)]
    who = f"{first.contestant} leads" if len(level) == 1 else f"{listed(level)} are level"
    said = f"{who} over {over}: mean rank {first.mean_rank:.2f} of {len(table.standings)}"
    if len(level) == len(table.standings):
        return f"{said}."
    if len(level) > 1:
        said += " each"
    elif first.p_best is not None:
        said += f", first in {first.p_best:.1%} of the draws{'' if seeds else ' of rows, with one seed each'}"
    behind = table.standings[len(level) :]
    near = [one.contestant for one in behind if _close(table, first.contestant, one.contestant)]
    them = "it" if len(level) == 1 else "them"
    if table.critical_difference is None:
        return f"{said}."
    if not near:
        return f"{said}; every other is further away than the critical difference."
    if len(near) == len(behind):
        return f"{said}. By ranks alone, none of the others can be told apart from {them}."
    return f"{said}. By ranks alone, {listed(near)} cannot be told apart from {them}."


def _close(table: RankTable, first: str, other: str) -> bool:
    return any(first in group and other in group for group in table.groups)


def _remarks(grid: Grid, block: Block, noise: SeedNoise | None, incomplete: bool) -> tuple[str, ...]:
    lines = []
    if grid.scored_on != TEST:
        lines.append(
            f"All scores are of {scored_rows(grid.scored_on)}, for choosing settings: they may not be set beside "
            "scores on test rows."
        )
    if block.left_out and not incomplete:
        lines.append(f"Not ranked, for want of a score: {'; '.join(clean(str(one)) for one in block.left_out)}.")
    if grid.served:
        lines.append(f"Served, compared with and not ranked: {', '.join(sorted(grid.served))}.")
    if noise is None and any("tuned" in entry.sides for entry in grid.entries.values()):
        lines.append("One seed a cell: how much of a difference is the luck of training is not known.")
    where = {ran_on(cell) for entry in grid.entries.values() for cell in entry.done if "tuned" in cell.result["sides"]}
    lines += [*_chosen(grid), *_notes(grid), *_moved(grid), *_other_rows(grid)]
    if len(where) > 1:
        lines.append(f"The cells did not all run alike, and scores may differ for that: {'; '.join(sorted(where))}.")
    return tuple(lines)


def _chosen(grid: Grid) -> list[str]:
    """That the best of several settings of a model is not to be chosen by test rows."""
    models = {one: grid.entries[one, task].cells[0].model for one, task in grid.entries if one in grid.trained}
    if grid.scored_on != TEST or len(set(models.values())) == len(models):
        return []
    return [
        "Several settings of a model are compared on test rows: whoever takes the best takes its luck too. Choose by "
        "rows held out of train (`data.validation_rows`), and score what was chosen on test rows."
    ]


def _moved(grid: Grid) -> list[str]:
    """The models whose files were not the same in all cells: a repository without a pinned revision moves on."""
    digests: dict[str, set[str]] = {}
    for cell in (cell for entry in grid.entries.values() for cell in entry.done):
        model = section(cell.result["environment"], "model")
        if model.get("digest"):
            digests.setdefault(cell.model, set()).add(str(model["digest"]))
    moved = sorted(model for model, found in digests.items() if len(found) > 1)
    return [f"The files of {clean(model)} were not the same in all cells: pin its `revision`." for model in moved]


def _other_rows(grid: Grid) -> list[str]:
    """The tasks on which an axis changed what is asked (data.test_rows, data.labels): like is not ranked with like."""
    asked: dict[str, set[int]] = {}
    for (_, task), entry in grid.entries.items():
        sides = (cell.result["sides"] for cell in entry.done)
        asked.setdefault(task, set()).update(side["n"] for found in sides for side in found.values())
    lines = []
    for task, counts in asked.items():
        if len(counts) > 1:
            rows = " or ".join(map(str, sorted(counts)))
            lines.append(
                f"Not all answered the same test rows of {task} ({rows} of them): their scores do not compare."
            )
    return lines


def _notes(grid: Grid) -> list[str]:
    """What must be said beside every score of a model: that its weights are random, or were quantised before."""
    models = [section(cell.result["environment"], "model") for entry in grid.entries.values() for cell in entry.done]
    notes = [(clean(str(one.get("label") or "")), clean(str(one["note"]))) for one in models if one.get("note")]
    return [f"{label}: {note}." for label, note in dict.fromkeys(notes)]
