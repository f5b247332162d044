"""Which outputs of a finished run are no longer whole: a step is not done again as long as its output is."""

from pathlib import Path

from slimtune.files import MANIFEST, damage, read_json
from slimtune.recipe import Recipe
from slimtune.tasks.needle_check import needle_names

ADAPTER = "adapter"


def lost_adapter(folder: Path) -> str | None:
    """What is wrong with the adapter that a run's training.json tells of; None where nothing is. Files that were put
    beside its own do no harm."""
    wrong = _wrong(folder / ADAPTER, alone=False)
    if wrong is None and read_json(folder / ADAPTER / MANIFEST).get("adapter_model.safetensors") != _told(folder):
        wrong = "it is another than the one that was scored"
    return wrong


def lost_outputs(recipe: Recipe, folder: Path) -> dict[str, str]:
    """The outputs of a finished run that are gone or damaged, and how; the teacher's is another step."""
    needles = [name for who in ("base", "tuned") for name in needle_names(recipe.context, who).values()]
    scored = {row["name"] for row in read_json(folder / "report.json")["scores"]}  # without shots where none fitted
    shots = ["few_shot"] if "few_shot" in scored else []
    wrong = {f"{name}/": _wrong(folder / name) for name in ("base", *shots, "tuned", *needles)}
    wrong[f"{ADAPTER}/"] = lost_adapter(folder)
    return {name: why for name, why in wrong.items() if why is not None}


def _told(folder: Path) -> str | None:
    path = folder / "training.json"
    return read_json(path)["adapter_sha256"] if path.is_file() else None


def _wrong(folder: Path, *, alone: bool = True) -> str | None:
    return damage(folder, alone=alone) if folder.is_dir() else "it is not there"
