"""The tables of `slimtune list`: one function a kind, each straight from where the facts live."""

from pathlib import Path

from slimtune.gpus import GPUS, PRICES_AS_OF
from slimtune.models import MODELS, ModelSpec
from slimtune.recipe import recipes_folder
from slimtune.scorers import SCORERS
from slimtune.tasks import list_tasks

Rows = tuple[str, tuple[str, ...], list[tuple[object, ...]]]
NUMBERS = {"parameters", "context", "GiB", "GB/s", "TFLOP/s", "USD/h", "train", "test"}


def models() -> Rows:
    rows = [
        (spec.key, spec.label, f"{spec.params_total / 1e9:.2f}B", spec.native_context, spec.licence, _note(spec))
        for spec in MODELS.values()
    ]
    return "Models", ("name", "model", "parameters", "context", "licence", "note"), rows


def _note(spec: ModelSpec) -> str:
    return spec.note if spec.trainable else "planned for only"


def tasks() -> Rows:
    rows = [
        (task.name, task.kind, task.train_rows, task.test_rows, task.licence, task.description.split(". ")[0][:90])
        for task in list_tasks()
    ]
    return "Tasks", ("name", "kind", "train", "test", "licence", "what it asks"), rows


def gpus() -> Rows:
    rows = [
        (
            gpu.name,
            f"{gpu.total_gib:.1f}",
            "bf16" if gpu.bf16 else "fp16",
            gpu.bandwidth_gb_s,
            gpu.half_tflops,
            "" if gpu.hourly_usd is None else f"{gpu.hourly_usd:.2f}",
        )
        for gpu in GPUS.values()
    ]
    return f"GPUs (prices as of {PRICES_AS_OF})", ("name", "GiB", "precision", "GB/s", "TFLOP/s", "USD/h"), rows


def scorers() -> Rows:
    return "Scorers", ("name", "what it measures"), [(name, scorer.description) for name, scorer in SCORERS.items()]


def recipes() -> Rows:
    rows = [(file.stem, _headline(file)) for file in sorted(recipes_folder().glob("*.yaml"))]
    rows += [(file.name, _headline(file)) for file in sorted(Path().glob("*.yaml"))]
    return "Recipes", ("name", "what it does"), rows


def _headline(file: Path) -> str:
    return file.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")


KINDS = {"models": models, "tasks": tasks, "gpus": gpus, "scorers": scorers, "recipes": recipes}
