"""Attention within a window over framed rows: what a mask by positions gives, there and back."""

import pytest

torch = pytest.importorskip("torch")
from test_attention import GROUPS, by_mask, layout  # noqa: E402
from test_frame import places_in  # noqa: E402

from slimtune.engine.frame import Frame, FrameView  # noqa: E402
from slimtune.engine.windows import Windowed, window_attention  # noqa: E402

ALL = GROUPS | {"nothing is shared": [(0, [(1, 3)]), (0, [(5, 2), (9, 9)])]}


@pytest.mark.parametrize("window", [1, 5, 100, 10_000])
@pytest.mark.parametrize("groups", ALL.values(), ids=ALL)
def test_a_window_gives_what_its_mask_gives(groups, window: int) -> None:
    laid = layout(groups)
    frame = Frame.least(laid).roomy()
    view, at = FrameView.of(frame, frame.fill(laid)), places_in(frame, laid)
    torch.manual_seed(1)
    bare = [torch.randn(len(laid.ids), heads, 16, requires_grad=True) for heads in (4, 2, 2)]
    whole = [torch.randn(frame.tokens, *x.shape[1:]).index_copy(0, at, x.detach()).requires_grad_() for x in bare]
    weights = torch.linspace(-1, 1, bare[0].numel()).view(bare[0].shape)
    right = by_mask(*bare, laid, 0.2, window=window)
    out = window_attention(*whole, Windowed.of(view.row, window), 0.2)
    torch.testing.assert_close(out[at], right, rtol=1e-5, atol=2e-6)
    theirs = torch.autograd.grad(right, bare, weights)
    ours = torch.autograd.grad(out, whole, torch.zeros_like(out).index_copy(0, at, weights))
    for mine, their in zip(ours, theirs, strict=True):
        assert window == 1 or their.abs().max() > 0.01
        torch.testing.assert_close(mine[at], their, rtol=1e-5, atol=2e-6)
        assert not mine.index_fill(0, at, 0.0).any()


def test_how_many_keys_there_are_does_not_depend_on_lengths() -> None:
    """So that a captured step of one row serves the next."""
    few, many = (layout([(prefix, [(4, 3)] * 5)]) for prefix in (130, 250))
    frame = Frame.least(many).roomy()
    assert frame.holds(Frame.least(few))
    views = [FrameView.of(frame, frame.fill(laid)) for laid in (few, many)]
    first, second = (Windowed.of(view.row, 64) for view in views)
    assert first.taken.shape == second.taken.shape and first.over.longest_key == second.over.longest_key
    assert first.over.keys.tolist() != second.over.keys.tolist()
