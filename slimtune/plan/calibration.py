"""The plan's constants, from measured peaks: `make fit` fits them and shows the errors.

calibration.csv holds one measured setting a row (`make calibrate` fills it on a GPU). Rows marked `fit` make the
constants; rows marked `test` were set aside before anything was fitted, and judge them. What is fitted is the part of
the peak that a model's weights do not explain, relative to the whole, so that 5% counts alike for all sizes.
"""

import csv
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import lsq_linear

from slimtune.models import ModelSpec, get_model
from slimtune.plan import memory
from slimtune.plan.memory import GIB, Constants, Setting, parts_gib, resident_gib

TABLE = Path(__file__).with_name("calibration.csv")
CONSTANTS = Path(__file__).with_name("constants.json")
_FULL_LOGITS = ("gemma3",)  # families whose loss Unsloth 2026.10.9 does not fuse: seen as their peak, logit for logit


@dataclass(frozen=True)
class Row:
    """One measured setting; `reserved_gib` is torch's peak of reserved memory."""

    use: str  # "fit" | "test"
    spec: ModelSpec
    weights: str
    setting: Setting
    reserved_gib: float
    source: str

    @property
    def predicted_gib(self) -> float:
        return sum(parts_gib(self.spec, self.setting).values())

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted_gib / self.reserved_gib - 1


def read_table(path: Path = TABLE) -> list[Row]:
    """The measured rows; those still to be measured, or that did not fit, are left out."""
    with path.open(encoding="utf-8", newline="") as file:
        return [_row(line) for line in csv.DictReader(file) if line["reserved_gib"]]


def fit(rows: Sequence[Row]) -> dict[str, object]:
    """The constants, as constants.json holds them, from the rows marked `fit`."""
    rows = [row for row in rows if row.use == "fit" and not row.setting.tiled_mlp]
    fast = [row for row in rows if row.spec.fast_path]
    found = Constants(
        recomputed=_fit_recomputed([row for row in fast if row.setting.checkpointing]),
        kept=_fit_kept([row for row in fast if not row.setting.checkpointing]),
        scale={"fast": {"recomputed": 1.0, "kept": 1.0}},
        logit_bytes={},
        held_out={},
    )
    names = sorted({_path(row) for row in rows if not row.spec.fast_path})
    logit_bytes = {
        name: _ratio([(row, row.setting.tokens * row.spec.shapes.vocab / GIB) for row in rows if _path(row) == name])
        for name in names
        if name.startswith(_FULL_LOGITS)
    }
    scale = dict(found.scale) | {name: {} for name in names if not name.startswith(_FULL_LOGITS)}
    for name in list(scale)[1:]:
        for way, checkpointing in (("recomputed", True), ("kept", False)):
            some = [row for row in rows if _path(row) == name and row.setting.checkpointing == checkpointing]
            scale[name][way] = _ratio([(row, _layers_gib(found, row)) for row in some]) if some else 1.0
    scale["generic"] = {way: max(values[way] for values in scale.values()) for way in ("recomputed", "kept")}
    scale |= dict.fromkeys(_FULL_LOGITS, scale["fast"])
    return {
        "recomputed": found.recomputed,
        "kept": found.kept,
        "scale": scale,
        "logit_bytes": logit_bytes,
        "held_out": {},
    }


def errors_held_out(rows: Sequence[Row]) -> dict[str, float]:
    """How far the constants in use are off on the rows marked `test`: as shares of the measured peak."""
    errors = [abs(row.error) for row in rows if row.use == "test"]
    return {"rows": len(errors), "median": round(statistics.median(errors), 4), "worst": round(max(errors), 4)}


def _fit_recomputed(rows: Sequence[Row]) -> list[float]:
    """Hidden-, intermediate-, query- and key-sized values a token that one recomputed layer takes."""
    columns, wanted = [], []
    for row in rows:
        hidden, wide, queries, keys = (size * _per_value(row) for size in _sizes(row.spec))
        columns.append([hidden, wide, queries, keys])
        wanted.append(_unexplained(row))
    weights = 1 / np.array([row.reserved_gib for row in rows])
    bounds = ([4, 4, 1, 0], [30, 10, 6, 4])  # what a layer can plausibly hold: q and kv differ in few families
    found = lsq_linear(np.array(columns) * weights[:, None], np.array(wanted) * weights, bounds=bounds).x
    return [round(float(value), 2) for value in found]


def _fit_kept(rows: Sequence[Row]) -> list[float]:
    """The same for every layer kept. Gate, up and product, queries and their output, keys and values are counted; what
    is fitted is how many hidden-sized values come with them."""
    pairs = []
    for row in rows:
        hidden, wide, queries, keys = (size * _per_value(row) * row.spec.shapes.layers for size in _sizes(row.spec))
        pairs.append((row, hidden, 3 * wide + 2 * queries + 2 * keys))
    weights = [
        (hidden / row.reserved_gib, (_unexplained(row) - rest) / row.reserved_gib) for row, hidden, rest in pairs
    ]
    found = sum(x * y for x, y in weights) / sum(x * x for x, _ in weights)
    return [round(found, 2), 3.0, 2.0, 2.0]


def _sizes(spec: ModelSpec) -> tuple[int, int, int, int]:
    shapes = spec.shapes
    queries, keys = shapes.heads * shapes.head_dim, shapes.kv_heads * shapes.head_dim
    return shapes.hidden, shapes.intermediate, queries, keys


def _per_value(row: Row) -> float:
    return 2 * row.setting.tokens / GIB


def _layers_gib(found: Constants, row: Row) -> float:
    fast = replace(row.spec, traits=replace(row.spec.traits, fast_path=True))
    layers = 1 if row.setting.checkpointing else row.spec.shapes.layers
    return found.layer_bytes(fast, checkpointing=row.setting.checkpointing) * layers * row.setting.tokens / GIB


def _ratio(pairs: Sequence[tuple[Row, float]]) -> float:
    """The factor that best turns the given sizes into what the rows leave unexplained, relative to their peaks."""
    weights = [(size / row.reserved_gib, _unexplained(row) / row.reserved_gib) for row, size in pairs]
    return round(sum(x * y for x, y in weights) / sum(x * x for x, _ in weights), 3)


def _unexplained(row: Row) -> float:
    return row.reserved_gib - sum(resident_gib(row.spec, row.setting).values())


def _path(row: Row) -> str:
    return f"{row.spec.family}/fp32" if row.setting.precision == "fp32" else row.spec.family


def _row(line: Mapping[str, str]) -> Row:
    spec = get_model(line["model"])
    setting = Setting(
        quantisation="16bit" if line["weights"] == "16bit" else "4bit",
        precision=line["precision"],
        checkpointing=line["checkpointing"] == "1",
        micro_batch=int(line["micro_batch"]),
        row_tokens=int(line["row_tokens"]),
        lora_r=int(line["r"]),
        cuda=True,
        tiled_mlp=line["tiled_mlp"] == "1",
        offload_embedding=line["offload_embedding"] == "1",
        unquantised=int(line["unquantised"] or 0),
    )
    return Row(line["use"], spec, line["weights"], setting, float(line["reserved_gib"]), line["date"])


def write_constants(rows: Sequence[Row], path: Path = CONSTANTS) -> None:
    """Fit, and write what was fitted with its errors on the rows set aside."""
    document = fit(rows)
    for _ in range(2):  # the errors of what was fitted are known only once it is in use
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        memory.constants.cache_clear()
        document["held_out"] = errors_held_out(rows)
