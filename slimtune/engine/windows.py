"""Attention of a row within a window: a token sees so many before it in its own example, and no others.

What comes before a suffix is the end of its prefix. So before its own keys each suffix gets a copy of that end, no
longer than the window, and then a row is sequences that know nothing of each other, each of whose queries are the last
of its keys: what kernels with a sliding window take. A mask would have every token look at every other. Gradients of
the copies are summed in fp32.
"""

from dataclasses import dataclass
from typing import Any

import torch

from slimtune.engine.attention import Row
from slimtune.engine.kernels import Seen, Sequences, kernel_for


@dataclass(frozen=True)
class Windowed:
    """A row as sequences: all prefixes, then all suffixes. `taken` [keys], int64: the token that each key is of;
    `spare` [keys], boolean: keys that belong to no sequence, for which there is room. How many keys there are follows
    from the row's numbers and not from its lengths, and nothing waits for a device."""

    over: Sequences
    taken: torch.Tensor
    spare: torch.Tensor

    @classmethod
    def of(cls, row: Row, window: int) -> "Windowed":
        own, none = row.own, row.own.queries.new_zeros(1)
        lengths = own.queries.diff()
        first, most, tails, ends = none, 0, torch.zeros_like(lengths), torch.zeros_like(lengths)
        if row.first is not None:
            first, most = row.first.queries, min(window - 1, row.first.longest_query)
            group = torch.searchsorted(row.shared.queries[1:], own.queries[:-1], right=True).clamp(max=len(first) - 2)
            tails, ends = first.diff()[group].clamp(max=most) * (lengths > 0), first[group + 1]
        tails, ends = (torch.nn.functional.pad(x, (len(first) - 1, 0)) for x in (tails, ends))
        queries = torch.cat([first, own.queries[1:] + row.ahead])
        keys = torch.cat([none, (queries.diff() + tails).cumsum(0)]).int()
        place = torch.arange(row.ahead + own.tokens + len(lengths) * most, device=keys.device)
        owner = torch.searchsorted(keys[1:], place, right=True).clamp(max=len(tails) - 1)
        after = place - keys[owner] - tails[owner]  # how far after the copied end
        taken = torch.where(after < 0, ends[owner], queries[owner]) + after
        spare = place >= keys[-1]
        longest = max(own.longest_query, row.first.longest_query if row.first else 0)
        furthest, tokens = max(longest, own.longest_query + most), row.ahead + own.tokens
        over = Sequences(queries, keys, longest, furthest, tokens, window=window)
        return cls(over, taken.masked_fill(spare, 0), spare)

    def summed(self, gradient: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """[keys, ...] to [T, ...]: what the copies of a token got."""
        gradient = gradient.float().masked_fill(self.spare[:, None, None], 0.0)
        return torch.zeros(like.shape, device=like.device).index_add_(0, self.taken, gradient).to(like.dtype)


def window_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, windowed: Windowed, scale: float
) -> torch.Tensor:
    """query: [T, heads, dim], key and value: [T, key heads, dim]; returns [T, heads, dim]."""
    return _WindowAttention.apply(query, key, value, windowed, scale)


class _WindowAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query, key, value, windowed: Windowed, scale: float) -> torch.Tensor:
        keys, values = key[windowed.taken], value[windowed.taken]
        seen = kernel_for(query).there(query, keys, values, windowed.over, causal=True, scale=scale)
        ctx.windowed, ctx.scale = windowed, scale
        ctx.save_for_backward(query, key, value, seen.out, seen.sums, *seen.state)
        return seen.out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, out, sums, *state = ctx.saved_tensors
        windowed, seen = ctx.windowed, Seen(out, sums, tuple(state))
        keys, values = key[windowed.taken], value[windowed.taken]
        found = kernel_for(query).back(
            grad.contiguous(), query, keys, values, seen, windowed.over, causal=True, scale=ctx.scale
        )
        return found.query, windowed.summed(found.key, key), windowed.summed(found.value, value), None, None
