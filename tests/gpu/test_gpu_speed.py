"""Where rows share little, slimtune on a real card is no slower than the best of others: minutes for each model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OTHERS = ("padded-16bit-bf16-16", "packed-16bit-bf16-16", "padding-free-16bit-bf16-16", "own-choice-4bit-bf16-8-ckpt")
ROWS = ("task=squad2_open_book", "data.train_rows=null", "train.batch=16", "train.quantisation=16bit")


@pytest.mark.timeout(1600)
@pytest.mark.parametrize("shape", [None, "qwen3-4b"])
def test_questions_about_passages_in_random_order_train_as_fast_as_by_anyone(
    shape: str | None, smollm2: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "slimtune.cli", "bench", "speed", ROOT / "recipes/smollm2-banking77.yaml"]
    command += ["--out", tmp_path, "--way", "slimtune-shared", *(["--shape", shape] if shape else [])]
    for override in (f"model={smollm2}", *ROWS):
        command += ["--set", override]
    for way in OTHERS:
        command += ["--way", f"unsloth-{way}"]
    subprocess.run([*map(str, command)], cwd=ROOT, check=True, timeout=1500)
    print((tmp_path / "speed.md").read_text())
    outcomes = json.loads((tmp_path / "speed.json").read_text())["outcomes"]
    assert [one["refusal"] for one in outcomes if one["refusal"]] == [] and len(outcomes) == 1 + len(OTHERS)
    named = {one["role"] or one["way"]["collation"]: one["pace"] for one in outcomes}
    rates = {name: pace["examples"] / pace["seconds"] for name, pace in named.items()}
    ours, defaults = rates.pop("slimtune's choice"), rates.pop("Unsloth's defaults")
    assert ours >= 0.97 * max(rates.values()) and ours >= 1.5 * defaults
