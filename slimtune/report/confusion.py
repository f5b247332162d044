"""For classification: which label was taken for which, and how each label does."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from slimtune.data import Tally
from slimtune.report.collect import Answered, Evaluated, RunFiles
from slimtune.stats import Interval, score_interval
from slimtune.tallies import Aggregate, aggregate

UNREAD, ELSE = "(no readable answer)", "(not a label)"
PAIRS_SHOWN = 15
_MEASURES = ("recall", "precision", "f1")


@dataclass(frozen=True)
class LabelScore:
    """How one label does: of its rows, `right` were found (`recall`); the model said it `said` times (`precision`, None
    where it never did). `f1` is the harmonic mean of the two."""

    label: str
    n: int
    right: int
    said: int
    recall: Interval
    precision: Interval | None
    f1: Interval

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), **{name: (found := getattr(self, name)) and found.as_json() for name in _MEASURES}}


@dataclass(frozen=True)
class Mistake:
    """Rows of one label answered with another."""

    label: str
    answered: str
    rows: int


@dataclass(frozen=True)
class Confusion:
    """Rows: the true label. Columns: the labels, then ELSE and UNREAD where they occur. Commonest mistakes first.
    `macro_f1`: the mean of the labels' F1, of each model that was evaluated, by what it is called."""

    labels: tuple[str, ...]
    answers: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    mistakes: tuple[Mistake, ...]
    scores: tuple[LabelScore, ...]
    macro_f1: tuple[tuple[str, Interval], ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "labels": list(self.labels),
            "answers": list(self.answers),
            "counts": [list(row) for row in self.counts],
            "mistakes": [asdict(mistake) for mistake in self.mistakes],
            "scores": [score.as_json() for score in self.scores],
            "macro_f1": {name: interval.as_json() for name, interval in self.macro_f1},
        }


def confusion(run: RunFiles, rng: np.random.Generator) -> Confusion | None:
    """The tuned model's confusion, or None where its rows have no labels."""
    rows = _labelled(run.evaluations.get("tuned"))
    if not rows:
        return None
    labels = tuple(sorted({row.label for row in rows}))
    answers = _answers(rows, labels)
    counts = Counter(zip([row.label for row in rows], answers, strict=True))
    columns = labels + tuple(extra for extra in (ELSE, UNREAD) if extra in answers)
    wrong = sorted(((n, pair) for pair, n in counts.items() if pair[0] != pair[1]), key=lambda one: (-one[0], one[1]))
    whole = {name: _aggregate(_labelled(one), rng) for name, one in run.evaluations.items() if _labelled(one)}
    return Confusion(
        labels=labels,
        answers=columns,
        counts=tuple(tuple(counts[label, answer] for answer in columns) for label in labels),
        mistakes=tuple(Mistake(label, answer, n) for n, (label, answer) in wrong[:PAIRS_SHOWN]),
        scores=_scores(labels, rows, answers, whole["tuned"], rng),
        macro_f1=tuple((run.evaluations[name].label, found.macro["f1"]) for name, found in whole.items()),
    )


def _labelled(evaluated: Evaluated | None) -> list[Answered]:
    rows = evaluated.rows if evaluated else ()
    return [row for row in rows if row.label is not None and row.score is not None]


def _answers(rows: Sequence[Answered], labels: Sequence[str]) -> list[str]:
    known = {label.strip().casefold(): label for label in labels}
    return [_answer(row, known) for row in rows]


def _aggregate(rows: Sequence[Answered], rng: np.random.Generator) -> Aggregate:
    """Each label found, made up or missed in each row: what is answered that is no label is made up of none."""
    labels, counts = {row.label for row in rows}, []
    for row, answer in zip(rows, _answers(rows, sorted(labels)), strict=True):
        wrong = {row.label: Tally(missed=1)} | ({answer: Tally(made_up=1)} if answer in labels else {})
        counts.append({row.label: Tally(found=1)} if answer == row.label else wrong)
    return aggregate(counts, [row.cluster for row in rows], measures=("f1", "precision"), rng=rng)


def _answer(row: Answered, known: dict[str, str]) -> str:
    """The label that was answered. A row scored 1 answered its own, however it was spelt."""
    if row.score == 1:
        return row.label
    if row.answer is None:
        return UNREAD
    return known.get(row.answer.strip().casefold(), ELSE)


def _scores(
    labels: Sequence[str], rows: Sequence[Answered], answers: Sequence[str], whole: Aggregate, rng: np.random.Generator
) -> tuple[LabelScore, ...]:
    """Worst recall first."""
    said, found = Counter(answers), []
    for label in labels:
        own = [(answer == label, row.cluster) for row, answer in zip(rows, answers, strict=True) if row.label == label]
        hits, clusters = [float(hit) for hit, _ in own], [cluster for _, cluster in own]
        recall = score_interval(hits, clusters, rng=rng)
        more = whole.per_type[label].scores
        found.append(
            LabelScore(label, len(own), int(sum(hits)), said[label], recall, more.get("precision"), more["f1"])
        )
    return tuple(sorted(found, key=lambda score: (score.recall.value, score.label)))
