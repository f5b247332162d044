"""Supervised fine-tuning: TRL's SFTTrainer owns the loop, this file owns batches, checkpoints and what may go wrong.

The loader hands over whole optimizer batches and `training_step` slices them. So the batch never changes: out of memory
halves the slice and replays the same rows. The order of rows is a function of (seed, step) alone, which makes a resumed
run see what an unbroken one sees.
"""

from unsloth import FastLanguageModel  # noqa: I001  first: it patches what the others import
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from slimtune.engine.checkpoint import checkpoint_step, newest_whole
from slimtune.engine.load import Loaded
from slimtune.engine.memory import release
from slimtune.engine.render import Encoded
from slimtune.engine.schedule import Settings, StepReport, TrainResult, count_steps, row_order
from slimtune.engine.trainer import RowTrainer
from slimtune.errors import Interrupted

__all__ = ["Settings", "StepReport", "TrainResult", "count_steps", "row_order", "train"]


@contextmanager
def _given_back() -> Iterator[None]:
    """After a function is left: a trainer and its callbacks hold each other, and with them the optimizer's moments."""
    try:
        yield
    finally:
        release()


@_given_back()
def train(
    loaded: Loaded,
    rows: Sequence[Encoded],
    settings: Settings,
    folder: Path,
    *,
    on_step: Callable[[StepReport], None],
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
) -> TrainResult:
    """Train the adapter of `loaded.model` on `rows`, going on from the newest whole checkpoint in `folder`.

    Raises Diverged (exit 71), CannotWrite (73), Interrupted (75, after a checkpoint) and UserError where one row alone
    does not fit the memory.
    """
    steps = count_steps(len(rows), epochs=settings.epochs, batch=settings.batch)
    checkpoint, notes = newest_whole(folder)
    for note in notes:
        say(note)
    if checkpoint is not None:
        settings = replace(settings, optimizer=_saved_optimizer(checkpoint, planned := settings.optimizer))
        if settings.optimizer != planned:
            notes.append(f"It went on with {settings.optimizer}, whose moments it had; planned was {planned}.")
    FastLanguageModel.for_training(loaded.model)
    trainer = RowTrainer(loaded, rows, settings, folder, steps, on_step, should_stop, say)
    trainer.result.notes += notes
    if checkpoint is not None:
        trainer.result.resumed_at = checkpoint_step(checkpoint)
        say(f"Going on from step {trainer.result.resumed_at} of {steps}.")
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        if trainer.row_steps:  # answers need the memory
            trainer.row_steps.forget()
    if trainer.state.global_step < steps:
        raise Interrupted(f"Stopped after step {trainer.state.global_step} of {steps}; run the same command to go on.")
    return trainer.result


def _saved_optimizer(checkpoint: Path, planned: str) -> str:
    """Whose moments a checkpoint has: on a card of another size, the plan may be for the other one. Where all steps so
    far were skipped it has none."""
    saved = torch.load(checkpoint / "optimizer.pt", map_location="cpu", mmap=True, weights_only=True)["state"]
    if not saved:
        return planned
    return "adamw" if all("exp_avg" in moments for moments in saved.values()) else "adamw_8bit"
