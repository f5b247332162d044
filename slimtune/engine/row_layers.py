"""Layers of transformers that compute by a framed row: attention in parts, short convolutions by their taps.

Unsloth has no layers of its own for Gemma 3, Granite, LFM2 and mixtures. On a GPU it trains transformers', and what
becomes of a mask there is its choice: FlexAttention for Gemma 3's wide heads, compiled anew for other lengths, and its
own way to SDPA elsewhere. So for the time of a step these layers are told the row itself, and the mask that they are
handed is not a number: whoever heeded it would not give one. Nothing is compiled meanwhile: lengths differ from frame
to frame, and a step that is replayed as a CUDA graph needs no compiler to start its kernels.
"""

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from slimtune.engine.attention import row_attention
from slimtune.engine.frame import FrameView
from slimtune.engine.head import loss_at_head
from slimtune.engine.prefix import by_taps, taps
from slimtune.engine.windows import Windowed, window_attention


class RowLayers:
    """Of one adapted model."""

    def __init__(self, model: Any):
        whole = model.get_base_model()
        self.decoder, self.head = whole.get_decoder(), whole.get_output_embeddings()
        config = self.decoder.config
        assert getattr(config, "final_logit_softcapping", None) is None, "logits that are capped"
        self.divisor = getattr(config, "logits_scaling", 1.0)  # Granite's
        self.kinds = set(getattr(config, "layer_types", None) or ["full_attention"])

    def loss(self, view: FrameView) -> torch.Tensor:
        """Of a framed row, divided by its items; a scalar. Within `told`."""
        tokens = view.ids.shape[1]
        nobody = torch.full((), float("nan"), device=view.ids.device).expand(1, 1, tokens, tokens)
        masks = {kind: nobody[0, :, 0] if kind == "conv" else nobody for kind in self.kinds}
        found = self.decoder(
            input_ids=view.ids,
            position_ids=view.positions,
            use_cache=False,
            attention_mask=masks if len(masks) > 1 else nobody,
        ).last_hidden_state[0]
        states = found.index_select(0, view.places) / self.divisor
        return loss_at_head(states, self.head.weight, view.targets, view.items)

    @contextmanager
    def told(self, view: FrameView) -> Iterator[None]:
        """From a forward pass to the end of its backward pass, which may compute layers again."""
        windowed: dict[int, Callable] = {}
        modules = [getattr(layer, "self_attn", None) or layer.conv for layer in self.decoder.layers]
        before = [vars(module).get("forward") for module in modules]
        for module in modules:
            window = getattr(module, "sliding_window", None)
            if hasattr(module, "conv_kernel_size"):
                module.taps = taps(view.before, module.conv_kernel_size)
                module.forward = types.MethodType(by_taps, module)
            elif window is None or view.longest <= window:
                module.forward = partial(on_layer, module, partial(row_attention, row=view.row))
            else:
                if window not in windowed:
                    windowed[window] = partial(window_attention, windowed=Windowed.of(view.row, window))
                module.forward = partial(on_layer, module, windowed[window])
        try:
            with torch.compiler.set_stance("force_eager"):
                yield
        finally:
            for module, forward in zip(modules, before, strict=True):
                del module.forward
                if forward is not None:
                    module.forward = forward


def on_layer(
    module: Any, attention: Callable, hidden_states: torch.Tensor, position_embeddings: Any, **_: Any
) -> tuple[torch.Tensor, None]:
    """What transformers calls for an attention layer. hidden_states: [1, T, hidden]."""
    query, key, value = (
        project(hidden_states).unflatten(-1, (-1, module.head_dim))
        for project in (module.q_proj, module.k_proj, module.v_proj)
    )
    for names in (("q_norm", "k_norm"), ("q_layernorm", "k_layernorm")):
        if hasattr(module, names[0]):
            query, key = (getattr(module, name)(x) for name, x in zip(names, (query, key), strict=True))
    query, key = apply_rotary_pos_emb(query, key, *position_embeddings, unsqueeze_dim=2)
    out = attention(query[0].to(value.dtype), key[0].to(value.dtype), value[0], scale=module.scaling)
    last = module.o_proj if hasattr(module, "o_proj") else module.out_proj
    return last(out.flatten(1)[None]), None
