"""How many weights a vision tower and its projector have, from `vision_config`. They are kept in 16-bit, never trained.

Source: the modeling files of transformers 5.17 (SigLIP and Gemma 3, Qwen2.5-VL, Qwen3-VL). Biases are counted.
"""

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]


def vision_params(config: Config, text_hidden: int) -> int:
    """The weights beside the language model; 0 without a vision tower. Raises ValueError for a tower of another kind,
    KeyError for a dimension that is missing."""
    vision = config.get("vision_config")
    if vision is None:
        return 0
    kind = str(vision.get("model_type")).removesuffix("_vision")  # which transformers 5 adds for Qwen's
    if kind not in _TOWERS:
        raise ValueError(f"it describes a vision tower of the kind {kind!r}")
    return _TOWERS[kind](vision, text_hidden)


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _siglip(vision: Config, text_hidden: int) -> int:
    hidden, wide = vision["hidden_size"], vision["intermediate_size"]
    layer = 4 * _linear(hidden, hidden) + _linear(hidden, wide) + _linear(wide, hidden) + 4 * hidden
    patches = _linear(vision.get("num_channels", 3) * vision["patch_size"] ** 2, hidden)
    positions = (vision["image_size"] // vision["patch_size"]) ** 2 * hidden
    projector = hidden * text_hidden + hidden
    return vision["num_hidden_layers"] * layer + patches + positions + 2 * hidden + projector


def _qwen2_5_vl(vision: Config, _: int) -> int:
    hidden, wide = vision["hidden_size"], vision["intermediate_size"]
    attention = _linear(hidden, 3 * hidden) + _linear(hidden, hidden)
    layer = attention + 2 * _linear(hidden, wide) + _linear(wide, hidden) + 2 * hidden
    merged = hidden * vision["spatial_merge_size"] ** 2
    merger = hidden + _linear(merged, merged) + _linear(merged, vision["out_hidden_size"])
    return vision["depth"] * layer + _patch_pixels(vision) * hidden + merger


def _qwen3_vl(vision: Config, _: int) -> int:
    hidden, wide = vision["hidden_size"], vision["intermediate_size"]
    attention = _linear(hidden, 3 * hidden) + _linear(hidden, hidden)
    layer = attention + _linear(hidden, wide) + _linear(wide, hidden) + 4 * hidden
    merged = hidden * vision["spatial_merge_size"] ** 2
    merger = _linear(merged, merged) + _linear(merged, vision["out_hidden_size"])
    deep = len(vision["deepstack_visual_indexes"]) * (merger + 2 * merged)
    positions = vision["num_position_embeddings"] * hidden
    return vision["depth"] * layer + _linear(_patch_pixels(vision), hidden) + positions + merger + 2 * hidden + deep


def _patch_pixels(vision: Config) -> int:
    channels = vision.get("in_channels") or vision.get("in_chans", 3)
    return channels * vision["temporal_patch_size"] * vision["patch_size"] ** 2


_TOWERS = {
    "siglip_vision_model": _siglip,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "qwen3_5": _qwen3_vl,
}
