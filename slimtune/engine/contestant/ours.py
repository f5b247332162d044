"""slimtune's own trainer as a contestant: the code of real runs, its checkpoints left out."""

from unsloth import FastLanguageModel  # noqa: I001  first: it patches what the others import
from pathlib import Path
from typing import Any

import torch

from slimtune.engine.contestant.clock import Clock
from slimtune.engine.contestant.job import Job, Pace
from slimtune.engine.hollow import fill, hollow_model
from slimtune.engine.load import Loaded, load_model, load_renderer
from slimtune.engine.lora import attach_lora
from slimtune.engine.render import Encoded
from slimtune.engine.schedule import Settings, StepReport
from slimtune.engine.source import Source, resolve_source
from slimtune.engine.trainer import RowTrainer


class _Timed(RowTrainer):
    clock: Clock

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        batch = [self.rows[index] for index in inputs["rows"]]
        self.clock.saw(tokens=sum(map(len, batch)), supervised=sum(len(row.answer) for row in batch))
        return super().training_step(model, inputs, num_items_in_batch)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        pass


def train(job: Job, folder: Path) -> Pace:
    """Train as the job says, in `folder`; what was seen."""
    way, loaded = job.way, _load(job, folder)
    rows = [
        Encoded(str(number), tuple(prompt), tuple(answer)) for number, (prompt, answer) in enumerate(job.read_rows())
    ]
    settings = Settings(
        epochs=job.last_step * job.batch / len(rows), lr=job.lr, schedule="constant", warmup=0.0, batch=job.batch,
        micro_batch=way.micro_batch, collation=way.collation, weight_decay=0.0, max_grad_norm=1.0, seed=job.seed,
        checkpoint_minutes=1e6, checkpoint_steps=None, keep_checkpoints=1,
    )  # fmt: skip
    clock = Clock(job, answer_tokens=sum(len(row.answer) for row in rows) / len(rows))

    def on_step(report: StepReport) -> None:
        clock.ended(report.step, loss=report.loss, grad_norm=report.grad_norm)

    FastLanguageModel.for_training(loaded.model)
    trainer = _Timed(loaded, rows, settings, folder, job.last_step, on_step, lambda: False, print)
    trainer.clock = clock
    clock.start()
    trainer.train()
    if trainer.result.oom_splits:
        raise torch.OutOfMemoryError(f"{way.micro_batch} examples at a time do not fit")
    return clock.pace()


def _load(job: Job, folder: Path) -> Loaded:
    way, spec = job.way, job.spec
    if job.shape is not None:
        spec = hollow_model(spec, folder / "model")
        source = Source(folder / "model", spec.key, None, "random")
    else:
        source = resolve_source(spec, quantisation=way.quantisation, revision=None)
    loaded = load_model(
        spec, source, load_renderer(spec, source, thinking="off"), precision=way.precision,
        quantisation=way.quantisation, window=job.window,
    )  # fmt: skip
    if job.shape is not None:
        fill(loaded.model, seed=job.seed)
    loaded.model = attach_lora(
        loaded.model, spec, r=job.r, alpha=job.r, dropout=0.0, seed=job.seed, checkpointing=way.checkpointing,
        window=job.window,
    )  # fmt: skip
    return loaded
