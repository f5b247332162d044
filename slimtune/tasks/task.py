"""What a task is, and which part of it to take."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from slimtune.data import Example
from slimtune.errors import Problem, UserError
from slimtune.files import digest_json

TEST, VALIDATION = "test", "validation"  # what a task is scored on
TRAINING_TEXT = "training_text"  # in an Example's meta: a text to learn, no example of what is asked


@dataclass(frozen=True)
class Selection:
    """Which part of a task to take. The choice of rows is seeded, keeps their order, is stratified by label, and is
    nested: 100 rows are among the 200 that the same seed gives. Asking for more rows than there are takes all."""

    labels: tuple[str, ...] = ()  # classification only: rows and prompt are limited to these
    train_rows: int | None = None
    test_rows: int | None = None
    seed: int = 0
    test_seed: int | None = None  # of the choice of test or validation rows, where it is not `seed`
    validation_rows: int | None = None  # so many training rows are held out, and stand in place of the test rows
    skip_bad: bool = False  # leave out rows that cannot be read, and count them, where they would be refused

    def __post_init__(self) -> None:
        for name in ("train_rows", "test_rows", "validation_rows"):
            if (rows := getattr(self, name)) is not None and rows < 1:
                raise UserError(f"{name} is {rows}; take at least one row, or leave it out for all of them.")
        if twice := sorted({label for label in self.labels if self.labels.count(label) > 1}):
            raise UserError(f"These labels are selected twice: {', '.join(twice)}. Name each once.")


@dataclass(frozen=True)
class Task:
    """One narrow thing to be good at, with the rows to learn it from and the rows to prove it on.

    Within a task the system turn (`instruction`) is the same in every row, so its tokens can be shared.
    """

    name: str
    title: str  # for people, and true of what was selected: "Banking77, 10 of 77 intents"
    kind: str  # a key of KINDS: classification, qa, tool_calling, ner, text2sql, pii, text
    instruction: str
    scorer: str
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    also: tuple[str, ...] = ()  # secondary scorers
    labels: tuple[str, ...] = ()
    max_new_tokens: int = 64  # leaves room for the longest right answer of the train rows
    licence: str = ""
    attribution: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()  # what a reader of a score must know
    skipped: tuple[Problem, ...] = ()
    folder: str = ""  # where the rows lie, unless they come with slimtune or from files
    scored_on: str = TEST  # or VALIDATION: then `test` holds rows held out of train
    openings: tuple[str, ...] = ()  # questions that training and test share and may: a score is given without them too

    def is_opening(self, example: Example) -> bool:
        """Whether a row asks one of the shared openings, with nothing said before."""
        said = [turn.content for turn in example.messages if turn.role != "system"]
        return len(said) == 1 and said[0] in self.openings

    @property
    def scored_noun(self) -> str:
        """What a row of `test` is called."""
        return f"{self.scored_on} row"

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all that can change a score or a gradient: kind, scorer, labels, token limit, every row in
        order. Titles and licences are not in it."""
        validation = {"scored_on": VALIDATION} if self.scored_on == VALIDATION else {}
        return digest_json(
            {
                **validation,
                "kind": self.kind,
                "scorer": self.scorer,
                "labels": list(self.labels),
                "max_new_tokens": self.max_new_tokens,
                "train": _rows_json(self.train),
                "test": _rows_json(self.test),
            }
        )


def _rows_json(examples: Sequence[Example]) -> list[Any]:
    return [
        [
            example.id,
            [[turn.role, turn.content, [call.as_json() for call in turn.tool_calls]] for turn in example.messages],
            example.target if isinstance(example.target, str) else [call.as_json() for call in example.target],
            list(example.tools),
            example.group,
            {key: value for key, value in example.meta.items() if key != "labels"},  # the task's, hashed once
        ]
        for example in examples
    ]
