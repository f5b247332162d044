"""What training is told and what it tells: settings, the order of rows, a report a step, the result. No torch here."""

import math
from dataclasses import dataclass, field

import numpy as np

from slimtune.plan import trained_on

WARM_STEPS = 10


@dataclass(frozen=True)
class Settings:
    """How to train. `batch` rows make one optimizer step, in slices of `micro_batch`."""

    epochs: float
    lr: float
    schedule: str
    warmup: float
    batch: int
    micro_batch: int
    collation: str
    weight_decay: float
    max_grad_norm: float
    seed: int
    checkpoint_minutes: float
    checkpoint_steps: int | None
    keep_checkpoints: int
    optimizer: str  # "adamw" | "adamw_8bit", which takes a quarter of the memory and is for GPUs


@dataclass(frozen=True)
class StepReport:
    """One optimizer step, as it goes into metrics.jsonl. `skipped`: fp16 overflowed and the scaler left it out. Seconds
    since training began in this process."""

    step: int
    steps: int
    epoch: float
    loss: float
    lr: float
    grad_norm: float
    skipped: bool
    tokens: int
    supervised_tokens: int
    seconds: float
    gpu_reserved_gib: float | None


@dataclass
class TrainResult:
    """What training came to, in this process; `notes` are sentences for the report. `made_late`: graphs that were
    compiled, or captured, after its first WARM_STEPS steps: each takes as long as many steps."""

    steps: int
    resumed_at: int | None
    micro_batch: int
    made_late: int = 0
    oom_splits: list[dict[str, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def optimizer_name(optimizer: str, precision: str, *, cuda: bool) -> str:
    """What transformers calls it. Fused where it can be: under fp16 the fused one hides from Accelerate which steps the
    scaler left out."""
    if optimizer == "adamw_8bit":
        return optimizer
    return "adamw_torch_fused" if cuda and precision != "fp16" else "adamw_torch"


def count_steps(rows: int, *, epochs: float, batch: int) -> int:
    """Optimizer steps of a run."""
    return math.ceil(trained_on(rows, epochs) / batch)


def row_order(rows: int, *, epochs: float, seed: int) -> np.ndarray:
    """Row numbers in training order: a permutation an epoch, one after the other; a part of one for a part epoch."""
    whole = [np.random.default_rng([seed, epoch]).permutation(rows) for epoch in range(math.ceil(epochs))]
    return np.concatenate(whole)[: trained_on(rows, epochs)]
