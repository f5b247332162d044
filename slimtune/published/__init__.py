"""The published study's figures, as data: to stand beside one's own results, never among them.

    published_edition    what was claimed, the set-up, what to know before quoting it, where it was read
    published_ranks      mean ranks as printed, three tables an edition
    published_scores     scores by task of the one student for which they are published, and of the teacher

study.json and scores.json hold the figures as they were printed; what was computed from them says so.
Models are slimtune's keys (slimtune/models), tasks its folders (slimtune/tasks), where there is one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

Table = Literal["fine-tuned", "tunability", "base"]
TABLES: tuple[Table, ...] = ("fine-tuned", "tunability", "base")
EDITIONS = (1, 2)  # December 2025: 12 models; March 2026: 15 models, 9 tasks


@dataclass(frozen=True)
class PublishedEdition:
    """One edition: models as slimtune's keys, tasks by their published names, None in `setup` for what is not said."""

    edition: int
    published: str
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    setup: Mapping[str, str | float | bool | None]
    caveats: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class PublishedRank:
    """A printed row. `mean` and `half` (of the 95% interval) are None where the text gives a place only. `tasks`: over
    how many the mean can be, computed from the digits: ranks are whole numbers. Edition 1 mixes seven, eight and nine.
    """

    edition: int
    table: Table
    place: int
    label: str
    model: str
    mean: float | None
    half: float | None
    tasks: tuple[int, ...]

    @property
    def t_half(self) -> float | None:
        """Half of the interval had Student's t been used; of several possible `tasks`, the widest."""
        from scipy.special import stdtrit

        return None if self.half is None else self.half * float(stdtrit(min(self.tasks) - 1, 0.975)) / 1.96


@dataclass(frozen=True)
class PublishedScore:
    """One task of an edition. `difference`: student minus teacher as printed. `task`: the nearest one of slimtune, and
    `same_source` whether its rows are from the same collection, which does not make them the same rows."""

    edition: int
    name: str
    kind: str
    task: str | None
    same_source: bool
    student: str
    teacher: str
    base_score: float
    tuned_score: float
    teacher_score: float
    difference: float


def published_edition(edition: int) -> PublishedEdition:
    """Edition 1 or 2. Raises ValueError for another."""
    document, found = _edition(edition)
    return PublishedEdition(
        edition=edition,
        published=found["published"],
        models=tuple(document["models"][label] for label in found["models"]),
        tasks=tuple(found["tasks"]),
        setup=found["setup"],
        caveats=tuple(found["caveats"]),
        sources=tuple(found["sources"]),
    )


def published_ranks(edition: int) -> tuple[PublishedRank, ...]:
    """Every printed row of an edition, table by table, best first. Raises ValueError for an edition there is not."""
    document, found = _edition(edition)
    return tuple(
        PublishedRank(
            edition=edition,
            table=table,
            place=place,
            label=row["model"],
            model=document["models"][row["model"]],
            mean=row["mean"],
            half=row["half"],
            tasks=tuple(row["tasks"]),
        )
        for table in TABLES
        for place, row in enumerate(found["ranks"][table], start=1)
    )


def published_scores(edition: int) -> tuple[PublishedScore, ...]:
    """The tasks of an edition for the one student. Raises ValueError for an edition there is not."""
    _edition(edition)
    document = _read("scores.json")
    return tuple(
        PublishedScore(
            edition=edition,
            name=row["name"],
            kind=row["kind"],
            task=row["task"],
            same_source=row["same_source"],
            student=_read("study.json")["models"][document["student"]],
            teacher=document["teacher"],
            base_score=row["base"],
            tuned_score=row["tuned"],
            teacher_score=row["teacher"][str(edition)],
            difference=row["difference"],
        )
        for row in document["scores"]
        if str(edition) in row["teacher"]
    )


def score_caveats() -> tuple[str, ...]:
    """What to know before quoting a published score."""
    return tuple(_read("scores.json")["caveats"])


def _edition(edition: int) -> tuple[dict[str, Any], dict[str, Any]]:
    if edition not in EDITIONS:
        raise ValueError(f"There are editions {EDITIONS}, not {edition!r}.")
    document = _read("study.json")
    return document, document["editions"][edition - 1]


@cache
def _read(name: str) -> dict[str, Any]:
    return json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
