"""How long and for how much: a roofline, low to high, estimated and not measured on the card.

A LoRA step multiplies every active weight once forward and once backward (for its input's gradient; a frozen weight has
none of its own), and once more where checkpointing computes a layer again: 2 operations each. Attention adds its share
with the length of a row. Between what a card's tensor cores could do and what a training step gets out of them lies a
factor that was seen from 0.05 (a small model in 4-bit, bound by launches) to 0.46 (Qwen3-8B in 4-bit, bf16) on an H100.
A layer's kernels need time to start however little they have to do: that bounds small models from above.
"""

from dataclasses import dataclass

from slimtune.gpus import GpuSpec
from slimtune.models import ModelSpec
from slimtune.plan.memory import Setting

_UTILISATION = (0.10, 0.50)  # share of the data sheet's dense half-precision rate: slow, fast
LAUNCH_S = {False: (4e-3, 0.8e-3), True: (14e-3, 2e-3)}  # a layer and step, 16-bit and 4-bit: slow, fast
_FP32_PENALTY = 4.0  # a family that has to compute in fp32 leaves the tensor cores idle


@dataclass(frozen=True)
class Speed:
    """A range: the first number of each pair is the slow end. `usd` is None where the card's price is not known."""

    examples_per_s: tuple[float, float]
    hours: tuple[float, float]
    usd: tuple[float, float] | None


def estimate_speed(
    spec: ModelSpec, setting: Setting, gpu: GpuSpec, *, examples: float, row_tokens_mean: float
) -> Speed:
    """Examples a second, hours and dollars for training on `examples` rows (each epoch counts) of that mean length."""
    slow, fast = (_rows_per_s(spec, setting, gpu, row_tokens_mean, end) for end in (0, 1))
    hours = (examples / slow / 3600, examples / fast / 3600)
    price = gpu.hourly_usd
    return Speed((slow, fast), hours, None if price is None else (hours[0] * price, hours[1] * price))


def _rows_per_s(spec: ModelSpec, setting: Setting, gpu: GpuSpec, row_tokens: float, end: int) -> float:
    shapes = spec.shapes
    active = spec.linear_params + shapes.vocab * shapes.hidden * setting.supervised / setting.tokens
    if shapes.experts:
        active += spec.expert_params * shapes.experts_per_token / shapes.experts
    passes = 6 if setting.checkpointing else 4
    attention = passes * shapes.layers * shapes.heads * shapes.head_dim * row_tokens
    computed = setting.prefix_tokens + setting.micro_batch * max(row_tokens - setting.prefix_tokens, 1.0)
    work = computed * (passes * active + attention)
    penalty = _FP32_PENALTY if setting.precision == "fp32" else 1.0
    arithmetic = work * penalty / (gpu.half_tflops * 1e12 * _UTILISATION[end])
    launches = shapes.layers * LAUNCH_S[setting.quantisation == "4bit"][end]
    return setting.micro_batch / max(arithmetic, launches)
