"""Answers by what was kept of their prefix, on a real card: the plain ones, in less time."""

import json
import os
import subprocess
import sys
from pathlib import Path


def seen(*arguments: object) -> list[dict]:
    script = Path(__file__).with_name("answer_ways.py")
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)], capture_output=True, text=True, timeout=500, env=os.environ
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for line in lines:
        print(line, flush=True)
    assert lines
    return lines


def test_every_family_answers_as_plainly_in_fp32(smollm2: Path) -> None:
    lines = seen("families", smollm2)
    assert len(lines) == 4
    for line in lines:
        assert line["kept_512"] == line["kept_96"] == 0 and line["kinds"] > 1, line["case"]


def test_real_weights_answer_as_plainly_in_fp32(smollm2: Path) -> None:
    for line in seen(smollm2, "fp32"):
        assert line["n"] >= 256 and line["kept_512"] == line["kept_96"] == 0 and line["kinds"] > 1, line["case"]


def test_in_bf16_no_more_answers_differ_than_between_plain_batches_and_they_come_sooner(smollm2: Path) -> None:
    for line in seen(smollm2, "bf16"):
        assert line["n"] >= 256 and line["kinds"] > 1
        assert line["kept_512"] <= max(line["plain_64"], line["plain_32"]), line["case"]
        assert 2 * line["kept_512_s"] < line["plain_128_s"], line["case"]


def test_thousands_of_shared_tokens_are_computed_once() -> None:
    (line,) = seen("qwen3-0.6b", "bf16")
    assert 5 * line["kept_512_s"] < line["plain_128_s"]
