"""Who trains how. Two questions, two tables: what a layout is worth where all else is equal ("collation"), and what
slimtune's choice is worth beside the defaults and the best of others ("choice")."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from slimtune.engine.contestant.job import OWN_CHOICE, PLAIN, SLIMTUNE, UNSLOTH, Way
from slimtune.errors import UserError
from slimtune.plan import Plan

COLLATION, CHOICE = "collation", "choice"
OURS = "slimtune's choice"
_DEFAULT_MICRO_BATCH = 8  # notebooks of Unsloth's have 2 to 8: the larger is the faster
_CLOSE = 0.85  # of the fastest in a trial: who is slower than that is not asked to the contest


@dataclass(frozen=True)
class Entry:
    """A way, the tables it stands in, and what it is there. "defaults" of others are what their documentation says;
    one without a role may turn out the best."""

    way: Way
    tables: tuple[str, ...]
    role: str = ""


def entries_for(plan: Plan, *, only: Sequence[str] = ()) -> tuple[Entry, ...]:
    """Everyone for a plan of a recipe. `only`: words of which one has to be part of a way's short name.

    Unsloth at its best is searched among its layouts, with slimtune's precision and checkpointing and, where memory
    allows, with 16-bit weights and no checkpointing, by as many examples at a time as make a batch, by a quarter of
    them, and by 8.
    """
    ours = Way(
        SLIMTUNE, plan.collation, plan.quantisation, plan.precision, plan.checkpointing, plan.micro_batch,
        plan.optimizer,
    )  # fmt: skip
    whole, quarter = plan.batch, max(1, plan.batch // 4)
    weights, few = "16bit" if plan.gpu is None else "4bit", min(_DEFAULT_MICRO_BATCH, plan.batch)
    adam = "adamw" if plan.gpu is None else "adamw_8bit"
    defaults = Way(UNSLOTH, OWN_CHOICE, weights, plan.precision, checkpointing=True, micro_batch=few, optimizer=adam)
    entries = [
        Entry(ours, (COLLATION, CHOICE), OURS),
        Entry(replace(ours, collation="padded"), (COLLATION,)),
        Entry(defaults, (CHOICE,), "Unsloth's defaults"),
    ]
    if plan.gpu is not None:  # TRL's loss is a Triton kernel, which needs a GPU
        entries.append(Entry(replace(defaults, library=PLAIN), (CHOICE,), "plain TRL's defaults"))
    for micro_batch in dict.fromkeys((whole, quarter, few)):
        same = replace(ours, library=UNSLOTH, micro_batch=micro_batch)
        free = replace(same, quantisation="16bit", checkpointing=False)
        for collation in ("padded", "padding-free", "packed"):
            entries.append(Entry(replace(same, collation=collation), (COLLATION, CHOICE)))
            entries.append(Entry(replace(free, collation=collation), (CHOICE,)))
    everyone = _merged(entries)
    chosen = tuple(entry for entry in everyone if not only or any(word in entry.way.slug for word in only))
    if not chosen:
        known = ", ".join(entry.way.slug for entry in everyone)
        raise UserError(f"No contestant's name has {' or '.join(only)} in it. There are: {known}.")
    return chosen


def to_try(entries: Sequence[Entry], *, only: Sequence[str]) -> tuple[Entry, ...]:
    """Who may turn out the best, and is tried first where there are several. Who was asked for by the whole name in
    `only` goes the whole course."""
    searched = tuple(entry for entry in entries if not entry.role and entry.way.slug not in only)
    return searched if len(searched) > 1 else ()


def finalists(speeds: Mapping[Entry, float]) -> tuple[Entry, ...]:
    """Of those who were tried, each with its examples a second: the fastest of each table, and who came close to it."""
    best = {
        table: max((speed for entry, speed in speeds.items() if table in entry.tables), default=0.0)
        for table in (COLLATION, CHOICE)
    }
    return tuple(
        entry for entry, speed in speeds.items() if speed and any(speed >= _CLOSE * best[name] for name in entry.tables)
    )


def _merged(entries: Sequence[Entry]) -> list[Entry]:
    """One entry a way, in the tables of all."""
    merged: dict[Way, Entry] = {}
    for entry in entries:
        if (before := merged.get(entry.way)) is not None:
            tables = tuple(dict.fromkeys((*before.tables, *entry.tables)))
            entry = replace(before, tables=tables, role=before.role or entry.role)
        merged[entry.way] = entry
    return list(merged.values())
