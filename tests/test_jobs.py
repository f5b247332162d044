"""A run is a process of its own: started once, found, stopped, gone on with, by whoever has its folder."""

import json
import os
import re
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from children import until

from slimtune import jobs
from slimtune.errors import Problems, UserError
from slimtune.report import read_report, report_fragment
from slimtune.report.browse import FILTERS, browse, labels_of
from slimtune.report.collect import collect
from slimtune.report.live import read_live
from slimtune.report.side_by_side import side_by_side
from slimtune.status import read_state

pytestmark = pytest.mark.xdist_group("jobs")


@pytest.fixture(scope="module")
def ran(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a run was started, stopped in its training, and gone on with to its end."""
    from samples import make_task

    at, before = tmp_path_factory.mktemp("jobs"), Path.cwd()
    make_task(at / "actions", train=48)
    os.chdir(at)
    text = (
        f"model: {tiny_model}\ntask: actions\nlora: {{r: 4, alpha: 8}}\ncontext: 256\n"
        "train: {epochs: 40, lr: 5e-3, batch: 4}\nevaluate: {few_shot: 0, max_new_tokens: 4}\n"
    )
    folder = jobs.start(text, name="tiny")
    assert read_state(folder).phase == "running" and [state.name for state in jobs.list_runs()] == [folder.name]
    assert jobs.start(text, name="tiny") == folder, "one that is at work is left at work"
    until(lambda: read_live(folder) is not None and read_live(folder).step > 3)
    jobs.stop(folder)
    until(lambda: read_state(folder).phase == "stopped")
    (at / "stopped.json").write_text(json.dumps({"step": read_live(folder).step, "steps": read_live(folder).steps}))
    jobs.resume(folder)
    until(lambda: read_state(folder).phase == "finished")
    assert jobs.start(text, name="tiny") == folder, "and one that is done, done"
    os.chdir(before)
    return at


@pytest.fixture
def here(ran: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ran)
    return next(path for path in (ran / "runs").glob("tiny-*") if path.is_dir())


def test_it_was_stopped_at_a_step_and_went_on_from_there(here: Path, ran: Path) -> None:
    stopped = json.loads((ran / "stopped.json").read_text())
    assert 3 < stopped["step"] < stopped["steps"]
    training = json.loads((here / "training.json").read_text())
    assert training["resumed_at_step"] == stopped["step"] and training["steps"] == stopped["steps"]
    assert read_live(here).step == stopped["steps"] and "<svg" in read_live(here).curves


def test_beside_it_lie_its_recipe_and_all_that_its_processes_said(here: Path) -> None:
    assert sorted(path.name for path in here.parent.glob("tiny-*") if path != here) == [
        f"{here.name}.log",
        f"{here.name}.yaml",
    ]
    until(lambda: jobs.last_words(here, lines=400).rstrip().endswith("adapter"))  # a run is finished before it says so
    assert "Stopped" in jobs.last_words(here, lines=400), "the second process wrote below the first"


def test_what_is_not_running_is_not_stopped_and_what_was_never_there_not_found(here: Path) -> None:
    with pytest.raises(UserError, match="is not running"):
        jobs.stop(here)
    for name in ("nothing", "../runs", "/etc", "", ".."):
        with pytest.raises(UserError, match="There is no run"):
            jobs.find_run(name)


def test_a_recipe_that_is_wrong_starts_nothing_and_leaves_nothing(here: Path) -> None:
    before = sorted(here.parent.iterdir())
    with pytest.raises(Problems, match="no task named"):
        jobs.start("model: qwen3-0.6b\ntask: nothing\n", name="wrong")
    assert sorted(here.parent.iterdir()) == before


def test_a_process_that_ends_before_it_begins_gives_its_last_words(here: Path, tiny_model: Path) -> None:
    text = f"model: {tiny_model}\ntask: actions\ncontext: 64\ntrain: {{epochs: 1}}\nevaluate: {{few_shot: 0}}\n"
    folder = jobs.start(text, name="long")  # its rows fit; stop it at once, and its folder is damaged behind its back
    os.kill(read_state(folder).owner["pid"], signal.SIGKILL)
    until(lambda: not read_state(folder).owner)
    (folder / "fingerprint.json").write_text('{"recipe": "another"}')
    with pytest.raises(UserError, match="holds a run of another"):
        jobs.resume(folder)


def test_a_module_of_that_name_in_the_folder_is_not_run(
    here: Path, tmp_path: Path, monkeypatch, tiny_model: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "typer.py").write_text("raise SystemExit('owned')")
    found = jobs.check(f"model: {tiny_model}\ntask: {here.parents[1] / 'actions'}\ncontext: 256\n")
    assert found["tokens"]["too_long"] == 0 and found["tokens"]["samples"][0][1][1] is True
    with pytest.raises(UserError, match="no task named"):
        jobs.check(f"model: {tiny_model}\ntask: nowhere\n")


def test_every_answer_can_be_looked_through(here: Path) -> None:
    run = collect(here)
    everything = browse(run)
    assert everything.total == 9 and everything.pages == 1 and labels_of(run) == ["lock", "move", "pay"]
    right, wrong = (browse(run, which=f"Tuned is {word}").total for word in ("right", "wrong"))
    assert right + wrong == 9 and right == sum(row.after_score == 1 for row in everything.rows)
    better, worse = (browse(run, which=f"{word} than base").total for word in ("Better", "Worse"))
    difference = read_report(here).differences[0].comparison
    assert (better, worse) == (difference.wins, difference.losses)
    assert browse(run, search="NUMBER 1003").total == 1 and browse(run, search="zzz").total == 0
    assert browse(run, label="pay").total == 3 and browse(run, number=99).number == 1
    assert all(browse(run, which=name).total <= 9 for name in FILTERS)


def test_runs_side_by_side_say_in_what_they_differ(here: Path, tmp_path: Path) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(here, other)
    recipe = json.loads((other / "recipe.json").read_text())
    recipe["lora"]["r"] = 99
    (other / "recipe.json").write_text(json.dumps(recipe))
    found = side_by_side([here, other])
    assert found.differing == (("lora.r", ("4", "99")),) and not found.other_rows
    assert found.columns[0].gain.against == "base" and found.columns[0].usd is None
    assert found.columns[0].scores["tuned"].score == read_report(here).scores[-1].score


def test_a_report_stands_in_another_page_as_in_its_own(here: Path) -> None:
    fragment = report_fragment(here)
    page = (here / "report.html").read_text()
    assert fragment.strip() in page and "<html" not in fragment


@pytest.mark.parametrize(
    "text", ["[]", '{"stages": null}', '{"stages": [{"name": "x"}]}', "{", '{"updated": null}', ""]
)
def test_a_status_of_another_version_is_no_status_and_no_error(here: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "status.json").write_text(text)
    state = read_state(tmp_path)
    assert state.phase == "stopped" and state.stages == ()


def test_the_command_line_lists_them_each_on_two_lines_of_80_columns(here: Path, ran: Path) -> None:
    command = [sys.executable, "-m", "slimtune.cli", "list", "runs"]
    narrow = os.environ | {"COLUMNS": "80"}
    said = subprocess.run(command, capture_output=True, text=True, cwd=ran, env=narrow, timeout=60).stdout
    lines = [line.rstrip() for line in said.splitlines()]
    first, second = next(pair for pair in pairwise(lines) if pair[0].startswith(here.name))
    assert re.search(r" finished +20\d\d-\d\d-\d\d( +[01]\.\d{3}){2}$", first), first
    assert re.fullmatch(r" +\d\d:\d\d( +[01]\.\d\d-[01]\.\d\d){2}", second), second
