"""How rows become tensors: padded, or one row in which examples share their prefixes.

Shared prefix: the examples of a task begin alike (instructions, labels, tools). `[prefix, suffix 1, ..., suffix n]` is
one row in which every suffix continues the prefix's positions and sees the prefix and itself only. Loss and gradients
are those of the padded batch; the prefix is computed once instead of n times. Rows that begin in several ways (two
system prompts, a passage a question) make several such groups: all their prefixes, then all their suffixes.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from slimtune.engine.groups import shared_groups
from slimtune.engine.render import Encoded

IGNORE = -100
NOWHERE = -1  # the place of a token that there is not
Batch = dict[str, torch.Tensor]


def padded(rows: Sequence[Encoded], *, pad_id: int, multiple: int = 1) -> Batch:
    """input_ids of shape [rows, longest], padded on the right to a multiple, and their `answers`. No mask: a causal
    model's tokens see nothing to their right, and without one attention takes its fastest way."""
    width = -(-max(map(len, rows)) // multiple) * multiple
    ids, labels = [], []
    for row in rows:
        space = width - len(row)
        ids.append([*row.prompt, *row.answer, *[pad_id] * space])
        labels.append([*[IGNORE] * len(row.prompt), *row.answer, *[IGNORE] * space])
    return {"input_ids": torch.tensor(ids)} | answers(torch.tensor(labels))


def answers(labels: torch.Tensor) -> Batch:
    """Of labels [rows, tokens], IGNORE where nothing is asked: `targets`, the tokens asked for, and the `places`, rows
    laid end to end, that they are predicted from. Found before a device has them, so that none has to be waited for."""
    following = torch.nn.functional.pad(labels, (0, 1), value=IGNORE)[:, 1:].flatten()
    places = (following != IGNORE).nonzero()[:, 0]
    return {"places": places, "targets": following[places]}


def check_asked(targets: torch.Tensor, rows: Sequence[Encoded]) -> None:
    """The loss is on the answers of `rows` and on nothing else."""
    due = (token for row in rows for token in row.answer)
    assert sorted(targets.tolist()) == sorted(due), "the loss is not on the answers"


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Of one row of all examples: the tokens of the prefix of each group [groups] and of each suffix [rows], the rows
    of each group, and how many tokens are asked for. Without a prefix there is one group."""

    prefixes: tuple[int, ...]
    suffixes: tuple[int, ...]
    members: tuple[int, ...]
    answers: int

    @property
    def ahead(self) -> int:
        """Where the suffixes begin."""
        return sum(self.prefixes)

    @property
    def suffix_tokens(self) -> tuple[int, ...]:
        """Of each group."""
        ends = itertools.accumulate(self.members)
        return tuple(sum(self.suffixes[end - count : end]) for end, count in zip(ends, self.members, strict=True))


@dataclass(frozen=True, kw_only=True)
class Layout(Lengths):
    """One row of all examples: the prefix of each group first, then the suffixes, group by group. Each tensor is [T].
    `group` numbers the groups; `segment` is 0 in a prefix, and numbers the suffixes from 1 over all groups. `before` is
    the place of the token that comes before in its own example, NOWHERE at its beginning. `order` [rows]: which row
    each suffix is of."""

    ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    group: torch.Tensor
    segment: torch.Tensor
    before: torch.Tensor
    order: tuple[int, ...]

    def mask(self, *, window: int | None = None) -> torch.Tensor:
        """Who may attend to whom, [1, 1, T, T] boolean. `window`: to how many tokens at most, itself among them."""
        place = torch.arange(len(self.ids), device=self.ids.device)
        seen = (self.segment[None, :] == 0) | (self.segment[None, :] == self.segment[:, None])
        seen &= (self.group[None, :] == self.group[:, None]) & (place[None, :] <= place[:, None])
        if window is not None:
            seen &= self.positions[:, None] - self.positions[None, :] < window
        return seen[None, None]


def lengths_of(rows: Sequence[Encoded]) -> Lengths:
    """What `shared_prefix` is going to lay out."""
    return _lengths(rows, *shared_groups([row.prompt for row in rows]))


def _lengths(rows: Sequence[Encoded], groups: Sequence[Sequence[int]], prefixes: Sequence[int]) -> Lengths:
    suffixes = [
        len(rows[index]) - shared for members, shared in zip(groups, prefixes, strict=True) for index in members
    ]
    return Lengths(
        prefixes=tuple(prefixes), suffixes=tuple(suffixes), members=tuple(map(len, groups)),
        answers=sum(len(row.answer) for row in rows),
    )  # fmt: skip


def shared_prefix(rows: Sequence[Encoded]) -> Layout:
    """All rows as one, in groups that share a prefix."""
    groups, prefixes = shared_groups([row.prompt for row in rows])
    starts = list(itertools.accumulate(prefixes, initial=0))
    ids, labels, positions, group, segment, before = [], [], [], [], [], []
    numbers = itertools.count(1)

    def add(prompt: tuple[int, ...], answer: tuple[int, ...], *, first: int, number: int, own: int, ahead: int) -> None:
        length, here = len(prompt) + len(answer), len(ids)
        ids.extend((*prompt, *answer))
        labels.extend((*[IGNORE] * len(prompt), *answer))
        positions.extend(range(first, first + length))
        group.extend([number] * length)
        segment.extend([own] * length)
        before.extend([ahead, *range(here, here + length - 1)][:length])

    for number, (members, shared) in enumerate(zip(groups, prefixes, strict=True)):
        add(rows[members[0]].prompt[:shared], (), first=0, number=number, own=0, ahead=NOWHERE)
    for number, (members, shared) in enumerate(zip(groups, prefixes, strict=True)):
        ahead = starts[number] + shared - 1 if shared else NOWHERE
        for row in (rows[index] for index in members):
            add(row.prompt[shared:], row.answer, first=shared, number=number, own=next(numbers), ahead=ahead)
    return Layout(
        **vars(_lengths(rows, groups, prefixes)), ids=torch.tensor(ids), labels=torch.tensor(labels),
        positions=torch.tensor(positions), group=torch.tensor(group), segment=torch.tensor(segment),
        before=torch.tensor(before), order=tuple(itertools.chain(*groups)),
    )  # fmt: skip
