"""A training that still goes on: its newest numbers and its curves, from metrics.jsonl."""

import functools
from dataclasses import dataclass
from pathlib import Path

from slimtune.report.plots import training_svg
from slimtune.runs import read_metrics, training_seconds

_KEYS = {"step", "steps", "epoch", "loss", "grad_norm", "lr", "gpu_reserved_gib", "seconds", "tokens", "skipped"}
_RECENT = 20  # steps that the pace is of


@dataclass(frozen=True)
class Live:
    """The newest step. `tokens_per_s` is over the last steps of one process; `peak_gib` None on a CPU."""

    step: int
    steps: int
    epoch: float
    loss: float | None
    first_loss: float | None
    grad_norm: float | None
    lr: float
    tokens_per_s: float | None
    peak_gib: float | None
    seconds: float
    skipped: int
    curves: str  # an <svg> element


def read_live(folder: Path) -> Live | None:
    """What metrics.jsonl says by now; None before the first step, or where it says too little."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return None
    facts = path.stat()
    return _read(folder, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(maxsize=8)
def _read(folder: Path, modified: int, size: int) -> Live | None:
    """Once for the same file: the curves take time to draw."""
    steps = read_metrics(folder)
    if not steps or _KEYS - steps[-1].keys():
        return None
    last = steps[-1]
    return Live(
        last["step"], last["steps"], last["epoch"], last["loss"], steps[0]["loss"], last["grad_norm"], last["lr"],
        _pace(steps), last["gpu_reserved_gib"], training_seconds(folder), sum(step["skipped"] for step in steps),
        training_svg(steps),
    )  # fmt: skip


def _pace(steps: list[dict]) -> float | None:
    recent = [step for step in steps[-_RECENT:] if step.get("process") == steps[-1].get("process")]
    seconds = recent[-1]["seconds"] - recent[0]["seconds"]
    return sum(step["tokens"] for step in recent[1:]) / seconds if seconds > 0 else None
