"""One process owns a run folder, a run folder is of one run, and a step is done once."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from slimtune.errors import CannotWrite, UserError
from slimtune.runs import Run, fingerprint, open_run, read_metrics, training_seconds

IDENTITY = {"recipe": "r", "data": "d"}
HOLD = """
import sys, time
from pathlib import Path
from slimtune.runs import open_run
with open_run(Path(sys.argv[1]), {"recipe": "r", "data": "d"}):
    print("mine", flush=True)
    time.sleep(60)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    """A process that owns the folder."""
    child = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "mine\n"
    return child


def test_the_second_process_is_told_pid_host_and_time_and_a_dead_owner_is_succeeded(tmp_path: Path) -> None:
    child = hold(tmp_path)
    try:
        said = rf"owned by process {child.pid} on {socket.gethostname()} since \d{{4}}-\d\d-\d\dT.*choose another --out"
        with pytest.raises(UserError, match=said) as caught, open_run(tmp_path, IDENTITY):
            pass
        assert caught.value.exit_code == 2
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    with open_run(tmp_path, IDENTITY):
        assert json.loads((tmp_path / "owner.json").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("owner", ["", "{"])
def test_an_owner_that_has_not_written_its_name_yet_still_owns(tmp_path: Path, owner: str) -> None:
    child = hold(tmp_path)
    (tmp_path / "owner.json").write_text(owner)
    with pytest.raises(UserError, match=r"owned by process \? on \? since \?"), open_run(tmp_path, IDENTITY):
        pass
    child.kill()
    child.wait()


def test_a_run_of_something_else_is_refused_with_what_changed_and_left_as_it_is(tmp_path: Path) -> None:
    with open_run(tmp_path, IDENTITY) as run:
        run.step("a.json", lambda: 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "owner.json"}
    for changed, words in (
        ({"recipe": "other"}, "another recipe"),
        ({"data": "x", "recipe": "y"}, "another data and recipe"),
        ({"card": "T4"}, "another card"),
    ):
        with pytest.raises(UserError, match=words), open_run(tmp_path, {**IDENTITY, **changed}):
            pass
        assert (tmp_path / "owner.json").read_text() == "", "it signed: a beginning, for whoever waits"
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "owner.json"}
    with open_run(tmp_path, IDENTITY) as run:
        assert run.has("a.json")


def test_a_fingerprint_knows_every_part(tmp_path: Path) -> None:
    prints = {fingerprint(identity) for identity in (IDENTITY, {**IDENTITY, "data": "e"}, {**IDENTITY, "card": "T4"})}
    assert len(prints) == 3 and fingerprint(IDENTITY) == fingerprint(dict(reversed(IDENTITY.items())))


def test_a_step_is_done_once_and_a_step_that_failed_again(tmp_path: Path) -> None:
    (tmp_path / "owner.json").touch()
    run, done = Run(tmp_path), []

    def step() -> int:
        done.append(len(done))
        if len(done) == 1:
            raise ValueError("the first time")
        return done[-1]

    with pytest.raises(ValueError):
        run.step("a.json", step)
    assert not run.has("a.json")
    assert [run.step("a.json", step), run.step("a.json", step)] == [1, 1] and len(done) == 2


def test_a_folder_that_cannot_be_made_is_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/nothing/run"), Path("/proc/nothing")):
        with pytest.raises(CannotWrite, match="Cannot write"), open_run(folder, IDENTITY):
            pass


def cannot_be_written(*words: str) -> bool:
    command = [sys.executable, "-m", "slimtune.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode == 73 and "Cannot write /proc/x" in done.stderr and "Traceback" not in done.stderr


def test_wherever_a_verb_makes_its_folder_one_that_cannot_be_made_is_a_sentence_and_73(tmp_path: Path) -> None:
    rows = "".join(f"question {n},{label}\n" for n in range(5) for label in ("a", "b"))
    (tmp_path / "rows.csv").write_text(f"text,label\n{rows}")
    assert cannot_be_written("run", "smollm2-banking77-demo", "--out", "/proc/x")
    assert cannot_be_written("sweep", "run", "demo-cpu", "--store", "/proc/x")
    assert cannot_be_written("new", "/proc/x", "--from", str(tmp_path / "rows.csv"))
    assert cannot_be_written("bench", "speed", "smollm2-banking77-demo", "--out", "/proc/x")
    scored = ("--task", "banking77", "--rows", "2")
    assert cannot_be_written("evaluate", "smollm2-135m-embedded", *scored, "--out", "/proc/x/y")


def test_a_full_disk_met_anywhere_in_a_run_is_cannot_write_and_our_own_bugs_are_not(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="No space left"), open_run(tmp_path, IDENTITY), open("/dev/full", "w") as log:
        log.write("what a library prints")
    with pytest.raises(FileNotFoundError), open_run(tmp_path, IDENTITY):
        (tmp_path / "forgotten").read_text()


def test_a_folder_of_other_files_is_not_taken_for_a_run_and_keeps_them(tmp_path: Path) -> None:
    (tmp_path / ".thesis.host-1.tmp").write_text("years of work")
    with pytest.raises(UserError, match="is no run"), open_run(tmp_path, IDENTITY):
        pass
    assert (tmp_path / ".thesis.host-1.tmp").read_text() == "years of work"


def test_what_a_killed_owner_left_half_written_is_gone(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "owner.json").write_text("{}")
    (tmp_path / ".report.json.host-1.tmp").write_text("{")
    (tmp_path / "plots" / ".a.png.host-1.tmp").write_text("half")
    (tmp_path / ".adapter.host-1.tmp").mkdir()
    with open_run(tmp_path, IDENTITY):
        assert not list(tmp_path.rglob(".*"))


def test_a_folder_that_went_away_is_not_made_anew(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with open_run(out, IDENTITY) as run:
        run.step("plan.json", dict)
        out.rename(tmp_path / "away")
        for write in (lambda: run.step("other.json", dict), lambda: run.log({"step": 1})):
            with pytest.raises(CannotWrite, match=r"went away.* run the same command"):
                write()
        out.mkdir()  # the place that a drive was mounted at
        with pytest.raises(CannotWrite):
            run.log({"step": 1})
    assert not list(out.iterdir())


def test_a_folder_that_goes_away_while_a_step_works_is_not_made_anew(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with open_run(out, IDENTITY) as run, pytest.raises(CannotWrite, match="went away"):
        run.step("plan.json", lambda: str(out.rename(tmp_path / "away")))
    assert not out.exists()


def log_steps(folder: Path, *steps: tuple[int, float]) -> None:
    (folder / "owner.json").touch()
    run = Run(folder)
    for step, seconds in steps:
        run.log({"step": step, "seconds": seconds})


def test_of_a_step_trained_again_the_last_counts_and_a_torn_line_does_not(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == [] and training_seconds(tmp_path) == 0
    log_steps(tmp_path, (1, 1.0), (2, 2.0), (3, 3.0))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "sec')
    assert [step["step"] for step in read_metrics(tmp_path)] == [1, 2, 3]
    log_steps(tmp_path, (3, 0.5), (4, 1.5))
    assert [(step["step"], step["seconds"]) for step in read_metrics(tmp_path)] == [
        (1, 1.0),
        (2, 2.0),
        (3, 0.5),
        (4, 1.5),
    ]


@pytest.mark.parametrize("second", [0.5, 2.5, 9.0])
def test_each_process_of_a_run_counts_its_seconds_from_its_own_beginning(tmp_path: Path, second: float) -> None:
    log_steps(tmp_path, (1, 1.0), (2, 2.0))
    log_steps(tmp_path, (3, second), (4, second + 1))
    assert training_seconds(tmp_path) == 2.0 + second + 1
