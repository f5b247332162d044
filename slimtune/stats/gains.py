"""What training gives, and how much of it is luck: tunability, and the noise between seeds of the same training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from slimtune.stats.intervals import ALPHA, Interval
from slimtune.stats.ranks import RankRow, mean_ranks


@dataclass(frozen=True)
class Tunability:
    """tuned - base of shape (contestants, tasks), its ranks, and for each contestant the mean of
    (tuned - base) / (1 - base), the share of the remaining error that tuning removed.

    Gains reward a low start: who begins at 0.9 cannot gain 0.2. The share does not, but has no value where a base makes
    no errors: such tasks are left out of it for everybody, and it is None where none is left.
    """

    gain: np.ndarray
    by_gain: list[RankRow]
    error_removed: tuple[float, ...] | None


@dataclass(frozen=True)
class SeedNoise:
    """The standard deviation of a score between seeds of the same contestant and task, with its 95% interval."""

    sd: float
    low: float
    high: float
    cells: int
    runs: int

    @property
    def degrees(self) -> int:
        return self.runs - self.cells


def tunability(base: np.ndarray, tuned: np.ndarray) -> Tunability:
    """Of scores in [0, 1] of shape (contestants, tasks). Raises ValueError for a missing cell (NaN)."""
    if base.shape != tuned.shape:
        raise ValueError(f"Base scores of shape {base.shape}, tuned ones of shape {tuned.shape}.")
    gain, error = tuned - base, 1 - base
    held = (error > 1e-9).all(axis=0)
    shares = (gain[:, held] / error[:, held]).mean(axis=1).tolist() if held.any() else None
    return Tunability(gain, mean_ranks(gain), None if shares is None else tuple(shares))


def seed_noise(cells: Sequence[Sequence[float]]) -> SeedNoise | None:
    """Pooled over cells, each the scores of one contestant on one task by seed; those with one seed tell nothing and
    are left out. None where no cell has two. The interval is that of chi squared: it takes the noise to be normal, and
    alike in all cells. With few runs it is wide: three seeds of one cell leave the upper end at six times the value.
    """
    from scipy.special import chdtri

    held = [np.asarray(cell, dtype=float) for cell in cells if len(cell) > 1]
    if any(np.isnan(cell).any() for cell in held):
        raise ValueError("A seed has no score. Leave it out, and count it.")
    if not held:
        return None
    runs = sum(len(cell) for cell in held)
    degrees = runs - len(held)
    squares = float(sum(((cell - cell.mean()) ** 2).sum() for cell in held))
    low, high = (math.sqrt(squares / float(chdtri(degrees, tail))) for tail in (ALPHA / 2, 1 - ALPHA / 2))
    return SeedNoise(math.sqrt(squares / degrees), low, high, len(held), runs)


def widened(difference: Interval, noise: SeedNoise, *, seeds_a: int | None, seeds_b: int | None) -> Interval:
    """The interval of a difference between two contestants with the noise of seeds added: t times
    sd sqrt(1 / seeds_a + 1 / seeds_b), in quadrature to either side. None for a side that was not trained.

    Rows scored as means over seeds hold a part of that noise already, so this errs on the wide side.
    """
    from scipy.special import stdtrit

    share = sum(1 / seeds for seeds in (seeds_a, seeds_b) if seeds is not None)
    extra = float(stdtrit(noise.degrees, 1 - ALPHA / 2)) * noise.sd * math.sqrt(share)
    low = difference.value - math.hypot(difference.value - difference.low, extra)
    high = difference.value + math.hypot(difference.high - difference.value, extra)
    return replace(difference, low=max(-1.0, low), high=min(1.0, high), method=f"{difference.method}, seed noise added")
