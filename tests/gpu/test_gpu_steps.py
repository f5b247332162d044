"""Steps that are replayed, on a real card: losses are those of padded rows, also gone on with and cut smaller."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = 50


def test_fifty_replayed_steps_have_the_losses_of_padded_rows(smollm2: Path, tmp_path: Path) -> None:
    script = Path(__file__).with_name("fifty_steps.py")
    command = [sys.executable, script, smollm2, tmp_path / "seen.json", STEPS]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=500, env=os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    ways = json.loads((tmp_path / "seen.json").read_text())
    for way, seen in ways.items():
        print(way, seen, flush=True)
    padded, shared, resumed, short = (ways[way] for way in ("padded", "shared-prefix", "resumed", "short"))
    assert len(padded["losses"]) == STEPS and padded["losses"][-1] < 0.5 * padded["losses"][0]
    assert shared["tokens"] < 0.2 * padded["tokens"] and shared["made_late"] == 0
    for seen in (shared, resumed, short):
        assert seen["losses"] == pytest.approx(padded["losses"], rel=1e-4, abs=1e-5)
    assert resumed["resumed_at"] == STEPS // 2
    assert [split["micro_batch"] for split in short["splits"]] == [8] and "parts of 8 rows" in " ".join(short["said"])
