"""Attention in parts is attention under the mask: outputs and gradients, for prefixes and suffixes of many lengths."""

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from slimtune.engine.attention import Row, on_attention, worth_it  # noqa: E402
from slimtune.engine.collate import shared_prefix  # noqa: E402
from slimtune.engine.render import Encoded  # noqa: E402

GROUPS = {
    "one prefix, suffixes of unequal length": [(30, [(4, 3), (7, 1), (2, 2)])],
    "rows of one and of two": [(3, [(1, 3)]), (12, [(3, 2), (5, 5)]), (40, [(1, 1)])],
    "a long prefix": [(200, [(5, 4)] * 6)],
    "prefixes of more tokens than a power of two": [(280, [(5, 4)] * 3), (40, [(5, 4)])],
}


def layout(groups: list):
    """A shared-prefix row of random tokens: for each group the prefix's length, and question and answer of each row."""
    rng, rows = np.random.default_rng(3), []
    for prefix, own in groups:
        start = rng.integers(10, 1000, prefix).tolist()
        for question, answer in own:
            prompt = start + rng.integers(10, 1000, question).tolist()
            rows.append(Encoded(str(len(rows)), tuple(prompt), tuple(rng.integers(10, 1000, answer).tolist())))
    return shared_prefix(rows)


def by_mask(query, key, value, laid, scale, *, window=None):
    """Attention under the row's mask: [T, heads, dim] each."""
    times, mask = query.shape[1] // key.shape[1], laid.mask(window=window).to(query.device)
    heads = [x.transpose(0, 1)[None] for x in (query, *(x.repeat_interleave(times, dim=1) for x in (key, value)))]
    return torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask, scale=scale)[0].transpose(0, 1)


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_parts_give_what_the_mask_gives(groups):
    laid = layout(groups)
    mask, known = laid.mask(), laid.mask()
    known.row = Row.of(laid)
    torch.manual_seed(1)
    asked = [torch.randn(1, heads, len(laid.ids), 16, requires_grad=True) for heads in (4, 2, 2)]
    module = SimpleNamespace(num_key_value_groups=2, is_causal=True)
    seen = []
    for one in (mask, known):
        out, _ = on_attention(module, *asked, one, scaling=0.2)
        weights = torch.linspace(-1, 1, out.numel()).view(out.shape)
        seen.append([out, *torch.autograd.grad(out, asked, weights)])
    for by_mask, by_parts in zip(*seen, strict=True):
        assert by_mask.abs().max() > 0.1
        torch.testing.assert_close(by_parts, by_mask, rtol=1e-5, atol=2e-6)


def test_parts_are_taken_where_they_cost_less_and_no_window_hides_anything():
    laid = layout([(400, [(6, 4)] * 16)])
    row = Row.of(laid)
    assert worth_it(row, laid) and worth_it(row, laid, window=410)
    assert not worth_it(row, laid, window=409)  # the last token is the 410th of its example
    short = layout([(10, [(6, 4)] * 3)])
    assert not worth_it(Row.of(short), short)
