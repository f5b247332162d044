"""The example for a rented box, run for real. What it calls is a stand-in for slimtune that ends with the code its
recipe is named for: what is tested is the script.
"""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from slimtune import errors
from slimtune.recipe import find_recipe

SCRIPT = Path(__file__).parents[1] / "examples/overnight/run_all.sh"
STAND_IN = """#!/usr/bin/env bash
echo "$*" >> calls
case $2 in
    *-slow) trap 'exit 75' TERM; touch started; for _ in {1..200}; do sleep 0.1; done ;;
    *-deaf) trap '' TERM; touch started; sleep 1; echo ended >> calls; exit 0 ;;
    *) exit "${2##*-}" ;;
esac
"""


@pytest.fixture
def box(tmp_path, monkeypatch) -> Path:
    """An empty folder with a slimtune of ours first on PATH."""
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin/slimtune"
    stand_in.write_text(STAND_IN, encoding="utf-8")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("STOP_COMMAND", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hearing() -> None:
    """What started the tests may ignore signals, under nohup for one, and a shell cannot trap what was ignored."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def start(*recipes: str) -> subprocess.Popen:
    command = ["bash", str(SCRIPT), *recipes]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, preexec_fn=hearing)


def end(script: subprocess.Popen) -> tuple[int, str]:
    said, _ = script.communicate(timeout=60)
    return script.returncode, said


def calls() -> list[str]:
    return Path("calls").read_text().splitlines()


def wait_for(file: str) -> None:
    deadline = time.monotonic() + 30
    while not Path(file).exists():
        assert time.monotonic() < deadline, f"{file} did not come"
        time.sleep(0.02)


def test_all_run_in_order_and_end_well(box):
    assert end(start("a-0", "my recipes/b-0"))[0] == 0
    assert calls() == ["run a-0", "run my recipes/b-0"]


def test_one_that_fails_does_not_stop_the_others_and_is_named_at_the_end(box):
    codes = sorted({kind.exit_code for kind in vars(errors).values() if hasattr(kind, "exit_code")} - {75})
    code, said = end(start(*(f"bad-{number}" for number in codes), "later-75", "good-0"))
    assert code == 1 and len(calls()) == len(codes) + 2
    summary = said.split("===")[-1]
    assert [int(found) for found in re.findall(r"failed.*bad-\d+ \(exit code (\d+)\)", summary)] == codes
    assert "done: good-0" in summary and "goes on: later-75" in summary


def test_what_is_left_open_is_told_by_the_exit_code(box):
    assert end(start("a-0", "b-75"))[0] == 75


@pytest.mark.parametrize("recipe, expected", [("a-0", 0), ("b-2", 1), ("c-75", 75)])
def test_the_meter_is_stopped_last_whatever_happened(box, monkeypatch, recipe, expected):
    monkeypatch.setenv("STOP_COMMAND", "echo 'stop it' >> calls")
    assert end(start(recipe, "d-0"))[0] == expected
    assert calls() == [f"run {recipe}", "run d-0", "stop it"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_recipe_at_once_and_leaves_the_rest_open(box, monkeypatch, number):
    monkeypatch.setenv("STOP_COMMAND", "echo 'stop it' >> calls")
    script = start("a-0", "b-slow", "c-0")
    wait_for("started")
    script.send_signal(number)
    began = time.monotonic()
    code, said = end(script)
    assert code == 75 and time.monotonic() - began < 10
    assert "goes on: b-slow" in said and "goes on: c-0" in said
    assert calls() == ["run a-0", "run b-slow", "stop it"]


def test_it_waits_for_a_recipe_that_takes_its_time_to_stop(box, monkeypatch):
    monkeypatch.setenv("STOP_COMMAND", "echo 'stop it' >> calls")
    script = start("b-deaf")
    wait_for("started")
    script.terminate()
    assert end(script)[0] == 0 and calls() == ["run b-deaf", "ended", "stop it"]


def test_a_command_that_cannot_stop_the_meter_is_told(box, monkeypatch):
    monkeypatch.setenv("STOP_COMMAND", "exit 3")
    code, said = end(start("a-0"))
    assert code == 0 and "STOP_COMMAND failed with exit code 3" in said


def test_nothing_is_shut_down_unless_it_is_asked_for(box):
    _, said = end(start("a-0"))
    assert "meter" not in said
    commands = [line for line in SCRIPT.read_text().splitlines() if not line.lstrip().startswith("#")]
    assert not re.search(r"shutdown|poweroff|halt|runpod", "\n".join(commands))


def test_a_slimtune_that_is_not_there_is_said_once_and_stops_the_meter(box, monkeypatch):
    monkeypatch.setenv("STOP_COMMAND", "touch stopped")
    (box / "bin/slimtune").unlink()
    (box / "bin/bash").symlink_to("/bin/bash")
    (box / "bin/date").symlink_to("/bin/date")
    (box / "bin/touch").symlink_to("/bin/touch")
    monkeypatch.setenv("PATH", str(box / "bin"))
    code, said = end(start("a-0", "b-0"))
    assert code == 1 and "There is no command slimtune here" in said and Path("stopped").exists()
    assert "===" not in said, "no recipe was tried"


def test_without_names_it_takes_recipes_that_come_along(box):
    assert end(start())[0] == 1  # the stand-in knows no such code
    names = [call.removeprefix("run ") for call in calls()]
    assert len(names) >= 3 and all(find_recipe(name).is_file() for name in names)
