"""What each contestant takes: dollars and hours of training, memory, and how fast it answers; and who is on a front."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from slimtune.gpus import PRICES_AS_OF, find_gpu
from slimtune.plan.cost import training_usd
from slimtune.report.board import Spent
from slimtune.report.board_plots import MEASURES
from slimtune.report.text import clean, number
from slimtune.sweep.gather import Grid
from slimtune.sweep.store import Cell


def spent(grid: Grid, contestants: Sequence[str], tasks: Sequence[str]) -> tuple[Spent, ...]:
    """One entry a contestant, best mean score first; a measure is a mean over these tasks, memory the highest peak."""
    found = [_spent(grid, one, tasks) for one in contestants]
    ordered = sorted(found, key=lambda one: (-one.score, one.contestant))
    fronts = {name: _front(ordered, name) for name in MEASURES}
    return tuple(
        replace(one, number=at + 1, fronts=tuple(name for name, front in fronts.items() if one.contestant in front))
        for at, one in enumerate(ordered)
    )


def cost_remarks(found: Sequence[Spent]) -> tuple[str, ...]:
    """What a reader of these measures has to know."""
    lines = [
        f"Dollars: training time at the card's hourly price (the study's own, or the list of {PRICES_AS_OF}); scoring "
        "is left out. Rows a second: as measured while scoring, without a server; a server answers more at once."
    ]
    if len({one.ran_on for one in found}) > 1:
        lines.append("Not all ran on the same card in the same precision: their times and memory do not compare.")
    for title, value, _ in MEASURES.values():
        without = [one.contestant for one in found if value(one) is None]
        if without and len(without) < len(found):
            lines.append(f"{title}: not known of {', '.join(without)}.")
    unknown = [title for title, value, _ in MEASURES.values() if found and all(value(one) is None for one in found)]
    lines += [f"Not known of any: {'; '.join(unknown)}."] if unknown else []
    return tuple(lines)


def ran_on(cell: Cell) -> str:
    """The card or the CPU, and in what the model was held: "Tesla T4, fp16, 4bit"."""
    facts = cell.result["environment"]
    gpu = facts.get("gpu")
    parts = (gpu or "CPU", facts.get("precision"), facts.get("quantisation") if gpu else None)
    return clean(", ".join(str(part) for part in parts if part))


def cell_usd(result: Mapping[str, Any]) -> float | None:
    """Dollars of training; None where no price is known."""
    seconds, wall, usd = result["seconds"]["training"], result["seconds"]["wall"], result["usd"]
    card = find_gpu(str(result["environment"].get("gpu") or ""))
    hourly = usd / wall * 3600 if number(usd) and number(wall) and wall > 0 else card.hourly_usd if card else None
    return training_usd(seconds, hourly) if number(seconds) and number(hourly) else None


def rows_per_s(side: Mapping[str, Any]) -> float | None:
    """Test rows answered a second; None for a served model, whose seconds are waits that overlap."""
    n, seconds = side.get("n"), side.get("seconds")
    return n / seconds if number(n) and number(seconds) and seconds > 0 and not side.get("served") else None


def _spent(grid: Grid, contestant: str, tasks: Sequence[str]) -> Spent:
    cells = [cell for task in tasks for cell in grid.entries[contestant, task].done]
    hours = [cell.result["seconds"]["training"] for cell in cells]
    peaks = [(cell.result["training"] or {}).get("peak_gpu_gib") for cell in cells]
    rates = [rows_per_s(cell.result["sides"].get("tuned", {})) for cell in cells]
    return Spent(
        number=0,
        contestant=contestant,
        score=float(grid.scores("tuned", [contestant], tasks).mean()),
        usd=_mean([cell_usd(cell.result) for cell in cells]),
        hours=_mean([seconds / 3600 if number(seconds) else None for seconds in hours]),
        peak_gib=max((peak for peak in peaks if number(peak)), default=None),
        rows_per_s=_mean(rates),
        ran_on="; ".join(dict.fromkeys(map(ran_on, cells))),
        fronts=(),
    )


def _front(found: Sequence[Spent], name: str) -> set[str]:
    """Those that no other beats: as good for less, or better for as much."""
    _, value, less = MEASURES[name]
    points = [
        (one.contestant, one.score, value(one) if less else -value(one)) for one in found if value(one) is not None
    ]
    return {
        own
        for own, score, takes in points
        if not any(s >= score and t <= takes and (s > score or t < takes) for _, s, t in points)
    }


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if number(value)]
    return float(np.mean(there)) if there else None
