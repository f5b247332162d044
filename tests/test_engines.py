"""A study on other engines: files that they take as they are, and cells on a Ray cluster of pretended GPUs."""

import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from samples import make_task
from test_sweep import STUB, ask, states

from slimtune import __version__
from slimtune.errors import ServiceAway, UserError
from slimtune.recipe import Recipe
from slimtune.screen_sweep import show_emitted
from slimtune.sweep.asked import Entrant
from slimtune.sweep.emit import emit
from slimtune.sweep.local import Limits, run_study
from slimtune.sweep.matrix import read_matrix

GOLDEN = Path(__file__).parent / "fixtures" / "emitted"


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    task = make_task(tmp_path / "actions")
    path = tmp_path / "small.yaml"
    path.write_text(f"models: [qwen3-0.6b, llama-3.1-8b-instruct]\ntasks: [{task}]\nseeds: [1, 2]\n")
    return path


def normal(text: str, tmp_path: Path) -> str:
    """Without what differs from machine to machine: paths, the version, and ids, which the data's digest is in."""
    text = text.replace(str(tmp_path), "/HERE").replace(__version__, "VERSION")
    return re.sub(r"^[0-9a-f]{12} ", "ID ", text, flags=re.MULTILINE)


@pytest.mark.parametrize(("engine", "store"), [("sky", "gs://my-study"), ("slurm", "/shared/study")])
def test_what_is_written_is_what_was_agreed(matrix, tmp_path, engine, store):
    files = emit(engine, matrix, read_matrix(matrix), store=store, out=tmp_path / "out")
    for file in files:
        golden = GOLDEN / f"{file.name}.txt"
        text = normal(file.read_text(), tmp_path)
        if os.environ.get("SLIMTUNE_GOLDEN"):
            golden.parent.mkdir(exist_ok=True)
            golden.write_text(text)
        assert text == golden.read_text(), f"read the difference; SLIMTUNE_GOLDEN=1 writes {golden.name} anew"


def test_the_sky_task_names_cards_that_hold_its_model_and_which_exit_codes_are_tried_again(matrix, tmp_path):
    small, large = emit("sky", matrix, read_matrix(matrix), store="gs://my-study", out=tmp_path / "out")
    cards = [list(yaml.safe_load(file.read_text())["resources"]["accelerators"]) for file in (small, large)]
    assert all(1 <= len(found) <= 4 and "T4" not in found for found in cards), "bf16 throughout"
    recovery = yaml.safe_load(small.read_text())["resources"]["job_recovery"]
    assert recovery["recover_on_exit_codes"] == [75, 69] and recovery["max_restarts_on_errors"] == 0


def test_the_sky_task_passes_skypilots_own_schema(matrix, tmp_path):
    sky = pytest.importorskip("sky", reason="SkyPilot is not installed: pip install skypilot")
    for file in emit("sky", matrix, read_matrix(matrix), store="gs://my-study", out=tmp_path / "out"):
        from sky.utils import common_utils, schemas

        config = yaml.safe_load(file.read_text())
        common_utils.validate_schema(config, schemas.get_task_schema(), "Invalid task YAML: ")
        common_utils.validate_schema(config["resources"], schemas.get_resources_schema(), "Invalid resources: ")
    assert sky.__version__


@pytest.mark.parametrize(
    ("store", "key"),
    [
        ("s3://my-study", "source"),
        ("gs://my_study.eu/sweeps/one", "source"),
        ("oci://my-study@eu-frankfurt-1", "source"),
        ("cos://eu-de/my-study", "source"),
        ("https://mine.blob.core.windows.net/studies", "source"),
        ("my-study-2", "name"),
    ],
)
def test_a_bucket_that_is_there_is_mounted_and_a_name_makes_one(matrix, tmp_path, store, key):
    file, _ = emit("sky", matrix, read_matrix(matrix), store=store, out=tmp_path / "out")
    mount = yaml.safe_load(file.read_text())["file_mounts"]["/store"]
    assert mount == {key: store, "mode": "MOUNT_CACHED"}, "MOUNT takes no appends, and every run appends to its logs"


@pytest.mark.parametrize(
    "store",
    ["/shared/study", "sweeps/x", "s", "My-Study", "a" * 64, "ftp://my-study", "gs://", "gs:/my-study", "x\ny: z"],
)
def test_what_is_no_bucket_is_refused_for_sky_and_nothing_is_written(matrix, tmp_path, store):
    with pytest.raises(UserError, match="is no bucket"):
        emit("sky", matrix, read_matrix(matrix), store=store, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_array_of_slurm_is_a_script_that_bash_reads(matrix, tmp_path):
    script, listed = emit("slurm", matrix, read_matrix(matrix), store=str(tmp_path), out=tmp_path / "out")
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    assert "--array=1-4" in script.read_text() and len(listed.read_text().splitlines()) == 4


@pytest.mark.parametrize(("ended", "code"), [(0, 0), (2, 2), (75, 75), (69, 69)])
def test_a_task_of_the_array_does_its_cell_and_queues_again_where_that_helps(matrix, tmp_path, ended, code):
    script, listed = emit("slurm", matrix, read_matrix(matrix), store=str(tmp_path), out=tmp_path / "out")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, does in (
        ("slimtune", f"echo $@ >{tmp_path}/ran; exit {ended}"),
        ("scontrol", f"echo $@ >{tmp_path}/again"),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{does}\n")
        (tools / name).chmod(0o755)
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "9"}
    assert subprocess.run(["bash", str(script)], env=environment).returncode == code
    assert listed.read_text().splitlines()[2].split()[0] in (tmp_path / "ran").read_text()
    assert (tmp_path / "again").exists() == (code in (75, 69))


@pytest.mark.parametrize("engine", ["sky", "slurm"])
def test_a_folder_of_tasks_goes_along(matrix, tmp_path, engine):
    files = emit(
        engine, matrix, read_matrix(matrix), store="my-study", out=tmp_path / "out", data_dir=tmp_path / "my rows"
    )
    text = files[0].read_text()
    if engine == "slurm":
        assert f"--data '{tmp_path}/my rows' --cell" in text
    else:
        found = yaml.safe_load(text)
        assert found["file_mounts"]["/data"] == f"{tmp_path}/my rows" and found["run"].endswith("--data /data\n")


def test_nothing_is_written_while_the_rows_that_name_the_cells_are_away(tmp_path):
    cells = [replace(cell, wrong="The hub is away.") for cell in ask("A")]
    with pytest.raises(ServiceAway, match="Nothing is written"):
        emit("slurm", tmp_path / "m.yaml", cells, store="s", out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_served_model_that_no_machine_is_rented_for_is_said(tmp_path):
    recipe = Recipe(model="openai:big", task="trec")
    entrant = Entrant(model="big", base_url="http://127.0.0.1:9/v1")
    cells = [replace(cell, model="openai:big", recipe=recipe, served=entrant) for cell in ask("A")]
    console = Console(file=io.StringIO(), width=200)
    show_emitted(console, "sky", [], cells)
    assert "--model openai:big" in console.file.getvalue()


def test_an_unknown_engine_is_refused(matrix, tmp_path):
    with pytest.raises(UserError, match="sky or slurm"):
        emit("skye", matrix, read_matrix(matrix), store="s", out=tmp_path)


def one_cell(store: str, plan: str, fingerprint: str) -> int:
    """What `slimtune sweep run --cell` does, over a stub cell; the first time that its plan says so, it is killed."""
    cells = ask("ABC")
    mark = Path(plan).with_suffix(f".{fingerprint[:12]}")
    words = json.loads(Path(plan).read_text())
    cell = next(cell for cell in cells if cell.fingerprint.startswith(fingerprint))
    if words.get(f"{cell.contestant} on {cell.task}") == ["killed"] and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    command = [sys.executable, str(STUB), plan]
    return run_study(Path(store), "stub", cells, chosen={cell.fingerprint}, command=command, limits=Limits()).exit_code


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'slimtune[ray]'")
def test_on_two_pretended_gpus_six_cells_end_whatever_happens_to_one(tmp_path):
    import ray

    from slimtune.sweep.ray import run_on_ray

    store, plan, cells = tmp_path / "s", tmp_path / "plan.json", ask("ABC")
    plan.write_text(json.dumps({"A on trec": ["killed"], "B on trec": ["2"], "C on trec": ["kill", "ok"]}))
    code = f"import sys; sys.path.insert(0, {str(STUB.parent)!r}); import test_engines as t; sys.exit(t.one_cell("
    command = [sys.executable, "-c", f"{code}*sys.argv[1:]))", str(store), str(plan)]
    ray.init(num_gpus=2, num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        ended = run_on_ray(store, "stub", cells, {cell.fingerprint for cell in cells}, command=command)
        assert (ended.exit_code, ended.done, len(ended.failed)) == (2, 5, 1)
        assert states(store) == {**dict.fromkeys(states(store), "done"), "B on trec": "failed"}
        again = run_on_ray(store, "stub", cells, {cell.fingerprint for cell in cells}, command=command)
        assert (again.exit_code, again.done) == (2, 5), "what is done or final is not begun"
    finally:
        ray.shutdown()
