"""One loaded model is base and tuned on a card too: on Unsloth's fast paths and its compiled ones, in 4 and 16 bits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KEYS = ("smollm2-135m-instruct", "qwen3-0.6b", "gemma-3-270m-it", "lfm2-350m", "granite-3.3-2b-instruct")


@pytest.mark.parametrize("weights", ["16bit", "4bit"])
@pytest.mark.parametrize("key", KEYS)
def test_the_adapter_is_switched_off_and_on_again(key: str, weights: str, smollm2: Path, tmp_path: Path) -> None:
    tests = Path(__file__).parents[1]
    command = [sys.executable, tests / "two_sides.py", key, weights, tmp_path, smollm2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    print(seen["key"], weights, f"apart {seen['apart']:.2g} of {seen['scale']:.2g}", flush=True)
    assert seen["device"] == "cuda"
    assert seen["tuned"] == seen["again"] == seen["evaluated"] != seen["base"]
    assert seen["apart"] <= 0.02 * seen["scale"], "the base below the adapter is the base"
    assert seen["base"] == seen["alone"] or seen["apart"] > 0
