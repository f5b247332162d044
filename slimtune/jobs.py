"""Runs as processes of their own: started, found, stopped and gone on with from outside. Whoever started one may close.

Runs lie in `runs/` of the folder that is current, where `slimtune run` puts them too. A job leaves there, beside its
folder NAME-HASH, the recipe it was started with (NAME-HASH.yaml) and what its process printed (NAME-HASH.log).
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slimtune.check import ready
from slimtune.errors import UserError
from slimtune.files import read_json, write_text
from slimtune.pipeline import THIS_MACHINE, run_folder, run_identity
from slimtune.recipe import read_recipe
from slimtune.runs import IDENTITY
from slimtune.status import State, read_state

RUNS = Path("runs")
_START_S = 60.0  # a busy machine needs seconds until Python runs
_CHECK_S = 600.0
_LAST_LINES = 12


def start(recipe_text: str, *, name: str) -> Path:
    """Start a run of this recipe in a process of its own, and return its folder once it is at work, or done already.

    Raises Problems with everything wrong with the recipe, and UserError with its last words where the process ends.
    """
    draft = RUNS / f".{name}.yaml"
    write_text(draft, recipe_text)
    try:
        identity = run_identity(ready(read_recipe(draft)), as_gpu=None)
        folder = run_folder(RUNS, name, identity)
        draft.replace(_beside(folder, "yaml"))
    finally:
        draft.unlink(missing_ok=True)
    _launch(["run", str(_beside(folder, "yaml")), "--out", str(folder)], folder)
    return folder


def resume(folder: Path) -> None:
    """Go on with a run that stopped, wherever it was started from. Raises UserError where it cannot go on."""
    if read_state(folder).phase == "running":
        raise UserError(f"{folder.name} is running already.")
    recipe = next((file for file in (_beside(folder, "yaml"), folder / "recipe.json") if file.is_file()), None)
    if recipe is None:
        raise UserError(f"{folder.name} did not get far enough to be gone on with. Start it again.")
    card = read_json(folder / IDENTITY)["card"] if (folder / IDENTITY).is_file() else THIS_MACHINE
    rehearsal = [] if card == THIS_MACHINE else ["--as-gpu", card]
    _launch(["run", str(recipe), "--out", str(folder), *rehearsal], folder)


def stop(folder: Path) -> None:
    """Ask a run to stop at its next whole step, with a checkpoint: it can be gone on with. Raises UserError where it
    does not run, or not on this machine."""
    owner = read_state(folder).owner
    if not owner.get("pid"):
        raise UserError(f"{folder.name} is not running.")
    if owner["host"] != socket.gethostname():
        raise UserError(f"{folder.name} runs on {owner['host']}. Stop it there: process {owner['pid']}.")
    os.kill(owner["pid"], signal.SIGTERM)


def check(recipe_text: str) -> dict[str, Any]:
    """What `slimtune check` finds, from a process of its own: counting tokens needs the training libraries. Raises
    UserError with what it said where it refuses."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        write_text(recipe, recipe_text)
        command = [sys.executable, "-m", "slimtune.cli", "check", str(recipe), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_CHECK_S)
    if done.returncode:
        raise UserError(done.stderr.strip() or f"The check ended with exit code {done.returncode}.")
    return json.loads(done.stdout.splitlines()[-1])


def list_runs() -> list[State]:
    """Every run, the one that was last at work first."""
    folders = [path.parent for path in RUNS.glob("*/owner.json")]
    return sorted(map(read_state, folders), key=lambda state: -(state.updated or _touched(state.folder)))


def find_run(name: str) -> Path:
    """The folder of a run by its name. Raises UserError where there is none of that name."""
    known = {path.parent.name: path.parent for path in RUNS.glob("*/owner.json")}
    if name not in known:
        raise UserError(f"There is no run {name!r} in {RUNS}/.")
    return known[name]


def last_words(folder: Path, *, lines: int = _LAST_LINES) -> str:
    """The end of what a run's process printed; empty where it was not started by `start` or `resume`."""
    log = _beside(folder, "log")
    if not log.is_file():
        return ""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _launch(arguments: Sequence[str], folder: Path) -> None:
    """Start the process in a session of its own, so that it outlives this one; wait until it owns its folder."""
    command = [sys.executable, "-m", "slimtune.cli", *arguments]
    with _beside(folder, "log").open("wb") as log:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    threading.Thread(target=child.wait, daemon=True).start()  # or it stays a zombie
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if child.poll() is not None or read_state(folder).owner.get("pid") == child.pid:
            break
        time.sleep(0.05)
    if child.poll():
        raise UserError(last_words(folder) or f"The process ended with exit code {child.returncode}.")


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(f"{folder.name}.{ending}")


def _touched(folder: Path) -> float:
    return (folder / "owner.json").stat().st_mtime
