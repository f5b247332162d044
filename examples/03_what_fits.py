"""Which models fit a card with rows of a given length, and take at most so many hours: arithmetic, so nothing is
downloaded and no GPU is needed.

    python examples/03_what_fits.py t4 8192 24

`slimtune plan` shows one of them in full. The peaks are predictions, the hours estimates.
"""

import sys

from slimtune.errors import UserError
from slimtune.forecast import BATCH, forecast_model
from slimtune.gpus import get_gpu
from slimtune.models import MODELS
from slimtune.recipe import Context, Lora


def main(card: str, tokens: int, most_hours: float) -> None:
    gpu, context = get_gpu(card), Context(length=tokens)
    print(f"{gpu.name}: 10,000 rows of {tokens:,} tokens, four epochs, at most {most_hours:g} hours even if slow")
    for spec in MODELS.values():
        try:
            forecast = forecast_model(spec, gpu, context=context, batch=BATCH, rank=Lora().r)
        except UserError:
            continue
        slow, fast = forecast.speed.hours
        if slow <= most_hours:
            peak = forecast.plan.peak_gib["expected"]
            print(f"  {spec.key:<27} {peak:5.1f} GiB expected, {fast:.1f} to {slow:.1f} hours")


if __name__ == "__main__":
    given = [*sys.argv[1:], *("t4", "1024", "24")[len(sys.argv) - 1 :]]
    try:
        main(given[0], int(given[1]), float(given[2]))
    except UserError as error:
        sys.exit(str(error))
    except ValueError:
        sys.exit("Name a card, tokens of a row (64 or more) and hours: python examples/03_what_fits.py t4 8192 24")
