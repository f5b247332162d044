"""What slimtune knows about a base model, as data.

    Family     what all sizes share: template, stop token, tool calls, LoRA regex
    ModelSpec  one model: a Family, its config.json, its repositories and licence

Dimensions are never typed: they are read from the config (`slimtune/models/shapes.py`). No torch.
"""

import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from slimtune.models.shapes import Linear, Shapes, linears, read_shapes

Thinking = Literal["none", "hybrid", "always"]
ToolCallFormat = Literal["hermes", "json", "pythonic", "granite", "qwen_xml", "none"]

ATTENTION_LORA_REGEX = r"(?:.*\.)?layers\.\d+\.self_attn\.(?:q|k|v|o)_proj"
DENSE_LORA_REGEX = r"(?:.*\.)?layers\.\d+\.(?:self_attn\.(?:q|k|v|o)_proj|mlp\.(?:gate|up|down)_proj)"
# a vision tower has layers with q_proj, k_proj and v_proj of its own
TEXT_LORA_REGEX = DENSE_LORA_REGEX.replace("layers", r"language_model\.layers", 1)
CONFIGS = Path(__file__).parent / "configs"
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Extension:
    """How a context longer than the native one is reached: YaRN (Peng et al. 2023), the same factor at every length."""

    original_tokens: int  # YaRN's original_max_position_embeddings: not always what config.json calls the maximum
    longest_tokens: int  # the longest the vendor vouches for
    experimental: bool = False  # no vendor vouches for it


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn, as a vendor advises it."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float


@dataclass(frozen=True)
class Family:
    """What every size of a family shares."""

    name: str  # the architecture's: a tune with a chat format of its own keeps it
    model_type: str  # transformers' name, as in config.json
    lora_regex: str  # full-matched against module names: a list of leaves can be dropped in silence, a string cannot
    thinking: Thinking
    tool_call_format: ToolCallFormat
    stop_token: str | None  # None: the tokenizer's end of sequence
    pad_token: str | None  # never the stop token: masking the pads would take the stop out of the loss
    chat_template: str | None = None  # the Jinja text, or what goes before the tokenizer's own; None: its own alone
    replaces: str = ""  # what stands in the tokenizer's own template where `chat_template` may take its place
    thinking_sampling: Sampling | None = None  # None: greedy, as every answer without a thought is
    fp16_ok: bool = True  # False: Unsloth trains it in fp32 on a card without bf16 (its FORCE_FLOAT32 list)
    fast_path: bool = True  # Unsloth's hand-written kernels; False: its generic compiled path
    untrainable: str = ""  # the sentence that says why its models are planned for and not trained
    pitfalls: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelSpec:
    """One base model. Its weights come from exactly one of `repo` (a hub id), `folder` and `gguf_package`."""

    key: str
    label: str
    traits: Family
    config_file: Path
    repo: str | None
    params_total: int  # as published; what the shape gives where nothing is
    native_context: int  # tokens, as the vendor documents it (config.json sometimes says more)
    licence: str
    mirror_16bit: str | None = None  # Unsloth's copy
    dynamic_4bit: str | None = None  # Unsloth's dynamic 4-bit, some layers left in 16-bit
    plain_4bit: str | None = None
    gated: bool = False
    extension: Extension | None = None  # None: the native context is the limit
    folder: Path | None = None  # a Hugging Face folder on this disk
    gguf_package: str | None = None  # a Python package that brings a GGUF
    note: str = ""  # printed beside every score of this model
    extra_pitfalls: tuple[str, ...] = ()

    def config(self) -> dict[str, Any]:
        """The model's config.json."""
        return json.loads(self.config_file.read_text(encoding="utf-8"))

    def repository(self, quantisation: str) -> str | None:
        """What is fetched for "4bit" or "16bit". 4-bit without a repository of its own is quantised while loading."""
        return (self.dynamic_4bit or self.plain_4bit or self.repo) if quantisation == "4bit" else self.repo

    @cached_property
    def shapes(self) -> Shapes:
        return read_shapes(self.config())

    @cached_property
    def linears(self) -> tuple[Linear, ...]:
        """What LoRA adapts and 4-bit quantisation converts: the decoder's linear layers; not the head, not experts."""
        return linears(self.shapes)

    @cached_property
    def linear_params(self) -> int:
        return sum(linear.weights for linear in self.linears)

    @property
    def expert_params(self) -> int:
        """The weights of a mixture's experts, which transformers keeps in fused tensors; 0 for a dense model."""
        return self.shapes.expert_params

    @property
    def trainable(self) -> bool:
        return not self.traits.untrainable

    @property
    def untrainable(self) -> str:
        return self.traits.untrainable

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

    def sampling(self, thinking: str) -> Sampling | None:
        """How answers are drawn in a thinking mode of a recipe; None: greedily. In `mixed` no answer thinks."""
        return self.traits.thinking_sampling if thinking == "on" else None

    @property
    def tool_call_format(self) -> ToolCallFormat:
        return self.traits.tool_call_format

    @property
    def stop_token(self) -> str | None:
        return self.traits.stop_token

    @property
    def pad_token(self) -> str | None:
        return self.traits.pad_token

    @property
    def fp16_ok(self) -> bool:
        return self.traits.fp16_ok

    @property
    def fast_path(self) -> bool:
        return self.traits.fast_path

    @property
    def pitfalls(self) -> tuple[str, ...]:
        return self.traits.pitfalls + self.extra_pitfalls

    def expected_adapters(self) -> dict[str, int]:
        """How many modules of each leaf must carry an adapter once `lora_regex` was applied."""
        counts: Counter[str] = Counter()
        for linear in self.linears:
            counts[linear.leaf] += linear.count
        return dict(counts)

    def lora_params(self, r: int) -> int:
        """Trainable weights of a LoRA of rank `r` on every linear layer of the decoder."""
        return sum(r * (linear.inputs + linear.outputs) * linear.count for linear in self.linears)
