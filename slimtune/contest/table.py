"""Two tables, never mixed: what a layout is worth, and what a choice is worth. Who has no speed says why instead."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from slimtune.contest.ways import CHOICE, COLLATION, OURS, Entry
from slimtune.engine.contestant.job import UNSLOTH, Pace

TABLES = {
    COLLATION: "Collation: the same model, weights, precision, checkpointing and batch, laid out differently. "
    "slimtune's two have the same gradients; packed rows end in the middle of examples.",
    CHOICE: "Choice: what slimtune picks, beside the documented defaults of others and what they can do at best.",
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
    were faster: its pace is no result."""

    entry: Entry
    pace: Pace | None
    failed: str = ""
    tried: bool = False

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
    """Everything that was seen in one run, and where."""

    title: str
    facts: tuple[str, ...]
    notes: tuple[str, ...]
    outcomes: Sequence[Outcome]

    def of(self, table: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if table in outcome.entry.tables]

    @property
    def verdicts(self) -> list[str]:
        """How many times as fast slimtune's choice is as the others' best by layout, and as the defaults."""
        ours = next((one for one in self.outcomes if one.entry.role == OURS), None)
        if ours is None or ours.refusal:
            return []
        said = []
        for table, what in ((COLLATION, "the best other layout"), (CHOICE, "Unsloth at its best")):
            rest = [one for one in self.of(table) if one is not ours and not one.refusal and not one.tried]
            rest = [one for one in rest if table == COLLATION or one.entry.way.library == UNSLOTH]
            if rest:
                best = max(rest, key=lambda one: one.examples_per_s)
                said.append(_times(ours, best, what))
        for one in self.of(CHOICE):
            if one.entry.role.endswith("defaults") and not one.refusal:
                said.append(_times(ours, one, one.entry.role))
        return said

    def lines(self, table: str) -> list[Line]:
        """A table's rows. "times": as fast as the slowest of the table."""
        here = self.of(table)
        slowest = min((one.examples_per_s for one in here if not one.refusal), default=0.0)
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
            "outcomes": [
                {
                    "way": asdict(one.entry.way),
                    "tables": list(one.entry.tables),
                    "role": one.entry.role,
                    "pace": asdict(one.pace) if one.pace else None,
                    "refusal": one.refusal,
                    "tried": one.tried,
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
        f"{rate / slowest:.1f}",
        f"{rate:.2f}" if rate < 100 else f"{rate:,.0f}",
        f"{pace.supervised_tokens / pace.seconds:,.0f}",
        f"{pace.tokens / pace.seconds:,.0f}",
        "-" if pace.peak_gib is None else f"{pace.peak_gib:.2f}",
        str(pace.recompiled),
        f"{pace.first_loss:.3f} to {pace.last_loss:.3f}",
        f"{pace.least_grad_norm:.3g}",
    )
