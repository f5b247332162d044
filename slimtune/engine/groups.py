"""Which prompts begin alike, and how far; and what of a run is most where that is computed once. No torch here."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

_SEEN = 64  # parts of a run that stand for all where rows share in groups
_FEW = 8  # of these, by which it is seen whether rows do
_LITTLE = 0.95  # of the tokens that are left where only what all rows share is shared: groups leave no less


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


def computed_once(prompts: Sequence[Sequence[int]], lengths: Sequence[float]) -> tuple[int, float]:
    """Rows with these prompts, of so many tokens each, laid out as one: the tokens of all prefixes, and of the rest."""
    ahead, own = 0, sum(lengths)
    for group in prefix_groups(prompts):
        shared = prefix_length([prompts[index] for index in group])
        ahead, own = ahead + shared, own - len(group) * shared
    return ahead, own


def parts_of_batches(order: Sequence[int], *, batch: int, micro_batch: int) -> list[Sequence[int]]:
    """The rows that are computed at a time, as numbers, in the order of a run."""
    batches = (order[start : start + batch] for start in range(0, len(order), batch))
    return [rows[start : start + micro_batch] for rows in batches for start in range(0, len(rows), micro_batch)]


class Laid(NamedTuple):
    """A part of a run as one row: which rows, the tokens of all their prefixes, and of the rest."""

    rows: Sequence[int]
    ahead: float
    own: float


def largest_part(
    parts: Sequence[Sequence[int]], prompts: Sequence[Sequence[int]], lengths: Sequence[float]
) -> tuple[Laid, tuple[float, float]]:
    """The part of a run that is most tokens as one row, and what a part is on average: tokens of all prefixes, and of
    the rest. Where rows share in groups, some of the parts stand for all."""

    def laid_out(part: Sequence[int]) -> Laid:
        return Laid(part, *computed_once([prompts[row] for row in part], [lengths[row] for row in part]))

    def together(part: Sequence[int]) -> float:
        return sum(lengths[row] for row in part)

    def tokens(laid: Laid) -> float:
        return laid.ahead + laid.own

    most, shared, size = laid_out(max(parts, key=together)), prefix_length(prompts), len(parts[0])
    seen = [part for part in parts[:: math.ceil(len(parts) / _SEEN)] if len(part) == size]
    few = [laid_out(part) for part in seen[:: _SEEN // _FEW]]
    if sum(map(tokens, few)) > _LITTLE * sum(together(one.rows) - (size - 1) * shared for one in few):
        mean = sum(map(together, parts)) / sum(map(len, parts))
        return most, (shared, size * (mean - shared))
    laid = [laid_out(part) for part in seen]
    usual = sum(one.ahead for one in laid) / len(laid), sum(one.own for one in laid) / len(laid)
    return max(most, *laid, key=tokens), usual
