"""Precision, recall and F1 of a whole test set, from what each row found, made up and missed.

A mean of the rows' F1 is not the F1 of the set: here counts are summed first, and the ratio is taken of the sums.

    micro       over everything that was to be found
    macro       the mean of the types' own values: a rare type counts as much as a common one
    per type    and with it its support: how many there were to be found

Rows of one group are resampled together, as in slimtune/stats. Every interval here is a 95% interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from slimtune.data import Tally
from slimtune.stats import CELLS, DRAWS, Interval, bounds_of_draws, hardly_vary, wilson

# found, made up, missed: what a measure divides, and by what
_RATIOS = {
    "f1": ((2, 0, 0), (2, 1, 1)),
    "precision": ((1, 0, 0), (1, 1, 0)),
    "recall": ((1, 0, 0), (1, 0, 1)),
}


@dataclass(frozen=True)
class TypeScore:
    """One type: its counts over all rows, and each measure that is defined for it. Nothing said, no precision; nothing
    to be found, no recall."""

    tally: Tally
    scores: Mapping[str, Interval]

    @property
    def support(self) -> int:
        return self.tally.found + self.tally.missed

    def as_json(self) -> dict[str, Any]:
        scores = {name: interval.as_json() for name, interval in self.scores.items()}
        return {**asdict(self.tally), "support": self.support, **scores}


@dataclass(frozen=True)
class Aggregate:
    """A test set's measures. `micro` and `macro` lack what is defined for no type."""

    micro: Mapping[str, Interval]
    macro: Mapping[str, Interval]
    per_type: Mapping[str, TypeScore]

    @property
    def scores(self) -> dict[str, Interval]:
        """micro_f1, macro_f1 and so on, as evaluation.json names them."""
        named = {"micro": self.micro, "macro": self.macro}
        return {f"{over}_{name}": found for over, values in named.items() for name, found in values.items()}

    def as_json(self) -> dict[str, Any]:
        per_type = {name: score.as_json() for name, score in self.per_type.items()}
        return {**{name: found.as_json() for name, found in self.scores.items()}, "per_type": per_type}


def f1(counts: Mapping[str, Tally]) -> float:
    """2 found / (2 found + made up + missed) over all types; 1.0 where nothing was there and nothing was said."""
    found = sum(tally.found for tally in counts.values())
    off = sum(tally.made_up + tally.missed for tally in counts.values())
    return 2 * found / (2 * found + off) if found or off else 1.0


def aggregate(
    rows: Sequence[Mapping[str, Tally]], clusters: Sequence[str], *, measures: Sequence[str], rng: np.random.Generator
) -> Aggregate:
    """The `measures` ("f1", "precision", "recall") of these rows; `clusters` says which group each belongs to.

    Micro and per type: a bootstrap over groups, or, where few groups hold the type or nearly all are alike,
    Wilson over as many groups as their sizes are worth. Macro: the bootstrap too; where a type's own interval could not
    come from it, at least as wide as what the types' intervals give together (MOVER: Zou and Donner, Statistics in
    Medicine 27, 2008). Raises ValueError for lists of different lengths.
    """
    if len(rows) != len(clusters):
        raise ValueError(f"{len(rows)} rows but {len(clusters)} group names.")
    types = sorted({name for row in rows for name, tally in row.items() if any(asdict(tally).values())})
    if not types:
        return Aggregate({}, {}, {})
    sums, sizes = _sums(rows, clusters, types)
    drawn = _drawn(sums, rng)
    micro, macro, scores = {}, {}, [{} for _ in types]
    for measure in measures:
        ratio = _Ratio(measure, sums, drawn, sizes)
        whole, each = ratio.micro(), [ratio.of(index) for index in range(len(types))]
        if whole is not None:
            micro[measure], macro[measure] = whole, ratio.macro(each)
        for own, interval in zip(scores, each, strict=True):
            own |= {measure: interval} if interval else {}
    totals = sums.sum(axis=0).astype(int).tolist()
    per_type = {name: TypeScore(Tally(*total), own) for name, total, own in zip(types, totals, scores, strict=True)}
    return Aggregate(micro, macro, per_type)


def _sums(
    rows: Sequence[Mapping[str, Tally]], clusters: Sequence[str], types: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Counts of each group, shape (groups, types, 3), and the rows of each group."""
    groups = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)[1]
    places = {name: place for place, name in enumerate(types)}
    sums = np.zeros((groups.max() + 1, len(types), 3))
    for group, row in zip(groups, rows, strict=True):
        for name, tally in row.items():
            if name in places:
                sums[group, places[name]] += (tally.found, tally.made_up, tally.missed)
    return sums, np.bincount(groups)


def _drawn(sums: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """DRAWS times the sums of as many groups as there are, with replacement. Shape (DRAWS, types, 3)."""
    count, parts = len(sums), []
    step = max(1, CELLS // count)
    for start in range(0, DRAWS, step):
        size = min(step, DRAWS - start)
        chosen = rng.integers(0, count, size=(size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(chosen.ravel(), minlength=size * count).reshape(size, count)
        parts.append(times.astype(float) @ sums.reshape(count, -1))
    return np.concatenate(parts).reshape(DRAWS, *sums.shape[1:])


class _Ratio:
    """One measure of the groups as they are and as they were drawn."""

    def __init__(self, measure: str, sums: np.ndarray, drawn: np.ndarray, sizes: np.ndarray):
        top, bottom = _RATIOS[measure]
        self.tops, self.bottoms = sums @ top, sums @ bottom  # (groups, types)
        self.drawn_tops, self.drawn_bottoms = drawn @ top, drawn @ bottom  # (DRAWS, types)
        self.sizes = sizes

    def micro(self) -> Interval | None:
        drawn = _divided(self.drawn_tops.sum(axis=1), self.drawn_bottoms.sum(axis=1))
        return self._interval(self.tops.sum(axis=1), self.bottoms.sum(axis=1), drawn)

    def of(self, index: int) -> Interval | None:
        drawn = _divided(self.drawn_tops[:, index], self.drawn_bottoms[:, index])
        return self._interval(self.tops[:, index], self.bottoms[:, index], drawn)

    def macro(self, each: Sequence[Interval | None]) -> Interval:
        """Over the types for which the measure is defined; in a draw, over those that were drawn."""
        known = [interval for interval in each if interval]
        value, count = float(np.mean([one.value for one in known])), len(known)
        drawn = _divided(self.drawn_tops, self.drawn_bottoms)
        with_any = drawn[~np.isnan(drawn).all(axis=1)]
        groups, drawn_means = len(self.sizes), np.nanmean(with_any, axis=1)
        low, high = bounds_of_draws(drawn_means, groups) if groups > 1 else (value, value)  # of one, no draw differs
        if all("bootstrap" in one.method for one in known):
            return self._made(value, low, high, self._name())
        down = np.sqrt(sum((one.value - one.low) ** 2 for one in known)) / count
        up = np.sqrt(sum((one.high - one.value) ** 2 for one in known)) / count
        return self._made(value, min(low, value - down), max(high, value + up), f"{self._name()}, widened by MOVER")

    def _interval(self, tops: np.ndarray, bottoms: np.ndarray, drawn: np.ndarray) -> Interval | None:
        held = bottoms > 0
        if not held.any():
            return None
        value = float(tops.sum() / bottoms.sum())
        if (self.sizes == 1).all() and (bottoms[held] == 1).all():
            return self._made(value, *wilson(value, int(held.sum())), "Wilson")
        if hardly_vary(tops[held] / bottoms[held]):
            worth = float(bottoms.sum() ** 2 / (bottoms**2).sum())  # Kish: groups of equal size that would tell as much
            return self._made(value, *wilson(value, worth), "Wilson over groups")
        return self._made(value, *bounds_of_draws(drawn, int(held.sum())), self._name())

    def _made(self, value: float, low: float, high: float, method: str) -> Interval:
        low, high = max(0.0, min(float(low), value)), min(1.0, max(float(high), value))
        return Interval(value, low, high, int(self.sizes.sum()), len(self.sizes), method)

    def _name(self) -> str:
        return "bootstrap" if (self.sizes == 1).all() else "bootstrap over groups"


def _divided(tops: np.ndarray, bottoms: np.ndarray) -> np.ndarray:
    return np.divide(tops, bottoms, out=np.full(tops.shape, np.nan), where=bottoms > 0)
