"""Shared prefixes on a real card: the gradients of rows by themselves, for every family, in every way to compute."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from families import KEYS, PREFIXES, original

THEIRS = [key for key in KEYS if not original(key).fast_path]  # by transformers' layers: they share a process
PROCESSES = [[key] for key in KEYS if key not in THEIRS] + [THEIRS]
EAGER = {"TORCHDYNAMO_DISABLE": "1", "UNSLOTH_COMPILE_DISABLE": "1"}  # the shared rows of THEIRS never are compiled


@pytest.mark.parametrize("keys", PROCESSES, ids=" ".join)
def test_a_shared_prefix_is_no_further_from_fp32_than_padding_is(
    keys: list[str], smollm2: Path, tmp_path: Path
) -> None:
    """Two layers of random weights. fp32, rows by themselves, is the truth; bf16 padded rows are off by so much, and
    bf16 rows that share their prefixes may be off by a little more at most."""
    script = Path(__file__).with_name("prefix_parity.py")
    command = [sys.executable, script, ",".join(keys), tmp_path, smollm2]
    env = os.environ | (EAGER if keys == THEIRS else {})
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    cases = [line for line in lines if "case" in line]
    assert [(seen["key"], seen["case"]) for seen in cases] == [(key, case) for key in keys for case in PREFIXES]
    for seen in cases:
        print(seen, flush=True)
        assert seen["norm"] > 0
        within = 1e-2 if seen["key"] in THEIRS and original(seen["key"]).shapes.sliding_window else 1e-5
        assert seen["exact"] < within * seen["norm"]
        for way in ("shared", "replayed"):
            assert seen[way] < 1.2 * seen["padded"] + 1e-3 * seen["norm"], (seen["key"], seen["case"], way)
        if "masked" in seen:
            assert seen["masked"] > 10 * seen["shared"], "a dropped mask would not be noticed"
        assert math.isnan(seen.get("untold", math.nan)), "a layer that was not told would not be noticed"
    for graphs in (line for line in lines if "captured" in line):
        captured = 0 if original(graphs["key"]).shapes.experts else 1
        assert graphs["capturing"] == bool(captured) and captured <= graphs["captured"] <= len(PREFIXES)
