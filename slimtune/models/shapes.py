"""A model's shape, read from its config.json: one way for known models, folders and repositories alike.

    read_shapes   config -> Shapes      every dimension, counted in elements
    linears       Shapes -> Linear, ..  the layers that carry LoRA and that 4-bit quantisation converts
    count_params  Shapes -> int         all weights; tied embeddings count once

What a config leaves to the library (defaults, norms, biases of a model type) is in `_LAYOUTS`, from the modeling and
configuration files of transformers 5.17; a test builds every known model there and compares.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slimtune.models.vision import vision_params


@dataclass(frozen=True)
class Shapes:
    """The dimensions that `config.json` gives, counted in elements."""

    layers: int
    hidden: int
    intermediate: int  # of the dense MLP as it is built; 0 where every layer has experts instead
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool  # one matrix serves as embedding and as head
    sliding_window: int | None = None  # tokens that a sliding layer attends to
    sliding_layers: int = 0
    conv_layers: int = 0  # LFM2: layers with a short convolution in the place of attention
    delta_layers: int = 0  # Qwen3.5: layers with a gated delta rule (linear attention) in the place of attention
    delta_keys: int = 0  # width of their keys, all heads
    delta_values: int = 0  # and of their values
    gated_attention: bool = False  # the query projection gives a gate beside the queries
    qk_norm: bool = False  # queries and keys are normalised head by head
    experts: int = 0  # mixture of experts: how many a layer has
    experts_per_token: int = 0
    expert_intermediate: int = 0
    small_params: int = 0  # norms, biases, short convolutions, routers: never quantised
    other_params: int = 0  # vision tower and projector: never quantised, never trained

    @property
    def expert_params(self) -> int:
        """The fused experts of every layer: gate, up and down."""
        return self.layers * self.experts * 3 * self.hidden * self.expert_intermediate


@dataclass(frozen=True)
class Linear:
    """One kind of linear layer: the leaf of its module name, its width in and out, how many the model has."""

    leaf: str
    inputs: int
    outputs: int
    count: int

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs * self.count


@dataclass(frozen=True)
class _Layout:
    """What a model type is, beyond its config."""

    norms: int = 2  # vectors of the hidden size that a layer has
    qk_norm: bool = False
    qkv_bias: bool = False  # whatever `attention_bias` says
    defaults: Mapping[str, Any] = field(default_factory=dict)


_GEMMA3_DEFAULTS = {
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
    "tie_word_embeddings": True,
}
_LAYOUTS = {
    "llama": _Layout(),
    "mistral": _Layout(),
    "qwen2": _Layout(qkv_bias=True),
    "qwen3": _Layout(qk_norm=True, defaults={"head_dim": 128}),
    "qwen3_moe": _Layout(qk_norm=True),
    "granite": _Layout(),
    "gemma3_text": _Layout(norms=4, qk_norm=True, defaults=_GEMMA3_DEFAULTS),
    "lfm2": _Layout(qk_norm=True, defaults={"tie_word_embeddings": True}),
    "qwen2_5_vl": _Layout(qkv_bias=True),
    "qwen2_5_vl_text": _Layout(qkv_bias=True),
    "qwen3_vl_text": _Layout(qk_norm=True),
    "qwen3_5_text": _Layout(qk_norm=True, defaults={"attn_output_gate": True}),
}
MODEL_TYPES = frozenset(_LAYOUTS)


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that describes the language model, with the defaults of its model type filled in."""
    text = dict(config.get("text_config") or config)
    text.setdefault("model_type", config.get("model_type"))
    if "num_local_experts" in text:  # what transformers 5 calls them in what it saves
        text["num_experts"] = text["num_local_experts"]
    for name in ("tie_word_embeddings", "tie_embedding"):  # the outer one decides; LFM2 has a name of its own
        if config.get(name) is not None:
            text["tie_word_embeddings"] = config[name]
    given = {name: value for name, value in text.items() if value is not None}
    layout = _LAYOUTS.get(given.get("model_type", ""), _Layout())
    return {**layout.defaults, **given}


def read_shapes(config: Mapping[str, Any]) -> Shapes:
    """The shape that a config.json describes. Raises KeyError for a dimension it leaves out, ValueError for one that is
    no positive whole number, for a model type that is not known here, and for layers of mixed kinds."""
    text = text_config(config)
    if text.get("model_type") not in MODEL_TYPES:
        raise ValueError(f"model_type is {text.get('model_type')!r}")
    layers, hidden, heads = (_size(text, name) for name in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
    kv_heads = _size(text, "num_key_value_heads") if "num_key_value_heads" in text else heads
    head_dim = _size(text, "head_dim") if "head_dim" in text else hidden // heads
    conv, sliding, experts = _conv_layers(text), _sliding_layers(text, layers), _experts(text)
    delta = text.get("layer_types", []).count("linear_attention")
    return Shapes(
        layers=layers,
        hidden=hidden,
        intermediate=0 if experts else _intermediate(text),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=_size(text, "vocab_size"),
        tied=bool(text.get("tie_word_embeddings", False)),
        sliding_window=_size(text, "sliding_window") if sliding else None,
        sliding_layers=sliding,
        conv_layers=conv,
        delta_layers=delta,
        delta_keys=_size(text, "linear_num_key_heads") * _size(text, "linear_key_head_dim") if delta else 0,
        delta_values=_size(text, "linear_num_value_heads") * _size(text, "linear_value_head_dim") if delta else 0,
        gated_attention=bool(text.get("attn_output_gate")),
        qk_norm=_LAYOUTS[text["model_type"]].qk_norm,
        experts=experts,
        experts_per_token=_size(text, "num_experts_per_tok") if experts else 0,
        expert_intermediate=_size(text, "moe_intermediate_size") if experts else 0,
        small_params=_small_params(text, conv, delta, head_dim, kv_heads),
        other_params=vision_params(config, hidden),
    )


def linears(shapes: Shapes) -> tuple[Linear, ...]:
    """Every linear layer of the decoder but the head. Experts are none: they are fused into two tensors a layer."""
    hidden, queries, keys = shapes.hidden, shapes.heads * shapes.head_dim, shapes.kv_heads * shapes.head_dim
    convolving, recurrent = shapes.conv_layers, shapes.delta_layers
    attending = shapes.layers - convolving - recurrent
    lfm2 = convolving > 0  # which names its layers in its own way
    rows = [
        Linear("q_proj", hidden, queries * (2 if shapes.gated_attention else 1), attending),
        Linear("k_proj", hidden, keys, attending),
        Linear("v_proj", hidden, keys, attending),
        Linear("out_proj" if lfm2 else "o_proj", queries, hidden, attending),
    ]
    if lfm2:
        rows += [Linear("in_proj", hidden, 3 * hidden, convolving), Linear("out_proj", hidden, hidden, convolving)]
    if recurrent:  # two more, one row a head, are left in 16-bit: `_small_params`
        values = shapes.delta_values
        rows += [Linear("in_proj_qkv", hidden, 2 * shapes.delta_keys + values, recurrent)]
        rows += [Linear("in_proj_z", hidden, values, recurrent), Linear("out_proj", values, hidden, recurrent)]
    if not shapes.experts:
        gate, up, down = ("w1", "w3", "w2") if lfm2 else ("gate_proj", "up_proj", "down_proj")
        rows += [Linear(leaf, hidden, shapes.intermediate, shapes.layers) for leaf in (gate, up)]
        rows += [Linear(down, shapes.intermediate, hidden, shapes.layers)]
    return tuple(rows)


def count_params(shapes: Shapes) -> int:
    """All weights of a model; tied embeddings count once."""
    embeddings = shapes.vocab * shapes.hidden * (1 if shapes.tied else 2)
    dense = sum(linear.weights for linear in linears(shapes))
    return embeddings + dense + shapes.expert_params + shapes.small_params + shapes.other_params


def _size(text: Mapping[str, Any], name: str) -> int:
    value = text[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}, which is no size")
    return value


def _conv_layers(text: Mapping[str, Any]) -> int:
    if text["model_type"] != "lfm2":
        return 0
    layers = _size(text, "num_hidden_layers")
    types = text.get("layer_types") or ["full_attention"] * len(text["full_attn_idxs"])
    return layers - types.count("full_attention")


def _sliding_layers(text: Mapping[str, Any], layers: int) -> int:
    """How many layers attend to a window only; without a list or a pattern it is all of them (Mistral 7B v0.1)."""
    if not text.get("sliding_window") or text.get("use_sliding_window") is False:
        return 0
    if types := text.get("layer_types"):
        return types.count("sliding_attention")
    return layers - layers // text["sliding_window_pattern"] if "sliding_window_pattern" in text else layers


def _experts(text: Mapping[str, Any]) -> int:
    if text["model_type"] != "qwen3_moe":
        return 0
    if text.get("mlp_only_layers") or text.get("decoder_sparse_step", 1) != 1:
        raise ValueError("some of its layers have experts and others have none")
    return _size(text, "num_experts")


def _intermediate(text: Mapping[str, Any]) -> int:
    """The width of the MLP as it is built: LFM2's own rule shrinks what its config says to two thirds."""
    if text["model_type"] != "lfm2":
        return _size(text, "intermediate_size")
    wide = _size(text, "block_ff_dim" if "block_ff_dim" in text else "intermediate_size")
    if not text.get("block_auto_adjust_ff_dim", True):
        return wide
    wide = int(text.get("block_ffn_dim_multiplier", 1.0) * int(2 * wide / 3))
    return -(-wide // (multiple := text.get("block_multiple_of", 256))) * multiple


def _small_params(text: Mapping[str, Any], conv: int, delta: int, head_dim: int, kv_heads: int) -> int:
    """Weights of the decoder outside its matrices: norms, biases, short convolutions, routers."""
    layout, layers, hidden = _LAYOUTS[text["model_type"]], text["num_hidden_layers"], text["hidden_size"]
    attending, keys, queries = layers - conv - delta, kv_heads * head_dim, text["num_attention_heads"] * head_dim
    count = hidden * (layers * layout.norms + 1) + attending * 2 * head_dim * layout.qk_norm
    if layout.qkv_bias or text.get("attention_bias"):
        count += attending * (queries + 2 * keys + (0 if layout.qkv_bias else hidden))
    if text.get("mlp_bias"):
        count += layers * (2 * text["intermediate_size"] + hidden)
    if conv:
        count += conv * hidden * text.get("conv_L_cache", 3) + conv * hidden * 5 * bool(text.get("conv_bias"))
    if delta:
        count += delta * _delta_params(text)
    return count + layers * hidden * _experts(text)  # one row of the router an expert


def _delta_params(text: Mapping[str, Any]) -> int:
    """Of one layer with a gated delta rule: convolution, norm, and per head two rows of gates, a decay and a bias."""
    keys = text["linear_num_key_heads"] * text["linear_key_head_dim"]
    heads, head_dim = text["linear_num_value_heads"], text["linear_value_head_dim"]
    convolution = (2 * keys + heads * head_dim) * text["linear_conv_kernel_dim"]
    return convolution + head_dim + heads * (2 * text["hidden_size"] + 2)
