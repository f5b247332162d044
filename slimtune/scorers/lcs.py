"""The longest common subsequence of two lists of words, and which words it joins.

Bit-parallel: one integer holds a whole column of the table, so that an answer of any length costs a few operations a
word (Hyyro, "Bit-parallel LCS-length computation revisited", 2004).
"""

from collections.abc import Sequence


def lcs_length(words: Sequence[str], others: Sequence[str]) -> int:
    """How many words the longest common subsequence has."""
    rows = _columns(words, others)
    return len(words) - rows[-1][1].bit_count() if rows else 0


def lcs_pairs(words: Sequence[str], others: Sequence[str]) -> dict[int, int]:
    """Place in `words` -> place in `others` of each word of one longest common subsequence. Both only grow."""
    start, end = 0, 0
    shorter = min(len(words), len(others))
    while start < shorter and words[start] == others[start]:
        start += 1
    while end < shorter - start and words[-1 - end] == others[-1 - end]:
        end += 1
    inner = _traced(words[start : len(words) - end], others[start : len(others) - end])
    pairs = {place: place for place in range(start)}
    pairs |= {start + place: start + other for place, other in inner[::-1]}
    return pairs | {len(words) - back: len(others) - back for back in range(end, 0, -1)}


def _columns(words: Sequence[str], others: Sequence[str]) -> list[tuple[int, int]]:
    """(place in others, column after it), for the others that occur in `words` at all. A bit that is 0 says that the
    sequence grew by the word at its place."""
    masks: dict[str, int] = {}
    for place, word in enumerate(words):
        masks[word] = masks.get(word, 0) | 1 << place
    column = full = (1 << len(words)) - 1
    columns = []
    for place, other in enumerate(others):
        if mask := masks.get(other):
            both = column & mask
            column = ((column + both) | (column - both)) & full
            columns.append((place, column))
    return columns


def _traced(words: Sequence[str], others: Sequence[str]) -> list[tuple[int, int]]:
    """The pairs, last first."""
    columns, pairs = _columns(words, others), []
    row, at = len(words) - 1, len(columns) - 1
    while row >= 0 and at >= 0:
        if columns[at][1] >> row & 1:
            row -= 1
        elif at > 0 and not columns[at - 1][1] >> row & 1:
            at -= 1
        else:
            pairs.append((row, columns[at][0]))
            row, at = row - 1, at - 1
    return pairs
