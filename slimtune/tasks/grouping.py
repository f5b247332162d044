"""Which rows belong together: those of one conversation or document, and those that share what a task says they may."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from slimtune.data import Example

GROUPINGS = ("functions", "target")


def grouped(examples: Sequence[Example], by: str) -> tuple[Example, ...]:
    """The examples, those without a group given one. `by`: "functions", rows that offer the same function belong
    together, directly or through others; "target", rows with the same answer do (a template's, filled anew); ""
    leaves them as they are."""
    if not by:
        return tuple(examples)
    keys = [function_names(row.tools) if by == "functions" else [str(row.target)] for row in examples]
    found = list(examples)
    for members in joined(keys):
        first = examples[members[0]].id
        for index in members:
            if found[index].group is None:
                found[index] = replace(found[index], group=first)
    return tuple(found)


def function_names(tools: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of the functions that a row offers."""
    return [tool.get("function", tool)["name"] for tool in tools]


def joined(keys: Sequence[Iterable[Any]]) -> list[list[int]]:
    """Sets of indices that share a key, directly or through others, in the order of their first members."""
    parent = list(range(len(keys)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    first: dict[Any, int] = {}
    for index, own in enumerate(keys):
        for key in own:
            one, other = sorted((root(index), root(first.setdefault(key, index))))
            parent[other] = one
    members: dict[int, list[int]] = {}
    for index in range(len(keys)):
        members.setdefault(root(index), []).append(index)
    return list(members.values())
