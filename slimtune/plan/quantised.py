"""Weights that come quantised: which of them a repository left in 16-bit, from its config.json.

Unsloth's dynamic 4-bit repositories list the modules that NF4 would hurt, by full name, as
`quantization_config.llm_int8_skip_modules`; which ones differs from model to model.
"""

import re

from slimtune.models import ModelSpec

_BLOCKS = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
    "feed_forward": ("w1", "w2", "w3"),
    "conv": ("in_proj", "out_proj"),
}


def left_in_16bit(spec: ModelSpec) -> int | None:
    """How many linear weights of the decoder its files hold in 16-bit; None where they do not come quantised."""
    quantised = spec.config().get("quantization_config")
    if not quantised or not quantised.get("load_in_4bit"):
        return None
    weights: dict[str, int] = {}
    for linear in spec.linears:
        weights[linear.leaf] = max(linear.inputs * linear.outputs, weights.get(linear.leaf, 0))
    return sum(
        weights.get(leaf, 0)
        for name in set(quantised.get("llm_int8_skip_modules") or ())
        if re.search(r"layers\.\d+\.", name) and "vision" not in name
        for leaf in _BLOCKS.get(name.rsplit(".", 1)[-1], (name.rsplit(".", 1)[-1],))
    )
