"""Two tables, never mixed: what a layout is worth, and what a choice is worth. Who has no speed says why instead."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from slimtune.contest.ways import CHOICE, COLLATION, OURS, Entry
from slimtune.engine.contestant.job import OUT_OF_MEMORY, Pace

TABLES = {
    COLLATION: "Collation: the same model, weights, precision, checkpointing and batch, laid out differently. "
    'slimtune\'s two have the same gradients; packed rows hold whole examples, as many as find room. "times": as fast '
    "as the slowest.",
    CHOICE: "Choice: what slimtune picks, beside the documented defaults of others and what they can do at best. "
    '"times": as fast as the slowest.',
}
_BEST = {  # of others: where all of the search took place, and where a part of it did
    COLLATION: ("the best other layout", "the fastest other layout that ran here"),
    CHOICE: ("Unsloth at its best", "the fastest of Unsloth's that ran here"),
}
FIGURES = (
    "times", "examples/s", "supervised tokens/s", "tokens/s", "peak GiB", "compiled anew", "loss", "least grad norm"
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A row of a table: `figures` in the order of FIGURES, or in `refusal` why there are none."""

    who: str
    how: str
    figures: tuple[str, ...]
    refusal: str


@dataclass(frozen=True)
class Outcome:
    """What became of an entry: its pace, or in `failed` why there is none. `tried`: for a few steps only, and others
    were faster: its pace is no result. `measured`: the day, YYYY-MM-DD."""

    entry: Entry
    pace: Pace | None
    failed: str = ""
    tried: bool = False
    measured: str = ""

    @property
    def ran(self) -> bool:
        """Whether it was seen what this way can do, be it that it does not fit."""
        return self.pace is not None or self.failed == OUT_OF_MEMORY

    @property
    def refusal(self) -> str:
        """Why there is no speed to tell; empty where there is one."""
        return self.failed if self.pace is None else self.pace.refusal

    @property
    def examples_per_s(self) -> float:
        """Examples a second. ValueError where there is no speed to tell."""
        if self.refusal or self.pace is None:
            raise ValueError(f"{self.entry.way.slug}: {self.refusal}")
        return self.pace.examples / self.pace.seconds

    @property
    def words(self) -> str:
        return f"no speed: {self.refusal}" if self.refusal else f"{self.examples_per_s:.2f} examples/s"


@dataclass(frozen=True)
class Contest:
    """Everything that was seen in one run, and where. `left_out`: who was not asked for."""

    title: str
    facts: tuple[str, ...]
    notes: tuple[str, ...]
    outcomes: Sequence[Outcome]
    left_out: tuple[Entry, ...] = ()

    def of(self, table: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if table in outcome.entry.tables]

    @property
    def verdicts(self) -> list[str]:
        """How many times as fast slimtune's choice is as the others' best by layout, and as the defaults."""
        ours = next((one for one in self.outcomes if one.entry.role == OURS), None)
        if ours is None or ours.refusal:
            return []
        said = [line for table in _BEST for line in self._beside_the_best(ours, table)]
        for one in self.of(CHOICE):
            if one.entry.role.endswith("defaults") and not one.refusal:
                said.append(_times(ours, one, one.entry.role))
        return said

    def _beside_the_best(self, ours: Outcome, table: str) -> list[str]:
        """Called the best only where nobody who may be was left out or ended before anything was seen."""
        rivals = [one for one in self.outcomes if one.entry.searched(table)]
        ran = [one for one in rivals if not one.refusal and not one.tried]
        if not ran:
            return []
        part = any(entry.searched(table) for entry in self.left_out) or not all(one.ran for one in rivals)
        return [_times(ours, max(ran, key=lambda one: one.examples_per_s), _BEST[table][part])]

    def lines(self, table: str) -> list[Line]:
        """A table's rows; the slowest is of those that went the whole course."""
        here = self.of(table)
        slowest = min((one.examples_per_s for one in here if not one.refusal and not one.tried), default=0.0)
        return [
            Line(
                _named(one.entry),
                one.entry.way.how + ", tried" * one.tried,
                () if one.refusal else _figures(one, slowest),
                one.refusal,
            )
            for one in here
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "facts": list(self.facts),
            "notes": list(self.notes),
            "verdicts": self.verdicts,
            "left_out": [entry.way.slug for entry in self.left_out],
            "outcomes": [
                {
                    "way": asdict(one.entry.way),
                    "tables": list(one.entry.tables),
                    "role": one.entry.role,
                    "pace": asdict(one.pace) if one.pace else None,
                    "refusal": one.refusal,
                    "tried": one.tried,
                    "measured": one.measured,
                }
                for one in self.outcomes
            ],
        }


def as_markdown(contest: Contest) -> str:
    """All of it, to be kept."""
    lines = [f"# {contest.title}", "", *(f"- {line}" for line in (*contest.facts, *contest.notes))]
    for table, meaning in TABLES.items():
        if contest.of(table):
            lines += ["", meaning, "", f"| who | how | {' | '.join(FIGURES)} |", f"|---|---|{'---|' * len(FIGURES)}"]
            lines += [f"| {' | '.join(_cells(line))} |" for line in contest.lines(table)]
    return "\n".join([*lines, "", *(f"- {line}" for line in contest.verdicts), ""])


def _cells(line: Line) -> tuple[str, ...]:
    told = line.figures or (f"no speed: {line.refusal}".replace("|", "/"), *("",) * (len(FIGURES) - 1))
    return (line.who, line.how, *told)


def _named(entry: Entry) -> str:
    return entry.role or entry.way.who


def _times(ours: Outcome, other: Outcome, what: str) -> str:
    way = other.entry.way
    return f"{ours.examples_per_s / other.examples_per_s:.1f} times as fast as {what} ({way.who}: {way.how})."


def _figures(outcome: Outcome, slowest: float) -> tuple[str, ...]:
    pace, rate = outcome.pace, outcome.examples_per_s
    assert pace is not None
    return (
        "" if outcome.tried else f"{rate / slowest:.1f}",
        f"{rate:.2f}" if rate < 100 else f"{rate:,.0f}",
        f"{pace.supervised_tokens / pace.seconds:,.0f}",
        f"{pace.tokens / pace.seconds:,.0f}",
        "-" if pace.peak_gib is None else f"{pace.peak_gib:.2f}",
        str(pace.recompiled),
        f"{pace.first_loss:.3f} to {pace.last_loss:.3f}",
        f"{pace.least_grad_norm:.3g}",
    )
