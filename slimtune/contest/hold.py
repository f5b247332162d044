"""Every contestant in a process of its own, one after the other, over the same rows; what is done stays done."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from slimtune.check import Ready, plan_of
from slimtune.contest.table import Contest, Outcome
from slimtune.contest.ways import Entry, entries_for
from slimtune.doctor import installed_versions
from slimtune.engine.contestant.job import Job, Pace
from slimtune.errors import Interrupted, UserError
from slimtune.files import digest_file, read_json, write_json, writing
from slimtune.gpus import DetectedGpu, detect_gpu
from slimtune.lengths import count_rows, local_renderer
from slimtune.models import ModelSpec, get_model
from slimtune.status import Listener
from slimtune.wording import counted

_LAST_WORDS = 2000
_TICK_S = 0.2
RANDOM = "Random weights: memory and speed, never quality."
_TRAINERS = {"torch", "unsloth", "unsloth_zoo", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "xformers"}
_SAMPLE = 20  # batches whose tokens are counted both ways


def hold(
    prepared: Ready,
    out: Path,
    *,
    shape: str | None,
    only: Sequence[str],
    warm: int,
    steps: int,
    listener: Listener,
    should_stop: Callable[[], bool],
) -> Contest:
    """Let everyone train in turn, in folders of their own under `out`: the recipe's model, or random weights in the
    shape of the model `shape`. Whoever did so before for the very same job is not asked again.

    Raises UserError where the model is not on this machine, its tokens are not the shape's, or nothing fits; Problems
    for rows that its template cannot hold; CannotWrite; and Interrupted where it should stop.
    """
    recipe, card = prepared.recipe, detect_gpu()
    spec = prepared.spec if shape is None else get_model(shape)
    rows = _encoded(prepared, spec, listener)
    plan = plan_of(replace(prepared, spec=spec), gpu=card, counted=count_rows(rows))
    entries, outcomes, file = entries_for(plan, only=only), [], out / "rows.json"
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        write_json(file, [[row.prompt, row.answer] for row in rows])
    for number, entry in enumerate(entries, 1):
        listener.say(f"{number} of {len(entries)}: {entry.way.who}: {entry.way.how}")
        job = Job(
            entry.way, recipe.model, shape, str(file.resolve()), digest_file(file), _where(card),
            recipe.context.length, recipe.lora.r, recipe.train.batch, recipe.train.lr, recipe.seed, warm, steps,
        )  # fmt: skip
        outcomes.append(_outcome(entry, job, out / entry.way.slug, should_stop))
        listener.say(f"    {outcomes[-1].words}")
    title = f"{spec.label} on {prepared.task.title}: rank {recipe.lora.r}, {recipe.train.batch} examples a step"
    return Contest(title, _facts(rows, job), (RANDOM,) if shape else (), outcomes)


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
    return f"{card.name if card else platform.machine()}; {cores}; Python {platform.python_version()}, {versions}"


def _facts(rows: Sequence[Any], job: Job) -> tuple[str, ...]:
    """Where, with what, over which rows, for how long."""
    from slimtune.engine.collate import shared_prefix
    from slimtune.engine.schedule import row_order

    order = row_order(len(rows), epochs=1, seed=job.seed)
    batches = [[rows[index] for index in order[at : at + job.batch]] for at in range(0, len(rows), job.batch)][:_SAMPLE]
    whole = sum(len(row) for batch in batches for row in batch)
    shared = sum(len(shared_prefix(batch).ids) for batch in batches)
    return (
        f"{job.where}; {date.today().isoformat()}.",
        f"{len(rows):,} rows of {whole / sum(map(len, batches)):.0f} tokens on average. Where a batch's prefixes are "
        f"computed once, {whole / shared:.1f} times fewer tokens are.",
        f"{counted(job.warm, 'step')} before the clock runs, then {job.steps}. Everyone in a process of their own.",
    )


def _outcome(entry: Entry, job: Job, folder: Path, should_stop: Callable[[], bool]) -> Outcome:
    asked, told = folder / "job.json", folder / "told.json"
    if not (told.is_file() and read_json(asked) == job.as_json()):
        folder.mkdir(parents=True, exist_ok=True)
        told.unlink(missing_ok=True)
        write_json(asked, job.as_json())
        if failed := _train(folder, should_stop):
            write_json(told, {"failed": failed})
    said = read_json(told)
    return Outcome(entry, None, said["failed"]) if "failed" in said else Outcome(entry, Pace(**said))


def _train(folder: Path, should_stop: Callable[[], bool]) -> str:
    """Run the contestant's process. Its last words where it failed; empty where it did not."""
    files = [str(folder / name) for name in ("job.json", "told.json")]
    command = [sys.executable, "-P", "-m", "slimtune.engine.contestant", *files]
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        while process.poll() is None and not should_stop():
            time.sleep(_TICK_S)
    if process.poll() is None:
        process.kill()
        process.wait()
        raise Interrupted("Stopped. The same command goes on with whoever has not trained yet.")
    if process.returncode == 0:
        return ""
    lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")[-_LAST_WORDS:].strip().splitlines()
    return f"it ended with {process.returncode}: {lines[-1] if lines else 'without a word'}"
