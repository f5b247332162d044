"""A test side out of one file, without leaks: rows of one group, and rows that ask the same, stay on one side."""

from collections import Counter
from collections.abc import Sequence

from slimtune.data import Example
from slimtune.errors import UserError
from slimtune.tasks.assemble import spread, stratum
from slimtune.tasks.grouping import joined
from slimtune.tasks.quality import normal_prompt


def hold_out(examples: Sequence[Example], *, kind: str, share: float, seed: int) -> frozenset[int]:
    """The indices of a share of the examples, in (0, 0.5], to test on: seeded, and for classification spread over the
    labels so that one seen once stays in training. Raises UserError where the rows cannot be parted."""
    if not 0 < share <= 0.5:
        raise UserError(f"held_out is {share}; hold out more than 0 and at most 0.5 of the rows.")
    clusters = _clusters(examples)
    strata = [stratum(examples[cluster[0]], kind) for cluster in clusters]
    due, most = max(1, round(share * len(examples))), len(examples) // 2
    test: set[int] = set()
    for index in spread(strata, (seed, 2), first=0.5):
        if len(test) < due and len(test) + len(clusters[index]) <= most:
            test.update(clusters[index])
    if not test:
        largest = Counter({index: len(cluster) for index, cluster in enumerate(clusters)}).most_common(1)
        raise UserError(
            f"No test rows can be held out of {len(examples)}: the largest of {len(clusters)} sets of rows that belong "
            f"together (one group, or the same question) has {largest[0][1] if largest else 0}. Give a test file."
        )
    return frozenset(test)


def _clusters(examples: Sequence[Example]) -> list[list[int]]:
    """Sets of indices joined by a shared group or a shared normalised prompt, directly or through others."""
    return joined(
        [
            [("prompt", normal_prompt(example)), *([("group", example.group)] if example.group is not None else [])]
            for example in examples
        ]
    )
