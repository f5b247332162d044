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
    *(Rows("shared-prefix", rows, 200, 400) for rows in (4, 16)),
    *(Rows("padded", rows, 570, 28) for rows in (4, 16)),
    *(Rows("padded", rows, 1800, 248) for rows in (1, 4)),
]


def main(out: Path, shape: str, weights: str, checkpointing: bool) -> None:
    import unsloth  # noqa: F401, I001  first: it patches what the others import
    from slimtune.engine.measure import as_row, load_hollow, measure_steps
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
                found = measure_steps(
                    loaded, micro_batch=rows.at_a_time, row_tokens=rows.prefix + rows.own, answer_tokens=rows.answer,
                    optimizer="adamw", steps=WARM + TIMED, warm=WARM, collation=rows.collation,
                    prefix_tokens=rows.prefix if rows.collation == "shared-prefix" else 0,
                )  # fmt: skip
                said |= as_row(found) | {"seconds_a_step": found.seconds / TIMED}
            except UserError as error:
                said["failed"] = str(error).split(".")[0]
            with out.open("a") as file:
                file.write(json.dumps(said) + "\n")
            print(said, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], "ckpt" in sys.argv[4:])
