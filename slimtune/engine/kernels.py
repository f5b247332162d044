"""Attention over many sequences in one call, with the logarithms of its sums, there and back, by PyTorch's own kernels.

FlashAttention 2 where PyTorch has it for the card and the numbers; else the memory-efficient kernels of CUTLASS, which
Turing and fp32 have too; on a CPU its flash kernel, which takes sequences of one length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import NamedTuple, Protocol

import torch

from slimtune.engine.memory import rehearsed

_OPS = torch.ops.aten


class Gradients(NamedTuple):
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor


class Seen(NamedTuple):
    """What one call gives. `out` [T, heads, dim]; `sums` [heads, T]: logarithms of the softmax's sums. `state` is the
    kernel's own, for the way back."""

    out: torch.Tensor
    sums: torch.Tensor
    state: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Sequences:
    """Queries and keys of many sequences, one after the other. `queries` and `keys` [n + 1], int32: where each begins;
    `longest_query`, `longest_key`: tokens that none is longer than; `tokens`: queries in all. `used` [n], int32: of
    each one's keys there are only so many, and room for more; None: all there are. On the way back all must be.
    `window`: how many keys each sees at most, itself among them; the queries of a sequence are the last of its keys
    then."""

    queries: torch.Tensor
    keys: torch.Tensor
    longest_query: int
    longest_key: int
    tokens: int
    used: torch.Tensor | None = None
    window: int | None = None

    @classmethod
    def of(cls, queries: Sequence[int], keys: Sequence[int]) -> "Sequences":
        """From the lengths of each, on the CPU."""
        begins = [torch.tensor([0, *accumulate(lengths)], dtype=torch.int32) for lengths in (queries, keys)]
        return cls(begins[0], begins[1], max(queries), max(keys), sum(queries))

    def to(self, device: torch.device) -> "Sequences":
        moved = {name: getattr(self, name).to(device) for name in ("queries", "keys")}
        return replace(self, **moved)

    @cached_property
    def owner(self) -> torch.Tensor:
        """[tokens]: each query's sequence."""
        queries = torch.arange(self.tokens, dtype=torch.int32, device=self.queries.device)
        return torch.searchsorted(self.queries[1:], queries, right=True)

    @cached_property
    def place(self) -> torch.Tensor:
        """[tokens]: each query's place in it."""
        return torch.arange(self.tokens, device=self.queries.device) - self.queries[self.owner]

    def slices(self) -> list[tuple[slice, slice]]:
        """Of the queries and of the keys, sequence by sequence; of those that have any."""
        queries, keys = ([slice(*ends) for ends in pairwise(x.tolist())] for x in (self.queries, self.keys))
        if self.used is not None:
            keys = [slice(one.start, one.start + used) for one, used in zip(keys, self.used.tolist(), strict=True)]
        pairs = zip(queries, keys, strict=True)
        return [(mine, theirs) for mine, theirs in pairs if mine.stop > mine.start]

    def penalty(self, queries: int, keys: int, like: torch.Tensor) -> torch.Tensor | None:
        """What is added to the scores of one sequence of so many, [queries, keys]; None without a window."""
        if self.window is None:
            return None
        ago = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)
        return like.new_zeros(queries, keys).masked_fill((ago < 0) | (ago >= self.window), float("-inf"))

    def side_by_side(self, x: torch.Tensor) -> torch.Tensor:
        """[T, heads, ...] to [n, heads, longest, ...], zeros where a sequence is over."""
        filled = x.new_zeros(len(self.queries) - 1, self.longest_query, *x.shape[1:])
        filled[self.owner, self.place] = x
        return filled.transpose(1, 2)

    def in_order(self, x: torch.Tensor) -> torch.Tensor:
        """And back: [n, heads, longest, ...] to [T, heads, ...]."""
        return x.transpose(1, 2)[self.owner, self.place]


class Kernel(Protocol):
    """query [T, heads, dim], key and value [tokens, key heads, dim]. `causal`: keys are those of the queries, and none
    sees what comes after it in its sequence. `states`: how many tensors of its own it takes along."""

    states: int

    def there(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        over: Sequences,
        *,
        causal: bool,
        scale: float,
    ) -> Seen: ...

    def back(
        self,
        grad: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        seen: Seen,
        over: Sequences,
        *,
        causal: bool,
        scale: float,
    ) -> Gradients:
        """What `seen.out` and `seen.sums` were when all parts were one is what the gradient is of."""
        ...


def kernel_for(query: torch.Tensor) -> Kernel:
    """By the device, the numbers and the width of a head; where a smaller card is rehearsed, the one that it has."""
    if query.device.type == "cpu":
        return _Cpu()
    half = query.dtype in (torch.float16, torch.bfloat16)
    here = torch.cuda.get_device_capability(query.device)
    ampere = min(here, rehearsed() or here) >= (8, 0)
    return _Flash() if half and ampere and query.shape[-1] % 8 == 0 and query.shape[-1] <= 256 else _Efficient()


class _Flash:
    """FlashAttention 2. Keys may have fewer heads."""

    states = 2

    def there(self, query, key, value, over: Sequences, *, causal: bool, scale: float) -> Seen:
        out, sums, *state = _OPS._flash_attention_forward(
            query, key, value, over.queries, over.keys, over.longest_query, over.longest_key, 0.0, causal, False,
            scale=scale, seqused_k=over.used, window_size_left=over.window and over.window - 1,
        )  # fmt: skip
        assert sums.shape == (query.shape[1], query.shape[0]), f"sums of shape {tuple(sums.shape)}"
        return Seen(out, sums, tuple(state[:2]))

    def back(self, grad, query, key, value, seen: Seen, over: Sequences, *, causal: bool, scale: float) -> Gradients:
        return Gradients(
            *_OPS._flash_attention_backward(
                grad,
                query,
                key,
                value,
                seen.out,
                seen.sums.contiguous(),
                over.queries,
                over.keys,
                over.longest_query,
                over.longest_key,
                0.0,
                causal,
                *seen.state,
                scale=scale,
                window_size_left=over.window and over.window - 1,
            )
        )


class _Efficient:
    """CUTLASS's memory-efficient attention. Keys are repeated for every head; its sums are [n, heads, longest], filled
    up to a multiple of 32, one sequence after the other. It has windows too, but its gradients of queries are wrong
    there (PyTorch 2.11, on an H200)."""

    states = 2

    def there(self, query, key, value, over: Sequences, *, causal: bool, scale: float) -> Seen:
        assert over.window is None, "no windows here"
        key, value = (_for_all_heads(x, query) for x in (key, value))
        out, sums, *state = _OPS._efficient_attention_forward(
            query[None], key[None], value[None], None, over.queries, over.keys, over.longest_query, over.longest_key,
            0.0, int(causal), True, scale=scale, seqlen_k=over.used,
        )  # fmt: skip
        return Seen(out[0], sums[over.owner, :, over.place].T.contiguous(), tuple(state[:2]))

    def back(self, grad, query, key, value, seen: Seen, over: Sequences, *, causal: bool, scale: float) -> Gradients:
        heads = key.shape[1]
        key, value = (_for_all_heads(x, query) for x in (key, value))
        room = (len(over.queries) - 1, query.shape[1], -(-over.longest_query // 32) * 32)
        sums = torch.full(room, float("inf"), dtype=seen.sums.dtype, device=grad.device)
        sums[over.owner, :, over.place] = seen.sums.T
        found = _OPS._efficient_attention_backward(
            grad[None], query[None], key[None], value[None], None, seen.out[None], over.queries, over.keys,
            over.longest_query, over.longest_key, sums, 0.0, *seen.state, int(causal), False, scale=scale,
        )  # fmt: skip
        of_query, of_key, of_value = (x[0] for x in found[:3])
        return Gradients(of_query, *(x.unflatten(1, (heads, -1)).sum(2) for x in (of_key, of_value)))


class _Cpu:
    """The flash kernel of the CPU, over sequences of one length: causal ones are filled up at their ends, where nobody
    looks; the others, which are few and long or have a window, go one by one."""

    states = 0

    def there(self, query, key, value, over: Sequences, *, causal: bool, scale: float) -> Seen:
        key, value = (_for_all_heads(x, query) for x in (key, value))
        if causal and not over.window:
            filled = [over.side_by_side(x) for x in (query, key, value)]
            out, sums = _OPS._scaled_dot_product_flash_attention_for_cpu(*filled, 0.0, True, scale=scale)
            return Seen(over.in_order(out), over.in_order(sums).T, ())
        found = [
            _OPS._scaled_dot_product_flash_attention_for_cpu(
                *(_batch(x) for x in (query[mine], key[theirs], value[theirs])),
                0.0,
                False,
                scale=scale,
                attn_mask=over.penalty(mine.stop - mine.start, theirs.stop - theirs.start, query),
            )
            for mine, theirs in over.slices()
        ]
        outs, sums = zip(*found, strict=True)
        return Seen(torch.cat([_row(out) for out in outs]), torch.cat([one[0] for one in sums], dim=1), ())

    def back(self, grad, query, key, value, seen: Seen, over: Sequences, *, causal: bool, scale: float) -> Gradients:
        heads, back = key.shape[1], _OPS._scaled_dot_product_flash_attention_for_cpu_backward
        key, value = (_for_all_heads(x, query) for x in (key, value))
        by_token = seen.sums.T.contiguous()  # the heads of a token side by side, as the kernel reads them
        if causal and not over.window:
            filled = [over.side_by_side(x) for x in (grad, query, key, value, seen.out, by_token)]
            found = [over.in_order(x) for x in back(*filled, 0.0, True, scale=scale)]
        else:
            parts = [
                back(
                    *(_batch(x[mine]) for x in (grad, query)),
                    *(_batch(x[theirs]) for x in (key, value)),
                    _batch(seen.out[mine]),
                    _batch(by_token[mine]),
                    0.0,
                    False,
                    scale=scale,
                    attn_mask=over.penalty(mine.stop - mine.start, theirs.stop - theirs.start, query),
                )
                for mine, theirs in over.slices()
            ]
            found = [torch.cat([_row(x) for x in one]) for one in zip(*parts, strict=True)]
            found = [_with_spare(x, len(asked)) for x, asked in zip(found, (query, key, value), strict=True)]
        return Gradients(found[0], *(x.unflatten(1, (heads, -1)).sum(2) for x in found[1:]))


def _for_all_heads(x: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Where every head has its own, `x` itself: what is kept of a batch's answers would be copied for every token."""
    times = query.shape[1] // x.shape[1]
    return x if times == 1 else x.repeat_interleave(times, dim=1)


def _batch(x: torch.Tensor) -> torch.Tensor:
    """[T, heads, ...] to [1, heads, T, ...]."""
    return x[None].transpose(1, 2)


def _row(x: torch.Tensor) -> torch.Tensor:
    """[1, heads, T, ...] to [T, heads, ...]."""
    return x[0].transpose(0, 1)


def _with_spare(x: torch.Tensor, tokens: int) -> torch.Tensor:
    """[T, heads, dim] with zeros for what belongs to no sequence."""
    return torch.nn.functional.pad(x, (0, 0, 0, 0, 0, tokens - len(x)))
