"""The main job on real weights and every kind of task there is, end to end, small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from slimtune.check import ready
from slimtune.pipeline import run_recipe
from slimtune.recipe import read_recipe
from slimtune.status import Silent

BY_PEFT = """
import os, sys
os.environ["HF_HUB_OFFLINE"] = "1"
from peft import AutoPeftModelForCausalLM
model = AutoPeftModelForCausalLM.from_pretrained(sys.argv[1])
assert any(bool(weight.any()) for name, weight in model.named_parameters() if "lora_B" in name)
"""


@pytest.mark.parametrize(
    ("task", "rows", "test_rows", "context", "labels", "interval", "test"),
    [
        ("banking77", 12, 12, 512, "[age_limit, atm_support, change_pin]", "Wilson", "exact McNemar"),
        # prompts of a thousand tokens and more take seconds a row and step; of six rows two are one conversation's
        pytest.param("voice_banking", 2, 6, 4096, "[]", "groups", "sign-flip", marks=pytest.mark.slow),
        pytest.param("squad2_open_book", 2, 2, 2048, "[]", "", "", marks=pytest.mark.slow),
    ],
)
def test_each_kind_of_task_runs_to_a_report(
    task: str, rows: int, test_rows: int, context: int, labels: str, interval: str, test: str, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(
        f"model: smollm2-135m-embedded\ntask: {task}\ncontext: {context}\nseed: 1\n"
        f"data: {{train_rows: {rows}, test_rows: {test_rows}, labels: {labels}}}\nlora: {{r: 8, alpha: 16}}\n"
        f"train: {{epochs: 4, lr: 2e-3, batch: {rows}}}\nevaluate: {{few_shot: 1}}\n"
    )
    prepared = ready(read_recipe(tmp_path / "recipe.yaml"))
    outcome = run_recipe(prepared, name="small", out=tmp_path / "run", listener=Silent())
    report = json.loads((outcome.folder / "report.json").read_text())
    training = report["training"]
    assert training["last_loss"] < training["first_loss"] and training["steps"] == 4
    assert [row["name"] for row in report["scores"]] == ["base", "few_shot", "tuned"]
    assert all(row["n"] == test_rows for row in report["scores"])
    assert all(interval in row["score"]["method"] for row in report["scores"])
    assert all(test in row["comparison"]["test"] for row in report["differences"])
    assert "Unable to fetch" not in (outcome.folder / "engine.log").read_text(), "nobody is asked for a local model"
    loaded = subprocess.run([sys.executable, "-c", BY_PEFT, outcome.folder / "adapter"], capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    html = outcome.report.html.read_text(encoding="utf-8")
    assert "weights dequantised from a 4-bit GGUF" in html and "://" not in html.split("<body")[0]
