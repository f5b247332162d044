"""Attention over a shared-prefix row in parts: prefixes over themselves, suffixes over their prefix and themselves.

A mask over the whole row has every token look at every other and forgets most of it: a row of T tokens costs T x T. In
parts a prefix of P tokens with n suffixes of S costs P x P / 2 + n x S x (P + S / 2), without a mask and without a copy
of the prefix for each suffix; groups and suffixes may be of any lengths. A suffix's two parts are two softmaxes and
become one by the logarithms of their sums (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018);
back through them each part's gradient is the kernel's own, given the whole output and the whole sum (as in Liu et al.,
"Ring Attention", 2023). The kernels are PyTorch's (kernels.py). Rows that share nothing are suffixes alone.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from slimtune.engine.collate import NOWHERE, Layout
from slimtune.engine.kernels import Seen, Sequences, kernel_for

_CALL = 40_000  # what starting the kernels of a group costs on a CPU, in pairs of tokens


@dataclass(frozen=True)
class Row:
    """A row's layout as the kernels take it. `prefix` and `suffix` [tokens] are places in the row; the rest is filling.
    `shared` is of suffixes over prefixes, None where no group has one."""

    prefix: torch.Tensor
    suffix: torch.Tensor
    ahead: Sequences | None
    shared: Sequences | None
    own: Sequences

    @classmethod
    def of(cls, layout: Layout, device: torch.device) -> "Row":
        """From a layout on the CPU. ValueError where some groups have a prefix and others have none."""
        real = layout.group != NOWHERE
        prefix = (real & (layout.segment == 0)).nonzero()[:, 0]
        suffix = (real & (layout.segment > 0)).nonzero()[:, 0]
        own = torch.unique_consecutive(layout.segment[suffix], return_counts=True)[1]
        groups, of_group = torch.unique_consecutive(layout.group[suffix], return_counts=True)
        with_prefix, lengths = torch.unique_consecutive(layout.group[prefix], return_counts=True)
        if len(prefix) and not torch.equal(groups, with_prefix):
            raise ValueError("some groups of the row have a prefix and others have none")
        ahead = Sequences.of(lengths, lengths, device) if len(prefix) else None
        shared = Sequences.of(of_group, lengths, device) if len(prefix) else None
        there = [places.to(device, non_blocking=True) for places in (prefix, suffix)]
        return cls(there[0], there[1], ahead, shared, Sequences.of(own, own, device))


def row_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, row: Row, scale: float) -> torch.Tensor:
    """query: [T, heads, dim], key and value: [T, key heads, dim]; returns [T, heads, dim], zeros where filling is."""
    return _RowAttention.apply(query, key, value, row, scale)


class _RowAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query, key, value, row: Row, scale: float) -> torch.Tensor:
        kernel = kernel_for(query)
        own = [x[row.suffix] for x in (query, key, value)]
        mine = kernel.there(*own, row.own, causal=True, scale=scale)
        out, saved = torch.zeros_like(query), [*own, mine.out, mine.sums, *mine.state]
        ctx.kernel, ctx.row, ctx.scale, ctx.shape = kernel, row, scale, (query.shape, key.shape)
        if row.shared is not None:
            before = [x[row.prefix] for x in (query, key, value)]
            first = kernel.there(*before, row.ahead, causal=True, scale=scale)
            shared = kernel.there(own[0], *before[1:], row.shared, causal=False, scale=scale)
            whole = torch.logaddexp(mine.sums, shared.sums)
            weights = [(seen.sums - whole).exp().T[..., None] for seen in (mine, shared)]
            merged = (mine.out * weights[0] + shared.out * weights[1]).to(query.dtype)
            out[row.prefix] = first.out
            saved = [*own, merged, whole, *mine.state, *before, first.out, first.sums, *first.state, *shared.state]
            mine = mine._replace(out=merged)
        out[row.suffix] = mine.out
        ctx.save_for_backward(*saved)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        kernel, row, scale = ctx.kernel, ctx.row, ctx.scale
        query, key, value, out, whole, *rest = ctx.saved_tensors
        of_suffix = grad[row.suffix]
        state, rest = rest[: kernel.states], rest[kernel.states :]
        seen = Seen(out, whole, tuple(state))
        mine = kernel.back(of_suffix, query, key, value, seen, row.own, causal=True, scale=scale)
        found = [grad.new_zeros(shape) for shape in (ctx.shape[0], ctx.shape[1], ctx.shape[1])]
        d_query = mine.query
        if row.shared is not None:
            q_before, k_before, v_before, out_before, sums_before, *states = rest
            first = kernel.back(
                grad[row.prefix], q_before, k_before, v_before,
                Seen(out_before, sums_before, tuple(states[: kernel.states])), row.ahead, causal=True, scale=scale,
            )  # fmt: skip
            seen = Seen(out, whole, tuple(states[kernel.states :]))
            shared = kernel.back(of_suffix, query, k_before, v_before, seen, row.shared, causal=False, scale=scale)
            found[0][row.prefix] = first.query
            found[1][row.prefix] = first.key + shared.key
            found[2][row.prefix] = first.value + shared.value
            d_query = d_query + shared.query
        for tensor, gradient in zip(found, (d_query, mine.key, mine.value), strict=True):
            tensor[row.suffix] = gradient
        return *found, None, None


def worth_it(row: Row, layout: Layout, *, window: int | None = None) -> bool:
    """Whether a CPU is done sooner by parts than by one mask, and no window hides anything that a part would show."""
    if row.shared is None or (window is not None and int(layout.positions.max()) >= window):
        return False
    own = (len(row.own.queries) - 1) * row.own.longest_query**2 // 2
    shared = sum((mine.stop - mine.start) * (keys.stop - keys.start) for mine, keys in row.shared.slices())
    ahead = (len(row.ahead.queries) - 1) * row.ahead.longest_query**2 // 2
    calls = _CALL * (len(row.shared.queries) - 1)
    return own + shared + ahead + calls < len(layout.ids) ** 2


def over_segments(
    Q: torch.Tensor, K: torch.Tensor, V: torch.Tensor, prefix_seg_info: Row, scale: float | None = None
) -> torch.Tensor:
    """What Unsloth's layers call for a row with segments. Q, K, V: [1, T, heads, dim]."""
    scale = Q.shape[-1] ** -0.5 if scale is None else scale
    return row_attention(Q[0], K[0], V[0], prefix_seg_info, scale)[None]


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
    """What transformers calls for its SDPA attention: that, in parts where the mask knows its row. query: [1, heads, T,
    dim], key and value: [1, key heads, T, dim]; returns [1, T, heads, dim]."""
    row: Row | None = getattr(attention_mask, "row", None)
    if row is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal,
            position_bias=position_bias,
        )  # fmt: skip
    return over_segments(*(x.transpose(1, 2) for x in (query, key, value)), row, scaling), None


AttentionInterface.register("sdpa", on_attention)
