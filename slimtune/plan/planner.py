"""From a model, a card and a recipe's numbers to settings: the fastest that fit, with what fits said and why.

Measured on an H100 with SmolLM2-135M, 16-bit weights without checkpointing trained 6.7 times as many tokens a second
as the usual 4-bit with checkpointing: small models should not pay for settings made for big ones. So the order is:
16-bit before 4-bit, no checkpointing before it, the largest micro-batch. What costs time comes last; Adam's moments are
in 8 bits where 32 do not fit beside all that.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from slimtune.errors import UserError
from slimtune.gpus import DetectedGpu, GpuSpec
from slimtune.models import ModelSpec
from slimtune.plan.collation import choose_collation, is_framed
from slimtune.plan.memory import GIB, Setting, high_gib, parts_gib, peak_gib, with_levers
from slimtune.plan.quantised import left_in_16bit
from slimtune.plan.reasons import chosen_words, refusal

Quantisation = Literal["4bit", "16bit", "auto"]
_BUSY_TOKENS = 2048  # a micro-batch below this leaves a card waiting: prefer the next setting
_ENOUGH_TOKENS = {True: 32768, False: 4096}  # of a card, of a CPU: above it a larger micro-batch only takes memory


@dataclass(frozen=True)
class Plan:
    """What will run. `peak_gib` has low, expected and high; on a GPU it is torch's reserved memory, without the CUDA
    context (`room_gib` leaves that out too); on a CPU it is the process's resident memory."""

    model: str
    gpu: str | None  # None: the CPU
    quantisation: str
    precision: str
    checkpointing: bool
    tiled_mlp: bool
    offload_embedding: bool
    optimizer: str
    collation: str
    batch: int
    micro_batch: int
    accumulation: int
    context_tokens: int
    longest_row_tokens: int
    longest_answer_tokens: int | None  # None: every token is supervised
    prefix_tokens: int  # of the beginning that all rows share, where it is computed once
    lora_r: int
    unquantised: int | None  # linear weights that files in 4-bit hold in 16-bit; None: not known, or not such files
    steps: int
    train_tokens: int | None  # over all epochs, padding left out
    parts_gib: Mapping[str, float]
    peak_gib: Mapping[str, float]
    room_gib: float
    fits: bool
    notes: tuple[str, ...]

    @property
    def setting(self) -> Setting:
        """What memory and speed depend on."""
        return Setting(
            self.quantisation, self.precision, self.checkpointing, self.micro_batch, self.longest_row_tokens,
            self.lora_r, cuda=self.gpu is not None, answer_tokens=self.longest_answer_tokens, tiled_mlp=self.tiled_mlp,
            offload_embedding=self.offload_embedding, unquantised=self.unquantised, prefix_tokens=self.prefix_tokens,
            optimizer=self.optimizer, framed=is_framed(self.collation, self.gpu),
        )  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"notes": list(self.notes)}


def make_plan(
    spec: ModelSpec,
    *,
    gpu: GpuSpec | DetectedGpu | None,
    lora_r: int,
    context_tokens: int,
    batch: int,
    rows: int,
    epochs: float,
    micro_batch: int | None = None,
    quantisation: Quantisation = "auto",
    longest_row_tokens: int | None = None,
    longest_answer_tokens: int | None = None,
    row_tokens_mean: float | None = None,
    collation: str = "auto",
    prefix_tokens: int = 0,
    ram_gib: float | None = None,
) -> Plan:
    """The fastest setting that is predicted to fit, keeping the effective `batch`.

    `gpu` None means the CPU; `ram_gib` is what it may fill (default: three quarters of this machine's RAM, or of its
    container's). Without `longest_answer_tokens` every token counts as supervised. A number for `micro_batch`, "4bit"
    or "16bit", or a `collation` that is not "auto" pins that choice. Raises UserError where nothing fits, with what
    would.
    """
    if micro_batch is not None and (micro_batch < 1 or batch % micro_batch):
        raise UserError(f"train.micro_batch is {micro_batch}, which does not divide train.batch ({batch}).")
    if (unquantised := left_in_16bit(spec)) is not None:
        if quantisation == "16bit":
            raise UserError(f"{spec.label} comes in 4-bit. Set train.quantisation to 4bit, or name the 16-bit model.")
        quantisation = "4bit"
    longest = min(longest_row_tokens or context_tokens, context_tokens)
    room_gib = gpu.usable_gib if gpu else _ram_gib() if ram_gib is None else ram_gib
    collation = choose_collation(spec, asked=collation, cuda=gpu is not None, prefix_tokens=prefix_tokens)
    sizes = [micro_batch] if micro_batch else powers_of_two_dividing(batch)
    smallest = Setting(
        "4bit" if gpu and quantisation != "16bit" else "16bit", choose_precision(spec, gpu), gpu is not None,
        micro_batch=min(sizes), row_tokens=longest, lora_r=lora_r, cuda=gpu is not None,
        answer_tokens=longest_answer_tokens, unquantised=unquantised,
        prefix_tokens=min(prefix_tokens, longest - 1) if collation == "shared-prefix" else 0,
        optimizer="adamw_8bit" if gpu else "adamw",
        framed=is_framed(collation, gpu),
    )  # fmt: skip
    if (chosen := _fastest(spec, smallest, quantisation, sizes, room_gib)) is None:
        raise refusal(spec, smallest, gpu, room_gib)
    notes = chosen_words(spec, chosen, gpu, quantisation, collation)
    return _plan(
        spec, chosen, gpu, room_gib, batch=batch, examples=rows * epochs, row_tokens_mean=row_tokens_mean,
        context_tokens=context_tokens, collation=collation, notes=notes,
    )  # fmt: skip


def _plan(
    spec: ModelSpec,
    chosen: Setting,
    gpu: GpuSpec | DetectedGpu | None,
    room_gib: float,
    *,
    batch: int,
    examples: float,
    row_tokens_mean: float | None,
    context_tokens: int,
    collation: str,
    notes: list[str],
) -> Plan:
    """What was chosen, with its prediction spelled out. `examples` counts a row once for each epoch."""
    parts = parts_gib(spec, chosen)
    return Plan(
        model=spec.key,
        gpu=gpu.name if gpu else None,
        quantisation=chosen.quantisation,
        precision=chosen.precision,
        checkpointing=chosen.checkpointing,
        tiled_mlp=chosen.tiled_mlp,
        offload_embedding=chosen.offload_embedding,
        optimizer=chosen.optimizer,
        collation=collation,
        batch=batch,
        micro_batch=chosen.micro_batch,
        accumulation=batch // chosen.micro_batch,
        context_tokens=context_tokens,
        longest_row_tokens=chosen.row_tokens,
        longest_answer_tokens=chosen.answer_tokens,
        prefix_tokens=chosen.prefix_tokens,
        lora_r=chosen.lora_r,
        unquantised=chosen.unquantised,
        steps=math.ceil(examples / batch),
        train_tokens=None if row_tokens_mean is None else round(examples * min(row_tokens_mean, chosen.row_tokens)),
        parts_gib={name: round(size, 3) for name, size in parts.items()},
        peak_gib=peak_gib(parts),
        room_gib=round(room_gib, 2),
        fits=True,
        notes=tuple(notes),
    )


def choose_precision(spec: ModelSpec, gpu: GpuSpec | DetectedGpu | None) -> str:
    """bf16 where the card has it, else fp16; fp32 on a CPU and for families that overflow in fp16."""
    if gpu is None:
        return "fp32"
    if gpu.bf16:
        return "bf16"
    return "fp16" if spec.fp16_ok else "fp32"


def powers_of_two_dividing(batch: int) -> list[int]:
    """Micro-batch sizes, largest first: 12 -> [4, 2, 1]."""
    return [2**power for power in range(batch.bit_length() - 1, -1, -1) if batch % 2**power == 0]


def _fastest(
    spec: ModelSpec, smallest: Setting, quantisation: Quantisation, sizes: list[int], room_gib: float
) -> Setting | None:
    """The first way whose largest fitting micro-batch keeps the device busy; failing that, the first that fits."""
    fitting = []
    for way in _ways(spec, smallest, quantisation):
        candidates = [
            dataclasses.replace(way, micro_batch=size)
            for size in sizes
            if size == min(sizes) or dataclasses.replace(way, micro_batch=size).tokens <= _ENOUGH_TOKENS[way.cuda]
        ]
        fitting += [candidate for candidate in candidates if high_gib(spec, candidate) <= room_gib][:1]
    busy_tokens = min(_BUSY_TOKENS, dataclasses.replace(smallest, micro_batch=max(sizes)).tokens)
    busy = [candidate for candidate in fitting if candidate.tokens >= busy_tokens]
    chosen = next(iter(busy or fitting), None)
    whole = chosen and dataclasses.replace(chosen, optimizer="adamw")
    # one kernel for all weights, where 8-bit Adam starts one for each
    return whole if whole and high_gib(spec, whole) <= room_gib else chosen


def _ways(spec: ModelSpec, smallest: Setting, quantisation: Quantisation) -> list[Setting]:
    """What to try, fastest first."""
    if not smallest.cuda:
        return [dataclasses.replace(smallest, quantisation="16bit", checkpointing=again) for again in (False, True)]
    quantised = ["16bit", "4bit"] if quantisation == "auto" else [quantisation]
    ways = [
        dataclasses.replace(smallest, quantisation=weights, checkpointing=checkpointing)
        for weights in quantised
        for checkpointing in (False, True)
    ]
    return [*ways, with_levers(spec, ways[-1])]


def _ram_gib() -> float:
    """Of all RAM, not of what is free now: the same command must plan the same when it is run again."""
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    total = psutil.virtual_memory().total
    return 0.75 * min(total, total if text == "max" else int(text)) / GIB
