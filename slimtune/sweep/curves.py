"""Scores along an axis that is a number: "as few as 50 examples" is a curve over training rows."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slimtune.report.board import Curve, CurvePoint
from slimtune.report.text import clean, number
from slimtune.sweep.gather import Grid

_LEAST = 3  # points, or it is no curve


def curves(grid: Grid, contestants: Sequence[str], tasks: Sequence[str]) -> tuple[Curve, ...]:
    """One an axis along which at least three of these contestants differ in nothing else; a line for each such lot.
    Scores are means over `tasks`, which all of them have."""
    if not tasks:
        return ()
    axes = {one: grid.entries[one, tasks[0]].cells[0] for one in contestants}
    keys = dict.fromkeys(key for cell in axes.values() for key, value in cell.axes.items() if number(value))
    found = [Curve(key, lines) for key in keys if (lines := _lines(grid, axes, key, tasks))]
    return tuple(found)


def _lines(grid: Grid, cells: Mapping[str, Any], key: str, tasks: Sequence[str]) -> dict[str, tuple[CurvePoint, ...]]:
    lots: dict[tuple, list[str]] = {}
    for one, cell in cells.items():
        if number(cell.axes.get(key)):
            rest = {name: value for name, value in cell.axes.items() if name != key}
            lots.setdefault((cell.model, repr(sorted(rest.items()))), []).append(one)
    kept = [lot for lot in lots.values() if len({cells[one].axes[key] for one in lot}) >= _LEAST]
    names = [clean(_in_all(lot)) for lot in kept]
    names = [name if names.count(name) == 1 else clean(lot[0]) for name, lot in zip(names, kept, strict=True)]
    return {
        name: tuple(sorted((_point(grid, one, cells[one].axes[key], tasks) for one in lot), key=lambda at: at.x))
        for name, lot in zip(names, kept, strict=True)
    }


def _in_all(lot: Sequence[str]) -> str:
    """The words that all names of a lot have; its first name where there is none."""
    words = [set(name.split(", ")) for name in lot]
    return ", ".join(word for word in lot[0].split(", ") if all(word in others for others in words)) or lot[0]


def _point(grid: Grid, contestant: str, x: float, tasks: Sequence[str]) -> CurvePoint:
    """The mean over tasks, with what the choice of test rows leaves open on either side: it adds up as errors do."""
    found = [grid.answers(contestant, task, "tuned").measured.score for task in tasks]
    score = float(np.mean([one.value for one in found]))
    below = math.hypot(*(one.value - one.low for one in found)) / len(found)
    above = math.hypot(*(one.high - one.value for one in found)) / len(found)
    return CurvePoint(x, score, score - below, score + above)
