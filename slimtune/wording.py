"""Numbers and mistakes in plain words."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from slimtune.errors import did_you_mean
from slimtune.stats import TENTH

_WHAT = {
    "int": "has to be a whole number",
    "float": "has to be a number",
    "bool": "has to be true or false",
    "string": "has to be text",
    "model": "has to be a section, with keys of its own",
    "dict": "has to be a section, with keys of its own",
    "tuple": "has to be a list",
    "finite": "has to be a finite number",
}
_LIMITS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 test row", "1,200 test rows"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def in_common(names: Sequence[str]) -> str:
    """What several names begin with and go on after, up to a comma: "Qwen3-4B, " of "Qwen3-4B, rank 8" and "Qwen3-4B,
    rank 64". Where they are told apart, the rest will do."""
    words = zip(*(name.split(", ")[:-1] for name in names), strict=False) if len(names) > 1 else ()
    return "".join(f"{same[0]}, " for same in itertools.takewhile(lambda same: len(set(same)) == 1, words))


def detectable_words(rows: int, difference: float, *, noun: str = "test row") -> str:
    """How small a difference so many rows find."""
    shown, alone = counted(rows, noun), rows == 1
    if difference >= 1:
        return f"{shown} {'is' if alone else 'are'} too few to find any difference."
    tenth = "models disagreeing on a tenth of the rows"
    one_way = "models disagreeing on these rows alone, one being right on all of them"
    how = tenth if difference <= TENTH else one_way
    found = f"{'finds' if alone else 'find'} a difference of {difference:.3f} or more"
    return f"{shown} {found} (paired, 80% power, {how})."


def scored_rows(scored_on: str) -> str:
    """Which rows a score is of, where a run's data say "test" or "validation"."""
    return f"{scored_on} rows{' held out of train' * (scored_on == 'validation')}"


def weights(precision: str, quantisation: str, *, gpu: object) -> str:
    """In what a model is held and computed with: "bf16, 4bit weights". On a CPU (no `gpu`) it is one thing: "fp32
    weights"."""
    return f"{precision}, {quantisation} weights" if gpu else f"{precision} weights"


def refused(error: Mapping[str, Any]) -> tuple[str, str]:
    """What one of pydantic's errors says of a value, "has to be a whole number, not 'one'.", and what would do."""
    kind, given = error["type"], error["input"]
    if kind == "missing":
        return "is missing.", ""
    if kind == "literal_error":
        words = [word.strip("' ") for word in error["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return f"cannot be {given!r}.", did_you_mean(str(given), words)
    if kind in _LIMITS:
        name, words = _LIMITS[kind]
        what = f"has to be {words} {error['ctx'][name]:g}"
    else:
        message = error["msg"].removeprefix("Value error, ")
        what = _WHAT.get(kind.split("_")[0], f"{message[0].lower()}{message[1:]}")
    return f"{what}{'' if isinstance(given, dict) else f', not {given!r}'}.", ""
