"""The constants of speed.py, from steps that were timed: `make fit` fits them and says how far off they are.

The table is that of the memory (calibration.csv), where a row says how long its steps took. Rows marked `fit` make the
constants. Errors are ratios, so that twice and half as long count alike.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from slimtune.gpus import GpuSpec, find_gpu
from slimtune.models import ModelSpec, get_model
from slimtune.plan import speed
from slimtune.plan.calibration import TABLE, setting_of
from slimtune.plan.memory import Setting
from slimtune.plan.speed import Paces, example_s

PACES = Path(__file__).with_name("paces.json")
_BOUNDS = {
    "products": (0.2, 0.7),  # of a data sheet: no training step was ever seen to reach more
    "width": (0.0, 6000.0),
    "framed": (4.0, 120.0),  # no kernel can do without: in and out of the residual, and of the MLP's middle
    "compiled": (4.0, 120.0),
    "unpacked": (1.0, 6.0),  # once there
    "16bit": (1e-4, 3e-2),
    "4bit": (1e-4, 3e-2),
    "again": (1.0, 4.0),
    "graph": (1e-5, 2e-3),
}


@dataclass(frozen=True)
class Timed:
    """Steps of one setting: seconds each, on a card of that kind."""

    use: str  # "fit" | "test"
    spec: ModelSpec
    setting: Setting
    card: GpuSpec
    step_s: float

    def predicted_s(self, paces: Paces | None = None) -> float:
        each = example_s(self.spec, self.setting, self.card, self.setting.row_tokens, paces=paces)
        return each * self.setting.micro_batch


def read_timed(path: Path = TABLE) -> list[Timed]:
    """The rows of the table that were timed."""
    with path.open(encoding="utf-8", newline="") as file:
        return [_timed(line) for line in csv.DictReader(file) if line["step_s"]]


def _timed(line: Mapping[str, str]) -> Timed:
    card = find_gpu(line["gpu"])
    assert card is not None, line["gpu"]
    return Timed(line["use"], get_model(line["model"]), setting_of(line), card, float(line["step_s"]))


def fit(rows: Sequence[Timed]) -> Paces:
    """The constants with the least squares of the logarithms of predicted over measured, from the rows marked `fit`.
    Several starts: a card's time and Python's time hide each other, and a fit may end in the wrong one."""
    rows = [row for row in rows if row.use == "fit"]
    names = list(_BOUNDS)
    low, high = (np.array([_BOUNDS[name][end] for name in names]) for end in (0, 1))

    def errors(values: np.ndarray) -> np.ndarray:
        paces = _paces(dict(zip(names, values, strict=True)))
        return np.array([np.log(row.predicted_s(paces) / row.step_s) for row in rows])

    starts = [low + (high - low) * share for share in np.random.default_rng(17).random((8, len(names)))]
    found = [least_squares(errors, start, bounds=(low, high), x_scale=(high - low) / 10) for start in starts]
    best = min(found, key=lambda one: one.cost).x
    return _paces({name: float(f"{value:.4g}") for name, value in zip(names, best, strict=True)})


def _paces(values: Mapping[str, float]) -> Paces:
    return Paces(
        products=(values["products"], values["width"]),
        moved={name: values[name] for name in ("framed", "compiled")},
        unpacked=values["unpacked"],
        launch_s={name: values[name] for name in ("16bit", "4bit")},
        again=values["again"],
        graph_s=values["graph"],
        card="",
        band=(1.0, 1.0),
        held_out={},
    )


def errors_held_out(rows: Sequence[Timed], paces: Paces | None = None) -> list[float]:
    """Measured over predicted speed of the rows marked `test`, sorted."""
    return sorted(row.predicted_s(paces) / row.step_s for row in rows if row.use == "test")


def write_paces(rows: Sequence[Timed], path: Path = PACES) -> None:
    """Fit, and write what was fitted with the band that nine in ten of the rows set aside lie in."""
    fitted = fit(rows)
    shares = errors_held_out(rows, fitted)
    low, middle, high = (float(np.quantile(shares, at).round(3)) for at in (0.05, 0.5, 0.95))
    held_out = {"rows": len(shares), "median": round(middle - 1, 3), "worst": round(max(abs(s - 1) for s in shares), 3)}
    fitted = replace(fitted, card=rows[0].card.name, band=(min(low, 1.0), max(high, 1.0)), held_out=held_out)
    path.write_text(json.dumps(asdict(fitted), indent=2) + "\n", encoding="utf-8")
    speed.paces_here.cache_clear()
