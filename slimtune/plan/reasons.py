"""What a plan says of itself: what was chosen and why, or why nothing fits and what would help."""

import dataclasses
from collections.abc import Callable

from slimtune.errors import DoesNotFit
from slimtune.gpus import DetectedGpu, GpuSpec
from slimtune.models import ModelSpec
from slimtune.plan.fastest import Candidate
from slimtune.plan.longest import longest_row
from slimtune.plan.memory import Setting, Together, high_gib
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
        most = f"; {sum(chosen.together.largest):,} tokens at a time at most" if chosen.together else ""
        shared = f"the first {chosen.prefix_tokens} tokens of all rows, and what some share besides"
        notes.append(f"What prompts share is computed once, {shared}{most}.")
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


def refusal(
    spec: ModelSpec,
    least: Candidate,
    gpu: GpuSpec | DetectedGpu | None,
    room_gib: float,
    together: Callable[[int], Together] | None,
) -> DoesNotFit:
    """What the way that takes least memory needs, what there is, and the knobs that make it fit, each with its
    number: alone, or with the longest rows that fit then. `together`: what micro-batches are, where rows are known."""
    smallest, room = least.setting, room_gib - least.graphs_gib
    knobs = {"": smallest}
    if gpu and smallest.quantisation == "16bit":
        knobs["train.quantisation 4bit"] = dataclasses.replace(smallest, quantisation="4bit")
    if smallest.micro_batch > 1:
        alone = together(1) if together and smallest.together else None
        knobs["train.micro_batch 1"] = dataclasses.replace(smallest, micro_batch=1, together=alone)
    if smallest.lora_r > 8:
        knobs["lora.r 8"] = dataclasses.replace(smallest, lora_r=8)
    helps = [found for knob, setting in knobs.items() if (found := _help(spec, knob, setting, room))]
    already = " with 4-bit weights" if smallest.quantisation == "4bit" else ""
    rows = counted(smallest.micro_batch, "row")
    return DoesNotFit(
        f"{spec.label} does not fit: it needs up to {high_gib(spec, smallest):.1f} GiB{already}, "
        f"{rows} of {smallest.row_tokens} tokens at a time and lora.r {smallest.lora_r}, "
        f"and {gpu.name if gpu else 'this machine (RAM)'} has {room_gib:.1f} GiB to fill. "
        f"What would help: {'; '.join([*helps, 'a smaller model or a larger card'])}."
    )


def _help(spec: ModelSpec, knob: str, setting: Setting, room_gib: float) -> str:
    """A knob, and shorter rows with it where it is not enough; empty where nothing would be."""

    def of(tokens: int) -> Setting:
        shared, answer = min(setting.prefix_tokens, tokens - 1), setting.answer_tokens
        answer = answer and max(1, answer * tokens // setting.row_tokens)  # of shorter rows, shorter answers
        shorter = dataclasses.replace(
            setting, row_tokens=tokens, prefix_tokens=shared, answer_tokens=answer, together=None
        )
        known = dataclasses.replace(shorter, together=setting.together)
        return min(known, shorter, key=lambda one: one.tokens)  # all as long as the longest, if that is less

    if (needs := high_gib(spec, setting)) > room_gib:
        step = 1024 if setting.row_tokens > 4096 else 64
        if not (tokens := longest_row(spec, of, room_gib, most=setting.row_tokens, step=step)):
            return ""
        knob, needs = " and ".join(filter(None, (knob, f"context {tokens}"))), high_gib(spec, of(tokens))
    return f"{knob}: {needs:.1f} GiB"
