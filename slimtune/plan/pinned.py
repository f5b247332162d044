"""What a recipe pins that makes it slower than what would be chosen for it."""

from slimtune.gpus import DetectedGpu, GpuSpec
from slimtune.models import ModelSpec
from slimtune.plan.planner import Plan
from slimtune.plan.speed import example_s
from slimtune.recipe import Recipe

_FASTER = 1.03  # times as fast, to be worth a sentence


def pinned_words(
    recipe: Recipe, spec: ModelSpec, gpu: GpuSpec | DetectedGpu | None, *, plan: Plan, free: Plan, usual: Plan
) -> list[str]:
    """A sentence for each key that costs speed. `plan` is as pinned, `free` the same with nothing pinned but the batch,
    `usual` as if nobody had said anything."""
    notes, train = [], recipe.train
    card = gpu.spec if gpu else None
    if card and plan.batch < usual.batch and _rate(spec, card, usual) > _FASTER * _rate(spec, card, free):
        notes.append(
            f"train.batch is pinned to {plan.batch}: {usual.batch} rows a step, the default here, train faster."
        )
    if plan.collation == "padded" != free.collation:
        why = "train.collation is pinned to padded"
        if train.collation == "auto":
            why = "lora.dropout is above 0, and rows that share a prefix would share what is dropped of it"
        notes.append(f"{why}: {free.collation} batches train faster here.")
    if train.quantisation != "auto" and (plan.quantisation, free.quantisation) == ("4bit", "16bit"):
        notes.append("train.quantisation is pinned to 4bit: 16-bit weights fit, and train faster.")
    if train.micro_batch is not None and plan.micro_batch < free.micro_batch:
        notes.append(
            f"train.micro_batch is pinned to {train.micro_batch}: {free.micro_batch} rows at a time fit, and train "
            "faster."
        )
    return notes


def _rate(spec: ModelSpec, card: GpuSpec, plan: Plan) -> float:
    """Examples a second, predicted."""
    mean = plan.train_tokens / (plan.steps * plan.batch) if plan.train_tokens else plan.longest_row_tokens
    return 1 / example_s(spec, plan.setting, card, mean, accumulation=plan.accumulation)
