"""Every answer of a run, to be looked through: what changed, what was cut off, and what holds a word."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from slimtune.report.collect import Answered, RunFiles
from slimtune.report.rows import Shown, shown

PER_PAGE = 20


@dataclass(frozen=True)
class Page:
    """One page of the rows that were asked for; `total` of them in all."""

    rows: tuple[Shown, ...]
    total: int
    number: int
    pages: int


Pair = tuple[Answered | None, Answered]  # of base, of tuned


def _rose(pair: Pair) -> float:
    before, after = pair
    return 0.0 if before is None or None in (before.score, after.score) else after.score - before.score


FILTERS: Mapping[str, Callable[[Pair], bool]] = {
    "All rows": lambda pair: True,
    "Better than base": lambda pair: _rose(pair) > 0,
    "Worse than base": lambda pair: _rose(pair) < 0,
    "Tuned is wrong": lambda pair: pair[1].score is not None and pair[1].score < 1,
    "Tuned is right": lambda pair: pair[1].score == 1,
    "Not readable": lambda pair: pair[1].answer is None,
    "Cut off": lambda pair: pair[1].stopped in ("length", "repetition"),
    "Not judged": lambda pair: pair[1].score is None,
}


def browse(run: RunFiles, *, which: str = "All rows", search: str = "", label: str = "", number: int = 1) -> Page:
    """The rows of the tuned model's evaluation that pass a filter, hold `search` (any case, in question, target or
    answer) and are of `label`, beside the base's answers. The first page is 1; one past the last shows the last.

    Raises KeyError for a filter that is not in FILTERS.
    """
    tuned, base = run.evaluations.get("tuned"), run.evaluations.get("base")
    before = {row.id: row for row in base.rows} if base else {}
    passes, word = FILTERS[which], search.strip().casefold()
    found = [
        pair
        for pair in ((before.get(row.id), row) for row in (tuned.rows if tuned else ()))
        if passes(pair) and (not word or word in _words(pair)) and (not label or pair[1].label == label)
    ]
    pages = max(1, -(-len(found) // PER_PAGE))
    number = min(max(1, number), pages)
    rows = tuple(shown(*pair) for pair in found[(number - 1) * PER_PAGE : number * PER_PAGE])
    return Page(rows, len(found), number, pages)


def labels_of(run: RunFiles) -> list[str]:
    """The labels of the test rows; empty where they have none."""
    tuned = run.evaluations.get("tuned")
    return sorted({row.label for row in tuned.rows if row.label}) if tuned else []


def _words(pair: Pair) -> str:
    before, after = pair
    texts = (after.prompt, after.target, after.output, before.output if before else "")
    return "\n".join(texts).casefold()
