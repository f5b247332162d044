"""Attention over a shared-prefix row in parts: prefixes over themselves, suffixes over their prefix and themselves.

A mask over the whole row has every token look at every other and forgets most of it: a row of T tokens costs T x T. In
parts a prefix of P tokens with n suffixes of S costs P x P / 2 + n x S x (P + S / 2), without a mask and without a copy
of the prefix for each suffix; groups and suffixes may be of any lengths. A suffix's two parts are two softmaxes and
become one by the logarithms of their sums (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018);
back through them each part's gradient is the kernel's own, given the whole output and the whole sum (as in Liu et al.,
"Ring Attention", 2023). The kernels are PyTorch's (kernels.py). Rows that share nothing are suffixes alone.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from slimtune.engine.collate import Layout
from slimtune.engine.kernels import Gradients, Seen, Sequences, kernel_for

_CALL = 40_000  # what starting the kernels of a group costs on a CPU, in pairs of tokens


@dataclass(frozen=True)
class Row:
    """A row as the kernels take it: its first `ahead` tokens are prefixes, the others suffixes. `first` is of prefixes
    over themselves and `shared` of suffixes over prefixes, both None where there is no prefix; `own` of suffixes over
    themselves."""

    ahead: int
    first: Sequences | None
    shared: Sequences | None
    own: Sequences

    @classmethod
    def of(cls, layout: Layout) -> "Row":
        """On the CPU."""
        own = Sequences.of(layout.suffixes, layout.suffixes)
        if not layout.ahead:
            return cls(0, None, None, own)
        first = Sequences.of(layout.prefixes, layout.prefixes)
        return cls(layout.ahead, first, Sequences.of(layout.suffix_tokens, layout.prefixes), own)

    def to(self, device: torch.device) -> "Row":
        moved = (part and part.to(device) for part in (self.first, self.shared, self.own))
        return Row(self.ahead, *moved)

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        return row_attention(query, key, value, self, scale)


def joined(one: Seen, other: Seen) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the same queries over some keys and over others: the output over all, and its sums."""
    whole = torch.logaddexp(one.sums, other.sums)
    weights = [(seen.sums - whole).exp().T[..., None] for seen in (one, other)]
    return (one.out * weights[0] + other.out * weights[1]).to(one.out.dtype), whole


def row_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, row: Row, scale: float) -> torch.Tensor:
    """query: [T, heads, dim], key and value: [T, key heads, dim]; returns [T, heads, dim]."""
    return _RowAttention.apply(query, key, value, row, scale)


class _RowAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query, key, value, row: Row, scale: float) -> torch.Tensor:
        kernel, asked = kernel_for(query), (query, key, value)
        own = [x[row.ahead :] for x in asked]
        mine = kernel.there(*own, row.own, causal=True, scale=scale)
        out, sums, states = mine.out, [mine.sums], [*mine.state]
        if row.first is not None:
            before = [x[: row.ahead] for x in asked]
            first = kernel.there(*before, row.first, causal=True, scale=scale)
            shared = kernel.there(own[0], *before[1:], row.shared, causal=False, scale=scale)
            merged, whole = joined(mine, shared)
            out, sums = torch.cat([first.out, merged]), [whole, first.sums]
            states += [*first.state, *shared.state]
        ctx.kernel, ctx.row, ctx.scale = kernel, row, scale
        ctx.save_for_backward(query, key, value, out, *sums, *states)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        kernel, row, scale = ctx.kernel, ctx.row, ctx.scale
        query, key, value, out, whole, *rest = ctx.saved_tensors
        suffix = [x[row.ahead :] for x in (grad, query, key, value, out)]

        def back(grad, query, key, value, out, *, sums, state, over: Sequences, causal: bool) -> Gradients:
            seen = Seen(out, sums, tuple(state))
            return kernel.back(grad.contiguous(), query, key, value, seen, over, causal=causal, scale=scale)

        if row.first is None:
            return *back(*suffix, sums=whole, state=rest, over=row.own, causal=True), None, None
        prefix = [x[: row.ahead] for x in (grad, query, key, value, out)]
        sums, states = rest[0], [rest[1 + at * kernel.states :][: kernel.states] for at in range(3)]
        mine = back(*suffix, sums=whole, state=states[0], over=row.own, causal=True)
        first = back(*prefix, sums=sums, state=states[1], over=row.first, causal=True)
        seen = [*suffix[:2], *prefix[2:4], suffix[4]]
        shared = back(*seen, sums=whole, state=states[2], over=row.shared, causal=False)
        found = (
            torch.cat([first.query, mine.query + shared.query]),
            torch.cat([first.key + shared.key, mine.key]),
            torch.cat([first.value + shared.value, mine.value]),
        )
        return *found, None, None


def worth_it(row: Row, layout: Layout, *, window: int | None = None) -> bool:
    """Whether a CPU is done sooner by parts than by one mask, and no window hides anything that a part would show."""
    if row.shared is None or (window is not None and int(layout.positions.max()) >= window):
        return False
    own = len(layout.suffixes) * max(layout.suffixes) ** 2 // 2
    shared = sum(mine * keys for mine, keys in zip(layout.suffix_tokens, layout.prefixes, strict=True))
    first = len(layout.prefixes) * max(layout.prefixes) ** 2 // 2
    calls = _CALL * len(layout.prefixes)
    return own + shared + first + calls < len(layout.ids) ** 2


class Attends(Protocol):
    """What tokens of a row see: query [T, heads, dim], key and value [T, key heads, dim] to [T, heads, dim]. It is
    asked once a layer, from the first to the last."""

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor: ...


def over_segments(
    Q: torch.Tensor, K: torch.Tensor, V: torch.Tensor, prefix_seg_info: Attends, scale: float | None = None
) -> torch.Tensor:
    """What Unsloth's layers call for a row with segments. Q, K, V: [1, T, heads, dim]."""
    scale = Q.shape[-1] ** -0.5 if scale is None else scale
    return prefix_seg_info.attend(Q[0], K[0], V[0], scale)[None]


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
    row: Attends | None = getattr(attention_mask, "row", None)
    if row is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal,
            position_bias=position_bias,
        )  # fmt: skip
    return over_segments(*(x.transpose(1, 2) for x in (query, key, value)), row, scaling), None


AttentionInterface.register("sdpa", on_attention)
