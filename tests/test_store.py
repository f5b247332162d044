"""The folder of a study: whoever sees it knows what is done, and the first result that is whole stands."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from slimtune.cli import app
from slimtune.errors import UserError
from slimtune.files import append_line, read_json, write_json
from slimtune.sweep import created
from slimtune.sweep.created import create_json
from slimtune.sweep.store import (
    KILLED,
    Failure,
    publish,
    read_failure,
    read_study,
    side_rows,
    write_cell,
    write_failure,
    write_matrix,
)

CELL = {
    "cell": "a" * 64, "contestant": "Tiny, r 8", "model": "tiny", "task": "actions", "seed": 1, "axes": {"lora.r": 8},
    "recipe": {}, "identity": {},
}  # fmt: skip
INTERVAL = {"value": 0.5, "low": 0.1, "high": 0.9, "n": 2, "method": "wilson"}


def finished(folder: Path, name: str, *, score: float = 0.5) -> Path:
    """An attempt that came to its end, as `slimtune run` leaves it, as far as a store reads it."""
    attempt = folder / "attempts" / name
    for side in ("base", "tuned"):
        write_json(attempt / side / "evaluation.json", {"name": side, "n": 2, "score": {**INTERVAL, "value": score}})
        rows = {"id": ["1", "2"], "group": ["g", "h"], "score": [1.0, None]}
        pd.DataFrame(rows).to_parquet(attempt / side / "examples.parquet", index=False)
    write_json(attempt / "training.json", {"seconds": 3.0, "steps": 2})
    write_json(attempt / "environment.json", {"gpu": None, "precision": "fp32", "versions": {"torch": "2"}})
    write_json(attempt / "data.json", {"kind": "classification"})
    return attempt


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_matrix(tmp_path, "small", [{key: CELL[key] for key in ("cell", "contestant", "task", "seed", "axes")}])
    write_cell(tmp_path, CELL)
    return tmp_path


def cell(store: Path):
    (found,) = read_study(store).cells
    return found


def test_a_result_is_read_with_the_rows_behind_it(store):
    assert (cell(store).state, cell(store).model, cell(store).result) == ("waiting", "tiny", None)
    attempt = finished(cell(store).folder, "here-1")
    assert publish(cell(store).folder, attempt, wall_s=7200.0, usd_per_hour=0.5) == ""
    done = cell(store)
    assert (
        done.state == "done" and done.result["usd"] == 1.0 and done.result["seconds"] == {"wall": 7200, "training": 3}
    )
    assert done.result["attempt"] == "attempts/here-1" and done.result["kind"] == "classification"
    rows = side_rows(done, "tuned")
    assert (rows.ids, rows.groups, rows.values) == (("1", "2"), ("g", "h"), (1.0, None))
    assert side_rows(done, "teacher") is None


LEFT_BEHIND = """
import os, sys, time
from pathlib import Path
from slimtune.runs import open_run
with open_run(Path(sys.argv[1]), {}):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


def test_a_cell_whose_process_was_killed_is_left_unfinished_even_where_a_child_of_it_holds_the_lock(store):
    attempt = cell(store).folder / "attempts" / "here-1"
    assert (cell(store).state, cell(store).why) == ("waiting", "")
    owner = subprocess.Popen([sys.executable, "-c", LEFT_BEHIND, attempt], stdout=subprocess.PIPE, text=True)
    child = int(owner.stdout.readline())
    try:
        assert cell(store).state == "running"
        owner.kill()
        owner.wait()
        assert cell(store).state == "waiting" and "left unfinished" in cell(store).why
        status = CliRunner().invoke(app, ["sweep", "status", str(store)]).output
        assert "1 waiting" in status and "left unfinished" in status and "at work" not in status
    finally:
        os.kill(child, signal.SIGKILL)
    assert "left unfinished" in cell(store).why


def test_what_is_no_longer_asked_is_counted_and_not_listed(store):
    write_matrix(store, "small", [])
    study = read_study(store)
    assert (study.cells, study.stale) == ((), 1)


def test_the_first_result_stands_and_the_second_is_compared(store):
    folder = cell(store).folder
    first, same, other = (
        finished(folder, name, score=score) for name, score in (("a-1", 0.5), ("b-1", 0.5), ("c-1", 0.6))
    )
    assert publish(folder, first, wall_s=1, usd_per_hour=None) == ""
    before = (folder / "result.json").read_bytes()
    assert publish(folder, same, wall_s=1, usd_per_hour=None) == "attempts/a-1 was first: the same scores"
    assert "differs in base, tuned" in publish(folder, other, wall_s=1, usd_per_hour=None)
    assert (folder / "result.json").read_bytes() == before
    assert read_json(other / "duplicate.json")["differs"] == ["base", "tuned"]


def test_on_a_disk_without_links_the_first_result_stands_too(store, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    folder = cell(store).folder
    first, second = (finished(folder, name) for name in ("a-1", "b-1"))
    assert publish(folder, first, wall_s=1, usd_per_hour=None) == ""
    assert "a-1 was first" in publish(folder, second, wall_s=1, usd_per_hour=None)
    assert read_json(folder / "result.json")["attempt"] == "attempts/a-1" and not list(folder.glob(".*.tmp"))


def no_links(*_) -> None:
    raise OSError(errno.ENOTSUP, "no links here")


def claim(folder: Path, name: str, barrier) -> None:
    os.link = no_links  # in a process of its own
    for file in range(100):
        barrier.wait()
        if create_json(folder / f"{file}.json", {"by": name, "more": "x" * 5000}):
            append_line(folder / f"{name}.log", str(file))


def test_of_eight_processes_on_a_disk_without_links_one_makes_each_file_and_says_so(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(8)
    claimants = [context.Process(target=claim, args=(tmp_path, f"p{n}", barrier)) for n in range(8)]
    for process in claimants:
        process.start()
    for process in claimants:
        process.join(60)
    assert [process.exitcode for process in claimants] == [0] * 8
    won = {(int(line), path.stem) for path in tmp_path.glob("p*.log") for line in path.read_text().splitlines()}
    assert sorted(file for file, _ in won) == list(range(100)), "each file has one maker"
    assert all(read_json(tmp_path / f"{file}.json")["by"] == name for file, name in won)
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("left", [b"", b'{"attempt": "att'])
@pytest.mark.parametrize("linked", [True, False])
def test_a_result_that_a_kill_left_unfilled_counts_as_none_and_the_next_one_takes_its_place(
    store, monkeypatch, left, linked
):
    monkeypatch.setattr(created, "_FILLED_S", 0.2)
    if not linked:
        monkeypatch.setattr(os, "link", no_links)
    folder = cell(store).folder
    (folder / "result.json").write_bytes(left)
    assert cell(store).state == "waiting"
    assert publish(folder, finished(folder, "a-1"), wall_s=1, usd_per_hour=None) == ""
    assert read_json(folder / "result.json")["attempt"] == "attempts/a-1" and cell(store).state == "done"


def race(folder: Path, name: str, barrier) -> None:
    barrier.wait()
    publish(folder, folder / "attempts" / name, wall_s=1, usd_per_hour=None)


def test_of_two_machines_that_finish_one_cell_at_once_one_wins_in_fifty_rounds(store):
    context = multiprocessing.get_context("fork")
    folder = cell(store).folder
    attempts = {name: finished(folder, name) for name in ("a-1", "b-1")}
    for _ in range(50):
        barrier = context.Barrier(2)
        racers = [context.Process(target=race, args=(folder, name, barrier)) for name in attempts]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
            assert racer.exitcode == 0
        winner = json.loads((folder / "result.json").read_text())["attempt"]
        losers = [name for name in attempts if (attempts[name] / "duplicate.json").is_file()]
        assert {winner, *(f"attempts/{name}" for name in losers)} == {"attempts/a-1", "attempts/b-1"} and len(
            losers
        ) == 1
        (folder / "result.json").unlink()
        (attempts[losers[0]] / "duplicate.json").unlink()
        assert not list(folder.glob(".*.tmp"))


@pytest.mark.parametrize("exit_code", [2, 70, 71])
def test_what_would_fail_the_same_way_is_final(store, exit_code):
    assert write_failure(cell(store).folder, exit_code=exit_code, why="no", attempt="a-1").final
    assert (cell(store).state, cell(store).why) == ("failed", "no")


def test_a_cell_whose_process_is_killed_is_tried_three_times(store):
    folder = cell(store).folder
    states = []
    for _ in range(3):
        write_failure(folder, exit_code=KILLED, why="gone", attempt="a-1")
        states.append(cell(store).state)
    assert states == ["waiting", "waiting", "failed"] and read_failure(folder) == Failure(KILLED, "gone", "a-1", 3)


def test_a_cell_that_was_stopped_before_is_not_given_up_at_its_first_kill(store):
    folder = cell(store).folder
    for exit_code in (75, 75, KILLED):
        write_failure(folder, exit_code=exit_code, why="gone", attempt="a-1")
    assert (cell(store).state, read_failure(folder).tries) == ("waiting", 1)


@pytest.mark.parametrize("exit_code", [75, 69])
def test_a_stop_and_a_service_that_is_away_are_never_final(store, exit_code):
    for _ in range(9):
        assert not write_failure(cell(store).folder, exit_code=exit_code, why="stopped", attempt="a-1").final
    assert cell(store).state == "waiting"


def test_where_there_is_no_study_it_says_how_to_begin_one(tmp_path):
    with pytest.raises(UserError, match="slimtune sweep run MATRIX --store"):
        read_study(tmp_path)


@pytest.mark.parametrize("words", [["rank", "mine"], ["rank", "mine.yaml"], ["sweep", "status", "mine"]])
def test_a_study_named_by_its_matrix_is_found_for_the_reader(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("tasks: [trec]")
    write_matrix(Path("sweeps/mine"), "mine", [])
    result = CliRunner().invoke(app, words)
    assert str(result.exception) == f"There is no study in {words[-1]}. Did you mean sweeps/mine?"
