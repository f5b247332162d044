"""The script for a blank rented box, run for real over stand-ins of what it calls: in the end the meter stops."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from test_examples import hearing, wait_for
from typer.testing import CliRunner

from slimtune.cli import app

SCRIPT = Path(__file__).parents[1] / "examples/overnight/rent.sh"
SLIMTUNE = """#!/usr/bin/env bash
echo "slimtune $*" >> "$LOG"
if [ "$1 $2" = "sweep run" ]; then
    mkdir -p "$5"
    case "$ENDS" in
        slow) trap 'exit 75' TERM; touch "$LOG.started"; for _ in {1..300}; do sleep 0.1; done ;;
        *) exit "$ENDS" ;;
    esac
fi
"""
TOOLS = {
    "nvidia-smi": "exit ${CARD:-0}",
    "git": 'echo git >> "$LOG"; mkdir -p slimtune/.venv/bin; cp "$STAND_IN" slimtune/.venv/bin/slimtune',
    "make": 'echo make >> "$LOG"',
    "rsync": 'echo "rsync ${@: -1}" >> "$LOG"',
}


@pytest.fixture
def box(tmp_path: Path) -> dict[str, str]:
    """The environment of a box whose tools are stand-ins."""
    for name, does in {**TOOLS, "stand-in": SLIMTUNE}.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(does if does.startswith("#!") else f"#!/usr/bin/env bash\n{does}\n")
        file.chmod(0o755)
    return {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "LOG": str(tmp_path / "log"),
        "STAND_IN": str(tmp_path / "bin/stand-in"),
        "ENDS": "0",
        "STOP_COMMAND": 'echo stopped >> "$LOG"',
        "RESULTS": "me@home:studies/",
    }


def rent(box: dict[str, str], **more: str) -> subprocess.Popen:
    pipe = subprocess.PIPE
    command = ["bash", str(SCRIPT), "t4-small"]
    return subprocess.Popen(
        command, env={**box, **more}, stdout=pipe, stderr=subprocess.STDOUT, text=True, preexec_fn=hearing
    )


def log(box: dict[str, str]) -> list[str]:
    return Path(box["LOG"]).read_text().splitlines() if Path(box["LOG"]).exists() else []


@pytest.mark.parametrize(
    ("code", "given", "limits"),
    [
        ("0", {}, "--hours 8"),
        ("2", {"USD_PER_HOUR": "0.4"}, "--hours 8 --usd 5 --usd-per-hour 0.4"),
        ("75", {"USD_PER_HOUR": "0.4", "USD": "2", "HOURS": "3"}, "--hours 3 --usd 2 --usd-per-hour 0.4"),
    ],
)
def test_from_a_blank_box_to_results_and_then_the_meter_stops(box, code, given, limits):
    script = rent(box, ENDS=code, **given)
    said, _ = script.communicate(timeout=60)
    assert script.returncode == int(code), said
    store = f"{box['HOME']}/slimtune-study/sweeps/t4-small"
    assert log(box) == [
        "git",
        "make",
        "slimtune doctor",
        "slimtune sweep plan t4-small",
        f"slimtune sweep run t4-small --store {store} {limits}",
        f"slimtune sweep status {store}",
        f"slimtune rank {store}",
        "rsync me@home:studies/",
        "stopped",
    ]


def test_a_box_whose_card_does_not_work_is_given_back_at_once(box):
    script = rent(box, CARD="9")
    script.communicate(timeout=60)
    assert script.returncode == 9 and log(box) == ["stopped"]


def test_dollars_without_the_boxs_price_are_refused_before_anything_is_installed(box):
    script = rent(box, USD="5")
    assert "set USD_PER_HOUR too" in script.communicate(timeout=60)[0]
    assert script.returncode == 2 and log(box) == ["stopped"]


def test_what_it_asks_for_by_default_is_taken_where_the_cards_price_is_not_known(box, tmp_path, monkeypatch):
    rent(box).communicate(timeout=60)
    (asked,) = [line.removeprefix("slimtune ") for line in log(box) if "sweep run" in line]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    result = CliRunner().invoke(app, [*asked.split(), "--hours", "0"])
    assert result.exit_code == 75 and "hours are over" in result.output, result.exception


def test_a_term_reaches_the_study_and_the_meter_stops_after_it(box):
    script = rent(box, ENDS="slow")
    wait_for(f"{box['LOG']}.started")
    script.send_signal(signal.SIGTERM)
    script.communicate(timeout=30)
    assert script.returncode == 75 and log(box)[-2:] == ["rsync me@home:studies/", "stopped"]


def test_without_a_way_to_stop_the_meter_it_says_so(box):
    script = rent(box, STOP_COMMAND="")
    assert "the box goes on costing" in script.communicate(timeout=60)[0]
