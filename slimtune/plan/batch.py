"""How many rows make a step of the optimizer where nobody says: as many as share prefixes well, but not so many that
few steps are left to learn in."""

import math

MOST_ROWS, _LEAST = 64, 8
_ENOUGH_STEPS = 150


def usual_batch(rows: float, epochs: float, *, multiple_of: int = 1) -> int:
    """64, halved while that makes fewer than 150 steps of an epoch's `rows`, to 8 at least; then rounded up to a
    multiple. Measured with a learning rate of 4e-4 (BENCHMARKS.md)."""
    batch = MOST_ROWS
    while batch > _LEAST and rows * epochs < _ENOUGH_STEPS * batch:
        batch //= 2
    return math.ceil(batch / multiple_of) * multiple_of
