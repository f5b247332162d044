"""Attention in parts on a real card, over rows in frames: each kernel gives what a mask gives, there and back."""

from functools import partial

import pytest
import torch
from test_attention import GROUPS, by_mask, layout
from test_frame import places_in

from slimtune.engine import memory
from slimtune.engine.attention import row_attention
from slimtune.engine.frame import Frame, FrameView
from slimtune.engine.kernels import kernel_for
from slimtune.engine.windows import Windowed, window_attention
from slimtune.gpus import get_gpu

KINDS = [(torch.float32, "_Efficient"), (torch.float16, "_Flash"), (torch.bfloat16, "_Flash")]


def tensors(laid, heads):
    """query, key and value of a row, fp32, and weights for its output."""
    torch.manual_seed(1)
    many, fewer, width = heads
    asked = [torch.randn(len(laid.ids), count, width, device="cuda") for count in (many, fewer, fewer)]
    return asked, torch.randn_like(asked[0])


def seen(attend, asked, weights):
    """Output and gradients, fp32."""
    asked = [x.detach().requires_grad_() for x in asked]
    out = attend(*asked)
    return [out.float(), *(x.float() for x in torch.autograd.grad(out, asked, weights.to(out.dtype)))]


def framed(laid, *, window=None):
    """Attention of a row by its frame: the row's tokens are put where they belong in it, and taken out again."""
    frame = Frame.least(laid).roomy()
    row, at = FrameView.of(frame, frame.fill(laid).cuda()).row, places_in(frame, laid).cuda()
    inner = partial(row_attention, row=row)
    if window is not None:
        inner = partial(window_attention, windowed=Windowed.of(row, window))

    def attend(*asked):
        whole = [
            torch.ones(frame.tokens, *x.shape[1:], dtype=x.dtype, device="cuda").index_copy(0, at, x) for x in asked
        ]
        return inner(*whole, scale=0.1)[at]

    return attend


@pytest.mark.parametrize("window", [None, 7, 100])
@pytest.mark.parametrize("heads", [(9, 3, 64), (32, 8, 128), (4, 1, 256)])
@pytest.mark.parametrize(("dtype", "kernel"), KINDS)
@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_a_kernel_is_no_further_from_fp32_than_a_mask_is(groups, dtype, kernel, heads, window):
    if window and kernel == "_Efficient":
        pytest.skip("it has no windows")
    laid = layout(groups)
    exact, weights = tensors(laid, heads)
    rough = [x.to(dtype) for x in exact]
    assert type(kernel_for(rough[0])).__name__ == kernel
    truth = seen(lambda *asked: by_mask(*asked, laid, 0.1, window=window), exact, weights)
    masked = seen(lambda *asked: by_mask(*asked, laid, 0.1, window=window), rough, weights)
    parts = seen(framed(laid, window=window), rough, weights)
    for name, right, other, ours in zip(("out", "query", "key", "value"), truth, masked, parts, strict=True):
        norm = right.norm()
        assert norm > 0 and (ours - right).norm() < 1.5 * (other - right).norm() + 1e-5 * norm, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_the_kernels_of_turing_do_halves_too(groups, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    laid = layout(groups)
    exact, weights = tensors(laid, (9, 3, 64))
    rough = [x.to(dtype) for x in exact]
    assert type(kernel_for(rough[0])).__name__ == "_Efficient"
    truth = seen(lambda *asked: by_mask(*asked, laid, 0.1), exact, weights)
    for right, ours in zip(truth, seen(framed(laid), rough, weights), strict=True):
        assert (ours - right).norm() < 0.02 * right.norm()


def test_a_card_that_is_rehearsed_has_its_own_kernel(monkeypatch):
    asked = torch.zeros(8, 4, 64, dtype=torch.float16, device="cuda")
    kinds = []
    for card in (None, get_gpu("A100-80GB"), get_gpu("T4")):
        monkeypatch.setattr(memory, "_rehearsed", card)
        kinds.append(type(kernel_for(asked)).__name__)
    assert kinds == ["_Flash", "_Flash", "_Efficient"]
