"""What a run computes at a time, and which of that is most where shared prefixes are computed once. No torch here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from slimtune.engine.groups import prefix_length, shared_groups

_SEEN = 64  # parts of a run whose average stands for that of all where rows share in groups
_FEW = 8  # of these, by which it is seen whether rows do
_LITTLE = 0.95  # of the tokens that are left where only what all rows share is shared: groups leave no less
_A_ROW = 100  # a row takes as long to compare as so many pairs of rows to be weighed

Part = Sequence[int]  # rows, as numbers


def parts_of_batches(order: Part, *, batch: int, micro_batch: int) -> list[Part]:
    """The rows that are computed at a time, in the order of a run."""
    batches = (order[start : start + batch] for start in range(0, len(order), batch))
    return [rows[start : start + micro_batch] for rows in batches for start in range(0, len(rows), micro_batch)]


class Laid(NamedTuple):
    """A part as one row: the tokens of all its prefixes, and of the rest."""

    part: Part
    ahead: float
    own: float

    @property
    def tokens(self) -> float:
        return self.ahead + self.own


@dataclass(frozen=True)
class Rows:
    """All rows of a run: their prompts, how long each is with its answer, and what all prompts share."""

    prompts: Sequence[Sequence[int]]
    lengths: Sequence[float]
    shared: int

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], lengths: Sequence[float]) -> "Rows":
        return cls(prompts, lengths, prefix_length(prompts))

    def laid_out(self, part: Part) -> Laid:
        groups, prefixes = shared_groups([self.prompts[row] for row in part])
        spared = sum(len(group) * prefix for group, prefix in zip(groups, prefixes, strict=True))
        return Laid(part, sum(prefixes), sum(self.lengths[row] for row in part) - spared)

    def at_most(self, part: Part) -> float:
        """Tokens of a part where only what all prompts share is computed once."""
        return sum(self.lengths[row] for row in part) - (len(part) - 1) * self.shared

    def largest(self, parts: Sequence[Part], *, work: float = math.inf) -> Laid:
        """The part that is most tokens. They are laid out from the one on that would be most if rows did not share in
        groups, until none can be more. `work`: of how many pairs of rows at most; where that ends it, what is found may
        be a little less."""
        bounds = [self.at_most(part) for part in parts]
        order = sorted(range(len(parts)), key=bounds.__getitem__, reverse=True)
        most = self.laid_out(parts[order[0]])
        for index in order[1:]:
            work -= _pairs(parts[index])
            if bounds[index] <= most.tokens or work <= 0:
                break
            most = max(most, self.laid_out(parts[index]), key=lambda one: one.tokens)
        return most

    def usual(self, parts: Sequence[Part], *, work: float) -> tuple[float, float]:
        """Of a part on average: tokens of all prefixes, and of the rest. Where rows share in groups, some of the parts
        stand for all, of `work` pairs of rows at most."""
        whole = [part for part in parts if len(part) == len(parts[0])]
        seen = _spread(whole, max(1, min(_SEEN, int(work / _pairs(parts[0])))))
        few = _spread(seen, _FEW)
        if sum(self.laid_out(part).tokens for part in few) > _LITTLE * sum(map(self.at_most, few)):
            return self.shared, sum(map(self.at_most, whole)) / len(whole) - self.shared
        laid = [self.laid_out(part) for part in seen]
        return sum(one.ahead for one in laid) / len(laid), sum(one.own for one in laid) / len(laid)


def _pairs(part: Part) -> int:
    return len(part) * (len(part) + _A_ROW)


def _spread(parts: Sequence[Part], most: int) -> Sequence[Part]:
    """So many of them at most, evenly."""
    return parts[:: math.ceil(len(parts) / most)]
