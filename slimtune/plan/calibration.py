"""The plan's constants, from measured peaks: `make fit` fits them and shows the errors.

calibration.csv holds one measured setting a row (`make calibrate` fills it on a GPU). Rows marked `fit` make the
constants; rows marked `test` were set aside before anything was fitted, and judge them. Errors are relative, so that 5%
counts alike for all sizes.
"""

import csv
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from slimtune.gpus import GpuSpec
from slimtune.models import ModelSpec, get_model
from slimtune.plan import memory
from slimtune.plan.memory import Constants, Setting, parts_gib
from slimtune.plan.planner import choose_precision

TABLE = Path(__file__).with_name("calibration.csv")
CONSTANTS = Path(__file__).with_name("constants.json")
_SIZES = ("hidden", "intermediate", "queries", "keys")
_WAYS = ("recomputed", "kept", "framed")
_BOUNDS = {
    "recomputed hidden": (4, 30),
    "recomputed intermediate": (4, 10),
    "recomputed queries": (1, 6),
    "recomputed keys": (0, 4),
    "kept hidden": (1, 10),
    "kept queries": (1, 6),
    "normed": (0.0, 4.0),
    "tiled each": (4, 20),
    "tiled tokens": (0, 5000),
    "flat": (0.0, 0.3),
    "unpacked": (0.0, 3.0),
}
_FULL_LOGITS = ("gemma3", "granite")  # whose loss Unsloth 2026.10.9 does not fuse


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


def fit(rows: Sequence[Row]) -> Constants:
    """The constants from the rows marked `fit`: those that leave the least squares of relative errors.

    Fitted are the names in `_BOUNDS`, and a factor for each family off Unsloth's fast path; without checkpointing, how
    many a layer keeps of its width (gate, up and their product), and of its keys and values, is counted, not fitted.
    """
    rows = [row for row in rows if row.use == "fit"]
    measured = np.array([row.reserved_gib for row in rows])
    names, low, high = zip(*_bounds(rows), strict=True)

    def relative_errors(values: np.ndarray) -> np.ndarray:
        fitted = _constants(dict(zip(names, values, strict=True)))
        return np.array([sum(parts_gib(row.spec, row.setting, fitted).values()) for row in rows]) / measured - 1

    start = (np.array(low) + np.array(high)) / 2
    found = least_squares(relative_errors, start, bounds=(low, high), x_scale=start).x
    return _constants({name: round(float(value), 3) for name, value in zip(names, found, strict=True)})


def errors_held_out(rows: Sequence[Row], fitted: Constants | None = None) -> dict[str, float]:
    """How far `fitted`, or the constants in use, are off on the rows marked `test`: as shares of the measured peak."""
    some = [row for row in rows if row.use == "test"]
    errors = [abs(sum(parts_gib(row.spec, row.setting, fitted).values()) / row.reserved_gib - 1) for row in some]
    return {"rows": len(errors), "median": round(statistics.median(errors), 4), "worst": round(max(errors), 4)}


def _bounds(rows: Sequence[Row]) -> list[tuple[str, float, float]]:
    """What is fitted, and what it can plausibly be."""
    families = sorted({row.spec.family for row in rows if not row.spec.fast_path})
    ways = sorted({(row.spec.family, _way(row.setting)) for row in rows if not row.spec.fast_path})
    scales = [(f"scale {family} {way}", 0.3, 3.0) for family, way in ways] + [("scale fast framed", 0.3, 3.0)]
    logits = [(f"logits {family}", 3.0, 12.0) for family in families if family in _FULL_LOGITS]
    return [(name, *bounds) for name, bounds in _BOUNDS.items()] + scales + logits


def _constants(values: Mapping[str, float]) -> Constants:
    """The constants that these fitted values make. Families with no row of their own take the largest factor."""
    scale: dict[str, dict[str, float]] = {"fast": {"recomputed": 1.0, "kept": 1.0}}
    for name, value in values.items():
        if name.startswith("scale "):
            _, family, way = name.split()
            scale.setdefault(family, {})[way] = value
    worst = {way: max(factors.get(way, 0.0) for factors in scale.values()) for way in _WAYS}
    scale = {family: worst | factors for family, factors in scale.items()} | {"generic": worst}
    return Constants(
        recomputed=tuple(values[f"recomputed {size}"] for size in _SIZES),
        kept=(values["kept hidden"], 3.0, values["kept queries"], 2.0),
        normed=values["normed"],
        tiled=(values["tiled each"], values["tiled tokens"]),
        flat_gib=values["flat"],
        unpacked=values["unpacked"],
        scale=scale,
        logit_bytes={name.split()[1]: value for name, value in values.items() if name.startswith("logits ")},
        held_out={},
    )


def _way(setting: Setting) -> str:
    return "recomputed" if setting.checkpointing else "framed" if setting.framed else "kept"


def setting_of(line: Mapping[str, str], *, gpu: GpuSpec | None = None) -> Setting:
    """What a line of the table was measured at; or, for one still to be measured, what it will be on `gpu`."""
    spec, answer_tokens = get_model(line["model"]), line["answer_tokens"]
    return Setting(
        quantisation="16bit" if line["weights"] == "16bit" else "4bit",
        precision=line["precision"] or choose_precision(spec, gpu),
        checkpointing=line["checkpointing"] == "1",
        micro_batch=int(line["micro_batch"]),
        row_tokens=int(line["row_tokens"]),
        lora_r=int(line["r"]),
        cuda=True,
        answer_tokens=int(answer_tokens) if answer_tokens else None,
        tiled_mlp=line["tiled_mlp"] == "1",
        offload_embedding=line["offload_embedding"] == "1",
        unquantised=int(line["unquantised"] or 0),
        prefix_tokens=int(line["prefix_tokens"] or 0),
        optimizer=line["optimizer"],
        framed=line["collation"] == "shared-prefix",
    )


def _row(line: Mapping[str, str]) -> Row:
    spec = get_model(line["model"])
    return Row(line["use"], spec, line["weights"], setting_of(line), float(line["reserved_gib"]), line["date"])


def write_constants(rows: Sequence[Row], path: Path = CONSTANTS) -> None:
    """Fit, and write what was fitted with its errors on the rows set aside."""
    fitted = fit(rows)
    fitted = replace(fitted, held_out=errors_held_out(rows, fitted))
    path.write_text(json.dumps(asdict(fitted), indent=2) + "\n", encoding="utf-8")
    memory.constants.cache_clear()
