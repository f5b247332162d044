"""Everyone in turn over the same rows: the others are tried first, and the fastest of them go the whole course."""

import math
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from slimtune.check import Ready, plan_of
from slimtune.contest.table import Contest, Outcome
from slimtune.contest.told import ask, own_code
from slimtune.contest.ways import Entry, entries_for, finalists, refuse_levers, refuse_stretched, to_try
from slimtune.doctor import installed_versions
from slimtune.engine.contestant.job import Job, Way
from slimtune.errors import UserError
from slimtune.files import digest_file, write_json, writing
from slimtune.gpus import DetectedGpu, GpuSpec, detect_gpu
from slimtune.lengths import count_rows, local_renderer
from slimtune.models import ModelSpec, get_model
from slimtune.status import Listener
from slimtune.wording import counted, listed

RANDOM = "Random weights: memory and speed, never quality."
ON_A_CPU = (
    "No GPU: neither plain TRL, whose loss is a Triton kernel, nor packed and padding-free rows, which need "
    "FlashAttention, take part."
)
_TRAINERS = {"torch", "unsloth", "unsloth_zoo", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "xformers"}
_SAMPLE = 20  # batches whose tokens are counted both ways


@dataclass(frozen=True)
class Course:
    """How long everyone trains: training steps, each a forward and backward pass over a micro-batch, that are not timed
    and that are. The optimizer's steps are whole: it may be a few more."""

    warm: int
    timed: int

    def optimizer_steps(self, way: Way, batch: int) -> tuple[int, int]:
        passes = math.ceil(batch / way.micro_batch)
        return math.ceil(self.warm / passes), math.ceil(self.timed / passes)


def trial_of(course: Course) -> Course:
    """A shorter one for those who are searched among; its first passes pay for lengths that are new."""
    return Course(min(course.warm, 50), min(course.timed, 20))


def hold(
    prepared: Ready,
    out: Path,
    *,
    shape: str | None,
    as_gpu: GpuSpec | None,
    only: Sequence[str],
    course: Course,
    listener: Listener,
    should_stop: Callable[[], bool],
) -> Contest:
    """Let everyone train in turn, in folders of their own under `out`: the recipe's model, or random weights in the
    shape of the model `shape`; on this card, or on no more of it than a smaller one has. Layouts and settings of others
    are tried for a few steps; the fastest, and who is named whole in `only`, go the whole course. Whoever did so before
    for the very same job, by the very same code, is not asked again.

    Raises UserError where the model is not on this machine, its tokens are not the shape's, nothing fits, or the recipe
    needs what the others do not have; Problems for rows that its template cannot hold; CannotWrite; and Interrupted
    where it should stop.
    """
    recipe, card = prepared.recipe, detect_gpu()
    spec = prepared.spec if shape is None else get_model(shape)
    refuse_stretched(recipe.context, spec)
    rows = _encoded(prepared, spec, listener)
    plan = plan_of(replace(prepared, spec=spec), gpu=as_gpu or card, counted=count_rows(rows))
    refuse_levers(plan)
    room, file = max(1, spec.native_context * len(rows) // sum(map(len, rows))), out / "rows.json"
    entries = entries_for(plan, only=only, most_packed=room)
    left_out = tuple(entry for entry in entries_for(plan, most_packed=room) if entry not in entries)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        write_json(file, [[row.prompt, row.answer] for row in rows])
    job = Job(
        entries[0].way, recipe.model, recipe.revision, shape, as_gpu.name if as_gpu else None, str(file.resolve()),
        digest_file(file), _where(card), recipe.context.length, recipe.lora.r, plan.batch, recipe.train.lr, recipe.seed,
        course.warm, course.timed,
    )  # fmt: skip
    outcomes = _everyone(entries, to_try(entries, only=only), job, course, out, listener, should_stop)
    title = f"{spec.label} on {prepared.task.title}: rank {recipe.lora.r}, {plan.batch} examples a step"
    notes = ((RANDOM,) if shape else ()) + (() if card else (ON_A_CPU,))
    return Contest(title, _facts(rows, job, course, outcomes), notes, outcomes, left_out)


def _everyone(
    entries: Sequence[Entry],
    trial: Sequence[Entry],
    job: Job,
    course: Course,
    out: Path,
    listener: Listener,
    should_stop: Callable[[], bool],
) -> list[Outcome]:
    """In the order of `entries`, those of `trial` first of all for a few steps."""

    def outcome(entry: Entry, over: Course, *, said: str, tried: bool = False) -> Outcome:
        listener.say(f"{said}{entry.way.who}: {entry.way.how}")
        warm, steps = over.optimizer_steps(entry.way, job.batch)
        folder = out / (entry.way.slug + "-tried" * tried)
        asked, today = replace(job, way=entry.way, warm=warm, steps=steps), date.today().isoformat()
        seen = ask(entry, asked, folder, should_stop, today=today)
        listener.say(f"    {seen.words}")
        return replace(seen, tried=tried)

    short, many = trial_of(course), len(trial)
    tried = {
        entry: outcome(entry, short, said=f"Trial {at} of {many}: ", tried=True) for at, entry in enumerate(trial, 1)
    }
    speeds = {entry: one.pace.examples / one.pace.seconds if one.pace else 0.0 for entry, one in tried.items()}
    fast = finalists(speeds)
    whole = [entry for entry in entries if entry not in tried or entry in fast]
    ran = {entry: outcome(entry, course, said=f"{at} of {len(whole)}: ") for at, entry in enumerate(whole, 1)}
    return [(tried | ran)[entry] for entry in entries]


def _encoded(prepared: Ready, spec: ModelSpec, listener: Listener) -> list[Any]:
    """The training rows as token ids that `spec` knows; those that are longer than the context are left out."""
    from slimtune.engine.kept_rows import encode_kept

    recipe, context = prepared.recipe, prepared.recipe.context.length
    renderer = local_renderer(prepared.spec, recipe, say=listener.say)
    rows = encode_kept(renderer, prepared.task.train, skip_bad=recipe.data.skip_bad)
    if not (fits := [row for row in rows if len(row) <= context]):
        raise UserError(f"No training row fits a context of {context:,} tokens.")
    if (highest := max(max(*row.prompt, *row.answer) for row in fits)) >= spec.shapes.vocab:
        raise UserError(f"{spec.label} has {spec.shapes.vocab:,} tokens, and the rows have one numbered {highest:,}.")
    return fits


def _where(card: DetectedGpu | None) -> str:
    """The machine and what trains on it: a ratio is of one of each."""
    versions = ", ".join(f"{name} {version}" for name, version in installed_versions().items() if name in _TRAINERS)
    cores = counted(os.cpu_count() or 1, "CPU core")
    machine = card.name if card else platform.machine()
    return f"{machine}; {cores}; Python {platform.python_version()}, {versions}, {own_code()}"


def _facts(rows: Sequence[Any], job: Job, course: Course, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Where, with what, on which days, over which rows, for how long."""
    from slimtune.engine.collate import shared_prefix
    from slimtune.engine.schedule import row_order

    order = row_order(len(rows), epochs=1, seed=job.seed)
    batches = [[rows[index] for index in order[at : at + job.batch]] for at in range(0, len(rows), job.batch)][:_SAMPLE]
    whole = sum(len(row) for batch in batches for row in batch)
    shared = sum(len(shared_prefix(batch).ids) for batch in batches)
    within = f", of which no more memory than a {job.as_gpu} has" if job.as_gpu else ""
    trial = trial_of(course)
    short = f" Tried: {trial.warm} and {trial.timed}." if any(one.tried for one in outcomes) else ""
    days = listed(sorted({one.measured for one in outcomes}))
    return (
        f"{job.where}{within}; measured on {days}.",
        f"{len(rows):,} rows of {whole / sum(map(len, batches)):.0f} tokens on average. Where a batch's prefixes are "
        f"computed once, {whole / shared:.1f} times fewer tokens are.",
        f"{counted(course.warm, 'training step')} before the clock runs, then {course.timed}, each a forward and "
        f"backward pass over what is computed at a time; steps of the optimizer are whole.{short} Everyone in a "
        "process of their own.",
    )
