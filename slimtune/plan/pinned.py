"""What a recipe pins that makes it slower than what would be chosen for it."""

from slimtune.plan.planner import Plan
from slimtune.recipe import Train


def pinned_words(train: Train, plan: Plan, free: Plan, *, usual: int) -> list[str]:
    """A sentence for each key of `train` that costs speed. `plan` is as pinned, `free` the same with nothing pinned but
    the batch; `usual`: the batch if nobody had said."""
    notes = []
    if plan.gpu and plan.batch < usual:
        notes.append(f"train.batch is pinned to {plan.batch}: {usual} rows a step, the default here, train faster.")
    if train.collation != "auto" and plan.collation == "padded" != free.collation:
        notes.append(f"train.collation is pinned to padded: {free.collation} batches train faster here.")
    if train.quantisation != "auto" and (plan.quantisation, free.quantisation) == ("4bit", "16bit"):
        notes.append("train.quantisation is pinned to 4bit: 16-bit weights fit, and train faster.")
    if train.micro_batch is not None and plan.micro_batch < free.micro_batch:
        notes.append(
            f"train.micro_batch is pinned to {train.micro_batch}: {free.micro_batch} rows at a time fit, and train "
            "faster."
        )
    return notes
