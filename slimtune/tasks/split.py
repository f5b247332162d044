"""Rows held out of others, without leaks: rows of one group, and rows that ask the same, stay on one side. And the
order in which rows are chosen, so that every choice holds the labels in proportion.
"""

from collections import Counter
from collections.abc import Sequence

from slimtune.data import Example
from slimtune.errors import UserError
from slimtune.tasks.grouping import joined
from slimtune.tasks.quality import normal_prompt
from slimtune.tasks.task import TRAINING_TEXT


def hold_out(examples: Sequence[Example], *, kind: str, share: float, seed: int) -> frozenset[int]:
    """The indices of a share of the examples, in (0, 0.5], to test on: seeded, and for classification spread over the
    labels so that one seen once stays in training. Raises UserError where the rows cannot be parted."""
    if not 0 < share <= 0.5:
        raise UserError(f"held_out is {share}; hold out more than 0 and at most 0.5 of the rows.")
    clusters = _clusters(examples)
    held = _drawn(examples, clusters, kind=kind, rows=max(1, round(share * len(examples))), seed=(seed, 2))
    if not held:
        raise UserError(f"No test rows can be held out of {_cannot_part(examples, clusters)} Give a test file.")
    return held


def hold_out_validation(examples: Sequence[Example], *, kind: str, rows: int, seed: int) -> frozenset[int]:
    """The indices of about so many training rows to choose settings by, at most half of them: chosen as `hold_out`
    does. Texts that are only learned are no questions, and stay. Raises UserError where the rows cannot be parted."""
    asked = [index for index, example in enumerate(examples) if TRAINING_TEXT not in example.meta]
    there = [examples[index] for index in asked]
    clusters = _clusters(there)
    held = _drawn(there, clusters, kind=kind, rows=rows, seed=(seed, 3))
    if not held:
        raise UserError(f"No validation rows can be held out of {_cannot_part(there, clusters)}")
    return frozenset(asked[index] for index in held)


def _drawn(
    examples: Sequence[Example], clusters: Sequence[Sequence[int]], *, kind: str, rows: int, seed: Sequence[int]
) -> frozenset[int]:
    """The members of whole clusters, until there are `rows` of them; never more than half of the examples."""
    strata = [stratum(examples[cluster[0]], kind) for cluster in clusters]
    held: set[int] = set()
    for index in spread(strata, seed, first=0.5):
        if len(held) < rows and len(held) + len(clusters[index]) <= len(examples) // 2:
            held.update(clusters[index])
    return frozenset(held)


def _cannot_part(examples: Sequence[Example], clusters: Sequence[Sequence[int]]) -> str:
    return (
        f"{len(examples)}: the largest of {len(clusters)} sets of rows that belong together (one group, or the same "
        f"question) has {max(map(len, clusters), default=0)}."
    )


def spread(strata: Sequence[str], seed: Sequence[int], *, first: float = 0.0) -> list[int]:
    """The indices of `strata` in a seeded order of which every beginning holds the strata in proportion.

    `first` places the first member of a stratum: at 0.0 each stratum is met before any is met twice; at 0.5 a stratum
    of n members comes up after 1/(2n) of the whole, so that rare ones come late.
    """
    import numpy as np

    order = np.random.default_rng(list(seed)).permutation(len(strata)).tolist()
    total, seen, ranked = Counter(strata), Counter[str](), []
    for place, index in enumerate(order):
        stratum = strata[index]
        ranked.append(((seen[stratum] + first) / total[stratum], place, index))
        seen[stratum] += 1
    return [index for _, _, index in sorted(ranked)]


def stratum(example: Example, kind: str) -> str:
    """What a choice of rows keeps in proportion: the label where there is one, how deep a needle lies."""
    return str(example.target) if kind == "classification" else str(example.meta.get("depth", ""))


def _clusters(examples: Sequence[Example]) -> list[list[int]]:
    """Sets of indices joined by a shared group or a shared normalised prompt, directly or through others."""
    return joined(
        [
            [("prompt", normal_prompt(example)), *([("group", example.group)] if example.group is not None else [])]
            for example in examples
        ]
    )
