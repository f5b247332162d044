"""How good is an answer? Each scorer is one pure function of a completion and its example, entered once in SCORERS.

To add one: write the function, add its line to SCORERS, and name it in a task. A wrong or unreadable answer is 0 with
the reason; None is for our own failures, such as a judge that is away.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from slimtune.data import Completion, Example, Score
from slimtune.errors import unknown_name
from slimtune.models.thoughts import Split, split_thought
from slimtune.models.toolcalls import parse_tool_calls, render_tool_calls
from slimtune.scorers.bfcl import bfcl_ast
from slimtune.scorers.exact import exact_match, exact_match_normalised, six_digit_code
from slimtune.scorers.judge import JUDGE, unjudged
from slimtune.scorers.qa import rouge_l, squad_em, squad_f1
from slimtune.scorers.redaction import redaction_f1, redaction_recall, redaction_type_f1, text_kept
from slimtune.scorers.spans import span_f1, span_type_f1
from slimtune.scorers.sql import sql_execution
from slimtune.scorers.tools import binary_tool_call, staged_tool_call, tool_call_equivalence

__all__ = ["SCORERS", "Scorer", "get_scorer", "gold_completion", "spoken_part"]


@dataclass(frozen=True)
class Scorer:
    """A measure. `binary`: every value is 0 or 1, so a Wilson interval and McNemar's test apply. `measures`: what is
    made of the counts of all rows together ("f1", "precision", "recall"), where its scores carry counts."""

    name: str
    description: str  # one line, for tables
    score: Callable[[Completion, Example], Score]
    binary: bool = True
    measures: tuple[str, ...] = ()

    def __call__(self, completion: Completion, example: Example) -> Score:
        return self.score(completion, example)


_F1 = ("f1", "precision", "recall")
SCORERS = {
    scorer.name: scorer
    for scorer in (
        Scorer("exact_match", "The answer is the target, to the letter.", exact_match),
        Scorer(
            "exact_match_normalised",
            "The answer is the target but for case, quotes, a full stop, or underscores.",
            exact_match_normalised,
        ),
        Scorer("six_digit_code", "The one number of six digits in the answer is the target.", six_digit_code),
        Scorer("squad_em", "The answer is an accepted one, after SQuAD's normalisation.", squad_em),
        Scorer("squad_f1", "Words shared with the nearest accepted answer: SQuAD's token F1.", squad_f1, binary=False),
        Scorer(
            "rouge_l", "Words shared with the nearest accepted answer, in their order: ROUGE-L.", rouge_l, binary=False
        ),
        Scorer(
            "span_f1",
            "Entities of a JSON list that are right in text and type: F1.",
            span_f1,
            binary=False,
            measures=_F1,
        ),
        Scorer(
            "span_type_f1",
            "Entities of a JSON list that overlap one of their type: F1.",
            span_type_f1,
            binary=False,
            measures=_F1,
        ),
        Scorer(
            "redaction_f1",
            "Placeholders that stand for an entity of their type, all of it and no more: F1.",
            redaction_f1,
            binary=False,
            measures=_F1,
        ),
        Scorer(
            "redaction_type_f1",
            "Placeholders that stand where an entity of their type stood: F1.",
            redaction_type_f1,
            binary=False,
            measures=_F1,
        ),
        Scorer(
            "redaction_recall",
            "Share of the entities whose text is gone.",
            redaction_recall,
            binary=False,
            measures=("recall",),
        ),
        Scorer("text_kept", "Share of the words outside of entities that still stand.", text_kept, binary=False),
        Scorer(
            "tool_call_equivalence",
            "The calls are the expected ones, arguments equal once schema defaults are dropped.",
            tool_call_equivalence,
        ),
        Scorer("binary_tool_call", "The calls are the expected ones, argument by argument.", binary_tool_call),
        Scorer(
            "staged_tool_call",
            "How far a call got: 0.25 readable, 0.50 its functions, 0.75 its arguments' names, 1.0 equivalent.",
            staged_tool_call,
            binary=False,
        ),
        Scorer("bfcl_ast", "Each call is among those that BFCL's AST check accepts.", bfcl_ast),
        Scorer(
            "sql_execution", "The query gives what the gold query gives, over made-up rows in SQLite.", sql_execution
        ),
        Scorer(JUDGE, "A served model says whether the answer is right: `judge` in a recipe.", unjudged),
    )
}


def get_scorer(name: str) -> Scorer:
    """The scorer of that name. Raises UserError with the nearest name."""
    if name not in SCORERS:
        raise unknown_name("scorer", name, SCORERS)
    return SCORERS[name]


@dataclass(frozen=True)
class Spoken:
    """An answer as it is scored, and the text it is of in two: thought and answer."""

    completion: Completion
    split: Split


def spoken_part(completion: Completion, example: Example, tool_format: str) -> Spoken:
    """What is scored: the answer without its thought, its calls read unless a server has read them, well or badly."""
    split = split_thought(completion.text, begun=completion.thought_begun)
    spoken = replace(completion, text=split.answer)
    if not isinstance(example.target, str) and spoken.tool_calls is None and not spoken.unread:
        reading = parse_tool_calls(spoken.text, tool_format, example.tools)
        spoken = replace(spoken, tool_calls=reading.calls, unread=reading.why)
    return Spoken(spoken, split)


def gold_completion(example: Example, *, tool_format: str = "hermes") -> Completion:
    """What a perfect model writes for `example`, as text: parse it like any other answer before it is scored."""
    if isinstance(example.target, str):
        return Completion(example.target)
    return Completion(render_tool_calls(example.target, tool_format))
