"""How many test rows show what: the least difference that so many find, and what it takes to part two that tie."""

import math
from dataclasses import dataclass
from statistics import NormalDist

from slimtune.stats.intervals import ALPHA, Comparison


@dataclass(frozen=True)
class Separation:
    """The test rows in all that would tell two contestants apart, and how many more that is than there are (0 where
    there are enough), if the true difference is the one seen."""

    rows: int
    more: int
    difference: float
    power: float


TENTH = 0.1  # the share of rows on which two models are taken to disagree, where nothing is known of them


def smallest_detectable_difference(
    n: int, discordant_share: float = TENTH, power: float = 0.8, alpha: float = ALPHA
) -> float:
    """The true difference between two models on the same n right/wrong rows that a test finds with this power.

    (z_alpha + z_power) sqrt(discordant / n), the McNemar sample size (Miller 1962; Connor 1987) solved for the
    difference. A difference cannot exceed the share of rows on which the models disagree: where it would have to, they
    are taken to disagree on more rows, all going one way, which is the least that the exact test finds. 1.0 means:
    nothing can be found with so few rows.
    """
    if n < 1 or not 0 <= discordant_share <= 1 or not 0 < power < 1 or not 0 < alpha < 1:
        raise ValueError(f"Need n >= 1 and shares in [0, 1], not {n=}, {discordant_share=}, {power=}, {alpha=}.")
    mixed = _z(power, alpha) * math.sqrt(discordant_share / n)
    return mixed if 0 < mixed <= discordant_share else max(discordant_share, _one_way(n, power, alpha))


def _one_way(n: int, power: float, alpha: float) -> float:
    """The share of n rows that change, all one way, of which as many as a sign test needs turn up with this power."""
    from scipy.special import betaincinv

    needed = math.ceil(math.log2(2 / alpha))
    return float(betaincinv(needed, n - needed + 1, power)) if n >= needed else 1.0


def rows_to_separate(found: Comparison, *, power: float = 0.8) -> Separation | None:
    """The rows for which `smallest_detectable_difference` is the difference seen. None where none was seen: how large
    the true one is, if there is one, is not known then.

    Right/wrong rows, each its own group: from the share of rows on which the two disagree. Otherwise from the width of
    the interval, which holds what rows of one group have in common; the new rows are taken to come in such groups too.
    """
    seen = abs(found.difference.value)
    if seen < 1e-9:
        return None
    if found.test == "exact McNemar":
        discordant = (found.wins + found.losses) / found.n
    else:
        error = (found.difference.high - found.difference.low) / 2 / NormalDist().inv_cdf(1 - ALPHA / 2)
        discordant = found.n * error**2 + seen**2
    rows = math.ceil(max(_z(power, ALPHA) ** 2 * discordant / seen**2, _z(power, ALPHA) ** 2 / seen) - 1e-9)
    return Separation(rows, max(0, rows - found.n), seen, power)


def _z(power: float, alpha: float) -> float:
    quantile = NormalDist().inv_cdf
    return quantile(1 - alpha / 2) + quantile(power)
