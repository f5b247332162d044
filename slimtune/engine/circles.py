"""A run-away guard: an answer that goes round in circles is ended early.

The rule is about tokens alone and looks back only. The end of the answer is one cycle of up to 128 tokens, eight times
or more, over 256 tokens or more. A table or list whose rows differ anywhere is no circle, however long it is.
"""

from collections.abc import Sequence

import numpy as np

LEAST_TOKENS = 256  # shorter answers are never ended
_LEAST_CYCLES = 8
_PERIODS = np.arange(1, 129)  # lengths of a cycle that are looked for
_NEEDED = np.maximum(LEAST_TOKENS, _LEAST_CYCLES * _PERIODS) - _PERIODS  # repeated tokens, after the first cycle


class Circles:
    """Watches `rows` answers, token by token."""

    def __init__(self, rows: int):
        self._past = np.full((rows, len(_PERIODS)), -1)  # the newest token first
        self._repeated = np.zeros((rows, len(_PERIODS)), dtype=np.int64)  # so many tokens equal those a cycle before

    def add(self, tokens: Sequence[int], rows: Sequence[int] | slice = slice(None)) -> np.ndarray:
        """Whether each of these rows goes in circles with its next token: booleans [rows]."""
        said, past = np.asarray(tokens)[:, None], self._past[rows]
        repeated = np.where(past == said, self._repeated[rows] + 1, 0)
        self._repeated[rows], self._past[rows] = repeated, np.concatenate([said, past[:, :-1]], axis=1)
        return (repeated >= _NEEDED).any(axis=1)


def circle_end(tokens: Sequence[int]) -> int | None:
    """How many tokens an answer has when the guard ends it; None where it never does."""
    if len(tokens) < LEAST_TOKENS:
        return None
    watch = Circles(1)
    return next((count for count, token in enumerate(tokens, start=1) if watch.add([token])[0]), None)
