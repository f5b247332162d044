"""Rows in frames: filling changes nothing, and one frame serves rows of many lengths."""

from functools import reduce

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from test_attention import GROUPS, by_mask, layout  # noqa: E402

from slimtune.engine.attention import row_attention  # noqa: E402
from slimtune.engine.collate import IGNORE, answers, shared_prefix  # noqa: E402
from slimtune.engine.frame import Frame, FrameView  # noqa: E402
from slimtune.engine.frames import capture_tokens, frames_for  # noqa: E402
from slimtune.engine.head import loss_at_head  # noqa: E402
from slimtune.engine.render import Encoded  # noqa: E402
from slimtune.plan import filled  # noqa: E402

ALL = GROUPS | {"nothing is shared": [(0, [(1, 3)]), (0, [(5, 2), (9, 9)])]}


def places_in(frame: Frame, laid) -> torch.Tensor:
    """Where the row's tokens are in the frame."""
    place = torch.arange(len(laid.ids))
    return place + (frame.ahead - laid.ahead) * (place >= laid.ahead)


@pytest.mark.parametrize("alone", [True, False], ids=["its own frame", "one for all"])
@pytest.mark.parametrize("groups", ALL.values(), ids=ALL)
def test_a_framed_row_gives_what_the_mask_gives(groups, alone) -> None:
    laid = layout(groups)
    alike = [Frame.least(layout(other)) for other in ALL.values()]
    alike = [need for need in alike if bool(need.ahead) == bool(laid.ahead)]
    frame = reduce(Frame.most, alike).room_for(reduce(Frame.least_of, alike))
    frame = Frame.least(laid).roomy() if alone else frame
    view = FrameView.of(frame, frame.fill(laid))
    assert frame.fits(Frame.least(laid)) and frame.tokens >= len(laid.ids)
    assert frame.longest_prefix <= max(frame.ahead, 1) and max(frame.longest_suffix, frame.longest_group) <= frame.own
    torch.manual_seed(1)
    bare = [torch.randn(len(laid.ids), heads, 16, requires_grad=True) for heads in (4, 2, 2)]
    at = places_in(frame, laid)
    whole = [torch.randn(frame.tokens, *x.shape[1:]).index_copy(0, at, x.detach()).requires_grad_() for x in bare]
    weights = torch.linspace(-1, 1, bare[0].numel()).view(bare[0].shape)
    right = by_mask(*bare, laid, 0.2)
    out = row_attention(*whole, view.row, 0.2)
    assert out.isfinite().all()
    torch.testing.assert_close(out[at], right, rtol=1e-5, atol=2e-6)
    theirs = torch.autograd.grad(right, bare, weights)
    ours = torch.autograd.grad(out, whole, torch.zeros_like(out).index_copy(0, at, weights))
    for mine, their in zip(ours, theirs, strict=True):
        assert their.abs().max() > 0.01
        torch.testing.assert_close(mine[at], their, rtol=1e-5, atol=2e-6)
        outside = torch.ones(len(mine), dtype=bool).index_fill(0, at, False)
        assert not mine[outside].any()


@pytest.mark.parametrize("groups", ALL.values(), ids=ALL)
def test_a_frame_holds_the_tokens_and_what_is_asked_for(groups) -> None:
    laid = layout(groups)
    frame = Frame.least(laid).roomy()
    view, at = FrameView.of(frame, frame.fill(laid)), places_in(frame, laid)
    assert view.ids[0][at].tolist() == laid.ids.tolist() and view.positions[0][at].tolist() == laid.positions.tolist()
    asked = answers(laid.labels[None])
    count = len(asked["targets"])
    assert view.targets[:count].tolist() == asked["targets"].tolist() and (view.targets[count:] == IGNORE).all()
    assert view.places[:count].tolist() == at[asked["places"]].tolist()


def banking_row(rng) -> list:
    """As rows of a batch of 64 are: one prefix, questions of some length."""
    start = tuple(range(10, 560))
    own = [int(length) for length in rng.integers(8, 40, 64)]
    return [Encoded(str(n), (*start, n, *range(5, 5 + length)), (7, 8, 9)) for n, length in enumerate(own)]


def test_a_few_frames_serve_a_hundred_rows() -> None:
    rng, frames = np.random.default_rng(1), []
    for _ in range(100):
        laid = shared_prefix(banking_row(rng))
        least = Frame.least(laid)
        fits = [frame for frame in frames if frame.holds(least)]
        if not fits:
            frames.append(least.roomy())
        best = min(fits, key=lambda frame: frame.tokens, default=frames[-1])
        assert best.tokens < 1.2 * len(laid.ids)
    assert len(frames) <= 4


def passages(steps: int, rows: int) -> list[Frame]:
    """Least frames of batches of questions about passages in random order: who shares one with whom is chance."""
    rng, needs = np.random.default_rng(4), []
    tokens = rng.integers(80, 330, 60).tolist()
    for _ in range(steps):
        asked = rng.integers(0, 60, rows)
        parts = [(tokens[at], rng.integers(10, 40, int((asked == at).sum())).tolist()) for at in np.unique(asked)]
        ahead, own = [shared for shared, _ in parts], [sum(lengths) for _, lengths in parts]
        longest = max(max(lengths) for _, lengths in parts)
        needs.append(Frame(sum(ahead) + 1, sum(own), len(parts), rows, 4 * rows, max(ahead), longest, max(own)))
    return needs


@pytest.mark.parametrize("rows", [8, 16, 64])
def test_a_few_frames_serve_a_run_whose_passages_come_in_random_order(rows) -> None:
    needs = passages(150, rows)
    frames = frames_for(needs[::3], times=3, capture=5000)
    largest = max(need.roomy().tokens for need in needs[::3])
    assert len(frames) <= 10 and all(frame.tokens <= largest for frame in frames)
    assert all(any(frame.fits(need) for frame in frames) for need in needs[::3])
    unseen = [need for need in needs if not any(frame.fits(need) for frame in frames)]
    assert len(unseen) <= 15
    one_by_one = len({need.roomy() for need in needs})
    assert one_by_one > 2 * (len(frames) + len(unseen))


def test_the_longer_a_run_and_the_quicker_a_capture_the_less_is_filled_up() -> None:
    needs = passages(60, 16)

    def chosen(times: float, capture: float = 5000) -> tuple[int, float]:
        """How many frames, and what is computed in them for each token that there is."""
        frames = frames_for(needs, times=times, capture=capture)
        taken = [min(frame.tokens for frame in frames if frame.fits(need)) for need in needs]
        return len(frames), sum(taken) / sum(need.tokens for need in needs)

    few, many, quick = chosen(1), chosen(100), chosen(1, capture=50)
    assert min(many[0], quick[0]) > few[0] and max(many[1], quick[1]) < few[1]
    assert capture_tokens(1.35e8) > 3 * capture_tokens(4e9) > 3 * capture_tokens(8e9) > 0


def test_rows_that_share_and_rows_that_do_not_have_frames_of_their_own() -> None:
    needs = [Frame.least(shared_prefix(banking_row(np.random.default_rng(3))))]
    needs += [Frame.least(layout([(0, [(1, 3)])])), Frame.least(layout([(0, [(5, 2), (9, 9)])]))]
    frames = frames_for(needs, times=1, capture=5000)
    assert all(any(frame.fits(need) for frame in frames) for need in needs)
    assert {bool(frame.ahead) for frame in frames} == {True, False}


def test_lengths_are_filled_to_some_that_come_again() -> None:
    assert [filled(tokens) for tokens in (0, 1, 128, 129, 2432, 5000, 40_000)] == [0, 128, 128, 256, 2432, 5120, 40_960]
    assert all(tokens <= filled(tokens) <= 1.0625 * tokens + 128 for tokens in range(0, 100_000, 37))


@pytest.mark.parametrize("step", [1 << 26, 700])
def test_the_loss_at_the_head_is_cross_entropy_with_its_gradient(step, monkeypatch) -> None:
    monkeypatch.setattr("slimtune.engine.head.LOGITS_AT_A_TIME", step)
    torch.manual_seed(2)
    states, head = torch.randn(20, 16, requires_grad=True), torch.randn(300, 16)
    targets, items = torch.randint(0, 300, (20,)), torch.tensor(31)
    targets[[3, 19]] = IGNORE
    right = torch.nn.functional.cross_entropy(states @ head.T, targets, ignore_index=IGNORE, reduction="sum") / items
    ours = loss_at_head(states, head, targets, items)
    torch.testing.assert_close(ours, right)
    (mine,), (their,) = (torch.autograd.grad(3 * loss, states) for loss in (ours, right))
    assert their.abs().max() > 0.01
    torch.testing.assert_close(mine, their)
