"""What slimtune knows about a base model, as data: its shape, its repositories, how it talks, where LoRA goes.

    Family     what all sizes share: template, stop token, LoRA regex
    ModelSpec  one model: a Family plus its shape, repositories and licence

Nothing here opens a file or imports torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Thinking = Literal["none", "hybrid", "always"]
ToolCallFormat = Literal["hermes", "json", "none"]


@dataclass(frozen=True)
class Shapes:
    """The dimensions that `config.json` gives, counted in elements."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool  # one matrix serves as embedding and as head
    qk_norm: bool = False
    sliding_window: int | None = None  # tokens that a sliding layer attends to
    sliding_layers: int = 0
    conv_layers: int = 0  # LFM2: layers with a short convolution in the place of attention
    experts: int = 0  # mixture of experts: how many a layer has
    experts_per_token: int = 0
    expert_intermediate: int = 0
    other_params: int = 0  # vision tower and projector: never quantised, never trained


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
class Extension:
    """How a context longer than the native one is reached: YaRN (Peng et al. 2023), the same factor at every length."""

    original_tokens: int  # YaRN's original_max_position_embeddings: not always what config.json calls the maximum
    longest_tokens: int  # the longest the vendor vouches for
    experimental: bool = False  # no vendor vouches for it


@dataclass(frozen=True)
class Family:
    """What every size of a family shares."""

    name: str
    model_type: str  # transformers' name, as in config.json
    lora_regex: str  # full-matched against module names: a list of leaves can be dropped in silence, a string cannot
    chat_template: str | None  # the Jinja text; None: the tokenizer's own
    thinking: Thinking
    tool_call_format: ToolCallFormat
    stop_token: str
    pad_token: str  # never the stop token: masking the pads would take the stop out of the loss
    fp16_ok: bool = True  # False: Unsloth trains it in fp32 on a card without bf16
    fast_path: bool = True  # Unsloth's hand-written kernels; False: its generic compiled path
    pitfalls: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelSpec:
    """One base model. Its weights come from exactly one of `repo` (a hub id), `folder` and `gguf_package`."""

    key: str
    label: str
    traits: Family
    repo: str | None
    shapes: Shapes
    linears: tuple[Linear, ...]
    params_total: int
    native_context: int  # tokens, as the vendor documents it (config.json sometimes says more)
    licence: str
    mirror_16bit: str | None = None  # Unsloth's copy
    dynamic_4bit: str | None = None  # Unsloth's dynamic 4-bit, some layers left in 16-bit; None: quantised on the fly
    plain_4bit: str | None = None
    gated: bool = False
    extension: Extension | None = None  # None: the native context is the limit
    folder: Path | None = None  # a Hugging Face folder on this disk
    gguf_package: str | None = None  # a Python package that brings a GGUF
    note: str = ""  # printed beside every score of this model
    extra_pitfalls: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        return self.traits.name

    @property
    def lora_regex(self) -> str:
        return self.traits.lora_regex

    @property
    def chat_template(self) -> str | None:
        return self.traits.chat_template

    @property
    def thinking(self) -> Thinking:
        return self.traits.thinking

    @property
    def tool_call_format(self) -> ToolCallFormat:
        return self.traits.tool_call_format

    @property
    def stop_token(self) -> str:
        return self.traits.stop_token

    @property
    def pad_token(self) -> str:
        return self.traits.pad_token

    @property
    def fp16_ok(self) -> bool:
        return self.traits.fp16_ok

    @property
    def pitfalls(self) -> tuple[str, ...]:
        return self.traits.pitfalls + self.extra_pitfalls

    @property
    def lora_leaves(self) -> tuple[str, ...]:
        return tuple(linear.leaf for linear in self.linears)

    @property
    def linear_params(self) -> int:
        """The weights that 4-bit quantisation converts: every linear layer of the decoder, not the head."""
        return sum(linear.weights for linear in self.linears)

    def expected_adapters(self) -> dict[str, int]:
        """How many modules of each leaf must carry an adapter once `lora_regex` was applied."""
        return {linear.leaf: linear.count for linear in self.linears}

    def lora_params(self, r: int) -> int:
        """Trainable weights of a LoRA of rank `r` on every linear layer of the decoder."""
        return sum(r * (linear.inputs + linear.outputs) * linear.count for linear in self.linears)


def dense_linears(shapes: Shapes) -> tuple[Linear, ...]:
    """The seven linear layers of a Llama-style block: attention with grouped keys and values, gated MLP."""
    hidden, queries = shapes.hidden, shapes.heads * shapes.head_dim
    keys = shapes.kv_heads * shapes.head_dim
    widths = {
        "q_proj": (hidden, queries),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (queries, hidden),
        "gate_proj": (hidden, shapes.intermediate),
        "up_proj": (hidden, shapes.intermediate),
        "down_proj": (shapes.intermediate, hidden),
    }
    return tuple(Linear(leaf, inputs, outputs, shapes.layers) for leaf, (inputs, outputs) in widths.items())


def dense_params(shapes: Shapes) -> int:
    """All weights of a Llama-style model without biases; tied embeddings count once."""
    norms = shapes.layers * (2 * shapes.hidden + 2 * shapes.head_dim * shapes.qk_norm) + shapes.hidden
    embeddings = shapes.vocab * shapes.hidden * (1 if shapes.tied else 2)
    return embeddings + norms + sum(linear.weights for linear in dense_linears(shapes))


DENSE_LORA_REGEX = r"(?:.*\.)?layers\.\d+\.(?:self_attn\.(?:q|k|v|o)_proj|mlp\.(?:gate|up|down)_proj)"
