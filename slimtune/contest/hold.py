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
from slimtune.lengths import count_rows
from slimtune.models import get_model
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

    Raises UserError where the model is not on this machine or nothing fits it, Problems for rows that its template
    cannot hold, CannotWrite, and Interrupted where it should stop.
    """
    recipe, card = prepared.recipe, detect_gpu()
    rows = _encoded(prepared)
    spec = prepared.spec if shape is None else get_model(shape)
    plan = plan_of(replace(prepared, spec=spec), gpu=card, counted=count_rows(rows))
    entries = entries_for(plan, only=only)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "rows.json", [[row.prompt, row.answer] for row in rows])
    outcomes = []
    for number, entry in enumerate(entries, 1):
        listener.say(f"{number} of {len(entries)}: {entry.way.who}: {entry.way.how}")
        job = Job(
            entry.way, recipe.model, shape, str((out / "rows.json").resolve()), recipe.context.length, recipe.lora.r,
            recipe.train.batch, recipe.train.lr, recipe.seed, warm, steps,
        )  # fmt: skip
        outcomes.append(_outcome(entry, job, out / entry.way.slug, should_stop))
        listener.say(f"    {outcomes[-1].words}")
    title = f"{spec.label} on {prepared.task.title}: rank {recipe.lora.r}, {recipe.train.batch} examples a step"
    return Contest(title, _facts(card, rows, job), (RANDOM,) if shape else (), outcomes)


def _encoded(prepared: Ready) -> list[Any]:
    """The training rows as token ids; those that are longer than the context are left out."""
    from slimtune.engine.render import encode_rows, load_tokenizer, make_renderer
    from slimtune.engine.source import local_folder

    folder, context = local_folder(prepared.spec), prepared.recipe.context.length
    if folder is None:
        raise UserError(f"{prepared.spec.label} is not on this machine yet. `slimtune run` fetches it.")
    renderer = make_renderer(load_tokenizer(folder, prepared.spec), prepared.spec, thinking=prepared.recipe.thinking)
    rows = encode_rows(renderer, prepared.task.train, skip_bad=prepared.recipe.data.skip_bad)
    if not (fits := [row for row in rows if len(row) <= context]):
        raise UserError(f"No training row fits a context of {context:,} tokens.")
    return fits


def _facts(card: DetectedGpu | None, rows: Sequence[Any], job: Job) -> tuple[str, ...]:
    """Where, with what, over which rows, for how long."""
    from slimtune.engine.collate import shared_prefix
    from slimtune.engine.schedule import row_order

    order = row_order(len(rows), epochs=1, seed=job.seed)
    batches = [[rows[index] for index in order[at : at + job.batch]] for at in range(0, len(rows), job.batch)][:_SAMPLE]
    whole = sum(len(row) for batch in batches for row in batch)
    shared = sum(len(shared_prefix(batch).ids) for batch in batches)
    versions = ", ".join(f"{name} {version}" for name, version in installed_versions().items() if name in _TRAINERS)
    return (
        f"{card.name if card else platform.machine()}; {counted(os.cpu_count() or 1, 'CPU core')}; Python "
        f"{platform.python_version()}, {versions}; {date.today().isoformat()}.",
        f"{len(rows):,} rows of {whole / sum(map(len, batches)):.0f} tokens on average. Where a batch's prefixes are "
        f"computed once, {whole / shared:.1f} times fewer tokens are.",
        f"{counted(job.warm, 'step')} before the clock runs, then {job.steps}. Everyone in a process of their own.",
    )


def _outcome(entry: Entry, job: Job, folder: Path, should_stop: Callable[[], bool]) -> Outcome:
    asked, told = job.as_json() | {"rows": digest_file(Path(job.rows))}, folder / "told.json"
    if not (told.is_file() and (folder / "asked.json").is_file() and read_json(folder / "asked.json") == asked):
        folder.mkdir(parents=True, exist_ok=True)
        told.unlink(missing_ok=True)
        write_json(folder / "job.json", job.as_json())
        failed = _train(folder, told, should_stop)
        if failed:
            write_json(told, {"failed": failed})
        write_json(folder / "asked.json", asked)
    said = read_json(told)
    return Outcome(entry, None, said["failed"]) if "failed" in said else Outcome(entry, Pace(**said))


def _train(folder: Path, told: Path, should_stop: Callable[[], bool]) -> str:
    """Run the contestant's process. Its last words where it failed; empty where it did not."""
    command = [sys.executable, "-P", "-m", "slimtune.engine.contestant", str(folder / "job.json"), str(told)]
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
