"""Attention in parts on a real card: each kernel gives what a mask gives in fp32, there and back."""

import pytest
import torch
from test_attention import GROUPS, layout

from slimtune.engine.attention import Row, row_attention
from slimtune.engine.collate import NOWHERE
from slimtune.engine.kernels import kernel_for

KINDS = [(torch.float32, "_Efficient"), (torch.float16, "_Flash"), (torch.bfloat16, "_Flash")]


def by_mask(query, key, value, laid, scale):
    times = query.shape[1] // key.shape[1]
    heads = [x.transpose(0, 1)[None] for x in (query, *(x.repeat_interleave(times, dim=1) for x in (key, value)))]
    mask = laid.mask().cuda()
    return torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask, scale=scale)[0].transpose(0, 1)


def seen(attend, asked, weights):
    out = attend(*asked)
    return [out.float() * (weights != 0), *(x.float() for x in torch.autograd.grad(out, asked, weights.to(out.dtype)))]


@pytest.mark.parametrize("heads", [(9, 3, 64), (32, 8, 128), (4, 1, 256)])
@pytest.mark.parametrize(("dtype", "kernel"), KINDS)
@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_a_kernel_is_no_further_from_fp32_than_a_mask_is(groups, dtype, kernel, heads):
    laid = layout(groups, multiple=64)
    row, real = Row.of(laid, torch.device("cuda")), (laid.group != NOWHERE).cuda()[:, None, None]
    torch.manual_seed(1)
    many, fewer, width = heads
    exact = [
        torch.randn(len(laid.ids), count, width, device="cuda", requires_grad=True) for count in (many, fewer, fewer)
    ]
    rough = [x.detach().to(dtype).requires_grad_() for x in exact]
    weights = torch.randn(len(laid.ids), many, width, device="cuda") * real
    assert type(kernel_for(rough[0])).__name__ == kernel
    truth = seen(lambda q, k, v: by_mask(q, k, v, laid, 0.1), exact, weights)
    masked = seen(lambda q, k, v: by_mask(q, k, v, laid, 0.1), rough, weights)
    parts = seen(lambda q, k, v: row_attention(q, k, v, row, 0.1), rough, weights)
    for name, right, other, ours in zip(("out", "query", "key", "value"), truth, masked, parts, strict=True):
        norm = right.norm()
        assert norm > 0 and (ours - right).norm() < 1.5 * (other - right).norm() + 1e-5 * norm, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_the_kernels_of_turing_do_halves_too(groups, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    laid = layout(groups, multiple=64)
    row = Row.of(laid, torch.device("cuda"))
    torch.manual_seed(1)
    exact = [torch.randn(len(laid.ids), count, 64, device="cuda", requires_grad=True) for count in (9, 3, 3)]
    rough = [x.detach().to(dtype).requires_grad_() for x in exact]
    assert type(kernel_for(rough[0])).__name__ == "_Efficient"
    weights = torch.randn(len(laid.ids), 9, 64, device="cuda") * (laid.group != NOWHERE).cuda()[:, None, None]
    truth = seen(lambda q, k, v: by_mask(q, k, v, laid, 0.1), exact, weights)
    parts = seen(lambda q, k, v: row_attention(q, k, v, row, 0.1), rough, weights)
    for right, ours in zip(truth, parts, strict=True):
        assert (ours - right).norm() < 0.02 * right.norm()
