"""write_report: a run folder in, report.json, report.md, report.html and plots/*.png out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from slimtune.files import write_bytes, write_json, write_text
from slimtune.report import facts
from slimtune.report.beside import TypeRow, type_tables
from slimtune.report.collect import NAMES, RunFiles, collect, section
from slimtune.report.compare import Difference, ScoreRow, Verdict, differences, remarks, score_row, verdict
from slimtune.report.confusion import Confusion, confusion
from slimtune.report.plots import draw
from slimtune.report.render import as_fragment, as_html, as_markdown
from slimtune.report.rows import Rows, rows_to_read, unjudged_remarks
from slimtune.report.served import judge_facts, served_remarks, teacher_facts
from slimtune.report.text import flat
from slimtune.wording import scored_rows


@dataclass(frozen=True)
class Report:
    """What a terminal shows of a report, and where the rest is. All texts are free of control characters."""

    title: str
    note: str
    verdict: Verdict
    scores: tuple[ScoreRow, ...]
    differences: tuple[Difference, ...]
    needles: tuple[ScoreRow, ...]
    missing: tuple[str, ...]
    html: Path


def write_report(run_dir: Path, *, seed: int = 0) -> Report:
    """Read a run folder and write its report there. What the folder lacks is listed in the report, not raised.

    `seed` feeds the resampling: the same folder gives the same numbers. Raises UserError where there is no folder, and
    CannotWrite.
    """
    made = _make(run_dir, seed)
    for name, (_, png) in made.pictures.items():
        write_bytes(run_dir / "plots" / f"{name}.png", png)
    write_json(run_dir / "report.json", _as_json(made.run, made.report, made.rows, made.mixed))
    write_text(run_dir / "report.md", as_markdown(_values(made)))
    write_text(made.report.html, as_html(_values(made)))
    return made.report


def report_fragment(run_dir: Path, *, seed: int = 0) -> str:
    """The report as HTML, to be put into another page; nothing is written. Raises UserError where there is no run."""
    return as_fragment(_values(_make(run_dir, seed)))


def read_report(run_dir: Path, *, seed: int = 0) -> Report:
    """What `write_report` returned for this folder, and nothing written. Raises UserError where there is no folder."""
    return summarise(collect(run_dir), np.random.default_rng(seed))


@dataclass(frozen=True)
class _Made:
    """Everything a report shows."""

    run: RunFiles
    report: Report
    rows: Rows
    mixed: Confusion | None
    pictures: Mapping[str, tuple[str, bytes]]


def _make(run_dir: Path, seed: int) -> _Made:
    run, rng = collect(run_dir), np.random.default_rng(seed)
    report = summarise(run, rng)
    rows, mixed = rows_to_read(run), confusion(run, rng)
    return _Made(run, report, rows, mixed, draw(run, report.scores, mixed))


def summarise(run: RunFiles, rng: np.random.Generator) -> Report:
    """The summary of a folder that was read already."""
    found = differences(run, rng)
    return Report(
        title=_title(run),
        note=run.note,
        verdict=verdict(run, found),
        scores=tuple(score_row(run.evaluations[name]) for name in NAMES if name in run.evaluations),
        differences=found,
        needles=tuple(map(score_row, run.needles.values())),
        missing=run.missing,
        html=run.folder / "report.html",
    )


def _types(run: RunFiles) -> dict[str, tuple[TypeRow, ...]]:
    """The tuned model's types; the base's where it was not evaluated."""
    shown = run.evaluations.get("tuned") or run.evaluations.get("base")
    return type_tables(shown.facts) if shown else {}


def _title(run: RunFiles) -> str:
    task = run.data.get("title") or run.data.get("task") or run.recipe.get("task") or run.name
    model = run.model.get("label") or run.model.get("key") or run.recipe.get("model")
    return " \u00b7 ".join(str(part) for part in (task, model) if part)


def _values(made: _Made) -> dict[str, Any]:
    """What the templates see."""
    run, report = made.run, made.report
    return {
        "report": report,
        "scored_rows": scored_rows(run.scored_on),
        "remarks": (*remarks(report.differences), *served_remarks(run), *unjudged_remarks(run)),
        "teacher": teacher_facts(run),
        "judge": judge_facts(run),
        "tunability": [one for one in report.differences if one.against in ("base", "few_shot")],
        "rows": made.rows,
        "confusion": made.mixed,
        "types": _types(run),
        "pictures": {name: Markup(svg) for name, (svg, _) in made.pictures.items()},
        "memory": facts.memory_facts(run),
        "no_memory": "No GPU: not measured." if run.environment else "Not recorded.",
        "training": facts.training_facts(run),
        "ran": facts.ran_facts(run),
        "context": facts.context_facts(run),
        "serving": facts.serving(run),
        "base_alone": facts.without_yarn(run),
        "departures": facts.departures(run),
        "plan_notes": facts.plan_notes(run),
        "data": facts.data_facts(run),
        "recipe": flat(dict(run.recipe)),
        "command": str(run.environment.get("command") or ""),
    }


def _as_json(run: RunFiles, report: Report, rows: Rows, mixed: Confusion | None) -> dict[str, Any]:
    return {
        "title": report.title,
        "note": report.note,
        "outcome": report.verdict.outcome,
        "verdict": report.verdict.sentence,
        "scores": [row.as_json() for row in report.scores],
        "differences": [difference.as_json() for difference in report.differences],
        "needles": [row.as_json() for row in report.needles],
        "rows": rows.as_json(),
        "confusion": mixed.as_json() if mixed else None,
        "types": {scorer: [row.as_json() for row in rows] for scorer, rows in _types(run).items()},
        "served": {
            name: {key: dict(one.facts[key]) for key in ("served", "judge") if section(one.facts, key)}
            for name, one in run.evaluations.items()
        },
        "departures": list(facts.departures(run)),
        "missing": list(report.missing),
        "recipe": run.recipe,
        "plan": run.plan,
        "environment": run.environment,
        "data": run.data,
        "training": run.training,
    }
