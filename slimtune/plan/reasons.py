"""What a plan says of itself: what was chosen and why, or why nothing fits and what would help."""

import dataclasses

from slimtune.errors import DoesNotFit
from slimtune.gpus import DetectedGpu, GpuSpec
from slimtune.models import ModelSpec
from slimtune.plan.fastest import Candidate
from slimtune.plan.memory import Setting, high_gib, with_levers
from slimtune.wording import counted


def chosen_words(spec: ModelSpec, candidate: Candidate, gpu: GpuSpec | DetectedGpu | None, asked: str) -> list[str]:
    """What was chosen and why, a sentence each."""
    chosen = candidate.setting
    notes = [spec.note[0].upper() + spec.note[1:] + "."] if spec.note else []
    if gpu is None:
        how = f"in fp32 and with{'' if chosen.checkpointing else 'out'} checkpointing"
        notes.append(f"No GPU: training runs on the CPU, {how}. The memory meant is RAM.")
        if asked == "4bit":
            notes.append("4-bit weights are for GPUs; here they are 16-bit weights held in fp32.")
    else:
        notes += _card_notes(spec, chosen, gpu, asked)
    answers = f", answers up to {chosen.answer_tokens}," if chosen.answer_tokens else ""
    notes.append(f"{counted(chosen.micro_batch, 'row')} of up to {chosen.row_tokens} tokens{answers} at a time.")
    if candidate.collation == "shared-prefix":
        most = f", up to {sum(chosen.together.largest):,} tokens at a time" if chosen.together else ""
        notes.append(f"What prompts share is computed once{most}: {chosen.prefix_tokens} of all, and more of some.")
    return notes


def _card_notes(spec: ModelSpec, chosen: Setting, gpu: GpuSpec | DetectedGpu, asked: str) -> list[str]:
    notes = []
    if chosen.precision == "fp16":
        notes.append(f"{gpu.name} has no bf16: fp16, whose first steps may be skipped while the loss scale settles.")
    if chosen.precision == "fp32":
        notes.append(f"{gpu.name} has no bf16 and {spec.label} overflows in fp16: fp32, which is slower and larger.")
    if chosen.quantisation == "4bit":
        why = "as asked" if asked == "4bit" else "16-bit weights do not fit, or are slower in what fits"
        kind = "Unsloth's dynamic 4-bit" if spec.dynamic_4bit else "plain NF4, quantised while loading"
        notes.append(f"4-bit weights ({kind}): {why}.")
    else:
        why = "as asked" if asked == "16bit" else "they fit, and train as fast as 4-bit or faster"
        notes.append(f"16-bit weights: {why}.")
    if chosen.optimizer == "adamw_8bit":
        notes.append("8-bit Adam: its moments in 32 bits leave too little room.")
    if chosen.tiled_mlp:
        offloaded = ", and the input embedding in host memory" if chosen.offload_embedding else ""
        notes.append(f"Gradient checkpointing, the MLP in tiles{offloaded}: nothing faster fits rows this long.")
    elif chosen.checkpointing:
        notes.append("Gradient checkpointing: without it, what fits is slower.")
    else:
        notes.append("No gradient checkpointing: it fits without, and trains faster.")
    return notes


def refusal(spec: ModelSpec, smallest: Setting, gpu: GpuSpec | DetectedGpu | None, room_gib: float) -> DoesNotFit:
    """What the smallest setting needs, what there is, and the knobs that help, each with its number."""

    def needs(setting: Setting) -> str:
        return f"{high_gib(spec, setting):.1f} GiB"

    where = f"{gpu.name if gpu else 'this machine (RAM)'} has {room_gib:.1f} GiB to fill"
    smallest = with_levers(spec, smallest) if gpu else smallest
    half = smallest.row_tokens // 2
    shorter = dataclasses.replace(smallest, row_tokens=half, prefix_tokens=min(smallest.prefix_tokens, half - 1))
    knobs = [f"context {half}: {needs(shorter)}"] if half >= 128 else []
    if smallest.lora_r > 8:
        knobs.append(f"lora.r 8: {needs(dataclasses.replace(smallest, lora_r=8))}")
    if gpu and smallest.quantisation == "16bit":
        knobs.append(f"quantisation 4bit: {needs(dataclasses.replace(smallest, quantisation='4bit'))}")
    if smallest.micro_batch > 1:
        knobs.append(f"micro_batch 1: {needs(dataclasses.replace(smallest, micro_batch=1))}")
    already = " with 4-bit weights" if smallest.quantisation == "4bit" else ""
    return DoesNotFit(
        f"{spec.label} does not fit: it needs up to {needs(smallest)}{already}, "
        f"{smallest.micro_batch} row(s) of {smallest.row_tokens} tokens at a time and lora.r {smallest.lora_r}, "
        f"and {where}. What would help: {'; '.join(knobs)}; or a smaller model or a larger card."
    )
