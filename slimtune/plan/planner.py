"""From a model, a card and a recipe's numbers to settings: the fastest that fit (fastest.py), and why these."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from slimtune.errors import UserError
from slimtune.gpus import DetectedGpu, GpuSpec
from slimtune.models import ModelSpec
from slimtune.plan.batch import trained_on
from slimtune.plan.collation import is_framed, possible_layouts
from slimtune.plan.fastest import Alternative, Candidate, alternatives, candidates, fastest
from slimtune.plan.memory import GIB, Setting, Together, parts_gib, peak_gib
from slimtune.plan.quantised import left_in_16bit
from slimtune.plan.reasons import chosen_words, refusal

Quantisation = Literal["4bit", "16bit", "auto"]


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
    together: Together | None  # what micro-batches are; None: all rows are taken for the longest
    lora_r: int
    unquantised: int | None  # linear weights that files in 4-bit hold in 16-bit; None: not known, or not such files
    steps: int
    train_tokens: int | None  # over all epochs, padding left out
    parts_gib: Mapping[str, float]
    peak_gib: Mapping[str, float]
    room_gib: float
    fits: bool
    alternatives: tuple[Alternative, ...]
    notes: tuple[str, ...]

    @property
    def setting(self) -> Setting:
        """What memory and speed depend on."""
        return Setting(
            self.quantisation, self.precision, self.checkpointing, self.micro_batch, self.longest_row_tokens,
            self.lora_r, cuda=self.gpu is not None, answer_tokens=self.longest_answer_tokens, tiled_mlp=self.tiled_mlp,
            offload_embedding=self.offload_embedding, unquantised=self.unquantised, prefix_tokens=self.prefix_tokens,
            together=self.together,
            optimizer=self.optimizer, framed=is_framed(self.collation, self.gpu),
        )  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        listed = {"notes": list(self.notes), "alternatives": [dataclasses.asdict(one) for one in self.alternatives]}
        if self.together:
            listed["together"] = {name: list(tokens) for name, tokens in vars(self.together).items()}
        return dataclasses.asdict(self) | listed


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
    asked: Quantisation | None = None,
    longest_row_tokens: int | None = None,
    longest_answer_tokens: int | None = None,
    row_tokens_mean: float | None = None,
    together: Callable[[int], Together] | None = None,
    collation: str = "auto",
    prefix_tokens: int = 0,
    ram_gib: float | None = None,
) -> Plan:
    """The fastest setting that is predicted to fit, keeping the effective `batch`.

    `gpu` None means the CPU; `ram_gib` is what it may fill (default: three quarters of this machine's RAM, or of its
    container's). `together`: what micro-batches of a size are, where rows are known. Without `longest_answer_tokens`
    every token counts as supervised. A number for `micro_batch`, "4bit" or "16bit", or a `collation` that is not "auto"
    pins that choice; `asked` is what the user said of the weights, where `quantisation` is what a run began with.
    Raises UserError where nothing fits, with what would.
    """
    sizes, weights = _sizes(batch, micro_batch), _weights(spec, gpu, quantisation)
    longest = min(longest_row_tokens or context_tokens, context_tokens)
    room_gib = gpu.usable_gib if gpu else _ram_gib() if ram_gib is None else ram_gib
    precision = choose_precision(spec, gpu)
    layouts = possible_layouts(spec, asked=collation, precision=precision, cuda=gpu is not None)
    smallest = Setting(
        weights[-1], precision, gpu is not None, min(sizes), longest, lora_r, cuda=gpu is not None,
        answer_tokens=longest_answer_tokens, unquantised=left_in_16bit(spec),
        prefix_tokens=min(prefix_tokens, longest - 1) if "shared-prefix" in layouts else 0,
        optimizer="adamw_8bit" if gpu else "adamw", framed="shared-prefix" in layouts and gpu is not None,
    )  # fmt: skip
    found = candidates(
        spec, smallest, gpu, layouts=layouts, weights=weights, sizes=sizes, together=together,
        row_tokens=row_tokens_mean or longest, batch=batch, room_gib=room_gib,
    )  # fmt: skip
    if (chosen := fastest(found, room_gib)) is None:
        raise refusal(spec, min(found, key=lambda one: one.needs_gib), gpu, room_gib, together)
    notes = chosen_words(spec, chosen, gpu, (asked or quantisation) if left_in_16bit(spec) is None else "4bit")
    return _plan(
        spec, chosen, gpu, room_gib, batch=batch, examples=trained_on(rows, epochs), row_tokens_mean=row_tokens_mean,
        context_tokens=context_tokens, others=alternatives(found, chosen, room_gib), notes=notes,
    )  # fmt: skip


def _sizes(batch: int, micro_batch: int | None) -> list[int]:
    """Of micro-batches, the smallest last."""
    if micro_batch is None:
        return powers_of_two_dividing(batch)
    if micro_batch < 1 or batch % micro_batch:
        raise UserError(f"train.micro_batch is {micro_batch}, which does not divide train.batch ({batch}).")
    return [micro_batch]


def _weights(spec: ModelSpec, gpu: GpuSpec | DetectedGpu | None, asked: Quantisation) -> list[str]:
    """Kinds to choose from, what takes least memory last."""
    if left_in_16bit(spec) is not None:
        if asked == "16bit":
            raise UserError(f"{spec.label} comes in 4-bit. Set train.quantisation to 4bit, or name the 16-bit model.")
        asked = "4bit"
    return ["16bit"] if gpu is None else ["16bit", "4bit"] if asked == "auto" else [asked]


def _plan(
    spec: ModelSpec,
    candidate: Candidate,
    gpu: GpuSpec | DetectedGpu | None,
    room_gib: float,
    *,
    batch: int,
    examples: float,
    row_tokens_mean: float | None,
    context_tokens: int,
    others: tuple[Alternative, ...],
    notes: list[str],
) -> Plan:
    """What was chosen, with its prediction spelled out. `examples` counts a row once for each epoch."""
    chosen = candidate.setting
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
        collation=candidate.collation,
        batch=batch,
        micro_batch=chosen.micro_batch,
        accumulation=batch // chosen.micro_batch,
        context_tokens=context_tokens,
        longest_row_tokens=chosen.row_tokens,
        longest_answer_tokens=chosen.answer_tokens,
        prefix_tokens=chosen.prefix_tokens,
        together=chosen.together,
        lora_r=chosen.lora_r,
        unquantised=chosen.unquantised,
        steps=math.ceil(examples / batch),
        train_tokens=None if row_tokens_mean is None else round(examples * min(row_tokens_mean, chosen.row_tokens)),
        parts_gib={name: round(size, 3) for name, size in parts.items()},
        peak_gib=peak_gib(parts),
        room_gib=round(room_gib, 2),
        fits=True,
        alternatives=others,
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


def _ram_gib() -> float:
    """Of all RAM, not of what is free now: the same command must plan the same when it is run again."""
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    total = psutil.virtual_memory().total
    return 0.75 * min(total, total if text == "max" else int(text)) / GIB
