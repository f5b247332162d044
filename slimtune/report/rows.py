"""Single rows worth reading: what tuning mended, what it broke, and the tuned model's worst and best answers."""

from dataclasses import asdict, dataclass
from typing import Any

from slimtune.report.collect import Answered, Evaluated, RunFiles
from slimtune.report.compare import pairs
from slimtune.report.text import clip

SHOWN = 6


@dataclass(frozen=True)
class Shown:
    """One row, clipped for reading. `before` is the base's answer, where there is one. A score is None where the row
    was not judged."""

    id: str
    prompt: str
    target: str
    before: str | None
    before_score: float | None
    after: str
    after_score: float | None
    why: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Rows:
    """Up to SHOWN of each. `mended` and `broken` are against zero-shot, largest change first; `worst` and `best` leave
    out the rows already shown."""

    mended: tuple[Shown, ...]
    broken: tuple[Shown, ...]
    worst: tuple[Shown, ...]
    best: tuple[Shown, ...]

    def as_json(self) -> dict[str, Any]:
        return {name: [row.as_json() for row in rows] for name, rows in vars(self).items()}


def unjudged_remarks(run: RunFiles) -> tuple[str, ...]:
    """How many answers of each evaluation were not judged, and why the first was not."""
    unjudged = {one.label: [row for row in one.rows if row.score is None] for one in run.evaluations.values()}
    return tuple(
        f"{label}: {len(rows):,} not judged. The first is {rows[0].id}: {clip(rows[0].why)}."
        for label, rows in unjudged.items()
        if rows
    )


def rows_to_read(run: RunFiles) -> Rows:
    tuned, base = run.evaluations.get("tuned"), run.evaluations.get("base")
    if tuned is None:
        return Rows((), (), (), ())
    changes = sorted(pairs(base, tuned), key=lambda pair: -abs(_change(pair))) if base else []
    broken = [pair for pair in changes if _change(pair) < 0][:SHOWN]
    mended = [pair for pair in changes if _change(pair) > 0][:SHOWN]
    seen = {after.id for _, after in (*broken, *mended)}
    known = {row.id: row for row in base.rows} if base else {}
    worst, best = _ends(tuned, seen)
    return Rows(
        mended=tuple(shown(before, after) for before, after in mended),
        broken=tuple(shown(before, after) for before, after in broken),
        worst=tuple(shown(known.get(row.id), row) for row in worst),
        best=tuple(shown(known.get(row.id), row) for row in best),
    )


def _change(pair: tuple[Answered, Answered]) -> float:
    return pair[1].score - pair[0].score


def _ends(tuned: Evaluated, seen: set[str]) -> tuple[list[Answered], list[Answered]]:
    """The lowest and the highest scores. A row is never both."""
    left = [row for row in sorted(tuned.rows, key=lambda row: row.id) if row.score is not None and row.id not in seen]
    worst = [row for row in sorted(left, key=lambda row: row.score) if row.score < 1][:SHOWN]
    taken = {row.id for row in worst}
    best = [row for row in sorted(left, key=lambda row: -row.score) if row.score > 0 and row.id not in taken]
    return worst, best[:SHOWN]


def shown(before: Answered | None, after: Answered) -> Shown:
    """A row as the base (None: it was not asked) and the tuned model answered it."""
    return Shown(
        id=clip(after.id, 80),
        prompt=clip(after.prompt),
        target=clip(after.target, 400),
        before=clip(before.output, 400) if before else None,
        before_score=before.score if before else None,
        after=clip(after.output, 400),
        after_score=after.score,
        why=clip(after.why, 200),
    )
