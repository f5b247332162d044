"""Did tuning help? The scores side by side, the paired differences, and the answer in one sentence."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimtune.report.collect import NAMES, Answered, Evaluated, RunFiles
from slimtune.report.text import number, p_value, signed
from slimtune.stats import (
    ALPHA,
    Comparison,
    Interval,
    paired_difference,
    share_of_error_removed,
    smallest_detectable_difference,
)
from slimtune.tasks.task import TEST
from slimtune.wording import scored_rows

_NEARLY_ALL = 0.9  # of the rows are groups of their own: what so many groups show is what the rows do


@dataclass(frozen=True)
class ScoreRow:
    """One line of the score table. Shares are of all rows; None where evaluation.json does not say."""

    name: str
    label: str
    scorer: str
    score: Interval | None
    also: tuple[tuple[str, Interval], ...]
    n: int | None
    unparseable: float | None
    truncated: float | None
    repeated: float | None
    thinking: float | None
    thinking_tokens: int | None
    unscored: int | None
    seconds: float | None
    prompt_tokens: int | None
    completion_tokens: int | None

    @property
    def thought_tokens(self) -> int:
        """The mean length of a thought."""
        return round((self.thinking_tokens or 0) / ((self.thinking or 0) * (self.n or 0) or 1))

    def as_json(self) -> dict[str, Any]:
        also = {name: interval.as_json() for name, interval in self.also}
        return {**vars(self), "score": self.score and self.score.as_json(), "also": also}


@dataclass(frozen=True)
class Difference:
    """Tuned minus another, on the rows both have a score for. `left_out` rows have one score only; `other_prompt` rows
    were asked differently; `detectable` is the smallest difference so many rows would usually show."""

    against: str  # the evaluation's folder: "base"
    other: str  # in words: "zero-shot"
    comparison: Comparison
    error_removed: Interval | None
    detectable: float | None
    left_out: int
    other_prompt: int

    def as_json(self) -> dict[str, Any]:
        removed = self.error_removed and self.error_removed.as_json()
        return {**vars(self), "comparison": self.comparison.as_json(), "error_removed": removed}

    @property
    def label(self) -> str:
        return f"Tuned - {self.other}"


@dataclass(frozen=True)
class Verdict:
    """`outcome` is against zero-shot, or against few-shot where zero-shot is missing."""

    outcome: str  # "helped" | "unclear" | "worse" | "unknown"
    sentence: str


def score_row(evaluated: Evaluated) -> ScoreRow:
    facts = evaluated.facts
    counts = {key: facts[key] if number(facts.get(key)) else None for key in _COUNTS}
    return ScoreRow(
        name=evaluated.name,
        label=evaluated.label,
        scorer=str(facts.get("scorer") or ""),
        score=evaluated.score,
        also=tuple(evaluated.also.items()),
        n=counts["n"],
        unparseable=counts["unparseable"],
        truncated=counts["truncated"],
        repeated=counts["repeated"],
        thinking=counts["thinking"],
        thinking_tokens=counts["thinking_tokens"],
        unscored=counts["unscored"],
        seconds=counts["seconds"],
        prompt_tokens=counts["prompt_tokens"],
        completion_tokens=counts["completion_tokens"],
    )


_COUNTS = (
    "n",
    "unparseable",
    "truncated",
    "repeated",
    "thinking",
    "thinking_tokens",
    "unscored",
    "seconds",
    "prompt_tokens",
    "completion_tokens",
)


def pairs(before: Evaluated, after: Evaluated) -> list[tuple[Answered, Answered]]:
    """The rows both have a score for, by id, in id order."""
    known = {row.id: row for row in before.rows if row.score is not None}
    scored = sorted((row for row in after.rows if row.score is not None and row.id in known), key=lambda row: row.id)
    return [(known[row.id], row) for row in scored]


def differences(run: RunFiles, rng: np.random.Generator) -> tuple[Difference, ...]:
    """Tuned against each other evaluation there is, zero-shot first."""
    tuned = run.evaluations.get("tuned")
    others = [run.evaluations[name] for name in NAMES if name != "tuned" and name in run.evaluations]
    if tuned is None:
        return ()
    return tuple(_difference(other, tuned, rng) for other in others if pairs(other, tuned))


def _difference(other: Evaluated, tuned: Evaluated, rng: np.random.Generator) -> Difference:
    both = pairs(other, tuned)
    a, b, clusters = [x.score for x, _ in both], [y.score for _, y in both], [y.cluster for _, y in both]
    found = paired_difference(a, b, clusters, rng=rng)
    moved, apart = (found.wins + found.losses) / found.n, found.groups > _NEARLY_ALL * found.n
    return Difference(
        against=other.name,
        other=_short(other),
        comparison=found,
        error_removed=share_of_error_removed(a, b, clusters, rng=rng),
        detectable=smallest_detectable_difference(found.groups, moved) if apart and {*a, *b} <= {0.0, 1.0} else None,
        left_out=len({row.id for row in (*other.rows, *tuned.rows)}) - len(both),
        other_prompt=sum(x.prompt_sha256 != y.prompt_sha256 for x, y in both) if other.name == "base" else 0,
    )


def _short(evaluated: Evaluated) -> str:
    """ "zero-shot", "5-shot", "teacher"."""
    shots = evaluated.facts.get("few_shot_k")
    if evaluated.name == "few_shot":
        return f"{shots}-shot" if number(shots) and shots else "few-shot"
    return "zero-shot" if evaluated.name == "base" else evaluated.name


def verdict(run: RunFiles, found: tuple[Difference, ...]) -> Verdict:
    """Against zero-shot first, then whether a few examples in the prompt would have done as well; and, where there is a
    teacher, a sentence on whether the tuned model is as good as it."""
    if "tuned" not in run.evaluations:
        return Verdict("unknown", "No verdict yet: the tuned model has not been evaluated.")
    against = [one for one in found if one.against in ("base", "few_shot")]
    if not against:
        return Verdict("unknown", "No verdict: there is no evaluation to compare the tuned model with.")
    outcome = _outcome(against[0])
    sentence = f"{_HEADLINES[outcome]}: " + "; ".join(_clause(one) for one in against) + "."
    sentence += "".join(f" {_beside_teacher(one)}" for one in found if one.against == "teacher")
    if run.scored_on != TEST:
        sentence += f" Scored on {scored_rows(run.scored_on)}, not on the test rows."
    return Verdict(outcome, sentence)


_HEADLINES = {"helped": "Tuning helped", "unclear": "No clear difference", "worse": "It got worse"}


def remarks(found: tuple[Difference, ...]) -> tuple[str, ...]:
    """What a reader of the differences has to know: rows left out, groups, and what so few rows cannot show."""
    lines = ["Each p value is for its own comparison." if len(found) > 1 else ""]
    for one in found:
        n, groups = one.comparison.n, one.comparison.groups
        if groups < n:
            lines.append(f"{one.label}: {n:,} rows in {groups:,} groups; the interval and the test are over groups.")
        if one.left_out:
            lines.append(f"{one.label}: rows left out, for want of a score on both sides: {one.left_out:,}.")
        if one.other_prompt:
            lines.append(f"{one.label}: rows not asked with the same prompt: {one.other_prompt:,}.")
        if one.detectable and _outcome(one) == "unclear":
            points = f"{100 * one.detectable:.1f} points"
            lines.append(f"{one.label}: with {n:,} rows like these, a difference under {points} is often missed.")
    return tuple(dict.fromkeys(line for line in (*lines, *disagreements(found)) if line))


def disagreements(found: tuple[Difference, ...]) -> tuple[str, ...]:
    """Why a difference is not called clear although its interval or its p value alone would say so."""
    lines = []
    for one in found:
        apart = not one.comparison.difference.low <= 0 <= one.comparison.difference.high
        if _outcome(one) == "unclear" and (apart or one.comparison.p < ALPHA):
            lines.append(
                f"{one.label}: the interval {'leaves zero out' if apart else 'holds zero'}, and the test says "
                f"{p_value(one.comparison.p)}. The two are made in different ways and can part where few rows changed; "
                "a difference is called clear only where both find it."
            )
    return tuple(lines)


def _outcome(one: Difference) -> str:
    if not one.comparison.clear:
        return "unclear"
    return "helped" if one.comparison.difference.value > 0 else "worse"


def _beside_teacher(one: Difference) -> str:
    """Better, worse, or how far below it may be at most."""
    said = f"{signed(one.comparison.difference)}, {p_value(one.comparison.p)}"
    below = math.ceil(100 * max(0.0, -one.comparison.difference.low) - 1e-9) / 100
    return {
        "helped": f"The tuned model beats the teacher: {said}.",
        "worse": f"The teacher is better: {said}.",
        "unclear": f"Not told apart from the teacher: {said}; by that interval at most {below:.2f} below it.",
    }[_outcome(one)]


def _clause(one: Difference) -> str:
    words = {
        "helped": f"over {one.other}",
        "unclear": f"against {one.other} (not clear)",
        "worse": f"against {one.other}, which is better",
    }
    return f"{signed(one.comparison.difference)} {words[_outcome(one)]}, {p_value(one.comparison.p)}"
