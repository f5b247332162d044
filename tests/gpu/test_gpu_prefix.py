"""Shared prefixes on a real card: the gradients of rows by themselves, for every family, by the kernel and by masks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from families import KEYS, PREFIXES


@pytest.mark.parametrize("key", KEYS)
def test_a_shared_prefix_is_no_further_from_fp32_than_padding_is(key: str, smollm2: Path, tmp_path: Path) -> None:
    """Two layers of random weights. fp32, rows by themselves, is the truth; bf16 padded rows are off by so much, and
    bf16 rows that share their prefixes may be off by a little more at most."""
    script = Path(__file__).with_name("prefix_parity.py")
    done = subprocess.run(
        [sys.executable, script, key, tmp_path, smollm2], capture_output=True, text=True, timeout=500, env=os.environ
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for seen in lines[: len(PREFIXES)]:
        print(seen, flush=True)
        assert seen["norm"] > 0
        assert seen["fp32"] < 1e-3 * seen["norm"]
        for way in seen.keys() & {"shared", "replayed"}:
            assert seen[way] < 1.2 * seen["padded"] + 1e-3 * seen["norm"], (seen["case"], way)
        if "masked" in seen:
            assert seen["masked"] > 10 * seen["shared"], "a dropped mask would not be noticed"
    for graphs in lines[len(PREFIXES) :]:
        assert graphs["capturing"] and 1 <= graphs["captured"] <= len(PREFIXES)
