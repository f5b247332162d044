"""Rows that think and rows that do not, in the ratio that keeps a hybrid model's reasoning while it learns to answer.

Unsloth's guide for Qwen3 gives it: 75% of the rows with reasoning, 25% without. The kind of which there are too many
is thinned; no row is seen more often than another, and none is invented.
"""

from dataclasses import replace

import numpy as np

from slimtune.data import Example
from slimtune.errors import UserError
from slimtune.tasks.task import Task

_THINKING, _DIRECT = 3, 1  # of four rows


def mix_thoughts(task: Task, *, seed: int) -> Task:
    """The task with as many training rows as keep the ratio, in their order, and a note that counts them. The choice is
    seeded. Raises UserError where there are no rows of one kind."""
    thinking = [row for row in task.train if thinks(row)]
    direct = [row for row in task.train if not thinks(row)]
    if not thinking or not direct:
        kind, mode = ("with", "off") if not thinking else ("without", "on")
        raise UserError(
            f"`thinking: mixed` learns from rows with reasoning and rows without, and there are none {kind}. "
            f"Set `thinking: {mode}`, or add such rows."
        )
    parts = max(1, min(len(thinking) // _THINKING, len(direct) // _DIRECT))
    rng = np.random.default_rng([seed, len(task.train)])
    kept = {
        row.id
        for rows, share in ((thinking, _THINKING), (direct, _DIRECT))
        for row in (rows[place] for place in rng.permutation(len(rows))[: parts * share])
    }
    train = tuple(row for row in task.train if row.id in kept)
    with_thought = sum(map(thinks, train))
    note = (
        f"{with_thought:,} training rows carry reasoning and {len(train) - with_thought:,} do not (`thinking: mixed` "
        f"takes three to one); there were {len(thinking):,} and {len(direct):,}."
    )
    return replace(task, train=train, notes=(*task.notes, note))


def note_unused(task: Task) -> Task:
    """The task, with a note where its rows carry reasoning that `thinking: off` does not learn."""
    if not (count := sum(map(thinks, task.train))):
        return task
    note = (
        f"{count:,} of {len(task.train):,} training rows carry reasoning, and `thinking: off` learns their answers "
        "alone. `thinking: on` or mixed learns it, with a model that can think."
    )
    return replace(task, notes=(*task.notes, note))


def thinks(row: Example) -> bool:
    """Whether a row carries the reasoning that led to its answer."""
    return "reasoning" in row.meta
