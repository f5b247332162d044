"""The memory a training step really takes: the model in its real shape with random weights, trained for a few steps.

The steps go through the trainer that real runs use. Rows are random tokens of the given lengths, as many in all
as the largest micro-batch has, so the peak is its peak.
"""

from unsloth import FastLanguageModel  # noqa: I001  first: it patches what the others import
import dataclasses
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from slimtune.engine.hollow import fill, hollow_model
from slimtune.engine.load import Loaded, load_model, load_renderer
from slimtune.engine.lora import attach_lora
from slimtune.engine.memory import release
from slimtune.engine.render import Encoded
from slimtune.engine.schedule import Settings, StepReport
from slimtune.engine.source import Source
from slimtune.engine.trainer import RowTrainer
from slimtune.errors import UserError
from slimtune.models import ModelSpec
from slimtune.plan import Setting, Yarn

STEPS = 3
_SEED = 17
_ORDINARY_IDS = (1000, 40000)  # within every vocabulary, clear of special tokens


@dataclass(frozen=True)
class Measured:
    """What the steps took, in GiB: `resident` before the first of them, `allocated` and `reserved` at the peak. On a
    CPU nothing is measured and all three are 0."""

    resident_gib: float
    allocated_gib: float
    reserved_gib: float
    first_loss: float
    last_loss: float
    grad_norm: float
    seconds: float


class Measuring(RowTrainer):
    """The trainer, without checkpoints: nothing here is worth keeping."""

    def _save_checkpoint(self, model, trial) -> None:
        pass


def even_steps(
    *, rows: int, steps: int, batch: int, micro_batch: int, collation: str, lr: float, seed: int, optimizer: str
) -> Settings:
    """So many steps of one rate, for their memory or their speed."""
    return Settings(
        epochs=steps * batch / rows, lr=lr, schedule="constant", warmup=0.0, batch=batch, micro_batch=micro_batch,
        collation=collation, weight_decay=0.0, max_grad_norm=1.0, seed=seed, checkpoint_minutes=1e6,
        checkpoint_steps=None, keep_checkpoints=1, optimizer=optimizer,
    )  # fmt: skip


def measure_steps(
    loaded: Loaded,
    *,
    micro_batch: int,
    row_tokens: int,
    answer_tokens: int,
    optimizer: str,
    steps: int = STEPS,
    warm: int = 0,
    prefix_tokens: int = 0,
    collation: str = "padded",
) -> Measured:
    """Train `loaded` (with its adapter attached) for a few steps of one micro-batch each. `seconds` leave the first
    `warm` of them out.

    Raises UserError where it does not fit, as a run would: a micro-batch that had to be split did not fit either.
    """
    rows = _random_rows(micro_batch * steps, row_tokens, answer_tokens, _SEED, prefix_tokens=prefix_tokens)
    settings = even_steps(
        rows=len(rows), steps=steps, batch=micro_batch, micro_batch=micro_batch, collation=collation, lr=2e-4,
        seed=_SEED, optimizer=optimizer,
    )  # fmt: skip
    reports: list[StepReport] = []
    FastLanguageModel.for_training(loaded.model)
    release()
    resident = _allocated_gib()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Measuring(
            loaded, rows, settings, Path(folder), steps, reports.append, lambda: False, lambda text: None
        )
        trainer.train()
    if trainer.result.oom_splits:
        raise UserError(
            f"{micro_batch} rows of {row_tokens} tokens do not fit: {trainer.result.micro_batch} at a time did."
        )
    cuda = torch.cuda.is_available()
    taken = [step for step in reports if not step.skipped] or reports
    return Measured(
        resident,
        torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0,
        torch.cuda.max_memory_reserved() / 2**30 if cuda else 0.0,
        reports[0].loss,
        reports[-1].loss,
        taken[-1].grad_norm,
        reports[-1].seconds - (reports[warm - 1].seconds if warm else 0.0),
    )


def load_hollow(
    spec: ModelSpec,
    setting: Setting,
    folder: Path,
    *,
    window: int,
    yarn: Yarn | None = None,
    skip: Sequence[str] | None,
) -> Loaded:
    """The model with its adapter, in its real shape, with random weights: written hollow into `folder`, loaded the way
    a run would load it. `skip` as in `hollow_model`."""
    hollow = hollow_model(spec, folder, skip=skip)
    source = Source(folder, spec.key, None, "random")
    renderer = load_renderer(hollow, source, thinking="off")
    loaded = load_model(
        hollow, source, renderer, precision=setting.precision, quantisation=setting.quantisation, window=window,
        yarn=yarn, tiled_mlp=setting.tiled_mlp, offload_embedding=setting.offload_embedding,
    )  # fmt: skip
    fill(loaded.model, seed=_SEED)
    r = setting.lora_r
    loaded.model = attach_lora(
        loaded.model, hollow, r=r, alpha=r, dropout=0.0, seed=_SEED, checkpointing=setting.checkpointing, window=window
    )
    return loaded


def measure_setting(spec: ModelSpec, setting: Setting, folder: Path, *, yarn: Yarn | None) -> Measured:
    """What a setting takes on this card. Raises UserError where it does not fit."""
    loaded = load_hollow(spec, setting, folder, window=setting.row_tokens, yarn=yarn, skip=None)
    evenly, shared = setting.row_tokens, setting.prefix_tokens
    if setting.together:  # as many tokens in all, of rows that share one prefix and are no longer than the longest
        (ahead, own), size = setting.together.largest, setting.micro_batch
        spared = (size * setting.row_tokens - ahead - own) // max(1, size - 1)
        shared = max(0, min(ahead, spared, setting.row_tokens - 2))
        evenly = shared + math.ceil((ahead + own - shared) / size)
    return measure_steps(
        loaded,
        micro_batch=setting.micro_batch,
        row_tokens=evenly,
        answer_tokens=min(setting.supervised // setting.micro_batch, max(1, evenly - shared - 1)),
        optimizer=setting.optimizer,
        prefix_tokens=shared,
        collation="shared-prefix" if setting.framed else "padded",
    )


def as_row(measured: Measured) -> dict[str, float]:
    """Rounded, as it stands in the calibration table."""
    return {name: round(value, 3) for name, value in dataclasses.asdict(measured).items()}


def _random_rows(count: int, row_tokens: int, answer_tokens: int, seed: int, *, prefix_tokens: int) -> list[Encoded]:
    ids = np.random.default_rng(seed).integers(*_ORDINARY_IDS, size=(count, row_tokens)).tolist()
    prompt = row_tokens - answer_tokens
    ids = [[*ids[0][:prefix_tokens], *row[prefix_tokens:]] for row in ids]
    return [Encoded(f"random-{number}", tuple(row[:prompt]), tuple(row[prompt:])) for number, row in enumerate(ids)]


def _allocated_gib() -> float:
    return torch.cuda.memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
