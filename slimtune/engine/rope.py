"""Positions as they were asked for: put on the config before the model is built, and read back from the model after.

Left alone, Unsloth's fast path stretches positions linearly, in silence, where it is asked for more tokens than the
config names (unsloth 2026.10.9, models/llama.py: `_extended_rope_scaling`). So nothing is left to it, and what a loaded
model computes with, the frequencies and the scaling of its rotary modules, is compared with transformers' own.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from slimtune.errors import SlimtuneError, UserError
from slimtune.plan import Yarn
from slimtune.plan.context import learned_setting, rope_parameters

TOLERANCE = 1e-6  # relative; float32 is good for 1e-7


def asked_config(folder: Path, yarn: Yarn | None) -> Any:
    """The config of a model folder, with YaRN set where it is asked for. Raises SlimtuneError where it cannot be."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if yarn is not None:
        text = config.get_text_config()
        text.rope_parameters = rope_parameters(yarn, text.rope_parameters)
        text.max_position_embeddings = yarn.window_tokens
    return config


def check_rope(model: Any, asked: Any) -> dict[str, Any]:
    """The `rope_parameters` of a loaded model, once they and all that is computed from them are those of the config
    that was asked for. Raises SlimtuneError on any difference: the model would read other positions."""
    wanted, found = _text(asked).rope_parameters, _text(model.config).rope_parameters
    if any(found.get(key) != value for key, value in wanted.items()):
        raise SlimtuneError(f"The model was loaded with other positions than asked for: {found}, not {wanted}.")
    compared = 0
    for name, layer_type, module in _rotary_modules(model):
        frequencies, scaling = expected(asked, layer_type)
        for what, here in _frequencies(module, layer_type).items():
            if not (error := _error(here, frequencies)) <= TOLERANCE:  # what is no number is an error too
                raise SlimtuneError(f"{name} does not turn by transformers' {wanted}: {what} is off by {error:.1e}.")
        if not abs(_scaling(module, layer_type) - scaling) <= TOLERANCE:
            raise SlimtuneError(f"{name} scales attention by {_scaling(module, layer_type)}, and not by {scaling}.")
        compared += 1
    if not compared:
        raise SlimtuneError(f"{type(model).__name__} has no rotary module to read its positions back from.")
    return found


def check_learned(model: Any, folder: Path) -> None:
    """Raises UserError where the adapter in `folder` was trained with other positions than the model has."""
    learned = learned_setting(folder).get("rope_parameters")
    here = _text(model.config).rope_parameters
    if learned is not None and learned != here:
        raise UserError(f"The adapter in {folder} was trained with the positions {learned}, and the model has {here}.")


def expected(config: Any, layer_type: str | None = None) -> tuple[torch.Tensor, float]:
    """transformers' inverse frequencies, float32 [rotated dimensions / 2], and its factor on cos and sin."""
    text = _text(config)
    rope = text.rope_parameters if layer_type is None else text.rope_parameters[layer_type]
    if rope["rope_type"] != "default":
        more = {} if layer_type is None else {"layer_type": layer_type}
        return ROPE_INIT_FUNCTIONS[rope["rope_type"]](text, torch.device("cpu"), **more)
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    width = int(head * rope.get("partial_rotary_factor", 1.0))
    return 1.0 / rope["rope_theta"] ** (torch.arange(0, width, 2, dtype=torch.float32) / width), 1.0


def _rotary_modules(model: Any) -> Iterator[tuple[str, str | None, Any]]:
    """(name, layer type, module) of the decoder's rotary modules; a module that serves several layer types comes once
    for each. A vision tower's are its own affair."""
    for name, module in model.named_modules():
        if not name.endswith("rotary_emb") or "vis" in name:
            continue
        kinds = [buffer.removesuffix("_inv_freq") for buffer, _ in module.named_buffers(recurse=False)]
        if "inv_freq" in kinds:
            yield name, None, module
        else:
            yield from ((name, kind, module) for kind in kinds if hasattr(module, f"{kind}_attention_scaling"))


def _frequencies(module: Any, layer_type: str | None) -> dict[str, torch.Tensor]:
    """What a rotary module turns by. Unsloth's also computes its tables from a second source, and may scale time."""
    found = {"its buffer": getattr(module, "inv_freq" if layer_type is None else f"{layer_type}_inv_freq")}
    if hasattr(module, "_unsloth_recompute_inv_freq"):
        time = module._apply_time_scaling(torch.ones(1))
        found["what its tables are made of"] = module._unsloth_recompute_inv_freq().cpu() * time
    return {what: tensor.detach().float().cpu() for what, tensor in found.items()}


def _scaling(module: Any, layer_type: str | None) -> float:
    return float(getattr(module, "attention_scaling" if layer_type is None else f"{layer_type}_attention_scaling"))


def _error(here: torch.Tensor, wanted: torch.Tensor) -> float:
    return (here / wanted - 1).abs().max().item() if here.shape == wanted.shape else math.inf


def _text(config: Any) -> Any:
    return config.get_text_config()
