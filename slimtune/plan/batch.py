"""How many rows a run trains on, and how many make a step of the optimizer where nobody says: as many as share prefixes
well, but not so many that few steps are left to learn in."""

MOST_ROWS, _LEAST = 64, 8
_ENOUGH_STEPS = 150


def trained_on(rows: int, epochs: float) -> int:
    """Rows of a run, each counted as often as it comes: at least one does."""
    return max(1, round(rows * epochs))


def usual_batch(rows: int, epochs: float) -> int:
    """64, halved while that makes fewer than 150 steps of so many `rows` an epoch, to 8 at least. At a learning rate of
    4e-4, 64 was measured on three tasks with 2,791 rows and more, less on one with 320 (BENCHMARKS.md)."""
    batch = MOST_ROWS
    while batch > _LEAST and rows * epochs < _ENOUGH_STEPS * batch:
        batch //= 2
    return batch
