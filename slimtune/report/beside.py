"""What stands beside a score in evaluation.json: other scorers, measures of all rows together, parts of them, types.

An older slimtune wrote fewer of them: what is not there is not shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slimtune.report.text import number
from slimtune.stats import Interval


@dataclass(frozen=True)
class TypeRow:
    """One type of entity: how many were to be found (`support`), found and made up, and its measures."""

    type: str
    support: int
    found: int
    made_up: int
    scores: Mapping[str, Interval]

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "scores": {name: interval.as_json() for name, interval in self.scores.items()}}


def beside(facts: Mapping[str, Any]) -> dict[str, Interval]:
    """Name -> interval, in the order of reading: "exact_match", "span_f1, micro F1", "NoAns: squad_em"."""
    named = dict(_mapping(facts.get("also")))
    for scorer, measures in _mapping(facts.get("aggregate")).items():
        named |= {f"{scorer}, {_words(name)}": value for name, value in _mapping(measures).items()}
    for part, scores in _mapping(facts.get("parts")).items():
        own = {str(facts.get("scorer")): _mapping(scores).get("score"), **_mapping(_mapping(scores).get("also"))}
        named |= {f"{part}: {scorer}": value for scorer, value in own.items()}
    return {name: found for name, value in named.items() if (found := read_interval(value))}


def shares(summary: Mapping[str, Any]) -> str:
    """How many answers were none, in words; circles and thoughts where there were any."""
    text = f"{summary['unparseable']:.0%} unparseable, {summary['truncated']:.0%} cut off"
    for key, words in (("repeated", "in circles"), ("thinking", "thought first")):
        text += f", {summary[key]:.0%} {words}" if summary[key] else ""
    return f"{text}, {summary['unscored']} unjudged"


def type_tables(facts: Mapping[str, Any]) -> dict[str, tuple[TypeRow, ...]]:
    """For each scorer that counts, its types, the commonest first."""
    tables = {
        scorer: [row for name, value in _mapping(_mapping(block).get("per_type")).items() if (row := _row(name, value))]
        for scorer, block in _mapping(facts.get("aggregate")).items()
    }
    return {
        scorer: tuple(sorted(rows, key=lambda row: (-row.support, row.type))) for scorer, rows in tables.items() if rows
    }


def read_interval(value: Any) -> Interval | None:
    """The interval that JSON holds; None where it holds none."""
    try:
        return Interval.from_json(value)
    except (KeyError, TypeError, ValueError):
        return None


def _row(name: str, value: Any) -> TypeRow | None:
    counts = [_mapping(value).get(key) for key in ("support", "found", "made_up")]
    if not all(map(number, counts)):
        return None
    scores = {
        measure: found for measure in ("f1", "precision", "recall") if (found := read_interval(value.get(measure)))
    }
    return TypeRow(name, *map(int, counts), scores)


def _words(measure: str) -> str:
    return measure.replace("_", " ").replace("f1", "F1")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
