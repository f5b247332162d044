"""Every cell with all its figures, one line each, and where to read on."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from slimtune.report.board import CellLine, Link
from slimtune.report.text import clean
from slimtune.sweep.spent import cell_usd, rows_per_s
from slimtune.sweep.store import FAILED, SIDES, Cell, Study, read_failure

_ANSWERS = "examples.parquet"


def cell_lines(study: Study, out: Path) -> tuple[CellLine, ...]:
    """In the order they were asked for."""
    return tuple(CellLine(_figures(cell, study.store), links_of(cell, out)) for cell in study.cells)


def links_of(cell: Cell, out: Path) -> tuple[Link, ...]:
    """The cell's report and its answers, or what an attempt left and why it failed; only files that are there."""
    if cell.result is not None:
        attempt = cell.folder / cell.result["attempt"]
        sides = [side for side in reversed(SIDES) if side in cell.result["sides"]]
        wanted = [
            (attempt / "report.html", f"seed {cell.seed}"),
            *((attempt / side / _ANSWERS, side) for side in sides),
        ]
    else:
        failure = read_failure(cell.folder)
        attempt = cell.folder / failure.attempt if failure else cell.folder
        wanted = [(attempt / "report.html", f"seed {cell.seed}"), (attempt / "engine.log", "log")]
        wanted += [(cell.folder / FAILED, "why")] if cell.state == "failed" else []
    return tuple(Link(label, _href(path, out)) for path, label in wanted if path.is_file())


def _href(path: Path, out: Path) -> str:
    return quote(os.path.relpath(path.resolve(), out.resolve()).replace(os.sep, "/"))


def _figures(cell: Cell, store: Path) -> Mapping[str, Any]:
    axes = "; ".join(f"{name}={value}" for name, value in cell.axes.items())
    figures = {"contestant": cell.contestant, "model": cell.model, "task": cell.task, "seed": cell.seed, "axes": axes}
    figures |= {"state": cell.state, "why": cell.why} | _results(cell.result or {})
    return clean(figures | {"cell": cell.fingerprint, "folder": os.path.relpath(cell.folder, store)})


def _results(result: Mapping[str, Any]) -> dict[str, Any]:
    sides, found = result.get("sides", {}), {name: result.get(name) for name in ("kind", "scored_on")}
    for side in SIDES:
        facts = sides.get(side, {})
        score = facts.get("score") or {}
        found |= {side: score.get("value"), f"{side}_low": score.get("low"), f"{side}_high": score.get("high")}
        found |= {f"{side}_n": facts.get("n"), f"{side}_unscored": facts.get("unscored")}
    seconds, training = result.get("seconds", {}), result.get("training") or {}
    environment = result.get("environment", {})
    return found | {
        "scorer": next((facts.get("scorer") for facts in sides.values()), None),
        "training_s": seconds.get("training"),
        "wall_s": seconds.get("wall"),
        "training_usd": cell_usd(result) if result else None,
        "usd": result.get("usd"),
        "peak_gib": training.get("peak_gpu_gib"),
        "rows_per_s": rows_per_s(sides.get("tuned", {})),
        **{key: environment.get(key) for key in ("gpu", "precision", "quantisation")},
    }
