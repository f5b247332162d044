"""How long and for how much: what a training step takes, from what it computes, moves and starts.

A LoRA step multiplies every active weight once forward and once backward (for its input's gradient; a frozen weight has
none of its own), and once more where checkpointing computes a layer again: 2 operations each. Attention adds its share
with the length of a row. Narrow products reach less of a card's rate than wide ones. Besides, a layer's values are
moved through memory once for each kernel that is no product, and 4-bit weights are unpacked into it. All that is the
card's time. Python needs time too, to start a layer's kernels, however little they have to do: a step takes the longer
of the two, but for rows that are captured as graphs, which start by themselves.

The constants are fitted to steps that were timed on one card (pacing.py): for others it is an estimate from their data
sheets, said as a range.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from slimtune.gpus import GpuSpec
from slimtune.models import ModelSpec
from slimtune.plan.memory import NF4_BYTES, Setting, in_frame

_TILED = 1.15  # times as long, for the tiles of a layer are computed once more; not fitted
_FP32_PENALTY = 4.0  # a family that has to compute in fp32 leaves the tensor cores idle
_ADAM_8BIT_S = 5e-5  # a weight: a kernel for each, and Python before it; not fitted
HOST = (2.0, 1.0)  # how much longer than measured Python may need elsewhere: slow end, fast end
_ELSEWHERE = (0.75, 1.25)  # of what is predicted, on cards that nothing was timed on


@dataclass(frozen=True)
class Paces:
    """What was fitted. `products`: the share of a data sheet's half-precision rate that wide products reach, and the
    width at which half of that is left; `moved`: hidden- and intermediate-sized values that a layer moves a token;
    `unpacked`: times a 4-bit weight's bytes, packed and unpacked, pass through memory a pass; `launch_s`: seconds that
    Python needs for a layer's kernels in a step, by the weights; `again`: times as long with checkpointing, which
    computes a layer twice and moves its inputs to the host; `graph_s`: what is left of that in a graph;
    `card`: the one they were timed on; `band`: between which shares of what is predicted lie nine in ten of the steps
    that were not used in fitting; `held_out`: how many they are and how far off."""

    products: tuple[float, float]
    moved: Mapping[str, float]
    unpacked: float
    launch_s: Mapping[str, float]
    again: float
    graph_s: float
    card: str
    band: tuple[float, float]
    held_out: Mapping[str, float]


@dataclass(frozen=True)
class Speed:
    """A range: the first number of each pair is the slow end. `usd` is None where the card's price is not known."""

    examples_per_s: tuple[float, float]
    hours: tuple[float, float]
    usd: tuple[float, float] | None


def estimate_speed(
    spec: ModelSpec, setting: Setting, gpu: GpuSpec, *, examples: float, row_tokens_mean: float, accumulation: int = 1
) -> Speed:
    """Examples a second, hours and dollars for training on `examples` rows (each epoch counts) of that mean length."""
    paces = paces_here()
    elsewhere = (1.0, 1.0) if gpu.name == paces.card else _ELSEWHERE
    slow, fast = (
        share * other / example_s(spec, setting, gpu, row_tokens_mean, accumulation=accumulation, host=host)
        for share, other, host in zip(paces.band, elsewhere, HOST, strict=True)
    )
    hours = (examples / slow / 3600, examples / fast / 3600)
    price = gpu.hourly_usd
    return Speed((slow, fast), hours, None if price is None else (hours[0] * price, hours[1] * price))


def example_s(
    spec: ModelSpec,
    setting: Setting,
    gpu: GpuSpec,
    row_tokens: float,
    *,
    accumulation: int = 1,
    host: float = 1.0,
    paces: Paces | None = None,
) -> float:
    """Seconds an example is expected to take, rows being so long on average; the optimizer's step in it. `host`: how
    many times as long as measured Python needs."""
    paces = paces or paces_here()
    launches, device = (
        spec.shapes.layers * launch_s(spec, setting, paces), device_s(spec, setting, gpu, row_tokens, paces)
    )  # fmt: skip
    micro = device + launches if is_replayed(spec, setting) else max(host * launches, device)
    return (micro + optimizer_s(spec, setting, gpu) / accumulation) / setting.micro_batch


def launch_s(spec: ModelSpec, setting: Setting, paces: Paces) -> float:
    """Seconds that Python needs to start a layer's kernels, forward and backward."""
    if is_replayed(spec, setting):
        return paces.graph_s
    return paces.launch_s[setting.quantisation] * (paces.again if setting.checkpointing else 1.0)


def is_replayed(spec: ModelSpec, setting: Setting) -> bool:
    """Whether steps are captured as graphs (engine/replay.py); a mixture's cannot be."""
    return setting.framed and not setting.checkpointing and not spec.shapes.experts


def device_s(spec: ModelSpec, setting: Setting, gpu: GpuSpec, row_tokens: float, paces: Paces) -> float:
    """Seconds that the card is busy with one micro-batch."""
    shapes = spec.shapes
    prefix = min(setting.prefix_tokens, row_tokens - 1)
    alike = prefix, setting.micro_batch * (row_tokens - prefix)
    ahead, own = setting.together.usual if setting.together else alike
    tokens = sum(in_frame(int(ahead), math.ceil(own))) if setting.framed else ahead + own
    experts = spec.expert_params * shapes.experts_per_token / shapes.experts if shapes.experts else 0.0
    lora = 1.5 * spec.lora_params(setting.lora_r)  # these have a gradient of their own
    passes = 3 if setting.checkpointing else 2
    heads = shapes.vocab * shapes.hidden * setting.supervised * 2  # no layer: never computed again
    work = 2 * tokens * passes * (spec.linear_params + experts + lora) + 2 * heads
    work += 2 * tokens * passes * shapes.layers * shapes.heads * shapes.head_dim * row_tokens
    share, width = paces.products
    rate = gpu.half_tflops * 1e12 * share * shapes.hidden / (shapes.hidden + width)
    rate /= _FP32_PENALTY if setting.precision == "fp32" else 1.0
    wide = shapes.experts_per_token * shapes.expert_intermediate if shapes.experts else shapes.intermediate
    values = paces.moved["framed" if setting.framed else "compiled"]
    moved = 2 * tokens * passes * shapes.layers * values * (shapes.hidden + wide)
    if setting.quantisation == "4bit":
        moved += passes * paces.unpacked * (NF4_BYTES + 2) * (spec.linear_params + spec.expert_params)
    return (work / rate + moved / (gpu.bandwidth_gb_s * 1e9)) * (_TILED if setting.tiled_mlp else 1.0)


def optimizer_s(spec: ModelSpec, setting: Setting, gpu: GpuSpec) -> float:
    """Seconds of Adam's step: weight, gradient and two moments are read, three of them written."""
    if setting.optimizer == "adamw_8bit":
        return 2 * _ADAM_8BIT_S * sum(linear.count for linear in spec.linears)
    return 7 * 4 * spec.lora_params(setting.lora_r) / (gpu.bandwidth_gb_s * 1e9)


@cache
def paces_here() -> Paces:
    """The fitted constants, from paces.json."""
    return Paces(**json.loads(Path(__file__).with_name("paces.json").read_text(encoding="utf-8")))
