"""Which of the models fit a card, and with which settings: arithmetic, so nothing is downloaded and no GPU is needed.

    python examples/03_what_fits.py t4

The peaks are predictions. A run prints what it measured beside what was planned.
"""

import sys

from slimtune.errors import UserError
from slimtune.gpus import get_gpu
from slimtune.models import MODELS
from slimtune.plan import make_plan


def main(card: str) -> None:
    gpu = get_gpu(card)
    print(f"{gpu.name}: {gpu.usable_gib:.1f} GiB to fill; LoRA of rank 64, 16 rows of up to 1,024 tokens a step")
    for spec in MODELS.values():
        try:
            plan = make_plan(spec, gpu=gpu, lora_r=64, context_tokens=1024, batch=16, rows=1000, epochs=1)
        except UserError:
            print(f"  {spec.key:<24} does not fit")
            continue
        checkpointing = "checkpointing" if plan.checkpointing else "no checkpointing"
        how = f"{plan.quantisation}, {checkpointing}, {plan.micro_batch} x {plan.accumulation} rows"
        print(f"  {spec.key:<24} {plan.peak_gib['expected']:5.1f} GiB expected: {how}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "t4")
