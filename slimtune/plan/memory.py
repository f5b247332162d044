"""How much memory a LoRA training step takes: arithmetic on a model's shape, in GiB. No torch, no download.

What is counted, and where the constants come from:

- Weights. Linear layers at 0.516 bytes a weight in 4-bit (NF4, an 8-bit scale per 64 weights, a second scale per 256
  of those; a dynamic 4-bit repository keeps some layers in 16-bit, 10% more), 2 in 16-bit, 4 in fp32. Embeddings and
  head are never quantised. LoRA weights and their gradients are fp32; Adam's two moments take 1 byte each on a GPU
  (8-bit Adam), 4 on a CPU.
- Activations. Unsloth's checkpointing keeps the layer inputs in host memory, so the card holds one layer being
  recomputed: `_RECOMPUTED` values a token. Without it every layer keeps `_KEPT` values a token. Both were fitted to
  measured peaks of SmolLM2-135M, Qwen3-8B, Qwen3-14B and Llama-3.1-8B on an H100, `_KEPT_CPU` to SmolLM2-135M in fp32
  on a CPU (tests/test_plan.py holds the rows and the errors).
- Loss. Unsloth computes logits in chunks: it allots 16 bytes a logit, min(4 GiB, half of the free memory) at a time, in
  multiples of four chunks; 5 bytes a logit are what was seen to be used.
- Tight cards. Unsloth moves an untied input embedding to host memory where the card lacks the reserve it wants
  (`offload_embedding="auto"`, unsloth 2026.10.9).
"""

import math
from dataclasses import dataclass

from slimtune.models import ModelSpec

GIB = 2**30
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
_DYNAMIC_EXTRA = 1.10
_RECOMPUTED = (16, 6)  # hidden-sized and intermediate-sized values a token: one layer, forward and backward
_KEPT = (5, 3)  # the same, a token and layer, kept from forward to backward by Unsloth's fused kernels
_KEPT_CPU = (15, 9)  # the same without those kernels
_LOSS_BYTES_ALLOTTED, _LOSS_BYTES_USED, _LOSS_TARGET_GIB = 16, 5, 4.0
_LOSS_BYTES_CPU = 12  # logits, their softmax and their gradient, all at once
_PROCESS_RAM_GIB = 0.52  # Python with torch, transformers and Unsloth imported, on a CPU


@dataclass(frozen=True)
class Setting:
    """The choices that decide memory. `row_tokens`: the longest row, which every row of a micro-batch is padded to."""

    quantisation: str  # "4bit" | "16bit"
    precision: str  # "bf16" | "fp16" | "fp32"
    checkpointing: bool
    micro_batch: int
    row_tokens: int
    context_tokens: int
    lora_r: int
    cuda: bool


def parts_gib(spec: ModelSpec, setting: Setting, *, room_gib: float) -> dict[str, float]:
    """The expected peak of a training step, part by part, in GiB. Their sum is comparable with torch's peak of reserved
    memory on a GPU (the CUDA context is not in it), and with the process's peak resident memory on a CPU.

    `room_gib` is what the process may fill: Unsloth sizes the loss's chunks, and decides on offloading, by it.
    """
    parts = _resident_gib(spec, setting)
    if setting.cuda and not spec.shapes.tied and _is_tight(spec, setting, parts, room_gib):
        parts["embeddings and head"] /= 2
    free_gib = room_gib - sum(parts.values())
    parts["activations"] = activations_gib(spec, setting)
    loss = _loss_gib(spec, setting, free_gib)
    # a recomputed layer is not alive when the loss is, so only what the loss takes beyond it adds to the peak
    parts["loss"] = max(0.0, loss - parts["activations"]) if setting.checkpointing else loss
    return parts


def _resident_gib(spec: ModelSpec, setting: Setting) -> dict[str, float]:
    """What stays from the first step to the last."""
    lora = spec.lora_params(setting.lora_r)
    width = 4 if setting.precision == "fp32" and not setting.cuda else 2
    quantised = spec.linear_params * _NF4_BYTES * (_DYNAMIC_EXTRA if spec.dynamic_4bit else 1.0)
    weights = quantised if setting.quantisation == "4bit" else spec.linear_params * width
    parts = {
        "weights": weights / GIB,
        "embeddings and head": (spec.params_total - spec.linear_params) * width / GIB,
        "LoRA weights": 4 * lora / GIB,
        "gradients": 4 * lora / GIB,
        "optimizer": (2 if setting.cuda else 8) * lora / GIB,
    }
    if not setting.cuda:
        parts["Python and libraries"] = _PROCESS_RAM_GIB
    return parts


def activations_gib(spec: ModelSpec, setting: Setting) -> float:
    """What forward leaves for backward, and the buffer a 4-bit layer is unpacked into."""
    hidden, wide = spec.shapes.hidden, spec.shapes.intermediate
    factors = _RECOMPUTED if setting.checkpointing else _KEPT if setting.cuda else _KEPT_CPU
    values = (factors[0] * hidden + factors[1] * wide) * (1 if setting.checkpointing else spec.shapes.layers)
    tokens = setting.micro_batch * setting.row_tokens
    unpacked = max(linear.inputs * linear.outputs for linear in spec.linears) if setting.quantisation == "4bit" else 0
    return (values * tokens + unpacked) * (4 if setting.precision == "fp32" else 2) / GIB


def _loss_gib(spec: ModelSpec, setting: Setting, free_gib: float) -> float:
    """Logits and their gradient: one chunk at a time on a GPU."""
    logits = setting.micro_batch * setting.row_tokens * spec.shapes.vocab
    if not setting.cuda:
        return logits * _LOSS_BYTES_CPU / GIB
    target = min(_LOSS_TARGET_GIB, max(free_gib, 0.1) / 2)
    fill = logits * _LOSS_BYTES_ALLOTTED / GIB / target
    chunks = 1 if fill <= 1 else 4 * math.ceil(fill / 4)
    return logits / chunks * _LOSS_BYTES_USED / GIB


def _is_tight(spec: ModelSpec, setting: Setting, parts: dict[str, float], room_gib: float) -> bool:
    """Whether Unsloth, once the LoRA is attached, finds less room than the rough reserve it wants for a full row."""
    free_gib = room_gib - parts["weights"] - parts["embeddings and head"] - parts["LoRA weights"]
    activations = 48 * setting.context_tokens * spec.shapes.hidden
    logits = 4 * min(setting.context_tokens, 2048) * spec.shapes.vocab
    trainable = 16 * spec.lora_params(setting.lora_r)
    return free_gib < (activations + logits + trainable) * 17 / 16 / GIB + 0.25
