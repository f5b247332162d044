"""Which prompts begin alike, and how far. No torch here."""

from collections.abc import Sequence
from itertools import pairwise


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
