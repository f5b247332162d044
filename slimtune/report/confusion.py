"""For classification: which label was taken for which, and how each label does."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from slimtune.report.collect import Answered, RunFiles
from slimtune.stats import Interval, score_interval

UNREAD, ELSE = "(no readable answer)", "(not a label)"
PAIRS_SHOWN = 15


@dataclass(frozen=True)
class LabelScore:
    """How one label does: of its rows, `right` were found (`recall`); the model said it `said` times."""

    label: str
    n: int
    right: int
    said: int
    recall: Interval

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "recall": self.recall.as_json()}


@dataclass(frozen=True)
class Mistake:
    """Rows of one label answered with another."""

    label: str
    answered: str
    rows: int


@dataclass(frozen=True)
class Confusion:
    """Rows: the true label. Columns: the labels, then ELSE and UNREAD where they occur. Commonest mistakes first."""

    labels: tuple[str, ...]
    answers: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    mistakes: tuple[Mistake, ...]
    scores: tuple[LabelScore, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "labels": list(self.labels),
            "answers": list(self.answers),
            "counts": [list(row) for row in self.counts],
            "mistakes": [asdict(mistake) for mistake in self.mistakes],
            "scores": [score.as_json() for score in self.scores],
        }


def confusion(run: RunFiles, rng: np.random.Generator) -> Confusion | None:
    """The tuned model's confusion, or None where its rows have no labels."""
    tuned = run.evaluations.get("tuned")
    rows = [row for row in tuned.rows if row.label is not None and row.score is not None] if tuned else []
    if not rows:
        return None
    labels = tuple(sorted({row.label for row in rows}))
    known = {label.strip().casefold(): label for label in labels}
    answers = [_answer(row, known) for row in rows]
    counts = Counter(zip([row.label for row in rows], answers, strict=True))
    columns = labels + tuple(extra for extra in (ELSE, UNREAD) if extra in answers)
    wrong = sorted(((n, pair) for pair, n in counts.items() if pair[0] != pair[1]), key=lambda one: (-one[0], one[1]))
    return Confusion(
        labels=labels,
        answers=columns,
        counts=tuple(tuple(counts[label, answer] for answer in columns) for label in labels),
        mistakes=tuple(Mistake(label, answer, n) for n, (label, answer) in wrong[:PAIRS_SHOWN]),
        scores=_scores(labels, rows, answers, rng),
    )


def _answer(row: Answered, known: dict[str, str]) -> str:
    """The label that was answered. A row scored 1 answered its own, however it was spelt."""
    if row.score == 1:
        return row.label
    if row.answer is None:
        return UNREAD
    return known.get(row.answer.strip().casefold(), ELSE)


def _scores(
    labels: Sequence[str], rows: Sequence[Answered], answers: Sequence[str], rng: np.random.Generator
) -> tuple[LabelScore, ...]:
    """Worst recall first."""
    said, found = Counter(answers), []
    for label in labels:
        own = [(answer == label, row.cluster) for row, answer in zip(rows, answers, strict=True) if row.label == label]
        hits, clusters = [float(hit) for hit, _ in own], [cluster for _, cluster in own]
        recall = score_interval(hits, clusters, rng=rng)
        found.append(LabelScore(label, len(own), int(sum(hits)), said[label], recall))
    return tuple(sorted(found, key=lambda score: (score.recall.value, score.label)))
