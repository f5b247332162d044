"""Attention over a shared-prefix row in parts: the prefix by itself, and every suffix over the prefix and over itself.

A mask over the whole row has every token look at every other and forgets most of it: a row of T tokens costs T x T. In
parts a prefix of P tokens with n suffixes of S costs P x P / 2 + n x S x (P + S / 2), without a mask and without a copy
of the prefix for each suffix. A suffix's two parts are two softmaxes and become one by the logarithms of their sums
(Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018); back through them each part's gradient is
the kernel's own, given the whole output and the whole sum (as in Liu et al., "Ring Attention", 2023).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from slimtune.engine.collate import NOWHERE, Layout

_CALL = 40_000  # what starting the kernels of a group costs, in pairs of tokens
_OPS = torch.ops.aten


@dataclass(frozen=True)
class Part:
    """One group of a row: its prefix is at `start` and has `prefix` tokens. `places` [n, S] are those of its suffixes,
    short ones filled up at their ends; `kept` [tokens of all suffixes] says which of these n x S are no filling."""

    start: int
    prefix: int
    places: torch.Tensor
    kept: torch.Tensor

    @property
    def pairs(self) -> int:
        """Pairs of tokens that are computed."""
        many, longest = self.places.shape
        return self.prefix**2 // 2 + many * longest * (self.prefix + longest // 2)


def parts_of(layout: Layout, *, window: int | None = None) -> list[Part] | None:
    """A row's groups, in their order; None where one mask over the row costs less, or a window hides something."""
    groups = [int(number) for number in layout.group.unique() if number != NOWHERE]
    parts = [_part(layout, number) for number in groups]
    hidden = window is not None and int(layout.positions.max()) >= window
    worth = sum(part.pairs + _CALL for part in parts) < len(layout.ids) ** 2
    return parts if worth and not hidden else None


def _part(layout: Layout, number: int) -> Part:
    mine = (layout.group == number).nonzero()[:, 0]
    start, segments = int(mine[0]), layout.segment[mine]
    prefix = int((segments == 0).sum())
    lengths = torch.unique_consecutive(segments[prefix:], return_counts=True)[1]
    begins = start + prefix + lengths.cumsum(0) - lengths
    along = torch.arange(int(lengths.max()))
    there = along < lengths[:, None]
    places = torch.where(there, begins[:, None] + along, begins[:, None])
    return Part(start, prefix, places, there.flatten().nonzero()[:, 0])


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
    key, value = repeat_kv(key, times), repeat_kv(value, times)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    done = [piece for part in parts for piece in _attend(part, query, key, value, scale)]
    filling = query.shape[2] - sum(piece.shape[1] for piece in done)
    done.append(query.new_zeros(query.shape[1], filling, query.shape[3]))
    return torch.cat(done, dim=1).transpose(0, 1)[None], None


def _attend(
    part: Part, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> list[torch.Tensor]:
    """A prefix's output and its suffixes', each [heads, tokens, dim] in the order of the row."""
    ahead = slice(part.start, part.start + part.prefix)
    own = [x[0][:, part.places].transpose(0, 1) for x in (query, key, value)]  # [n, heads, S, dim]
    if not part.prefix:
        rest = torch.nn.functional.scaled_dot_product_attention(*own, is_causal=True, scale=scale)
        return [_in_order(rest, part)]
    before = [x[:, :, ahead] for x in (query, key, value)]
    first = torch.nn.functional.scaled_dot_product_attention(*before, is_causal=True, scale=scale)
    return [first[0], _in_order(_Suffixes.apply(*own, *before[1:], scale), part)]


def _in_order(suffixes: torch.Tensor, part: Part) -> torch.Tensor:
    """[n, heads, S, dim] to [heads, tokens, dim], the filling left out."""
    return suffixes.transpose(0, 1).flatten(1, 2)[:, part.kept]


class _Suffixes(torch.autograd.Function):
    """Suffixes over the prefix they share and, causally, over themselves. query, key and value: [n, heads, S, dim];
    key_before and value_before: [1, heads, P, dim]."""

    @staticmethod
    def forward(ctx: Any, query, key, value, key_before, value_before, scale: float) -> torch.Tensor:
        together = _together(query)
        out, total = _OPS._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, True, scale=scale)
        before, sums = _OPS._scaled_dot_product_flash_attention_for_cpu(
            together, key_before, value_before, 0.0, False, scale=scale
        )
        before, sums = _apart(before, query), _apart(sums[..., None], query)[..., 0]
        whole = torch.logaddexp(total, sums)
        out = out * (total - whole).exp()[..., None] + before * (sums - whole).exp()[..., None]
        out = out.to(query.dtype)
        ctx.save_for_backward(query, key, value, key_before, value_before, out, whole)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, key_before, value_before, out, whole = ctx.saved_tensors
        back = _OPS._scaled_dot_product_flash_attention_for_cpu_backward
        mine = back(grad, query, key, value, out, _by_token(whole), 0.0, True, scale=ctx.scale)
        shared = back(
            *(_together(grad), _together(query), key_before, value_before, _together(out)),
            *(_by_token(_together(whole[..., None])[..., 0]), 0.0, False),
            scale=ctx.scale,
        )
        return mine[0] + _apart(shared[0], query), mine[1], mine[2], shared[1], shared[2], None


def _together(x: torch.Tensor) -> torch.Tensor:
    """[n, heads, S, dim] to [1, heads, n x S, dim]."""
    return x.transpose(0, 1).flatten(1, 2)[None]


def _apart(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """[1, heads, n x S, dim] to [n, heads, S, dim], n and S as in `like`."""
    return x[0].unflatten(1, (like.shape[0], like.shape[2])).transpose(0, 1)


def _by_token(sums: torch.Tensor) -> torch.Tensor:
    """[n, heads, S], with the heads of a token side by side in memory, as the kernel reads them."""
    return sums.transpose(1, 2).contiguous().transpose(1, 2)


AttentionInterface.register("sdpa", on_attention)
