"""Which prompts begin alike, and how far; and what of a run is most where that is computed once. No torch here."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

_SEEN = 64  # parts of a run whose average stands for that of all where rows share in groups
_FEW = 8  # of these, by which it is seen whether rows do
_LITTLE = 0.95  # of the tokens that are left where only what all rows share is shared: groups leave no less
_A_ROW = 100  # a row takes as long to compare as so many pairs of rows to be weighed


def prefix_groups(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Prompts' numbers in groups that share a prefix, so that many tokens are computed once.

    Prompts that share most are neighbours in the order of their tokens, and of n neighbours that share k tokens n - 1
    times k are saved. No cut of that order saves more; found from the end on, in time quadratic in the prompts."""
    order = sorted(range(len(prompts)), key=lambda index: prompts[index])
    alike = [prefix_length([prompts[a], prompts[b]]) for a, b in pairwise(order)]
    saved, cut = [0] * (len(order) + 1), [0] * len(order)
    for start in range(len(order) - 1, -1, -1):
        shared, saved[start], cut[start] = len(prompts[order[start]]) - 1, saved[start + 1], start + 1
        for end in range(start + 1, len(order)):
            shared = min(shared, alike[end - 1])
            if (end - start) * shared + saved[end + 1] > saved[start]:
                saved[start], cut[start] = (end - start) * shared + saved[end + 1], end + 1
    groups, start = [], 0
    while start < len(order):
        groups.append(sorted(order[start : cut[start]]))
        start = cut[start]
    return sorted(groups)


def prefix_length(prompts: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all prompts share, leaving each at least one token of its own: the first answer token is
    predicted from it."""
    least, most = 0, max(min(map(len, prompts)) - 1, 0)
    first, last = min(prompts), max(prompts)  # in the order of their tokens: what these share, all share
    while least < most:
        middle = (least + most + 1) // 2
        if first[least:middle] == last[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least


def shared_groups(prompts: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[int]]:
    """Groups as they are computed, and the tokens of their prefixes. A prompt of a single token has nothing to share,
    and then no prompt does: attention takes prefixes of all groups or of none."""
    groups = prefix_groups(prompts)
    prefixes = [prefix_length([prompts[index] for index in group]) for group in groups]
    return (groups, prefixes) if all(prefixes) else ([list(range(len(prompts)))], [0])


def parts_of_batches(order: Sequence[int], *, batch: int, micro_batch: int) -> list[Sequence[int]]:
    """The rows that are computed at a time, as numbers, in the order of a run."""
    batches = (order[start : start + batch] for start in range(0, len(order), batch))
    return [rows[start : start + micro_batch] for rows in batches for start in range(0, len(rows), micro_batch)]


class Laid(NamedTuple):
    """A part of a run as one row: which rows, the tokens of all their prefixes, and of the rest."""

    rows: Sequence[int]
    ahead: float
    own: float

    @property
    def tokens(self) -> float:
        return self.ahead + self.own


def laid_out(part: Sequence[int], prompts: Sequence[Sequence[int]], lengths: Sequence[float]) -> Laid:
    groups, prefixes = shared_groups([prompts[row] for row in part])
    spared = sum(len(group) * prefix for group, prefix in zip(groups, prefixes, strict=True))
    return Laid(part, sum(prefixes), sum(lengths[row] for row in part) - spared)


def at_most(part: Sequence[int], lengths: Sequence[float], shared: int) -> float:
    """Tokens of the rows as one where only the `shared` ones, which all prompts begin with, are computed once."""
    return sum(lengths[row] for row in part) - (len(part) - 1) * shared


def largest_part(
    parts: Sequence[Sequence[int]],
    prompts: Sequence[Sequence[int]],
    lengths: Sequence[float],
    *,
    shared: int,
    work: float = math.inf,
) -> Laid:
    """The part of a run that is most tokens as one row. They are laid out from the one on that would be most if rows
    did not share in groups, until none can be more. `work`: of how many pairs of rows at most; where that ends it, what
    is found may be a little less."""
    bounds = [at_most(part, lengths, shared) for part in parts]
    order = sorted(range(len(parts)), key=bounds.__getitem__, reverse=True)
    most = laid_out(parts[order[0]], prompts, lengths)
    for index in order[1:]:
        work -= len(parts[index]) * (len(parts[index]) + _A_ROW)
        if bounds[index] <= most.tokens or work <= 0:
            break
        most = max(most, laid_out(parts[index], prompts, lengths), key=lambda one: one.tokens)
    return most


def usual_part(
    parts: Sequence[Sequence[int]],
    prompts: Sequence[Sequence[int]],
    lengths: Sequence[float],
    *,
    shared: int,
    work: float,
) -> tuple[float, float]:
    """What a part of a run is on average: tokens of all prefixes, and of the rest. Where rows share in groups, some of
    the parts stand for all, of `work` pairs of rows at most."""
    whole = [part for part in parts if len(part) == len(parts[0])]
    most = max(1, min(_SEEN, int(work / (len(parts[0]) * (len(parts[0]) + _A_ROW)))))
    seen = whole[:: math.ceil(len(whole) / most)]
    few = seen[:: math.ceil(len(seen) / _FEW)]
    alike = sum(at_most(part, lengths, shared) for part in few)
    if sum(laid_out(part, prompts, lengths).tokens for part in few) > _LITTLE * alike:
        return shared, sum(at_most(part, lengths, shared) for part in whole) / len(whole) - shared
    laid = [laid_out(part, prompts, lengths) for part in seen]
    return sum(one.ahead for one in laid) / len(laid), sum(one.own for one in laid) / len(laid)
