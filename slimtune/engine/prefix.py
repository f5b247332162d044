"""A shared-prefix row as a model takes it: each kind of layer is told who comes before whom in its own way.

Full attention takes a mask, which knows its row; a sliding window takes a mask of its own, by position; a short
convolution mixes each token with the few before it, and is told which those are, for a suffix's neighbour in the row
belongs to another example. Unsloth's own layers on a GPU drop masks in training; they take frames (frame.py).
"""

import types
from dataclasses import replace
from typing import Any

import torch

from slimtune.engine.attention import Row, worth_it
from slimtune.engine.collate import NOWHERE, Batch, Layout, answers


def as_batch(layout: Layout, model: Any) -> Batch:
    """input_ids, position_ids [1, T], `answers` and the masks that `model`'s layers ask for. Its convolutions remember
    this layout until the next one. All on its device but for the answers."""
    config, device = model.config.get_text_config(), model.device
    here = replace(layout, **{name: x.to(device) for name, x in vars(layout).items() if isinstance(x, torch.Tensor)})
    batch = {"input_ids": here.ids[None], "position_ids": here.positions[None], **answers(layout.labels[None])}
    window = getattr(config, "sliding_window", None)
    alike = ["sliding_attention" if window else "full_attention"]  # every layer, where the config names none
    kinds = set(getattr(config, "layer_types", None) or alike)
    if "conv" in kinds:
        _tell_convolutions(model, here.before)
    windows = {"full_attention": None, "sliding_attention": window}
    masks = {kind: here.mask(window=windows[kind]) if kind in windows else None for kind in kinds}
    if device.type == "cpu":
        row = Row.of(layout)
        for kind in kinds & windows.keys():
            masks[kind].row = row if worth_it(row, layout, window=windows[kind]) else None
    return batch | {"attention_mask": masks if len(masks) > 1 else next(iter(masks.values()))}


def _tell_convolutions(model: Any, before: torch.Tensor) -> None:
    """Every short convolution of the model minds the taps of this row in training; answers are computed as ever."""
    for module in model.modules():
        if not hasattr(module, "conv_kernel_size"):
            continue
        module.taps = taps(before, module.conv_kernel_size)
        if not hasattr(module, "in_a_row"):
            module.in_a_row, module.forward = module.forward, types.MethodType(by_taps, module)


def taps(before: torch.Tensor, kernel: int) -> torch.Tensor:
    """The places of the tokens before each: [kernel, T], the token itself last, and T where there is none. `before` [T]
    as a Layout has it."""
    places, beyond = [torch.arange(len(before), device=before.device)], torch.cat([before, before.new_full((1,), -1)])
    for _ in range(kernel - 1):
        places.append(beyond[places[-1]])  # of NOWHERE, -1, the last: NOWHERE again
    return torch.stack([torch.where(place == NOWHERE, len(before), place) for place in places[::-1]])


def by_taps(
    module: Any,
    hidden_states: torch.Tensor,
    past_key_values: Any = None,
    attention_mask: torch.Tensor | None = None,
    seq_idx: torch.Tensor | None = None,
) -> torch.Tensor:
    """Lfm2ShortConv's forward (transformers, modeling_lfm2.py), each token mixed with those before it in its example.
    hidden_states: [1, T, hidden]."""
    if not module.training:
        return module.in_a_row(hidden_states, past_key_values=past_key_values, attention_mask=attention_mask)
    assert hidden_states.shape[:2] == (1, module.taps.shape[1]), "a row without its layout"
    gate, out, x = module.in_proj(hidden_states).chunk(3, dim=-1)
    mixed = torch.nn.functional.pad(gate * x, (0, 0, 0, 1))  # place T: a zero, for what comes before the first token
    weight = module.conv.weight[:, 0]  # [hidden, kernel]
    summed = sum(mixed[:, place] * weight[:, tap] for tap, place in enumerate(module.taps))
    if module.conv.bias is not None:
        summed = summed + module.conv.bias
    return module.out_proj(out * summed)
