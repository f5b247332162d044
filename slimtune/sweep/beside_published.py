"""The published study's tables, with what stands in one's own study beside each row. Nothing of them is ranked here."""

from collections.abc import Mapping, Sequence

from slimtune.models import find_model
from slimtune.published import (
    EDITIONS,
    TABLES,
    PublishedRank,
    PublishedScore,
    published_edition,
    published_ranks,
    published_scores,
    score_caveats,
)
from slimtune.report.board import PublishedTable, RankTable
from slimtune.report.text import clean
from slimtune.sweep.gather import Grid

_OWN = {"fine-tuned": "tuned", "tunability": "gain", "base": "base"}
_RANK_COLUMNS = ("Model", "Mean rank, printed", "95% interval, printed", "With Student's t", "Here, mean rank")
_SCORE_COLUMNS = ("Task", "Teacher, printed", "Base, printed", "Fine-tuned, printed", "Here, fine-tuned")


def beside_published(grid: Grid, tables: Sequence[RankTable]) -> tuple[PublishedTable, ...]:
    """The newest edition first: its three rank tables, and its scores by task."""
    named = {name: entry.cells[0].model for (name, _), entry in grid.entries.items()}
    models = {name: spec.key if (spec := find_model(model)) else model for name, model in named.items()}
    found = []
    for edition in sorted(EDITIONS, reverse=True):
        found += [_ranks(edition, name, tables, models) for name in TABLES]
        found.append(_scores(edition, grid, models))
    return tuple(found)


def _ranks(edition: int, name: str, tables: Sequence[RankTable], models: Mapping[str, str]) -> PublishedTable:
    about = published_edition(edition)
    own = next((table for table in tables if table.name == _OWN[name]), None)
    rows = [row for row in published_ranks(edition) if row.table == name]
    return PublishedTable(
        title=f"Edition {edition}, {about.published}: {name}, mean rank",
        columns=_RANK_COLUMNS,
        rows=tuple((row.label, *_printed(row), _beside(row.model, own, models)) for row in rows),
        source=", ".join(about.sources),
        caveats=about.caveats if name == TABLES[0] else (),
    )


def _printed(row: PublishedRank) -> tuple[str, ...]:
    if row.mean is None:
        return f"place {row.place}", "-", "-"
    mean = f"{row.mean:.2f}"
    return (mean, "-", "-") if row.half is None else (mean, f"\u00b1{row.half:.2f}", f"\u00b1{row.t_half:.2f}")


def _beside(model: str, own: RankTable | None, models: Mapping[str, str]) -> str:
    """The mean ranks of own contestants that are of that model, over own tasks and among own contestants."""
    there = [one for one in own.standings if models[one.contestant] == model] if own else []
    return "; ".join(f"{one.contestant}: {one.mean_rank:.2f} of {len(own.standings)}" for one in there) or "-"


def _scores(edition: int, grid: Grid, models: Mapping[str, str]) -> PublishedTable:
    rows = published_scores(edition)
    about = published_edition(edition)
    return PublishedTable(
        title=f"Edition {edition}, {about.published}: scores by task of {rows[0].student}, teacher {rows[0].teacher}",
        columns=_SCORE_COLUMNS,
        rows=tuple(_score_row(row, grid, models) for row in rows),
        source=", ".join(about.sources),
        caveats=score_caveats() if edition == max(EDITIONS) else (),
    )


def _score_row(row: PublishedScore, grid: Grid, models: Mapping[str, str]) -> tuple[str, ...]:
    own = [
        f"{clean(name)}: {answers.measured.score}{'' if row.same_source else ' (other rows)'}"
        for name in grid.trained
        if row.task and models[name] == row.student and (answers := grid.answers(name, row.task, "tuned"))
    ]
    printed = (f"{value:.2f}" for value in (row.teacher_score, row.base_score, row.tuned_score))
    return (row.name, *printed, "; ".join(own) or "-")
