"""A run's folder says what the run is doing: while it works, after it ended, and after it was killed."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_run import hold

from slimtune.errors import Diverged, Interrupted, UserError
from slimtune.status import read_state, telling


class Heard:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.done: list[int] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def progress(self, stage: str, done: int, total: int, detail: str = "") -> None:
        self.done.append(done)


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A folder that a run has begun in."""
    (tmp_path / "owner.json").touch()
    return tmp_path


def test_what_is_heard_is_passed_on_and_the_latest_of_it_stands_in_the_folder(begun: Path) -> None:
    heard = Heard()
    with telling(begun, heard) as told:
        told.say("Loading.")
        assert read_state(begun).said == "Loading."
        for done in range(3, 8):
            told.progress("Fine-tune", done, 10, f"loss {1 / done:.1f}")
        told.progress("Fine-tune", 10, 10)
        assert read_state(begun).said == "", "what was said before the work began is over"
        stage = read_state(begun).stages[0]
        assert (stage.name, stage.first, stage.done, stage.total) == ("Fine-tune", 3, 10, 10)
        assert stage.left_s == 0
    assert heard.said == ["Loading."] and heard.done == [3, 4, 5, 6, 7, 10]


def test_it_is_written_seldom_however_often_it_is_told(begun: Path) -> None:
    with telling(begun, Heard()) as told:
        told.progress("Fine-tune", 0, 9999)
        before = (begun / "status.json").stat().st_ino
        for done in range(200):
            told.progress("Fine-tune", done, 9999)
        assert (begun / "status.json").stat().st_ino == before, "each write is a new file"


@pytest.mark.parametrize(
    ("error", "phase"),
    [
        (Interrupted("stopped at step 3"), "stopped"),
        (Diverged("loss is NaN"), "failed"),
        (ZeroDivisionError("x"), "failed"),
    ],
)
def test_how_it_ended_is_told_with_why(begun: Path, error: Exception, phase: str) -> None:
    with pytest.raises(type(error)), telling(begun, Heard()):
        raise error
    state = read_state(begun)
    assert (state.phase, state.error) == (phase, str(error))


def test_a_run_is_running_for_as_long_as_its_process_lives_and_stopped_after_a_kill(tmp_path: Path) -> None:
    child = hold(tmp_path)
    state = read_state(tmp_path)
    assert (state.phase, state.owner["pid"]) == ("running", child.pid)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert read_state(tmp_path).phase == "stopped" and not read_state(tmp_path).owner


def test_looking_at_a_run_never_keeps_a_process_from_owning_it(tmp_path: Path) -> None:
    look = (
        "import sys; from pathlib import Path; from slimtune.runs import holder\nwhile True: holder(Path(sys.argv[1]))"
    )
    (tmp_path / "owner.json").touch()
    lookers = [subprocess.Popen([sys.executable, "-c", look, tmp_path]) for _ in range(2)]
    try:
        for _ in range(4):
            child = hold(tmp_path)
            assert read_state(tmp_path).owner["pid"] == child.pid
            child.kill()
            child.wait()
        assert all(looker.poll() is None for looker in lookers), "they looked all the time"
    finally:
        for looker in lookers:
            looker.kill()
            looker.wait()


def test_a_report_is_the_end_and_a_folder_without_a_status_is_no_error(tmp_path: Path) -> None:
    assert read_state(tmp_path).phase == "stopped"
    (tmp_path / "status.json").write_text("{")
    assert read_state(tmp_path).stages == ()
    (tmp_path / "report.html").touch()
    assert read_state(tmp_path).phase == "finished"


def test_an_error_before_the_work_begins_leaves_its_word_too(begun: Path) -> None:
    with pytest.raises(UserError), telling(begun, Heard()):
        raise UserError("It does not fit.")
    assert json.loads((begun / "status.json").read_text())["exit_code"] == 2
    assert read_state(begun).error == "It does not fit."
