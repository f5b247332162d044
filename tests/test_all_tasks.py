"""The example that takes every task from rows to scores: its recipes are ready to run, and its table says what the runs
wrote. What it calls in place of slimtune checks the recipe for real and answers by a lambda."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from slimtune.models import get_model
from slimtune.tasks import Selection, get_task, list_tasks

SCRIPT = Path(__file__).parents[1] / "examples/all_tasks.sh"
STAND_IN = f"""#!{sys.executable}
import json, sys
from pathlib import Path
from slimtune.check import ready
from slimtune.data import Completion
from slimtune.evaluate import evaluate, write_evaluation
from slimtune.recipe import read_recipe
from slimtune.scorers import gold_completion

_, verb, recipe, option, out = sys.argv
assert (verb, option) == ("run", "--out")
task, out = ready(read_recipe(Path(recipe))).task, Path(out)
if task.name == "ecommerce":
    sys.exit("No room.")

def wrong(rows, limit):
    return ((index, Completion("no")) for index in range(len(rows)))

def right(rows, limit):
    return ((index, gold_completion(row, tool_format="json")) for index, row in enumerate(rows))

for side, answers in (("base", wrong), ("tuned", right)):
    write_evaluation(out / side, evaluate(task, task.test, answers, name=side, label=side))
(out / "training.json").write_text(json.dumps({{"steps": 2, "first_loss": 3.0, "last_loss": 1.5, "seconds": 9.4}}))
(out / "data.json").write_text(json.dumps({{"train_rows": len(task.train)}}))
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    stand_in = tmp_path / "bin" / "slimtune"
    stand_in.parent.mkdir()
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    path = f"{stand_in.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(SCRIPT.parents[1])}

    def start(*names):
        command = ["bash", str(SCRIPT), *names]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)

    return start


@pytest.mark.slow
def test_every_task_has_training_rows_that_fit_the_scripts_context(embedded):
    from slimtune.engine import load, source

    context = int(re.search(r"context: (\d+)", SCRIPT.read_text())[1])
    spec = get_model("smollm2-135m-embedded")
    renderer = load.load_renderer(
        spec, source.resolve_source(spec, quantisation="16bit", revision=None), thinking="off"
    )
    for job in list_tasks():
        if job.rows:
            train = get_task(job.name, selection=Selection(train_rows=16)).train
            fitting = sum(len(renderer.encode(row)) <= context for row in train)
            assert fitting >= len(train) / 2, f"{job.name}: {fitting} of {len(train)}"


def test_a_row_a_task_of_what_its_run_wrote_and_one_that_failed_stops_no_other(run, tmp_path):
    done = run("banking77", "ecommerce", "voice_banking")
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert done.returncode == 1 and "No room." in done.stdout
    assert rows[1].startswith("| banking77 | exact_match | 16 | 8 | 0.000 [") and "| 2 | 3.00 to 1.50 | 9 |" in rows[1]
    assert "| 1.000 [" in rows[1] and rows[2].startswith("| ecommerce | did not finish: see ecommerce.log")
    assert rows[3].startswith("| voice_banking | ") and "| 1.000 [" in rows[3]
    recipe = (tmp_path / "runs/all-tasks/banking77.yaml").read_text()
    assert "train_rows: 16, test_rows: 8" in recipe


def test_without_names_it_takes_every_task(run, tmp_path):
    (tmp_path / "bin" / "slimtune").write_text("#!/bin/sh\nexit 2\n")
    done = run()
    assert [line for line in done.stdout.splitlines() if line and line[0] != "|"] == [job.name for job in list_tasks()]
    assert done.stdout.count("did not finish") == len(list_tasks())
