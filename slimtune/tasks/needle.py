"""A needle in a haystack: one made-up fact in a long text of real paragraphs, and the question for it.

It shows, without a judge, whether a model can use the context it is given: at which length, and how deep in the text.
The paragraphs are those of `squad2_open_book` (SQuAD 2.0), in an order of each row's own; a haystack that takes more
than there are begins again. The needle is a code of six digits, of which the paragraphs hold none.
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slimtune.data import Example, Message, read_jsonl

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
ANSWER_TOKENS = 32  # six digits, or a sentence with them
_AROUND_TOKENS = 160  # the task's instruction, the question, the needle and the chat template's marks
_CHARACTERS_PER_TOKEN = 4.5  # SmolLM2's tokenizer, whose vocabulary is small, has 4.6 to 5.0 on these paragraphs
_SIDES = ("train", "test")
_ADJECTIVES = ("amber", "brass", "copper", "crimson", "distant", "golden", "hollow", "narrow", "northern", "painted")
_NOUNS = ("anchor", "bridge", "compass", "garden", "harbour", "lantern", "mill", "orchard", "tower", "violin")


def needle(
    *,
    number: int,
    side: str,
    depth: float,
    tokens: int,
    answer_tokens: int = ANSWER_TOKENS,
    tokens_in: Callable[[str], int] | None = None,
) -> Example:
    """Row `number` of a side ("train" or "test"): the same arguments always give the same text.

    Its prompt and an answer of `answer_tokens` take at most `tokens`, as `tokens_in` counts them; without one, by an
    estimate that errs on the safe side. `depth` is 0 where the needle begins the text and 1 where it ends it.
    """
    import numpy as np

    rng = np.random.default_rng([number, _SIDES.index(side)])
    code = str(rng.integers(100_000, 1_000_000))
    thing = f"{_ADJECTIVES[rng.integers(len(_ADJECTIVES))]} {_NOUNS[rng.integers(len(_NOUNS))]}"
    room = tokens - answer_tokens - _AROUND_TOKENS
    text = _hidden(f"The code of the {thing} is {code}.", _haystack(rng, side, room, tokens_in or _estimate), depth)
    prompt = f"{text}\n\nQuestion: What is the code of the {thing}?"
    name = f"{tokens}-tokens-{depth:.0%}-deep-{side}-{number}"
    return Example(name, (Message("user", prompt),), code, meta={"depth": depth, "tokens": tokens})


def read_needle(row: Mapping[str, Any]) -> Example:
    """A row of a needle task: {"number": 1, "side": "test", "depth": 0.5, "tokens": 1500}. Raises ValueError."""
    number, side, depth, tokens = (row.get(key) for key in ("number", "side", "depth", "tokens"))
    if type(number) is not int or number < 0:
        raise ValueError("has no 'number': a whole one from 0 on, which decides text and code")
    if side not in _SIDES:
        raise ValueError(f"has {side!r} for 'side', not train or test")
    if isinstance(depth, bool) or not isinstance(depth, int | float) or not 0 <= depth <= 1:
        raise ValueError("has no 'depth' from 0, the beginning of the text, to 1, its end")
    if type(tokens) is not int or tokens < 1:
        raise ValueError("has no 'tokens': how long the prompt is to be")
    return needle(number=number, side=side, depth=float(depth), tokens=tokens)


def _haystack(rng: Any, side: str, room: int, tokens_in: Callable[[str], int]) -> list[str]:
    """As many paragraphs as there is room for, each order gone through before the next is drawn."""
    paragraphs, chosen, before = _paragraphs(side), [], None
    costs = [tokens_in(f"\n\n{paragraph}") for paragraph in paragraphs]
    while len(chosen) != before:
        before = len(chosen)
        for index in rng.permutation(len(paragraphs)).tolist():
            if costs[index] <= room:
                chosen.append(paragraphs[index])
                room -= costs[index]
    return chosen


def _hidden(sentence: str, paragraphs: list[str], depth: float) -> str:
    """The paragraphs with the sentence at the end of the one that ends nearest to the depth, or before them all."""
    ends = [0, *itertools.accumulate(map(len, paragraphs))]
    place = min(range(len(ends)), key=lambda index: abs(ends[index] - depth * ends[-1]))
    if place == 0:
        paragraphs = [" ".join([sentence, *paragraphs[:1]]), *paragraphs[1:]]
    else:
        paragraphs = [*paragraphs[: place - 1], f"{paragraphs[place - 1]} {sentence}", *paragraphs[place:]]
    return "\n\n".join(paragraphs)


@functools.cache
def _paragraphs(side: str) -> tuple[str, ...]:
    rows = read_jsonl(Path(__file__).parent / "squad2_open_book" / f"{side}.jsonl").rows
    return tuple(dict.fromkeys(row["context"] for _, row in rows))


def _estimate(text: str) -> int:
    return round(len(text) / _CHARACTERS_PER_TOKEN)
