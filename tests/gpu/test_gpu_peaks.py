"""Peaks of real rows on a real card, in an order that training takes: those that were planned before."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from slimtune.check import plan_of, ready
from slimtune.gpus import detect_gpu
from slimtune.lengths import count_tokens
from slimtune.models import get_model
from slimtune.recipe import read_recipe

ROOT, SHAPE, STEPS = Path(__file__).parents[2], "qwen3-4b", 24


@pytest.mark.parametrize("batch", [16, 64])
@pytest.mark.parametrize("task", ["squad2_open_book", "text2sql", "mental_health", "banking77"])
def test_real_rows_take_what_was_planned_for_them(task: str, batch: int, smollm2: Path, tmp_path: Path) -> None:
    """Rows that share in groups among them. Random weights: memory, never quality."""
    overrides = [f"model={smollm2}", f"task={task}", "data.train_rows=null", "data.skip_bad=true"]
    overrides += [f"train.batch={batch}", "train.quantisation=16bit"]
    recipe = ROOT / "recipes/smollm2-banking77.yaml"

    def prepared(*more: str):
        found = ready(read_recipe(recipe, [*overrides, *more]))
        return found, count_tokens(found.spec, found.task, found.recipe, say=print)

    rows = len(prepared()[1].lengths)
    epochs = f"train.epochs={STEPS * batch / rows}"
    made, counted = prepared(epochs)
    plan = plan_of(replace(made, spec=get_model(SHAPE)), gpu=detect_gpu(), counted=counted)
    command = [sys.executable, "-m", "slimtune.cli", "bench", "speed", recipe, "--out", tmp_path, "--shape", SHAPE]
    command += ["--warm", 4, "--steps", STEPS - 4, "--way", "slimtune-shared"]
    for override in (*overrides, epochs):
        command += ["--set", override]
    subprocess.run([*map(str, command)], cwd=ROOT, check=True, timeout=300)
    (ours,) = json.loads((tmp_path / "speed.json").read_text())["outcomes"]
    planned, peak = plan.peak_gib["expected"], ours["pace"]["peak_gib"]
    print(f"{task}, {batch} rows: {planned:.2f} GiB planned, {peak:.2f} taken, together {plan.together}", flush=True)
    assert abs(planned / peak - 1) < 0.05
