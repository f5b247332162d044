"""What was computed of a batch's prompts and is kept: keys and values of every layer, prefixes once, own tokens by row.

A row that is filled in (`Filling`) attends as in training, and its keys and values stay. Then every example says one
token at a time (`Next`), which sees the prefix of its group and its own tokens: two parts, joined as in attention.py.
All examples of a group look at the one copy of their prefix together (Juravsky et al., "Hydragen", 2024).
"""

from dataclasses import dataclass, fields

import torch

from slimtune.engine.attention import Row, joined, row_attention
from slimtune.engine.collate import Layout
from slimtune.engine.frame import power_of_two
from slimtune.engine.kernels import Sequences, kernel_for
from slimtune.plan import filled

_ROWS = 8  # room is for so many at a time


@dataclass(frozen=True)
class Room:
    """Room for batches. `rows` examples of `own` tokens at most, their answers included; `groups` prefixes with `ahead`
    tokens in all, none longer than `longest_prefix`."""

    rows: int
    own: int
    ahead: int
    groups: int
    longest_prefix: int

    @classmethod
    def least(cls, layout: Layout, new_tokens: int) -> "Room":
        """For that row and so many tokens after each example."""
        own = max(layout.suffixes) + new_tokens
        return cls(len(layout.suffixes), own, layout.ahead, len(layout.prefixes), max(layout.prefixes))

    def roomy(self) -> "Room":
        """With a little to spare."""
        groups, longest = power_of_two(self.groups), power_of_two(self.longest_prefix, 1)
        return Room(-(-self.rows // _ROWS) * _ROWS, -(-self.own // 32) * 32, filled(self.ahead), groups, longest)

    def holds(self, least: "Room") -> bool:
        """Whether a batch of that least room fits, with rows of its own for most but the least rows that there are.
        Prefixes are of all or of none."""
        fits = all(getattr(least, field.name) <= getattr(self, field.name) for field in fields(self))
        return fits and bool(least.ahead) == bool(self.ahead) and self.rows <= max(_ROWS, 4 * least.rows)


@dataclass
class _Layer:
    """`ahead_...` [room.ahead, key heads, dim]; `own_...` [room.rows * room.own, key heads, dim], row by row."""

    ahead_key: torch.Tensor
    ahead_value: torch.Tensor
    own_key: torch.Tensor
    own_value: torch.Tensor


class Cache:
    """Keys and values of one batch after the other, in the same memory. `folds`: query heads that share a key head."""

    def __init__(self, room: Room):
        self.room, self.layers, self.folds = room, [], 0

    @property
    def bytes(self) -> int:
        return sum(x.nbytes for layer in self.layers for x in vars(layer).values())

    def keep(self, number: int, key: torch.Tensor, value: torch.Tensor, ahead: int, places: torch.Tensor) -> None:
        """Of layer `number`, a row's [T, key heads, dim]: `ahead` tokens of prefixes, and the others at `places`."""
        if number == len(self.layers):
            sizes = (self.room.ahead, self.room.rows * self.room.own)
            self.layers.append(_Layer(*(x.new_zeros(size, *x.shape[1:]) for size in sizes for x in (key, value))))
        layer = self.layers[number]
        layer.ahead_key[:ahead], layer.ahead_value[:ahead] = key[:ahead], value[:ahead]
        layer.own_key.index_copy_(0, places, key[ahead:])
        layer.own_value.index_copy_(0, places, value[ahead:])


class Filling:
    """Attention over a whole row, which `cache` keeps."""

    def __init__(self, cache: Cache, layout: Layout, device: torch.device):
        self._cache, self._row, self.layers = cache, Row.of(layout).to(device), 0
        own = [torch.arange(count) + row * cache.room.own for row, count in enumerate(layout.suffixes)]
        self._places = torch.cat(own).to(device)

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        self._cache.folds = query.shape[1] // key.shape[1]
        self._cache.keep(self.layers, key, value, self._row.ahead, self._places)
        self.layers += 1
        return row_attention(query, key, value, self._row, scale)


class Next:
    """Attention of one more token of every row. `said` [rows], int32: own tokens that each has already; `members` and
    `prefixes` [groups + 1], int32: where the rows and the prefix tokens of each group begin. Query heads that share a
    key head are laid out as queries, so that keys are read once for all of them."""

    def __init__(self, cache: Cache, said: torch.Tensor, members: torch.Tensor, prefixes: torch.Tensor):
        self._cache, self.layers, room, folds = cache, 0, cache.room, cache.folds
        begins = torch.arange(room.rows + 1, dtype=torch.int32, device=said.device)
        self._places = (begins[:-1] * room.own + said).long()
        queries = room.rows * folds
        self._own = Sequences(begins * folds, begins * room.own, folds, room.own, queries, said + 1)
        self._shared = Sequences(members * folds, prefixes, queries, room.longest_prefix, queries)

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        layer, kernel = self._cache.layers[self.layers], kernel_for(query)
        self.layers += 1
        layer.own_key.index_copy_(0, self._places, key)
        layer.own_value.index_copy_(0, self._places, value)
        rows, heads, folds = query.shape[0], key.shape[1], self._cache.folds
        folded = query.unflatten(1, (heads, folds)).transpose(1, 2).reshape(rows * folds, heads, -1)
        found = kernel.there(folded, layer.own_key, layer.own_value, self._own, causal=False, scale=scale)
        out = found.out
        if self._cache.room.ahead:
            shared = kernel.there(folded, layer.ahead_key, layer.ahead_value, self._shared, causal=False, scale=scale)
            out, _ = joined(found, shared)
        return out.unflatten(0, (rows, folds)).transpose(1, 2).reshape(query.shape)
