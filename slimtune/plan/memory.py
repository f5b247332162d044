"""How much memory a LoRA training step takes: arithmetic on a model's shape, in GiB. No torch, no download.

What is counted:

- Weights. Linear layers at 0.516 bytes a weight in 4-bit (NF4: half a byte, an 8-bit scale per 64 weights, a 32-bit one
  per 256 of those), 2 in 16-bit, 4 in fp32 on a CPU. Embeddings, head and vision tower are not quantised; a mixture's
  fused experts are, by Unsloth on a GPU (transformers alone leaves them in 16-bit). Modules that a dynamic 4-bit
  repository leaves in 16-bit count as such. LoRA weights and their gradients are fp32; Adam's two moments take 4 bytes
  each, 1 in 8-bit Adam. A step's fixed buffers are 32 MiB. Measured models that had just been loaded
  agree with this to 0.01 GiB.
- Activations: proportional to the tokens of a micro-batch and to the widths of a layer. With checkpointing the card
  holds one layer being recomputed (Unsloth keeps layer inputs in host memory); without it, every layer. The factors
  are fitted to measured peaks of reserved memory, so they contain the allocator's slack (calibration.py). 4-bit weights
  are unpacked one at a time: the largest counts.
- Loss. Only answers have logits (engine/answers.py). Where Unsloth's fused loss works they come in chunks and stay
  below a layer's activations; a family without it pays for all of them at once (Gemma 3: 6 bytes each).
- Levers for long rows. A tiled MLP holds its intermediates for one tile at a time; an offloaded embedding is in host
  memory.
"""

import dataclasses
import json
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from slimtune.models import ModelSpec

GIB = 2**30
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
STEP_BUFFERS_GIB = 1 / 32
LOGITS_AT_A_TIME = 1 << 26  # of framed rows (engine/head.py): 256 MiB in fp32
DYNAMIC_SHARE_IN_16BIT = (
    0.045  # of the linear weights, where the repository's own list is not at hand: files 10% larger
)
# hidden- and intermediate-sized fp32 values a token and layer, without and with checkpointing: SmolLM2-135M on a CPU
_KEPT_CPU = {False: (13, 8), True: (5, 4)}
_LOSS_BYTES_CPU = 9  # logits, their softmax and their gradient, all at once
_BAND = {"low": (0.99, 0.85, 0.0), "high": (1.01, 1.10, 0.15)}  # resident, activations and loss, flat GiB
_PROCESS_RAM_GIB = 0.58  # Python with torch, transformers and Unsloth imported, on a CPU


def filled(tokens: int) -> int:
    """So many tokens with what fills them up, so that lengths come again (engine/frame.py): to a multiple of 128, and
    of a sixteenth to a thirty-second of what there is where that is more. Nothing stays nothing."""
    step = max(128, 1 << max(0, tokens.bit_length() - 5))
    return -(-tokens // step) * step


def in_frame(prefix: int, own: int) -> tuple[int, int]:
    """So many tokens of a prefix and of its rows, filled up; a prefix has a token more, for what is no one's."""
    return filled(prefix and prefix + 1), filled(own)


@dataclass(frozen=True)
class Together:
    """What micro-batches are where prefixes are computed once: tokens of all their prefixes, and of the rest; of the
    one that has most in a run, and on average."""

    largest: tuple[int, int]
    usual: tuple[int, int]


@dataclass(frozen=True)
class Setting:
    """The choices that decide memory. `row_tokens`: the longest row, which rows of a micro-batch are padded to.
    `answer_tokens`: of the longest answer; None: every token is supervised.
    `prefix_tokens`: of the beginning that all rows share, where it is computed once. `together`: what micro-batches
    are; None: as if all rows were the longest.
    `unquantised`: how many linear weights a dynamic 4-bit repository leaves in 16-bit; None where that is not known."""

    quantisation: str  # "4bit" | "16bit"
    precision: str  # "bf16" | "fp16" | "fp32"
    checkpointing: bool
    micro_batch: int
    row_tokens: int
    lora_r: int
    cuda: bool
    answer_tokens: int | None = None
    tiled_mlp: bool = False
    offload_embedding: bool = False
    unquantised: int | None = None
    prefix_tokens: int = 0
    together: Together | None = None
    optimizer: str = "adamw_8bit"  # "adamw_8bit" | "adamw": on a CPU always the latter
    framed: bool = False  # rows are filled up to lengths that come again (engine/frame.py)

    @property
    def tokens(self) -> int:
        """The tokens of a micro-batch that are computed."""
        return sum(self.parts)

    @property
    def parts(self) -> tuple[int, int]:
        """Of the prefixes, and of all the rest."""
        alike = self.prefix_tokens, self.micro_batch * (self.row_tokens - self.prefix_tokens)
        ahead, own = self.together.largest if self.together else alike
        return in_frame(ahead, own) if self.framed else (ahead, own)

    @property
    def supervised(self) -> int:
        """The tokens of a micro-batch that have logits."""
        return self.micro_batch * min(self.answer_tokens or self.row_tokens, self.row_tokens)


@dataclass(frozen=True)
class Constants:
    """What was fitted to measured peaks (calibration.py). `recomputed` and `kept`: how many hidden-, intermediate-,
    query- and key-sized values a token a layer takes with checkpointing and without; `normed`: query- and key-sized
    ones that a layer which normalises both keeps besides; `tiled`: hidden- and query-sized values a token with a tiled
    MLP, and the tokens of a tile; `flat_gib`: what every step takes; `unpacked`: copies of the largest 4-bit weight;
    `scale`: of rows in frames, and of paths other than Unsloth's fast one, as a multiple; `logit_bytes`: of families
    that hold every logit."""

    recomputed: tuple[float, float, float, float]
    kept: tuple[float, float, float, float]
    normed: float
    tiled: tuple[float, float]
    flat_gib: float
    unpacked: float
    scale: Mapping[str, Mapping[str, float]]
    logit_bytes: Mapping[str, float]
    held_out: Mapping[str, float]  # rows not used in fitting: how many, and their errors, median and worst

    def layers_bytes(self, spec: ModelSpec, setting: Setting) -> float:
        """Bytes of the layers whose activations are alive at once."""
        shapes, tokens = spec.shapes, setting.tokens
        forced = 2 if setting.precision == "fp32" else 1  # a family that overflows in fp16: its MLP alone stays in it
        hidden, queries, keys = (
            forced * size for size in (shapes.hidden, shapes.heads * shapes.head_dim, shapes.kv_heads * shapes.head_dim)
        )
        wide = shapes.experts_per_token * shapes.expert_intermediate if shapes.experts else shapes.intermediate
        way = "recomputed" if setting.checkpointing else "kept"
        values = tokens * sum(map(operator.mul, getattr(self, way), (hidden, wide, queries, keys)))
        if shapes.qk_norm and way == "kept" and not setting.framed:
            values += tokens * self.normed * (queries + keys)
        if setting.tiled_mlp:
            each, tile = self.tiled
            values = min(values, each * (hidden + queries) * tokens + self.recomputed[1] * wide * tile)
        path = "fast" if spec.fast_path else spec.family if spec.family in self.scale else "generic"
        way = "framed" if setting.framed and way == "kept" else way
        return 2 * self.scale[path][way] * values * (1 if setting.checkpointing else shapes.layers)

    def unpacked_bytes(self, spec: ModelSpec) -> float:
        """Bytes of 4-bit weights that are unpacked to 16 bits at once; of a mixture, all experts of one layer."""
        largest = max(linear.inputs * linear.outputs for linear in spec.linears)
        return 2 * (self.unpacked * largest + spec.expert_params / spec.shapes.layers)


def parts_gib(spec: ModelSpec, setting: Setting, fitted: Constants | None = None) -> dict[str, float]:
    """The expected peak of a training step, part by part, in GiB. Their sum is comparable with torch's peak of reserved
    memory on a GPU (the CUDA context is not in it), and with the process's peak resident memory on a CPU. `fitted`: the
    constants to use, if not those in constants.json."""
    step = _step_gib(spec, setting, fitted or constants()) if setting.cuda else _step_gib_cpu(spec, setting)
    return resident_gib(spec, setting) | step


def peak_gib(parts: Mapping[str, float]) -> dict[str, float]:
    """The sum of the parts and its band: what stays is known well, what a step adds less so."""
    step = parts["activations"] + parts.get("loss", 0.0)
    resident = sum(parts.values()) - step
    band = {name: resident * stay + step * moving + flat for name, (stay, moving, flat) in _BAND.items()}
    return {name: round(size, 2) for name, size in (band | {"expected": resident + step}).items()}


def with_levers(spec: ModelSpec, setting: Setting) -> Setting:
    """The same with everything on that saves memory for long rows: a tied embedding is the head too, and stays."""
    return dataclasses.replace(setting, checkpointing=True, tiled_mlp=True, offload_embedding=not spec.shapes.tied)


def high_gib(spec: ModelSpec, setting: Setting) -> float:
    """The upper end of the predicted peak: what has to fit."""
    return peak_gib(parts_gib(spec, setting))["high"]


def resident_gib(spec: ModelSpec, setting: Setting) -> dict[str, float]:
    """What stays from the first step to the last."""
    lora = spec.lora_params(setting.lora_r)
    width = 4 if setting.precision == "fp32" and not setting.cuda else 2
    linear, experts = spec.linear_params * width, spec.expert_params * width
    if setting.quantisation == "4bit":
        whole = spec.linear_params * DYNAMIC_SHARE_IN_16BIT if spec.dynamic_4bit else 0
        whole = whole if setting.unquantised is None else setting.unquantised
        linear = whole * 2 + (spec.linear_params - whole) * NF4_BYTES
        experts = spec.expert_params * NF4_BYTES if setting.cuda else experts
    rest = (spec.params_total - spec.linear_params - spec.expert_params) * width
    if setting.offload_embedding:
        rest -= 0 if spec.shapes.tied else spec.shapes.vocab * spec.shapes.hidden * width
    parts = {
        "weights": linear / GIB,
        "experts": experts / GIB,
        "embeddings and head": rest / GIB,
        "LoRA weights": 4 * lora / GIB,
        "gradients": 4 * lora / GIB,
        "optimizer": (2 if setting.cuda and setting.optimizer == "adamw_8bit" else 8) * lora / GIB,
    }
    parts["step buffers" if setting.cuda else "Python and libraries"] = (
        STEP_BUFFERS_GIB if setting.cuda else _PROCESS_RAM_GIB
    )
    return {name: size for name, size in parts.items() if size}


def answering_gib(spec: ModelSpec, setting: Setting, tokens: int) -> float:
    """The peak of answering one prompt of so many tokens, in GiB: weights, the keys and values of every layer, and one
    layer at work. Arithmetic, not fitted: no such peak has been measured."""
    shapes, width = spec.shapes, 2 if setting.cuda else 4
    resident = resident_gib(spec, setting)
    stays = sum(size for name, size in resident.items() if name not in ("gradients", "optimizer"))
    kept = 2 * shapes.layers * shapes.kv_heads * shapes.head_dim
    wide = shapes.experts_per_token * shapes.expert_intermediate if shapes.experts else shapes.intermediate
    return stays + width * tokens * (kept + 4 * shapes.hidden + 3 * wide) / GIB


def _step_gib(spec: ModelSpec, setting: Setting, fitted: Constants) -> dict[str, float]:
    """What a forward and backward pass adds on a GPU."""
    activations = fitted.layers_bytes(spec, setting) / GIB
    loss = setting.supervised * spec.shapes.vocab * fitted.logit_bytes.get(spec.family, 0.0) / GIB
    if setting.framed:  # engine/head.py: some logits at a time, in fp32 and in 16 bits
        loss = 6 * min(setting.supervised * spec.shapes.vocab, LOGITS_AT_A_TIME) / GIB
    # a recomputed layer is not alive when the loss is, so only what the loss takes beyond it adds to the peak
    loss = max(0.0, loss - activations) if setting.checkpointing else loss
    unpacked = fitted.unpacked_bytes(spec) / GIB if setting.quantisation == "4bit" else 0.0
    passing = unpacked + _kernel_bytes(spec, setting) / GIB
    return {"activations": activations + passing + fitted.flat_gib} | ({"loss": loss} if loss else {})


def _kernel_bytes(spec: ModelSpec, setting: Setting) -> int:
    """What attention of framed rows takes besides on cards that are older than FlashAttention 2 (those without bf16):
    keys and values for every head, and on the way back an fp32 gradient of queries in which each sequence has room for
    the longest (kernel_backward.h of PyTorch 2.11, engine/kernels.py). As if of one prefix: several take a little more.
    Arithmetic: no such card was measured."""
    if not setting.framed or setting.precision == "bf16":
        return 0
    ahead, own = setting.parts
    longest = 1 << max(7, (setting.row_tokens - setting.prefix_tokens - 1).bit_length())
    sequences = -(-setting.micro_batch // 8) * 8 + 1  # one more for what is filling (engine/frame.py)
    room = max(sequences * min(longest, own), 2 * max(ahead, own) if ahead else 0)
    return 4 * spec.shapes.heads * -(-spec.shapes.head_dim // 64) * 64 * (room + own)


def _step_gib_cpu(spec: ModelSpec, setting: Setting) -> dict[str, float]:
    shapes, tokens = spec.shapes, setting.tokens
    of_hidden, of_wide = _KEPT_CPU[setting.checkpointing]
    values = (of_hidden * shapes.hidden + of_wide * shapes.intermediate) * shapes.layers * tokens
    if setting.parts[0] and not setting.checkpointing:  # suffixes are laid side by side for their attention
        values += 3 * shapes.heads * shapes.head_dim * shapes.layers * setting.parts[1]
    return {"activations": values * 4 / GIB, "loss": setting.supervised * shapes.vocab * _LOSS_BYTES_CPU / GIB}


@cache
def constants() -> Constants:
    """The fitted constants, from constants.json."""
    document = json.loads(Path(__file__).with_name("constants.json").read_text(encoding="utf-8"))
    return Constants(**document)
