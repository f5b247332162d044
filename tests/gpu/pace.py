"""What steps take on this card, for fitting the plan's speed and memory: `python tests/gpu/pace.py OUT SHAPE WEIGHTS
[ckpt]` (WEIGHTS: 4bit or 16bit). Random weights in the shape of a model: speed and memory, never quality.

The model is loaded once; rows of several lengths are trained on, padded and with a shared prefix, so many at a time.
One JSON line each is added to OUT: seconds of a step after warming up, and the peak of reserved memory.
"""

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

WARM, TIMED = 6, 10


@dataclass(frozen=True)
class Rows:
    """`at_a_time` rows of `prefix` shared tokens and `own` of each, `answer` of them supervised."""

    collation: str
    at_a_time: int
    prefix: int
    own: int
    answer: int = 8


GRID = [
    *(Rows("shared-prefix", rows, 570, 28) for rows in (16, 64, 256)),
    *(Rows("shared-prefix", rows, 200, 400) for rows in (4, 16, 64)),
    *(Rows("padded", rows, 570, 28) for rows in (4, 16, 64)),
    *(Rows("padded", rows, 1800, 248) for rows in (1, 4, 16)),
]


def main(out: Path, shape: str, weights: str, checkpointing: bool) -> None:
    import unsloth  # noqa: F401, I001  first: it patches what the others import
    import torch

    from slimtune.engine.measure import load_hollow
    from slimtune.errors import UserError
    from slimtune.gpus import detect_gpu
    from slimtune.models import get_model
    from slimtune.plan import Setting, choose_precision

    spec, card = get_model(shape), detect_gpu()
    precision = choose_precision(spec, card)
    setting = Setting(weights, precision, checkpointing, 1, 4096, 64, cuda=True)
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_hollow(spec, setting, Path(folder) / "model", window=4096, skip=None)
        for rows in GRID:
            said = {"card": card.name, "model": shape, "weights": weights, "precision": precision}
            said |= {"checkpointing": checkpointing, **vars(rows)}
            try:
                said |= pace(loaded, rows, Path(folder))
            except (UserError, torch.OutOfMemoryError) as error:
                said["failed"] = str(error).split(".")[0]
            with out.open("a") as file:
                file.write(json.dumps(said) + "\n")
            print(said, flush=True)


def pace(loaded, rows: Rows, folder: Path) -> dict:
    import torch
    from unsloth import FastLanguageModel

    from slimtune.engine.measure import Measuring, even_steps
    from slimtune.engine.memory import release

    steps, reports = WARM + TIMED, []
    settings = even_steps(
        rows=rows.at_a_time * steps, steps=steps, batch=rows.at_a_time, micro_batch=rows.at_a_time,
        collation=rows.collation, lr=2e-4, seed=17, optimizer="adamw",
    )  # fmt: skip
    FastLanguageModel.for_training(loaded.model)
    release()
    made = random_rows(rows, rows.at_a_time * steps)
    trainer = Measuring(loaded, made, settings, folder / "out", steps, reports.append, lambda: False, print)
    trainer.train()
    if trainer.result.oom_splits:
        raise torch.OutOfMemoryError("it was split")
    captured = trainer.row_steps.replays.captured if trainer.row_steps else 0
    return {
        "seconds": (reports[-1].seconds - reports[WARM - 1].seconds) / TIMED, "tokens": reports[-1].tokens,
        "captured": captured, "reserved_gib": round(torch.cuda.max_memory_reserved() / 2**30, 3),
        "first_loss": round(reports[0].loss, 3), "last_loss": round(reports[-1].loss, 3),
        "grad_norm": round(reports[-1].grad_norm, 3),
    }  # fmt: skip


def random_rows(rows: Rows, count: int) -> list:
    """Own parts of somewhat different lengths, as real rows have."""
    import numpy as np

    from slimtune.engine.render import Encoded

    rng = np.random.default_rng(5)
    start, made = tuple(rng.integers(1000, 40000, rows.prefix).tolist()), []
    for number in range(count):
        own = int(rng.integers(rows.own - rows.own // 4, rows.own + 1))
        ids = tuple(rng.integers(1000, 40000, own).tolist())
        made.append(Encoded(str(number), (*start, *ids[: -rows.answer]), ids[-rows.answer :]))
    return made


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], "ckpt" in sys.argv[4:])
