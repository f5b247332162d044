"""What steps take on this card, for the plan's speed and memory: `python tests/gpu/pace.py USE SHAPE WEIGHTS [ckpt]`
(USE: fit or test; WEIGHTS: 4bit or 16bit). Random weights in the shape of a model: speed and memory, never quality.

The model is loaded once; rows of several lengths are trained on, padded and with a shared prefix, so many at a time.
Each becomes a row of the calibration table: seconds of a step after warming up, and the peak of reserved memory, less
what the settings before it left behind. `make fit` makes constants of them.
"""

import csv
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

WARM, TIMED, RANK = 6, 10, 64


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


def main(use: str, shape: str, weights: str, checkpointing: bool) -> None:
    import unsloth  # noqa: F401, I001  first: it patches what the others import
    from slimtune.engine.load import package_versions
    from slimtune.engine.measure import as_row, load_hollow, measure_steps
    from slimtune.errors import UserError
    from slimtune.gpus import detect_gpu
    from slimtune.models import get_model
    from slimtune.plan import Setting, choose_precision
    from slimtune.plan.calibration import TABLE

    spec, card = get_model(shape), detect_gpu()
    precision, versions = choose_precision(spec, card), package_versions()
    setting = Setting(weights, precision, checkpointing, 1, 4096, RANK, cuda=True)
    same = {
        "use": use, "model": shape, "weights": weights, "unquantised": 0, "card": card.spec.name, "r": RANK,
        "checkpointing": int(checkpointing), "tiled_mlp": 0, "offload_embedding": 0, "optimizer": "adamw",
        "precision": precision, "room_gib": round(card.usable_gib, 3), "gpu": card.name,
        "unsloth": versions["unsloth"], "torch": versions["torch"], "date": date.today().isoformat(),
    }  # fmt: skip
    left_gib = None
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_hollow(spec, setting, Path(folder) / "model", window=4096, skip=None)
        for rows in GRID:
            shared = rows.prefix if rows.collation == "shared-prefix" else 0
            said = same | {
                "micro_batch": rows.at_a_time, "row_tokens": rows.prefix + rows.own, "answer_tokens": rows.answer,
                "collation": rows.collation, "prefix_tokens": shared or "",
            }  # fmt: skip
            try:
                found = measure_steps(
                    loaded, micro_batch=rows.at_a_time, row_tokens=rows.prefix + rows.own, answer_tokens=rows.answer,
                    optimizer="adamw", steps=WARM + TIMED, warm=WARM, collation=rows.collation, prefix_tokens=shared,
                )  # fmt: skip
                left_gib = found.resident_gib if left_gib is None else left_gib
                said |= as_row(found) | {"step_s": round(found.seconds / TIMED, 4)}
                said["reserved_gib"] = round(found.reserved_gib - (found.resident_gib - left_gib), 3)
            except UserError as error:
                said["failed"] = str(error).split(".")[0]
            add(TABLE, said)
            print(said, flush=True)


def add(table: Path, row: dict[str, object]) -> None:
    with table.open(encoding="utf-8", newline="") as file:
        names = next(csv.reader(file))
    with table.open("a", encoding="utf-8", newline="") as file:
        csv.DictWriter(file, names, restval="", lineterminator="\n").writerow(row)


if __name__ == "__main__":
    main(*sys.argv[1:4], checkpointing="ckpt" in sys.argv[4:])
