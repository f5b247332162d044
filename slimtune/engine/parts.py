"""Attention over a shared-prefix row in parts: the prefix by itself, then every suffix against the prefix and itself.

A mask over the whole row has every token look at every other and forgets most of it: a row of T tokens costs T x T. In
parts a prefix of P tokens with n suffixes of S costs P x P / 2 + n x S x (P + S), which is a fraction of that. The mask
is what says who sees whom; it carries its parts, and a layer that does not know them takes the mask itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from slimtune.engine.collate import NOWHERE, Layout

_CALL = 40_000  # what starting the two kernels of a group costs, in pairs of tokens


@dataclass(frozen=True)
class Part:
    """One group of a row: its prefix is at `start` and has `prefix` tokens. `places` [n, S] are those of its suffixes,
    short ones filled up; `kept` [tokens of all suffixes] says which of these n x S are none of the filling. `causal`
    [P, P] only where a window hides some of the prefix from itself; `seen` [n, 1, S, P + S]."""

    start: int
    prefix: int
    places: torch.Tensor
    kept: torch.Tensor
    causal: torch.Tensor | None
    seen: torch.Tensor

    @property
    def pairs(self) -> int:
        """Pairs of tokens that are computed."""
        return self.prefix * self.prefix // 2 + self.seen.numel()


def parts_of(layout: Layout, *, window: int | None = None) -> list[Part] | None:
    """A row's groups, in their order; None where one mask over the row costs less. `window`: as in `Layout.mask`."""
    groups = [int(number) for number in layout.group.unique() if number != NOWHERE]
    parts = [_part(layout, number, window) for number in groups]
    worth = sum(part.pairs + _CALL for part in parts) < len(layout.ids) ** 2
    return parts if worth else None


def _part(layout: Layout, number: int, window: int | None) -> Part:
    mine = (layout.group == number).nonzero()[:, 0]
    start, segments = int(mine[0]), layout.segment[mine]
    prefix = int((segments == 0).sum())
    lengths = torch.unique_consecutive(segments[prefix:], return_counts=True)[1]
    begins = start + prefix + lengths.cumsum(0) - lengths
    along = torch.arange(int(lengths.max()))
    there = along < lengths[:, None]  # [n, S]
    places = torch.where(there, begins[:, None] + along, begins[:, None])
    own = (along[None, :] <= along[:, None])[None] & there[:, None]  # [n, S, S]
    own = own | torch.eye(len(along), dtype=torch.bool)  # filling sees itself: its softmax is one
    seen = torch.cat([torch.ones(len(lengths), len(along), prefix, dtype=torch.bool), own], dim=2)
    causal = None
    if window is not None and window < prefix + len(along):
        ahead, suffix = torch.arange(prefix), prefix + along
        seen &= suffix[None, :, None] - torch.cat([ahead, suffix])[None, None] < window
        causal = (ahead[:, None] >= ahead) & (ahead[:, None] - ahead < window)
    return Part(start, prefix, places, there.flatten().nonzero()[:, 0], causal, seen[:, None])


def on_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls for its SDPA attention: that, in parts where the mask knows them. query: [1, heads, T,
    dim], key and value: [1, key heads, T, dim]; returns [1, T, heads, dim]."""
    parts: Sequence[Part] | None = getattr(attention_mask, "parts", None)
    if parts is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal,
            position_bias=position_bias,
        )  # fmt: skip
    times = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, times)[0], repeat_kv(value, times)[0]
    done = [piece for part in parts for piece in _attend(part, query[0], key, value, scaling)]
    filling = query.shape[2] - sum(piece.shape[1] for piece in done)
    done.append(query.new_zeros(query.shape[1], filling, query.shape[3]))
    return torch.cat(done, dim=1).transpose(0, 1)[None].contiguous(), None


def _attend(
    part: Part, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
) -> Sequence[torch.Tensor]:
    """A prefix's output and its suffixes', each [heads, tokens, dim] in the order of the row."""
    ahead = slice(part.start, part.start + part.prefix)
    first = query[:, ahead]
    if part.prefix:
        first = scaled_dot_product_attention(
            first[None], key[None, :, ahead], value[None, :, ahead],
            attn_mask=part.causal, is_causal=part.causal is None, scale=scale,
        )[0]  # fmt: skip
    many = len(part.places)
    keys, values = (
        torch.cat([x[None, :, ahead].expand(many, -1, -1, -1), x[:, part.places].transpose(0, 1)], dim=2)
        for x in (key, value)
    )
    rest = scaled_dot_product_attention(
        query[:, part.places].transpose(0, 1), keys, values, attn_mask=part.seen, scale=scale
    )
    return first, rest.transpose(0, 1).flatten(1, 2)[:, part.kept]


AttentionInterface.register("sdpa", on_attention)
