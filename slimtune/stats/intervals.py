"""How sure we may be of a number: an interval for one score, an interval and a p value for a paired difference.

    score_interval        Wilson for independent right/wrong rows, otherwise a bootstrap that resamples groups
    paired_difference     same rows, two models: interval, wins and losses, exact McNemar or a sign-flip test
    share_of_error_removed

Rows of one group (conversation, document) are not independent, so groups are what is resampled and counted: Miller,
"Adding Error Bars to Evals", arXiv 2411.00640. Normal intervals are avoided: Bowyer, Aitchison, Ivanova, arXiv
2503.01747. Every interval here is a 95% interval.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

ALPHA = 0.05
DRAWS = 10_000
FEWEST_GROUPS = 10  # with fewer, a bootstrap over groups has too few distinct draws to be believed
FEWEST_UNALIKE = 5  # with fewer groups unlike the rest, many draws miss them all and the interval is too narrow
MOST_EXACT_GROUPS = 16  # 2**16 sign patterns are all looked at; above that, DRAWS of them
CELLS = 2_000_000  # numbers held at once while resampling: 16 MB


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval, the rows and groups behind it, and how it was made."""

    value: float
    low: float
    high: float
    n: int
    groups: int
    method: str

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def span(self) -> str:
        """Low to high, for where there is little room: "0.81-0.93"."""
        return f"{self.low:.2f}-{self.high:.2f}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Interval":
        return cls(
            value=float(data["value"]),
            low=float(data["low"]),
            high=float(data["high"]),
            n=int(data["n"]),
            groups=int(data["groups"]),
            method=str(data["method"]),
        )


@dataclass(frozen=True)
class Comparison:
    """b minus a on the same rows. A row is a win where b scores higher, a loss where a does."""

    difference: Interval
    wins: int
    losses: int
    ties: int
    p: float
    test: str
    n: int
    groups: int

    @property
    def clear(self) -> bool:
        """The interval leaves zero out and the test agrees."""
        return self.p < ALPHA and not self.difference.low <= 0 <= self.difference.high

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Comparison":
        return cls(
            difference=Interval.from_json(data["difference"]),
            wins=int(data["wins"]),
            losses=int(data["losses"]),
            ties=int(data["ties"]),
            p=float(data["p"]),
            test=str(data["test"]),
            n=int(data["n"]),
            groups=int(data["groups"]),
        )


def score_interval(values: Sequence[float], clusters: Sequence[str], *, rng: np.random.Generator) -> Interval:
    """The mean of scores in [0, 1] with its interval. Raises ValueError for no rows, NaN, None or a score outside.

    Right/wrong rows, each its own group: Wilson. Otherwise the bootstrap over groups, of the ratio of sums
    (groups differ in size). Where that cannot be believed - few groups, or all but a handful alike, when its width
    goes to zero - Wilson over the number of groups: the mean of a group's [0, 1] values never varies more than a coin
    with the same mean, so this errs on the wide side.
    """
    scores, groups = _checked(values, clusters)
    sums, sizes = np.bincount(groups, scores), np.bincount(groups)
    n, count, mean = len(scores), len(sizes), float(scores.mean())
    if count == n and _binary(scores):
        low, high = wilson(mean, n)
        return Interval(mean, low, high, n, count, "Wilson")
    if hardly_vary(sums / sizes):
        low, high = wilson(mean, count)
        return Interval(mean, low, high, n, count, "Wilson over groups")
    low, high = bounds_of_draws(_resampled_ratios(sums, sizes, rng), count)
    return Interval(mean, low, high, n, count, _bootstrap_name(n, count))


def paired_difference(
    a: Sequence[float], b: Sequence[float], clusters: Sequence[str], *, rng: np.random.Generator
) -> Comparison:
    """b minus a, row by row. Raises ValueError as `score_interval` does, and for lists of different lengths.

    Right/wrong rows, each its own group: the adjusted Wald interval of Bonett and Price (2012) and exact McNemar.
    Otherwise a bootstrap over groups and a sign-flip test over groups; where groups are few or hardly
    vary, Bonett-Price over the number of groups, for the reason given at `score_interval`.
    """
    before, groups = _checked(a, clusters)
    after, _ = _checked(b, clusters)
    change, count = after - before, int(groups.max()) + 1
    wins, losses = int((change > 0).sum()), int((change < 0).sum())
    if count == len(change) and _binary(before) and _binary(after):
        low, high = _bonett_price(wins, losses, count)
        difference = Interval((wins - losses) / count, low, high, count, count, "Bonett-Price")
        p, test = _mcnemar(wins, losses), "exact McNemar"
    else:
        difference = _grouped_difference(change, groups, rng)
        p, test = _sign_flip(np.bincount(groups, change), rng)
    return Comparison(difference, wins, losses, len(change) - wins - losses, p, test, len(change), count)


def share_of_error_removed(
    a: Sequence[float], b: Sequence[float], clusters: Sequence[str], *, rng: np.random.Generator
) -> Interval | None:
    """(mean b - mean a) / (1 - mean a): how much of what a got wrong b puts right. None where a makes no errors.

    Bootstrap over groups; where the groups that hold an error are few or hardly vary, the interval of the difference
    divided by a's error. Not bounded below: b may be far worse than a good a.
    """
    before, groups = _checked(a, clusters)
    gained, missed = np.bincount(groups, np.asarray(b) - before), np.bincount(groups, 1 - before)
    if missed.sum() <= 0:
        return None
    difference = paired_difference(a, b, clusters, rng=rng).difference
    value, held = float(gained.sum() / missed.sum()), missed > 0
    if hardly_vary(gained[held] / missed[held]):
        error = float(1 - before.mean())
        low, high, method = difference.low / error, difference.high / error, f"{difference.method}, scaled"
    else:
        ratios = _resampled_ratios(gained, missed, rng)
        low, high = bounds_of_draws(ratios, int(held.sum()))
        method = _bootstrap_name(difference.n, difference.groups)
    return Interval(value, low, min(1.0, high), difference.n, difference.groups, method)


def _checked(values: Sequence[float], clusters: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Scores as floats, and for each row the number of its group in sorted order, so that row order cannot matter."""
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} scores but {len(clusters)} group names.")
    if len(values) == 0:
        raise ValueError("No scores: there is nothing to make an interval from.")
    if any(value is None for value in values):
        raise ValueError("A score is None. Leave unscored rows out, and count them.")
    scores = np.asarray(values, dtype=float)
    if not ((scores >= 0) & (scores <= 1)).all():  # NaN fails this too
        raise ValueError(f"Scores must lie in [0, 1], not {scores[~((scores >= 0) & (scores <= 1))][0]}.")
    return scores, np.unique(np.asarray(clusters, dtype=str), return_inverse=True)[1]


def _binary(scores: np.ndarray) -> bool:
    return bool(((scores == 0) | (scores == 1)).all())


def hardly_vary(means: np.ndarray) -> bool:
    """Too few groups, or too few unlike the commonest, for a bootstrap over them."""
    commonest = np.unique(means.round(9), return_counts=True)[1].max()
    return len(means) < FEWEST_GROUPS or len(means) - commonest < FEWEST_UNALIKE


def bounds_of_draws(draws: np.ndarray, groups: int) -> tuple[float, float]:
    """The interval that bootstrap draws over so many groups give; NaN among the draws is passed over.

    The expanded percentile interval: plain percentiles take the groups' deviation for known, and are too narrow for 50
    of them. Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69 (2015).
    """
    from scipy.special import ndtr, stdtrit

    tail = float(ndtr(math.sqrt(groups / (groups - 1)) * stdtrit(groups - 1, ALPHA / 2)))
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def _bootstrap_name(n: int, groups: int) -> str:
    return "bootstrap" if n == groups else "bootstrap over groups"


def wilson(mean: float, n: float) -> tuple[float, float]:
    """The score interval of a share of n coins. n may be an effective number, and so no whole one."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(mean * n, n, alpha=ALPHA, method="wilson")
    return max(0.0, min(float(low), mean)), min(1.0, max(float(high), mean))


def _resampled_ratios(tops: np.ndarray, bottoms: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """DRAWS times: as many groups as there are, with replacement, and their summed tops over summed bottoms. Shape
    (DRAWS,); NaN where a draw's bottoms sum to zero."""
    count, parts = len(tops), []
    step = max(1, CELLS // count)
    for start in range(0, DRAWS, step):
        drawn = rng.integers(0, count, size=(min(step, DRAWS - start), count))
        below = bottoms[drawn].sum(axis=1)
        parts.append(np.divide(tops[drawn].sum(axis=1), below, out=np.full(len(below), np.nan), where=below > 0))
    return np.concatenate(parts)


def _grouped_difference(change: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> Interval:
    sums, sizes = np.bincount(groups, change), np.bincount(groups)
    n, count, mean, means = len(change), len(sizes), float(change.mean()), sums / sizes
    if hardly_vary(means):
        low, high = _bonett_price(means[means > 0].sum(), -means[means < 0].sum(), count)
        return Interval(mean, min(low, mean), max(high, mean), n, count, "Bonett-Price over groups")
    low, high = bounds_of_draws(_resampled_ratios(sums, sizes, rng), count)
    return Interval(mean, low, high, n, count, _bootstrap_name(n, count))


def _bonett_price(wins: float, losses: float, n: int) -> tuple[float, float]:
    """Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on paired
    data", J. Educ. Behav. Stat. 37 (2012): one pair added to each discordant cell. It has a width even without any."""
    from scipy.special import ndtri

    up, down = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
    half = float(ndtri(1 - ALPHA / 2)) * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return max(-1.0, float(up - down) - half), min(1.0, float(up - down) + half)


def _mcnemar(wins: int, losses: int) -> float:
    from statsmodels.stats.contingency_tables import mcnemar

    if wins + losses == 0:
        return 1.0
    return min(1.0, float(mcnemar([[0, wins], [losses, 0]], exact=True).pvalue))


def _sign_flip(sums: np.ndarray, rng: np.random.Generator) -> tuple[float, str]:
    """Were it a coin's toss which model is called a and which b, group by group, how often would the total be as far
    from zero as it is? Two-sided; with draws, the observed pattern counts as one of them (Phipson and Smyth 2010)."""
    moved = sums[np.abs(sums) > 1e-12]
    if len(moved) == 0:
        return 1.0, "exact sign-flip over groups"
    seen = abs(moved.sum()) - 1e-9
    if len(moved) <= MOST_EXACT_GROUPS:
        patterns = np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved)) & 1
        return float((np.abs((1 - 2 * patterns) @ moved) >= seen).mean()), "exact sign-flip over groups"
    extreme, step = 0, max(1, CELLS // len(moved))
    for start in range(0, DRAWS, step):
        signs = 1 - 2 * rng.integers(0, 2, size=(min(step, DRAWS - start), len(moved)), dtype=np.int8)
        extreme += int((np.abs(signs @ moved) >= seen).sum())
    return (extreme + 1) / (DRAWS + 1), f"sign-flip over groups, {DRAWS:,} draws"
