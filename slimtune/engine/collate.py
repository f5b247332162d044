"""How rows become tensors: padded, or one row in which examples share their prefixes.

Shared prefix: the examples of a task begin alike (instructions, labels, tools). `[prefix, suffix 1, ..., suffix n]` is
one row in which every suffix continues the prefix's positions and sees the prefix and itself only. Loss and gradients
are those of the padded batch; the prefix is computed once instead of n times. Rows that begin in several ways (two
system prompts, a passage a question) make several such groups, side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from slimtune.engine.groups import prefix_groups, prefix_length
from slimtune.engine.render import Encoded

IGNORE = -100
NOWHERE = -1  # a group or segment of its own that nothing may attend to: padding
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


@dataclass(frozen=True)
class Layout:
    """One row of all examples, each tensor [T]. `group` numbers the prefixes; `segment` is 0 in a prefix, and numbers
    the suffixes from 1 over all groups; padding is NOWHERE in both, and attends to itself so that its softmax is one.
    `before` is the place of the token that comes before in its own example, NOWHERE at its beginning."""

    ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    group: torch.Tensor
    segment: torch.Tensor
    before: torch.Tensor

    def mask(self, *, window: int | None = None) -> torch.Tensor:
        """Who may attend to whom, [1, 1, T, T] boolean. `window`: to how many tokens at most, itself among them."""
        place = torch.arange(len(self.ids), device=self.ids.device)
        seen = (self.segment[None, :] == 0) | (self.segment[None, :] == self.segment[:, None])
        seen &= (self.group[None, :] == self.group[:, None]) & (place[None, :] <= place[:, None])
        if window is not None:
            seen &= self.positions[:, None] - self.positions[None, :] < window
        return seen[None, None]


def shared_prefix(rows: Sequence[Encoded], *, pad_id: int = 0, multiple: int = 1) -> Layout:
    """All rows as one, in groups that share a prefix; padded on the right to a multiple, so that lengths repeat."""
    ids, labels, positions, group, segment, before = [], [], [], [], [], []
    suffixes = 0
    for number, members in enumerate(prefix_groups([row.prompt for row in rows])):
        shared = prefix_length([rows[index].prompt for index in members])
        start = len(ids)
        parts = [(rows[members[0]].prompt[:shared], (), 0)]
        for index in members:
            suffixes += 1
            parts.append((rows[index].prompt[shared:], rows[index].answer, suffixes))
        for prompt, answer, own in parts:
            first = 0 if own == 0 else shared
            length, here = len(prompt) + len(answer), len(ids)
            ids += [*prompt, *answer]
            labels += [*[IGNORE] * len(prompt), *answer]
            positions += range(first, first + length)
            group += [number] * length
            segment += [own] * length
            ahead = NOWHERE if first == 0 else start + shared - 1
            before += [ahead, *range(here, here + length - 1)][:length]
    space = -len(ids) % multiple
    fill = {"ids": pad_id, "labels": IGNORE, "positions": 0}
    names = {"ids": ids, "labels": labels, "positions": positions, "group": group, "segment": segment, "before": before}
    return Layout(**{name: torch.tensor(value + [fill.get(name, NOWHERE)] * space) for name, value in names.items()})
