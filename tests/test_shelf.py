"""Cells of one model share a process and its base model, and are none the wiser: real training, real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from samples import make_task

from slimtune.files import read_json
from slimtune.sweep.local import Limits, run_study
from slimtune.sweep.matrix import read_matrix
from slimtune.sweep.store import read_study, write_cell

pytestmark = pytest.mark.slow


def study(folder: Path, model: Path):
    """Two ways x two tasks over a tiny model."""
    tasks = [make_task(folder / "actions"), make_task(folder / "others", train=32, test=12)]
    path = folder / "m.yaml"
    path.write_text(f"""base:
  train: {{epochs: 1, lr: 5e-3, batch: 8}}
  evaluate: {{few_shot: 1, max_new_tokens: 4}}
  context: 256
models: [{model}]
tasks: [{", ".join(map(str, tasks))}]
contestants: {{small: {{lora.r: 4}}, large: {{lora.r: 16, lora.dropout: 0.1}}}}
""")
    return read_matrix(path)


def one_process(store: Path, cells) -> None:
    """These cells, one after the other, in one worker with a cache of its own."""
    requests = [
        json.dumps({"folder": str(write_cell(store, cell.as_json())), "attempt": "here-1", "usd_per_hour": None})
        for cell in cells
    ]
    worker = [sys.executable, "-m", "slimtune.sweep", "slimtune sweep run m"]
    done = subprocess.run(
        worker, input="\n".join(requests) + "\n", capture_output=True, text=True,
        env={**os.environ, "SLIMTUNE_CACHE": str(store / "cache")},
    )  # fmt: skip
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert replies == [{"exit_code": 0, "why": ""}] * len(cells), done.stderr[-2000:]


def result(store: Path, cell) -> dict:
    found = read_json(store / "cells" / cell.fingerprint / "result.json")
    return {
        "adapter": found["training"]["adapter_sha256"],
        "scores": {side: one["score"] for side, one in found["sides"].items()},
        "losses": (found["training"]["first_loss"], found["training"]["last_loss"]),
    }


def test_a_cell_that_comes_last_in_a_shared_process_is_the_one_that_runs_alone(tmp_path, tiny_model):
    cells = study(tmp_path, tiny_model)
    one_process(tmp_path / "shared", cells)
    one_process(tmp_path / "alone", cells[-1:])
    assert result(tmp_path / "shared", cells[-1]) == result(tmp_path / "alone", cells[-1])
    adapters = {result(tmp_path / "shared", cell)["adapter"] for cell in cells}
    assert len(adapters) == len(cells), "no cell got another's adapter"


def test_the_base_is_scored_once_for_all_ways_of_a_model(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setenv("SLIMTUNE_CACHE", str(tmp_path / "cache"))
    cells = study(tmp_path, tiny_model)
    worker = [sys.executable, "-m", "slimtune.sweep", "slimtune sweep run m.yaml --store s"]
    assert run_study(tmp_path / "s", "m", cells, command=worker, limits=Limits()).exit_code == 0
    kept = [path for path in (tmp_path / "cache" / "scores").iterdir() if path.is_dir()]
    assert len(kept) == 4, "zero- and few-shot on two tasks, not four times each"
    found = read_study(tmp_path / "s").cells
    assert {cell.state for cell in found} == {"done"}
    for asked, cell in zip(cells, found, strict=True):
        again = read_json(cell.folder / cell.result["attempt"] / "environment.json")["command"]
        assert again == f"slimtune sweep run m.yaml --store s --cell {asked.id}", "what its report says runs it again"
