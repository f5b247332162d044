"""Shared prefixes on a real card: the gradients of rows by themselves, for every family, by the kernel and by masks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KEYS = (
    "smollm2-135m-instruct",
    "llama-3.2-1b-instruct",
    "qwen3-0.6b",
    "qwen3-30b-a3b",
    "gemma-3-270m-it",
    "lfm2-350m",
    "granite-3.3-2b-instruct",
)


@pytest.mark.parametrize("key", KEYS)
def test_a_shared_prefix_is_no_further_from_fp32_than_padding_is(key: str, smollm2: Path, tmp_path: Path) -> None:
    """Two layers of random weights. fp32, rows by themselves, is the truth; bf16 padded rows are off by so much, and
    bf16 rows that share their prefixes may be off by a little more at most."""
    script = Path(__file__).with_name("prefix_parity.py")
    done = subprocess.run(
        [sys.executable, script, key, tmp_path, smollm2], capture_output=True, text=True, timeout=500, env=os.environ
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for line in done.stdout.splitlines():
        if not line.startswith("{"):
            continue
        seen = json.loads(line)
        print(seen, flush=True)
        assert seen["norm"] > 0
        assert seen["fp32"] < 1e-3 * seen["norm"]
        assert seen["shared"] < 1.2 * seen["padded"] + 1e-3 * seen["norm"], seen["case"]
        if "masked" in seen:
            assert seen["masked"] > 10 * seen["shared"], "a dropped mask would not be noticed"
