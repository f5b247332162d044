"""Several runs compared: what they scored and cost, and in what their recipes differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slimtune.errors import UserError
from slimtune.gpus import find_gpu
from slimtune.report.collect import NAMES, RunFiles, collect
from slimtune.report.compare import Difference, ScoreRow
from slimtune.report.text import flat, number
from slimtune.report.write import summarise
from slimtune.wording import scored_rows


@dataclass(frozen=True)
class Column:
    """One run. `usd` is training time at the card's hourly price; None where there is no price."""

    name: str
    title: str
    note: str
    scores: dict[str, ScoreRow]  # by column: base, few_shot, tuned, teacher
    gain: Difference | None
    seconds: float | None
    tokens: float | None
    peak_gib: float | None
    device: str
    usd: float | None


@dataclass(frozen=True)
class SideBySide:
    """The runs, and the recipe's keys in which they differ: name -> a value a run. `other_rows`: they were not scored
    on the same test rows, so their scores may not be set against each other."""

    columns: tuple[Column, ...]
    kinds: tuple[str, ...]
    differing: tuple[tuple[str, tuple[str, ...]], ...]
    other_rows: bool


def side_by_side(folders: Sequence[Path]) -> SideBySide:
    """Compare the runs in these folders. Raises UserError where one is not there, and where some were scored on test
    rows and some on validation rows: those scores say different things."""
    runs = [collect(folder) for folder in folders]
    if len({run.scored_on for run in runs}) > 1:
        which = "; ".join(f"{run.name} on {scored_rows(run.scored_on)}" for run in runs)
        raise UserError(f"These runs are not compared, being scored on different rows: {which}.")
    columns = tuple(map(_column, runs))
    kinds = tuple(name for name in NAMES if any(name in column.scores for column in columns))
    recipes = [dict(flat(dict(run.recipe))) for run in runs]
    keys = list(dict.fromkeys(key for recipe in recipes for key in recipe))
    values = [(key, tuple(recipe.get(key, "-") for recipe in recipes)) for key in keys]
    asked = {
        frozenset((row.id, row.target) for row in run.evaluations["tuned"].rows)
        for run in runs
        if "tuned" in run.evaluations
    }
    return SideBySide(columns, kinds, tuple(pair for pair in values if len(set(pair[1])) > 1), len(asked) > 1)


def _column(run: RunFiles) -> Column:
    report, training = summarise(run, np.random.default_rng(0)), run.training
    gpu = run.environment.get("gpu")
    card, seconds = find_gpu(gpu) if gpu else None, training.get("seconds")
    price = card.hourly_usd if card else None
    return Column(
        name=run.name,
        title=report.title,
        note=report.note,
        scores={row.name: row for row in report.scores},
        gain=next((one for one in report.differences if one.against == "base"), None),
        seconds=seconds if number(seconds) else None,
        tokens=training.get("tokens"),
        peak_gib=training.get("peak_gpu_gib"),
        device=str(gpu or run.environment.get("device") or "-"),
        usd=seconds / 3600 * price if price and number(seconds) else None,
    )
