"""A shared-prefix row in a frame: what Unsloth's own layers take on a GPU, in shapes that come again.

Every step has other lengths. In a frame the prefixes and the suffixes are filled up, each at its end, by one sequence
of their own that nothing else sees; how many sequences there are and how long the longest may be is rounded up too.
Then lengths are numbers in a buffer and not shapes, and a step that was captured for one row serves the next.
"""

from dataclasses import astuple, dataclass

import numpy as np
import torch

from slimtune.engine.attention import Row
from slimtune.engine.collate import IGNORE, NOWHERE, Layout, Lengths, answers
from slimtune.engine.kernels import Sequences
from slimtune.plan import filled

_BLOCK = 128  # tokens that an attention kernel takes at a time: what is shorter costs the same


@dataclass(frozen=True)
class Frame:
    """Room for rows. `ahead`, `own`: tokens of prefixes and of suffixes, filling included; `groups`, `rows`: prefixes
    and suffixes; `answers`: tokens that are asked for; `longest_...`: that none is longer than."""

    ahead: int
    own: int
    groups: int
    rows: int
    answers: int
    longest_prefix: int
    longest_suffix: int
    longest_group: int

    @classmethod
    def least(cls, row: Lengths) -> "Frame":
        """No room to spare; but a token of filling after the prefixes, so that what fills the suffixes sees one too."""
        return cls(
            row.ahead + bool(row.ahead), sum(row.suffixes), len(row.prefixes), len(row.suffixes), row.answers,
            max(*row.prefixes, 1), max(row.suffixes), max(row.suffix_tokens),
        )  # fmt: skip

    def roomy(self) -> "Frame":
        """One with a little room to spare."""
        return self.room_for(self)

    def most(self, other: "Frame") -> "Frame":
        return Frame(*map(max, astuple(self), astuple(other)))

    def least_of(self, other: "Frame") -> "Frame":
        return Frame(*map(min, astuple(self), astuple(other)))

    def room_for(self, least: "Frame") -> "Frame":
        """A frame for least ones between `least` and this one in every way, with a little room to spare, in which no
        filling is longer than the longest may be. None is longer than all together: kernels refuse that."""
        ahead, own = filled(self.ahead), filled(self.own)
        prefix = power_of_two(self.longest_prefix, ahead - least.ahead + 1, _BLOCK)
        suffix, group = (
            power_of_two(longest, own - least.own, _BLOCK) for longest in (self.longest_suffix, self.longest_group)
        )
        return Frame(
            ahead, own, power_of_two(self.groups), -(-self.rows // 8) * 8, filled(self.answers),
            min(prefix, max(ahead, 1)), min(suffix, own), min(group, own),
        )  # fmt: skip

    def fits(self, least: "Frame") -> bool:
        """Whether a row of that least frame fits, and no filling is longer than the longest may be."""
        larger = all(mine >= its for mine, its in zip(astuple(self), astuple(least), strict=True))
        larger &= bool(least.ahead) == bool(self.ahead) and self.ahead - least.ahead < self.longest_prefix
        return larger and self.own - least.own <= min(self.longest_suffix, self.longest_group)

    def is_near(self, least: "Frame", times: float = 9 / 8) -> bool:
        """Whether it has no more than `times` as many tokens, and two blocks, which are always worth it."""
        return self.tokens <= times * least.tokens + 2 * _BLOCK

    def holds(self, least: "Frame") -> bool:
        """Whether it fits, and not much more than an eighth of the tokens are filling."""
        return self.fits(least) and self.is_near(least)

    @property
    def tokens(self) -> int:
        return self.ahead + self.own

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of what a buffer holds, one after the other: ids, positions, the places of tokens before, where prefixes,
        the suffixes of a group and suffixes begin, places and targets of answers, and how many tokens the loss is
        divided by."""
        begins = (self.groups + 2, self.groups + 2, self.rows + 2)
        return self.tokens, self.tokens, self.tokens, *begins, self.answers, self.answers, 1

    def fill(self, layout: Layout) -> torch.Tensor:
        """The buffer [sum of sizes], int64, on the CPU: `layout` with filling. `items`, its last number, is left 0."""
        parts = [np.zeros(size, dtype=np.int64) for size in self.sizes]
        ids, positions, before, first, groups, own, places, targets, _ = parts
        real = layout.ahead
        before[:] = NOWHERE
        moved = layout.before + (self.ahead - real) * (layout.before >= real)
        for into, values in ((ids, layout.ids), (positions, layout.positions), (before, moved)):
            into[:real], into[self.ahead : self.ahead + len(values) - real] = values[:real], values[real:]
        for into, lengths, end in (
            (first, layout.prefixes, self.ahead),
            (groups, layout.suffix_tokens, self.own),
            (own, layout.suffixes, self.own),
        ):
            into[1 : len(lengths) + 1] = np.cumsum(lengths)
            into[len(lengths) + 1 :] = into[len(lengths)]
            into[-1] = end
        asked = answers(layout.labels[None])
        count = len(asked["targets"])
        at = asked["places"].numpy()
        places[:count], targets[:count] = at + self.ahead - real, asked["targets"]  # answers are in suffixes
        targets[count:] = IGNORE
        return torch.from_numpy(np.concatenate(parts))


@dataclass(frozen=True)
class FrameView:
    """A filled frame as a model takes it, each a view of its buffer or made of one: `ids`, `positions` [1, T],
    `before` [T], as a Layout has it, `places`, `targets` [answers], `items` a scalar. `longest`: positions that no
    token is beyond."""

    ids: torch.Tensor
    positions: torch.Tensor
    before: torch.Tensor
    row: Row
    places: torch.Tensor
    targets: torch.Tensor
    items: torch.Tensor
    longest: int

    @classmethod
    def of(cls, frame: Frame, buffer: torch.Tensor) -> "FrameView":
        ids, positions, before, first, groups, own, places, targets, items = buffer.split(frame.sizes)
        first, groups, own = (begins.int() for begins in (first, groups, own))
        longest = frame.longest_suffix
        row = Row(0, None, None, Sequences(own, own, longest, longest, frame.own))
        if frame.ahead:
            prefixes = Sequences(first, first, frame.longest_prefix, frame.longest_prefix, frame.ahead)
            shared = Sequences(groups, first, frame.longest_group, frame.longest_prefix, frame.own)
            row = Row(frame.ahead, prefixes, shared, row.own)
        furthest = frame.longest_prefix + longest
        return cls(ids[None], positions[None], before, row, places, targets, items[0], furthest)


def power_of_two(*lengths: int) -> int:
    """The least power of two that none is longer than."""
    return 1 << (max(lengths) - 1).bit_length()
