"""What a study looks like: the same from its folder alone as beside its runner, and nothing that failed is left out."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from samples import make_task
from test_sweep import ask, run
from typer.testing import CliRunner

from slimtune.cli import app
from slimtune.gpus import get_gpu
from slimtune.screen_sweep import Watch, show_ended, show_outlooks, show_progress
from slimtune.sweep.matrix import read_matrix
from slimtune.sweep.outlook import outlooks
from slimtune.sweep.progress import read_progress


def shown(what, *values, terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), width=120, force_terminal=terminal, color_system=None)
    what(console, *values)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cells: four done, one failed, one whose service was away."""
    path = tmp_path_factory.mktemp("study") / "s"
    run(path, ask("AB", seeds=1), {"A on trec": ["2"], "B on trec": ["69"]})
    return path


def test_the_grid_says_what_is_done_and_why_the_rest_is_not(store):
    text = shown(show_progress, read_progress(store))
    assert "trec" in text and "banking77" in text
    assert "failed: A on trec, seed 0: told to end with 2" in text
    assert "waiting: B on trec, seed 0: told to end with 69" in text
    assert "2 done, 1 failed, 1 waiting of 4 cells" in text and "left on one machine" in text


def test_seeds_share_a_place_in_the_grid(tmp_path):
    run(tmp_path / "s", ask("A", seeds=3), {"A on trec": ["ok", "ok"]})
    assert shown(show_progress, read_progress(tmp_path / "s")).count("done 3/3") == 2


def test_words_from_outside_are_text_and_no_markup(tmp_path):
    cells = [replace(cell, contestant="[red]x[/red]") for cell in ask("A")]
    run(tmp_path / "s", cells)
    assert "[red]x[/red]" in shown(show_progress, read_progress(tmp_path / "s"))


def test_more_tasks_than_contestants_go_down_the_page_and_what_all_are_is_left_out(tmp_path):
    names = {"A": "Qwen3, r 8", "B": "Qwen3, r 64"}
    cells = [
        replace(cell, contestant=names[cell.contestant], task=f"{cell.task}{more}", fingerprint=f"{cell.id}{more}")
        for more in range(2)
        for cell in ask("AB")
    ]
    run(tmp_path / "s", cells)
    first, *rows = shown(show_progress, read_progress(tmp_path / "s")).splitlines()
    assert first.split() == [first.split()[0], "r", "8", "r", "64"]
    assert [row.split()[0] for row in rows[:4]] == [*dict.fromkeys(cell.task for cell in cells)]


@pytest.mark.parametrize("terminal", [True, False])
def test_while_it_runs_a_terminal_has_the_grid_and_a_log_has_a_line_a_cell(tmp_path, terminal):
    console = Console(file=io.StringIO(), width=120, force_terminal=terminal, color_system=None)
    with Watch(console, tmp_path / "s") as watch:
        run(tmp_path / "s", ask("A"), {"A on trec": ["slow"]}, on_tick=lambda: watch.tick(now=True))
    text = console.file.getvalue()
    if terminal:
        assert "at work" in text and "2 done of 2 cells" in text
    else:
        assert "running: A on trec, seed 0." in text and "2 of 2 done. done: A on banking77, seed 0." in text


def test_how_a_call_ended_is_said_with_what_to_type_next(store):
    ended = run(store, ask("AB"), {"A on trec": ["2"], "B on trec": ["ok"]})
    assert "slimtune sweep run m --again" in shown(show_ended, ended, "slimtune sweep run m")
    ended = run(store, ask("AB"), again=True)
    assert "all 4 cells" in shown(show_ended, ended, "")


def test_a_plan_says_hours_and_dollars_and_names_what_does_not_fit(tmp_path):
    task = make_task(tmp_path / "actions")
    path = tmp_path / "m.yaml"
    path.write_text(f"models: [qwen3-0.6b, llama-3.1-8b-instruct]\ntasks: [{task}]\nbase: {{context: 2048}}\n")
    cells = read_matrix(path)
    found = outlooks(cells, [get_gpu("t4"), get_gpu("h100"), get_gpu("3060")])
    assert [one.fits for one in found][1] == 2 and found[1].usd[0] <= found[1].usd[1] and found[0].usd is None
    assert all(one.hours[0] < one.hours[1] for one in found)
    text = shown(show_outlooks, cells, found)
    assert "2 cells to train" in text and ("no room for" in text) == any(one.misfits for one in found)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "demo-cpuu"], "Did you mean 'demo-cpu'"),
        (["run", "demo-cpu", "--cell", "0123456789ab"], "has no cell"),
        (["run", "demo-cpu", "--model", "qwen3-8b"], "has no model"),
        (["run", "demo-cpu", "--engine", "rai"], "local or ray"),
        (["run", "demo-cpu", "--usd", "5"], "--usd-per-hour"),
        (["status", "nowhere"], "There is no study"),
        (["emit", "demo-cpu", "--engine", "pbs", "--store", "x"], "sky or slurm"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_starts(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    result = CliRunner().invoke(app, ["sweep", *words])
    assert said in str(result.exception) and result.exception.exit_code == 2
    assert not (tmp_path / "sweeps").exists()


def test_a_store_of_another_study_is_left_alone_unless_told_and_what_is_no_longer_asked_for_is_counted(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run(tmp_path / "mine", ask("A"), name="mine")
    before = (tmp_path / "mine" / "matrix.json").read_bytes()
    words = ["sweep", "run", "demo-cpu", "--store", "mine", "--hours", "0"]
    result = CliRunner().invoke(app, words)
    assert result.exception.exit_code == 2
    said = "mine holds the study mine; this is demo-cpu. Choose another --store, or --replace"
    assert said in str(result.exception) and (tmp_path / "mine" / "matrix.json").read_bytes() == before
    result = CliRunner().invoke(app, [*words, "--replace"])
    assert "2 cells of before are no longer asked for." in result.output and result.exit_code == 75
    again = CliRunner().invoke(app, words)
    assert "no longer asked for. Results" not in again.output and "4 cells left" in again.output
