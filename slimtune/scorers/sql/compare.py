"""Are two results the same? Rows as a multiset, in order only where the gold query orders, numbers within a tolerance.

Column order counts, column names do not. 3 is 3.0 and is not '3'; NULL is NULL. Rows that the gold query leaves in any
order, because they tie, may come in any order: a result comes as blocks, one behind the other, each a multiset.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from slimtune.wording import counted

RELATIVE = 1e-9  # of floats: the order of a sum, a product for a quotient
ABSOLUTE = 1e-12
Rows = Sequence[Sequence[Any]]


def in_blocks(rows: Rows, other: Rows) -> list[int] | None:
    """Where the blocks of `rows` end, given the same query's rows after the tables were walked the other way: a block
    ends where both have had the same rows so far. None when they are not the same rows at all."""
    if len(rows) != len(other):
        return None
    keys = _keys(rows, other)
    balance: Counter[tuple] = Counter()
    open_keys, ends = 0, []
    for place, (key, other_key) in enumerate(zip(keys[0], keys[1], strict=True), start=1):
        for which, step in ((key, 1), (other_key, -1)):
            before = balance[which]
            balance[which] += step
            open_keys += (before == 0) - (balance[which] == 0)
        if open_keys == 0:
            ends.append(place)
    return ends if open_keys == 0 else None


def difference(rows: Rows, gold: Rows, block_ends: Sequence[int]) -> str:
    """What is wrong with `rows`, as a clause, or "" when they are `gold`. One block: order does not count."""
    if gold and rows and len(rows[0]) != len(gold[0]):
        return f"{counted(len(rows[0]), 'column')} against {len(gold[0])}"
    if len(rows) != len(gold):
        return f"{counted(len(rows), 'row')} against {len(gold)}"
    keys, gold_keys = _keys(rows, gold)
    wrong = sum((Counter(gold_keys) - Counter(keys)).values())
    if wrong:
        return f"{wrong} of {counted(len(gold), 'row')} {'differs' if wrong == 1 else 'differ'}"
    start = 0
    for end in block_ends:
        if Counter(keys[start:end]) != Counter(gold_keys[start:end]):
            return f"the right {len(gold)} rows in another order"
        start = end
    return ""


def _keys(first: Rows, second: Rows) -> tuple[list[tuple], list[tuple]]:
    """Both results as hashable rows in which equal within the tolerance is equal."""
    numbers = {value for rows in (first, second) for row in rows for value in row if isinstance(value, int | float)}
    same = _merged(sorted(number for number in numbers if number == number))
    return [_key(row, same) for row in first], [_key(row, same) for row in second]


def _merged(numbers: Sequence[float]) -> dict[float, float]:
    """Each number with the one that stands for it: the smallest of those that are equal within the tolerance."""
    stands: dict[float, float] = {}
    last = 0
    for number in numbers:
        exact = isinstance(number, int) and isinstance(last, int)
        if exact or not abs(number - last) <= max(ABSOLUTE, RELATIVE * abs(last)):
            last = number
        stands[number] = last
    return stands


def _key(row: Sequence[Any], same: dict[float, float]) -> tuple:
    return tuple(
        ("number", same.get(value, "nan"))
        if isinstance(value, int | float)
        else ("blob", value["blob"])
        if isinstance(value, dict)
        else value
        for value in row
    )
