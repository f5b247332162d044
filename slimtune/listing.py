"""The tables of `slimtune list`: one function a kind, each straight from where the facts live."""

from pathlib import Path

from slimtune import jobs
from slimtune.gpus import GPUS, PRICES_AS_OF
from slimtune.models import MODELS, ModelSpec
from slimtune.recipe import recipes_folder
from slimtune.scorers import SCORERS
from slimtune.tasks import list_tasks

Rows = tuple[str, tuple[str, ...], list[tuple[object, ...]]]
NUMBERS = {"size", "context", "GiB", "GB/s", "TFLOP/s", "USD/h", "train", "test"}


def models() -> Rows:
    rows = [
        (spec.key, f"{spec.params_total / 1e9:.2f}B", spec.native_context, spec.licence, _note(spec))
        for spec in MODELS.values()
    ]
    return "Models", ("name", "size", "context", "licence", "note"), rows


def _note(spec: ModelSpec) -> str:
    gated = ["gated"] if spec.gated else []
    return ", ".join([*([spec.note] if spec.note else []), *gated]) if spec.trainable else "planned for only"


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


def runs() -> Rows:
    rows = []
    for state in jobs.list_runs():
        at = next((stage for stage in reversed(state.stages)), None)
        done = f"{at.name}, {at.done} of {at.total}" if at and state.phase != "finished" else ""
        rows.append((state.name, state.phase, done, state.error.split("\n")[0] if state.phase == "failed" else ""))
    return "Runs in runs/", ("name", "state", "at", "why"), rows


def _headline(file: Path) -> str:
    return file.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")


KINDS = {"models": models, "tasks": tasks, "gpus": gpus, "scorers": scorers, "recipes": recipes, "runs": runs}
