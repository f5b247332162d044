"""Which prompts begin alike, and how far; and what of a run is most where that is computed once. No torch here."""

import math
from collections.abc import Sequence
from itertools import pairwise

_SEEN = 64  # parts of a run by which the largest is found where rows share in groups
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


def largest_part(
    parts: Sequence[Sequence[int]], prompts: Sequence[Sequence[int]], lengths: Sequence[float]
) -> tuple[Sequence[int], int, float]:
    """The part of a run that is most tokens as one row, and its tokens: of all prefixes, and of the rest. Where rows
    share in groups, how much is found for some of the parts only."""

    def laid_out(part: Sequence[int]) -> tuple[Sequence[int], int, float]:
        return part, *computed_once([prompts[row] for row in part], [lengths[row] for row in part])

    most = max(parts, key=lambda part: sum(lengths[row] for row in part))
    found, shared = laid_out(most), prefix_length(prompts)
    if sum(found[1:]) > _LITTLE * (sum(lengths[row] for row in most) - (len(most) - 1) * shared):
        return found
    seen = parts[:: math.ceil(len(parts) / _SEEN)]
    return max(found, *map(laid_out, seen), key=lambda one: sum(one[1:]))
