"""Paired by row: each tuned student against each teacher on each task, and every contestant against a chosen one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from slimtune.errors import unknown_name
from slimtune.report.board import Against
from slimtune.stats import ALPHA, Comparison, SeedNoise, holm, paired_difference, widened
from slimtune.sweep.evidence import merged
from slimtune.sweep.gather import Answers, Grid, Scored, paired
from slimtune.wording import counted, in_common


@dataclass(frozen=True)
class Pair:
    """Two sides that answered the same task, `b` being the student; `trained_a` False for a teacher."""

    a: Scored
    b: Scored
    trained_a: bool = False


@dataclass(frozen=True)
class Apart:
    """A contestant minus the chosen one, tuned against tuned: on one task, or on all that both have, each row of them
    counting the same. `comparison` has the noise of seeds in its interval where several seeds tell it."""

    contestant: str
    tasks: tuple[str, ...]
    seeds: int
    score: float
    comparison: Comparison


def apart_from(grid: Grid, chosen: str, noise: SeedNoise | None, rng: np.random.Generator) -> tuple[Apart, ...]:
    """Every trained contestant against a chosen one, by its full name or by what the names do not have in common:
    task by task, then on all. Raises UserError for a name that is not there."""
    names = {one.removeprefix(in_common(grid.contestants)): one for one in grid.trained}
    first = names.get(chosen, chosen)
    if first not in grid.trained:
        raise unknown_name("contestant", chosen, list(names))
    found = []
    for one in grid.trained:
        tasks = [task for task in grid.tasks if all(grid.answers(name, task, "tuned") for name in (first, one))]
        if one != first and tasks:
            lots = [(task,) for task in tasks] + ([tuple(tasks)] if len(tasks) > 1 else [])
            found += [_apart(grid, first, one, lot, noise, rng) for lot in lots]
    return tuple(found)


def _apart(
    grid: Grid, first: str, one: str, tasks: tuple[str, ...], noise: SeedNoise | None, rng: np.random.Generator
) -> Apart:
    """On several tasks the luck of each training counts for its share of the rows only."""
    a, b = (merged(grid, name, tasks, "tuned") for name in (first, one))
    if noise is not None:
        rows = [len(grid.answers(one, task, "tuned").rows) for task in tasks]
        noise = replace(noise, sd=noise.sd * math.hypot(*rows) / sum(rows))
    comparison = compared(Pair(a, b, trained_a=True), noise, rng)
    return Apart(one, tasks, min(len(a.seeds), len(b.seeds)), b.value, comparison)


def compared(pair: Pair, noise: SeedNoise | None, rng: np.random.Generator) -> Comparison | None:
    """b minus a on the rows both have, with the noise of seeds in the interval where it is known; None without rows."""
    before, after, groups = paired(pair.a, pair.b)
    if not groups:
        return None
    found = paired_difference(before, after, groups, rng=rng)
    if noise is None:
        return found
    seeds_a = len(pair.a.seeds) if pair.trained_a else None
    wide = widened(found.difference, noise, seeds_a=seeds_a, seeds_b=len(pair.b.seeds))
    return replace(found, difference=wide)


def outcome(comparison: Comparison, p: float) -> str:
    """Of a comparison whose p value was adjusted: better, worse, or not clear."""
    interval = comparison.difference
    if p >= ALPHA or interval.low <= 0 <= interval.high:
        return "not clear"
    return "better" if interval.value > 0 else "worse"


def against_teachers(grid: Grid, noise: SeedNoise | None, rng: np.random.Generator) -> tuple[Against, ...]:
    """Every student against every teacher where both answered: a served contestant, or the teacher in its own run."""
    found = [
        (student, teacher, task, comparison)
        for student in grid.trained
        for task in grid.tasks
        for teacher, answers in _teachers(grid, student, task).items()
        if (tuned := grid.answers(student, task, "tuned"))
        and (comparison := compared(Pair(answers, tuned), noise, rng)) is not None
    ]
    raised = holm([comparison.p for *_, comparison in found]) if found else ()
    return tuple(
        Against(student, teacher, task, comparison, p, outcome(comparison, p))
        for (student, teacher, task, comparison), p in zip(found, raised, strict=True)
    )


def summaries(against: Sequence[Against]) -> tuple[str, ...]:
    """One sentence a student and teacher: better on so many tasks, no clear difference on so many."""
    pairs = dict.fromkeys((one.student, one.teacher) for one in against)
    return tuple(_summary(*pair, [one for one in against if (one.student, one.teacher) == pair]) for pair in pairs)


def _summary(student: str, teacher: str, rows: Sequence[Against]) -> str:
    counts = {word: sum(one.outcome == word for one in rows) for word in ("better", "worse", "not clear")}
    return (
        f"{student} against {teacher}: better on {counts['better']}, worse on {counts['worse']}, "
        f"no clear difference on {counts['not clear']} of {counted(len(rows), 'task')}."
    )


def _teachers(grid: Grid, student: str, task: str) -> Mapping[str, Answers]:
    own = grid.answers(student, task, "teacher")
    served = {one: answers for one in grid.contestants if (answers := grid.answers(one, task, "served"))}
    return ({own.label: own} if own else {}) | served
