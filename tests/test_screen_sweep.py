"""What a study looks like: the same from its folder alone as beside its runner, and nothing that failed is left out."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from samples import make_task
from test_sweep import ask, run
from typer.testing import CliRunner

from slimtune.cli import app
from slimtune.cli.sweeping import _command
from slimtune.gpus import get_gpu
from slimtune.models import get_model
from slimtune.plan import Setting
from slimtune.screen_sweep import Watch, show_ended, show_outlooks, show_progress
from slimtune.sweep.matrix import find_matrix, read_matrix
from slimtune.sweep.outlook import Outlook, outlooks
from slimtune.sweep.progress import read_progress
from slimtune.sweep.scoring import Side, scoring_s


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
    assert "2 cells to train and score" in text and ("no room for" in text) == any(one.misfits for one in found)


def planned(tmp_path: Path, more: str = "", *, gpu: str = "t4", **price: float) -> Outlook:
    """One card's outlook for Qwen3-0.6B on three rows, with what else the matrix says."""
    path, task = tmp_path / "m.yaml", tmp_path / "actions"
    path.write_text(f"models: [qwen3-0.6b]\ntasks: [{task if task.exists() else make_task(task)}]\n{more}")
    (found,) = outlooks(read_matrix(path), [get_gpu(gpu)], **price)
    return found


def test_scoring_counts_every_side_once_and_what_a_cell_finds_scored_not_again(tmp_path):
    zero = planned(tmp_path, "base: {evaluate: {few_shot: 0}}")
    assert 0 < zero.scoring_hours[0] < zero.scoring_hours[1]
    assert zero.hours == tuple(map(sum, zip(zero.training_hours, zero.scoring_hours, strict=True)))
    assert planned(tmp_path).scoring_hours[1] > zero.scoring_hours[1], "worked examples are a side more"
    two = planned(tmp_path, "base: {evaluate: {few_shot: 0}}\nseeds: [1, 2]")
    assert two.training_hours == pytest.approx([2 * end for end in zero.training_hours])
    assert all(end < 2 * one for end, one in zip(two.scoring_hours, zero.scoring_hours, strict=True))


def test_what_prompts_share_costs_nothing_where_it_is_kept():
    card, setting = get_gpu("h200"), Setting("16bit", "bf16", False, 16, 640, 64, cuda=True)
    alone, sharing = (Side(1000, 600.0, shared, (20.0, 10.0)) for shared in (0.0, 570.0))
    whole, kept = (scoring_s(side, get_model("qwen3-4b"), setting, card) for side in (alone, sharing))
    assert kept[0] < 0.5 * whole[0] and kept[1] < 0.5 * whole[1]
    gemma = get_model("gemma-3-1b-it")
    assert scoring_s(alone, gemma, setting, card) == scoring_s(sharing, gemma, setting, card)


def test_what_a_model_may_say_makes_the_slow_end_and_a_large_one_in_4_bit_is_scored_too(tmp_path):
    short, long = (planned(tmp_path, f"base: {{evaluate: {{max_new_tokens: {most}}}}}") for most in (50, 500))
    assert short.scoring_hours[1] < long.scoring_hours[1] and short.scoring_hours[0] == long.scoring_hours[0]
    large = "models: [llama-3.1-8b-instruct]\nbase: {context: 512, train: {quantisation: 4bit}}"
    path = tmp_path / "large.yaml"
    path.write_text(f"{large}\ntasks: [{tmp_path / 'actions'}]\n")
    (found,) = outlooks(read_matrix(path), [get_gpu("t4")])
    assert found.fits == 1 and found.scoring_hours[0] > short.scoring_hours[0]


def test_a_price_that_is_given_takes_the_place_of_the_lists(tmp_path):
    assert planned(tmp_path).usd is None and planned(tmp_path, gpu="h100").usd is not None
    for gpu in ("t4", "h100"):
        found = planned(tmp_path, gpu=gpu, usd_per_hour=0.5)
        assert found.usd == pytest.approx([end * 0.5 for end in found.hours])


@pytest.mark.parametrize(
    ("training", "scoring", "said"),
    [
        ((0.02, 0.09), (0.01, 0.06), ("1 to 5 min", "1 to 4 min", "2 to 9 min")),
        ((0.4, 2.5), (0.6, 0.6), ("24 min to 2.5 h", "36 min", "60 min to 3.1 h")),
        ((2, 5), (1, 4), ("2.0 to 5.0 h", "60 min to 4.0 h", "3.0 to 9.0 h")),
    ],
)
def test_a_plan_tells_time_in_minutes_or_hours_of_training_of_scoring_and_in_all(training, scoring, said):
    text = shown(show_outlooks, ask("A"), [Outlook(get_gpu("t4"), 2, training, scoring, (0.0, 0.004), ())])
    assert all(words in text for words in (*said, "In all: training and scoring", "under 0.01")), text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "demo-cpuu"], "Did you mean 'demo-cpu'"),
        (["run", "demo-cpu", "--cell", "0123456789ab"], "has no cell"),
        (["run", "demo-cpu", "--model", "qwen3-8b"], "has no model"),
        (["run", "demo-cpu", "--engine", "rai"], "local or ray"),
        (["run", "demo-cpu", "--usd", "5"], "--usd-per-hour"),
        (["plan", "demo-cpu", "--usd-per-hour", "1"], "name it, as in --gpu t4"),
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


def test_a_cell_that_a_cluster_starts_has_the_price_that_was_given(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    path = find_matrix("demo-cpu")
    words = _command(path, tmp_path / "s", None, 3.5)[4:]
    assert words[:2] == ["sweep", "run"]
    cell = read_matrix(path)[0].id
    result = CliRunner().invoke(app, [*words, cell, "--usd", "0"])
    assert result.exit_code == 75 and "0 dollars are spent" in result.output
    (runner,) = (tmp_path / "s" / "runners").glob("*.json")
    assert json.loads(runner.read_text())["usd"] > 0


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
