"""Attention in parts is attention under the mask: outputs and gradients, for prefixes and suffixes of many lengths."""

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from slimtune.engine import parts as parts_module  # noqa: E402
from slimtune.engine.collate import NOWHERE, shared_prefix  # noqa: E402
from slimtune.engine.parts import on_attention, parts_of  # noqa: E402
from slimtune.engine.render import Encoded  # noqa: E402

GROUPS = {
    "one prefix, suffixes of unequal length": [(30, [(4, 3), (7, 1), (2, 2)])],
    "rows of one, of two and with nothing shared": [(0, [(4, 3)]), (12, [(3, 2), (5, 5)]), (40, [(1, 1)])],
    "a long prefix": [(200, [(5, 4)] * 6)],
}


def layout(groups: list, *, multiple: int):
    """A shared-prefix row of random tokens: for each group the prefix's length, and question and answer of each row."""
    rng, rows = np.random.default_rng(3), []
    for prefix, own in groups:
        start = rng.integers(10, 1000, prefix).tolist()
        for question, answer in own:
            prompt = start + rng.integers(10, 1000, question).tolist()
            rows.append(Encoded(str(len(rows)), tuple(prompt), tuple(rng.integers(10, 1000, answer).tolist())))
    return shared_prefix(rows, multiple=multiple)


@pytest.mark.parametrize(("multiple", "window"), [(1, None), (16, None), (1, 512)])
@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_parts_give_what_the_mask_gives(groups, multiple, window, monkeypatch):
    monkeypatch.setattr(parts_module, "_CALL", -(10**9))  # worth it at any length
    row = layout(groups, multiple=multiple)
    mask, known = row.mask(window=window), row.mask(window=window)
    known.parts = parts_of(row, window=window)
    assert len(known.parts) == len(groups)
    torch.manual_seed(1)
    asked = [torch.randn(1, heads, len(row.ids), 16, requires_grad=True) for heads in (4, 2, 2)]
    module = SimpleNamespace(num_key_value_groups=2, is_causal=True)
    real = (row.group != NOWHERE)[None, :, None, None]
    seen = []
    for one in (mask, known):
        out, _ = on_attention(module, *asked, one, scaling=0.2)
        weights = torch.linspace(-1, 1, out.numel()).view(out.shape) * real
        seen.append([out * real, *torch.autograd.grad(out, asked, weights)])
    for by_mask, by_parts in zip(*seen, strict=True):
        assert by_mask.abs().max() > 0.1
        torch.testing.assert_close(by_parts, by_mask, rtol=1e-5, atol=2e-6)


def test_parts_are_taken_where_they_cost_less_and_no_window_hides_anything():
    row = layout([(400, [(6, 4)] * 16)], multiple=1)
    assert len(parts_of(row)) == 1 and parts_of(row, window=410) is not None
    assert parts_of(row, window=409) is None  # the last token is the 410th of its example
    assert parts_of(layout([(10, [(6, 4)] * 3)], multiple=1)) is None
