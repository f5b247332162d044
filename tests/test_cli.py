"""The command line as a person meets it: real processes, their words and exit codes."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

VERBS = (
    "run",
    "check",
    "plan",
    "app",
    "evaluate",
    "list",
    "new",
    "doctor",
    "demo",
    "rank",
    "recommend",
    "sweep",
    "bench",
)


def slimtune(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "slimtune.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "120", **environment},
        timeout=300,
    )


def test_slimtune_alone_shows_where_to_start() -> None:
    shown = slimtune()
    assert shown.returncode == 0 and "slimtune demo" in shown.stdout and "slimtune list recipes" in shown.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    shown = slimtune(verb, "--help")
    assert shown.returncode == 0 and "Usage:" in shown.stdout and len(shown.stdout.split()) > 25


def test_the_verbs_are_these_and_no_others() -> None:
    from typer.main import get_command

    from slimtune.cli import app

    assert set(get_command(app).commands) == set(VERBS)


FIVE = """model: smollm2-135
task: banking7
lora: {rr: 8}
train:
  epochs: -1
contxt: 2048
"""


def test_check_prints_five_mistakes_with_lines_in_under_two_seconds_and_without_torch(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(FIVE)
    trap = (
        "import sys\nclass Trap:\n    def find_spec(self, name, *_):\n        if name.split('.')[0] in ('torch', "
        "'transformers', 'unsloth'):\n            raise SystemExit('imported ' + name)\n"
        "sys.meta_path.insert(0, Trap())\n"
    )
    (tmp_path / "sitecustomize.py").write_text(trap)
    began = time.monotonic()
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    shown = slimtune("check", "bad.yaml", cwd=tmp_path, PYTHONPATH=path)
    assert time.monotonic() - began < 2
    assert shown.returncode == 2, shown.stderr
    for words in (
        "bad.yaml:1 model: There is no model named 'smollm2-135'. Did you mean 'smollm2-135m",
        "bad.yaml:2 task: There is no task named 'banking7'. Did you mean 'banking77'?",
        "bad.yaml:3 lora.rr: is not a key of a recipe. Did you mean 'r'?",
        "bad.yaml:5 train.epochs: has to be greater than 0, not -1.",
        "bad.yaml:6 contxt: is not a key of a recipe. Did you mean 'context'?",
    ):
        assert words in shown.stderr


def test_check_shows_the_row_that_will_be_trained_and_the_plan(recipe: Path) -> None:
    shown = slimtune("check", recipe)
    assert shown.returncode == 0, shown.stderr
    for words in (
        "<|im_start|>assistant",
        "One row as it is trained",
        "Rows longer than the context: 0.",
        "Ready to run",
        "random weights: they measure no quality",
    ):
        assert words in shown.stdout


def test_check_warns_where_the_test_rows_are_too_few_to_show_anything(recipe: Path) -> None:
    shown = " ".join(slimtune("check", recipe, "--set", "data.test_rows=1").stdout.split())
    assert "1 test row, scored by" in shown
    assert "Ready to run, but the result will say little: 1 test row is too few to find any difference." in shown
    some = " ".join(slimtune("check", recipe, "--set", "data.test_rows=9").stdout.split())
    assert re.search(r"will say little: 9 test rows find a difference of 0\.\d+ or more", some), some


@pytest.mark.slow
def test_check_says_that_it_makes_the_embedded_model_and_only_where_it_does(tmp_path: Path) -> None:
    said = [
        slimtune("check", "smollm2-banking77-demo", "--json", SLIMTUNE_CACHE=str(tmp_path)).stderr for _ in range(2)
    ]
    assert ["Making the embedded model" in words for words in said] == [True, False]


def test_check_refuses_rows_longer_than_the_context(recipe: Path) -> None:
    shown = slimtune("check", recipe, "--set", "context=64")
    assert shown.returncode == 0, shown.stderr  # the rows have up to 60 tokens
    path = recipe.parent / "actions" / "train.jsonl"
    path.write_text(path.read_text() + json.dumps({"text": "pay " * 80, "label": "pay"}) + "\n")
    long = slimtune("check", recipe, "--set", "context=64")
    assert long.returncode == 2 and "Training rows longer than the context of 64: 1." in long.stderr
    dropped = slimtune("check", recipe, "--set", "context=64", "--set", "data.long_rows=drop")
    assert dropped.returncode == 0 and "Rows longer than the context: 1." in dropped.stdout


@pytest.mark.parametrize("kind", ["models", "tasks", "gpus", "scorers", "recipes", "recipe-keys", "matrices"])
def test_lists_name_what_there_is(kind: str) -> None:
    shown = slimtune("list", kind)
    assert shown.returncode == 0 and len(shown.stdout.splitlines()) >= 4


def test_where_no_run_is_yet_the_list_of_runs_says_what_makes_one(tmp_path: Path) -> None:
    assert "`slimtune demo` makes a run" in slimtune("list", "runs", cwd=tmp_path).stdout


def test_the_list_of_runs_says_why_a_run_failed_and_how_far_one_is_that_was_stopped(tmp_path: Path) -> None:
    stage = {"name": "Training", "done": 3, "total": 8, "detail": "", "first": 0, "seconds": 1.0}
    for name, status in (("bad", {"exit_code": 2, "error": "It does not fit."}), ("half", {"stages": [stage]})):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "owner.json").write_text("{}")
        (folder / "status.json").write_text(json.dumps({"stages": [], "updated": time.time(), **status}))
    lines = slimtune("list", "runs", cwd=tmp_path).stdout.splitlines()
    assert {*lines} >= {"bad failed: It does not fit.", "half stopped: Training, 3 of 8"}, lines


def test_a_list_that_does_not_exist_is_named_with_the_nearest() -> None:
    shown = slimtune("list", "model")
    assert shown.returncode == 2 and "Did you mean 'models'?" in shown.stderr


def test_a_run_that_is_not_there_is_not_looked_for_on_a_hub(tmp_path: Path) -> None:
    (tmp_path / "runs" / "tickets-1").mkdir(parents=True)
    (tmp_path / "runs" / "tickets-1" / "recipe.json").write_text("{}")
    began = time.monotonic()
    shown = slimtune("evaluate", "runs/tickets-2", cwd=tmp_path)
    assert shown.returncode == 2 and "no run named 'tickets-2'" in shown.stderr and "tickets-1" in shown.stderr
    assert time.monotonic() - began < 15


def test_doctor_says_what_is_here() -> None:
    shown = slimtune("doctor")
    assert shown.returncode == 0 and "unsloth" in shown.stdout and "free in" in shown.stdout


def test_evaluate_scores_a_run_and_its_base_model_on_the_same_rows(
    recipe: Path, tmp_path: Path, tiny_model: Path
) -> None:
    out = tmp_path / "run"
    ran = slimtune("run", recipe, "--out", out)
    assert ran.returncode == 0, ran.stderr
    again = slimtune("evaluate", out)
    assert again.returncode == 0, again.stderr
    scores = next((out / "evaluations").glob("*/evaluation.json"))
    tuned = json.loads((out / "tuned" / "evaluation.json").read_text())
    assert json.loads(scores.read_text())["score"] == tuned["score"]
    base = slimtune("evaluate", tiny_model, "--task", "banking77", "--rows", "4", "--out", tmp_path / "base")
    assert base.returncode == 0 and "n = 4" in base.stdout, base.stderr
    other = ("--task", "banking77", "--rows", "4", "--few-shot", "1")
    alone = slimtune("evaluate", out, *other, cwd=tmp_path)
    told = re.search(r"Score its base on the same rows: slimtune (.*)\n", alone.stdout)
    assert told is not None and slimtune(*shlex.split(told[1]), cwd=tmp_path).returncode == 0, alone.stdout
    beside = slimtune("evaluate", out, *other, cwd=tmp_path).stdout
    assert re.search(r"Tuned - base: .*on the same 4 rows: \d better, \d worse\.", beside), beside
    nothing = slimtune("evaluate", tiny_model)
    assert nothing.returncode == 2 and "--task" in nothing.stderr
