"""slimtune's own trainer as a contestant: the code of real runs, its checkpoints left out."""

from unsloth import FastLanguageModel  # noqa: I001  first: it patches what the others import
from pathlib import Path
from typing import Any

import torch

from slimtune.engine.contestant.clock import Clock
from slimtune.engine.contestant.job import Job, Pace
from slimtune.engine.load import Loaded, load_model, load_renderer
from slimtune.engine.lora import attach_lora
from slimtune.engine.measure import Measuring, even_steps, load_hollow
from slimtune.engine.render import Encoded
from slimtune.engine.schedule import StepReport
from slimtune.engine.source import resolve_source
from slimtune.plan import Setting


class _Timed(Measuring):
    clock: Clock

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        batch = [self.rows[index] for index in inputs["rows"]]
        self.clock.saw(tokens=sum(map(len, batch)), supervised=sum(len(row.answer) for row in batch))
        return super().training_step(model, inputs, num_items_in_batch)


def train(job: Job, folder: Path) -> Pace:
    """Train as the job says, in `folder`; what was seen."""
    way, loaded = job.way, _load(job, folder)
    rows = [
        Encoded(str(number), tuple(prompt), tuple(answer)) for number, (prompt, answer) in enumerate(job.read_rows())
    ]
    settings = even_steps(
        rows=len(rows), steps=job.last_step, batch=job.batch, micro_batch=way.micro_batch, collation=way.collation,
        lr=job.lr, seed=job.seed, optimizer=way.optimizer,
    )  # fmt: skip
    clock = Clock(job, answer_tokens=sum(len(row.answer) for row in rows) / len(rows))

    def on_step(report: StepReport) -> None:
        clock.ended(report.step, loss=report.loss, grad_norm=report.grad_norm, skipped=report.skipped)

    FastLanguageModel.for_training(loaded.model)
    trainer = _Timed(loaded, rows, settings, folder, job.last_step, on_step, lambda: False, print)
    trainer.clock = clock
    if trainer.row_steps:
        clock.captures = lambda: trainer.row_steps.replays.captured
    clock.start()
    trainer.train()
    if trainer.result.oom_splits:
        raise torch.OutOfMemoryError(f"{way.micro_batch} examples at a time do not fit")
    return clock.pace()


def _load(job: Job, folder: Path) -> Loaded:
    way, spec = job.way, job.spec
    if job.shape is not None:
        cuda = torch.cuda.is_available()
        setting = Setting(
            way.quantisation, way.precision, way.checkpointing, way.micro_batch, job.window, job.r, cuda=cuda
        )
        return load_hollow(spec, setting, folder / "model", window=job.window, skip=None)
    source = resolve_source(spec, quantisation=way.quantisation, revision=job.revision)
    loaded = load_model(
        spec, source, load_renderer(spec, source, thinking="off"), precision=way.precision,
        quantisation=way.quantisation, window=job.window,
    )  # fmt: skip
    loaded.model = attach_lora(
        loaded.model, spec, r=job.r, alpha=job.r, dropout=0.0, seed=job.seed, checkpointing=way.checkpointing,
        window=job.window,
    )  # fmt: skip
    return loaded
