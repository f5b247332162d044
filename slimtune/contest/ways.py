"""Who trains how. Two questions, two tables: what a layout is worth where all else is equal ("collation"), and what
slimtune's choice is worth beside the defaults and the best of others ("choice")."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from slimtune.engine.contestant.job import OWN_CHOICE, PLAIN, SLIMTUNE, UNSLOTH, Way
from slimtune.errors import UserError
from slimtune.models import ModelSpec
from slimtune.plan import Plan
from slimtune.recipe import Context
from slimtune.wording import listed

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

    def searched(self, table: str) -> bool:
        """Whether it may turn out the best of others in that table: by layout of all, by choice of Unsloth's."""
        return table in self.tables and not self.role and (table == COLLATION or self.way.library == UNSLOTH)


def refuse_stretched(context: Context, spec: ModelSpec) -> None:
    """UserError for YaRN: the others would read other positions."""
    if context.method == "yarn":
        most = f"`--set context={spec.native_context}`, or less"
        raise UserError(f"A contest has no YaRN: the others would read other positions. Add {most}.")


def refuse_levers(plan: Plan) -> None:
    """UserError for what saves memory in slimtune alone: the others would train without it."""
    kept = ["an embedding in host memory"] if plan.offload_embedding else []
    if alone := ["a tiled MLP"] * plan.tiled_mlp + kept:
        raise UserError(
            f"Rows of up to {plan.longest_row_tokens:,} tokens need {listed(alone)} on {plan.gpu}, which the others of "
            "a contest would not have. Lower `context` (`--set context=TOKENS` leaves longer rows out), or take a "
            "larger card."
        )


def entries_for(plan: Plan, *, only: Sequence[str] = (), most_packed: int | None = None) -> tuple[Entry, ...]:
    """Everyone for a plan of a recipe. `only`: words of which one has to be part of a way's short name. `most_packed`:
    examples that a packed row has room for at most, since no row may be longer than the model was made for.

    Unsloth at its best is searched among its layouts, with slimtune's precision and checkpointing and, where memory
    allows, with 16-bit weights and no checkpointing, by as many examples at a time as make a batch, by a half and a
    quarter of them, and by 8; where memory is tight, with 4-bit weights and no checkpointing too, by 8 and by 2. On a
    CPU it has one layout: the others need FlashAttention, and it leaves them out.

    UserError for a word that is in no name.
    """
    ours = Way(
        SLIMTUNE, plan.collation, plan.quantisation, plan.precision, plan.checkpointing, plan.micro_batch,
        plan.optimizer,
    )  # fmt: skip
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
    everyone = _merged([*entries, *_searched(replace(ours, library=UNSLOTH), plan, few, most_packed)])
    if nobody := [word for word in only if not any(word in entry.way.slug for entry in everyone)]:
        known = ", ".join(entry.way.slug for entry in everyone)
        raise UserError(f"No contestant's name has {' or '.join(nobody)} in it. There are: {known}.")
    return tuple(entry for entry in everyone if not only or any(word in entry.way.slug for word in only))


def _searched(same: Way, plan: Plan, few: int, most_packed: int | None) -> list[Entry]:
    """Unsloth's ways, of which the fastest is found by trying; `same` is as slimtune's choice."""
    free = replace(same, quantisation="16bit", checkpointing=False)
    sizes = tuple(dict.fromkeys((plan.batch, *(max(1, plan.batch // parts) for parts in (2, 4)), few)))
    asked = [(way, sizes, tables) for way, tables in ((same, (COLLATION, CHOICE)), (free, (CHOICE,)))]
    if plan.checkpointing and plan.gpu is not None:  # memory is tight, and no CPU has 4 bits
        asked.append((replace(free, quantisation="4bit"), (min(2, plan.batch), few), (CHOICE,)))
    layouts = ("padded",) if plan.gpu is None else ("padded", "padding-free", "packed")
    entries = []
    for way, micro_batches, tables in asked:
        for micro_batch, collation in itertools.product(micro_batches, layouts):
            most = most_packed if collation == "packed" and most_packed else micro_batch
            entries.append(Entry(replace(way, collation=collation, micro_batch=min(micro_batch, most)), tables))
    return entries


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
