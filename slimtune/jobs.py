"""Runs as processes of their own: started, found, stopped and gone on with from outside. Whoever started one may close.

Runs lie in `runs/` of the folder that is current, where `slimtune run` puts them too. A job leaves there, beside its
folder NAME-HASH, the recipe it was started with (NAME-HASH.yaml) and what its process printed (NAME-HASH.log).
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slimtune.check import ready
from slimtune.errors import UserError
from slimtune.files import read_json, write_text
from slimtune.pipeline import RUNS, THIS_MACHINE, run_folder, run_identity
from slimtune.recipe import read_recipe
from slimtune.runs import IDENTITY
from slimtune.status import State, read_state

_SLIMTUNE = (sys.executable, "-P", "-m", "slimtune.cli")  # -P: what lies in this folder is no module of ours
_START_S = 60.0  # a busy machine needs seconds until Python runs
_CHECK_S = 600.0
_LAST_LINES = 12


def start(recipe_text: str, *, name: str) -> Path:
    """Start a run of this recipe in a process of its own, and return its folder once it is at work. A run that is at
    work or done already is left as it is.

    Raises Problems with everything wrong with the recipe, and UserError with its last words where the process ends.
    """
    draft = RUNS / f".{name}-{secrets.token_hex(4)}.yaml"
    write_text(draft, recipe_text)
    try:
        identity = run_identity(ready(read_recipe(draft)), as_gpu=None)
        folder = run_folder(RUNS, name, identity)
        if read_state(folder).phase in ("running", "finished"):
            return folder
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
    card = read_json(folder / IDENTITY).get("card") if (folder / IDENTITY).is_file() else THIS_MACHINE
    rehearsal = [] if card in (None, THIS_MACHINE) else ["--as-gpu", card]
    _launch(["run", str(recipe), "--out", str(folder), *rehearsal], folder)


def stop(folder: Path) -> None:
    """Ask a run to stop at its next whole step, with a checkpoint: it can be gone on with. Raises UserError where it
    does not run, or not on this machine."""
    state = read_state(folder)
    owner, began = state.owner, state.phase == "running"
    if not owner.get("pid"):
        raise UserError(f"{folder.name} {'has only just begun: try again' if began else 'is not running'}.")
    if owner["host"] != socket.gethostname():
        raise UserError(f"{folder.name} runs on {owner['host']}. Stop it there: process {owner['pid']}.")
    try:
        os.kill(owner["pid"], signal.SIGTERM)
    except ProcessLookupError as error:
        raise UserError(f"{folder.name} has just ended.") from error
    except PermissionError as error:
        raise UserError(f"{folder.name} runs as another user: process {owner['pid']}.") from error


def check(recipe_text: str, *, gpu: str = "") -> dict[str, Any]:
    """What `slimtune check` finds, from a process of its own: counting tokens needs the training libraries. `gpu` is
    the card to plan for, if not this machine's. Raises UserError with what it said where it refuses."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        write_text(recipe, recipe_text)
        command = [*_SLIMTUNE, "check", str(recipe), "--json", *(["--gpu", gpu] if gpu else [])]
        try:
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_CHECK_S)
        except subprocess.TimeoutExpired as error:
            raise UserError(f"The check took longer than {_CHECK_S:.0f} s. Run it in a terminal.") from error
    if done.returncode:
        raise UserError(done.stderr.strip() or f"The check ended with exit code {done.returncode}.")
    return json.loads(done.stdout.splitlines()[-1])


def list_runs() -> list[State]:
    """Every run, the one that was last at work first."""
    folders = [path.parent for path in RUNS.glob("*/owner.json")]
    return sorted(map(read_state, folders), key=last_at_work, reverse=True)


def last_at_work(state: State) -> float:
    """When a run last did something, in seconds since the epoch."""
    return state.updated or (state.folder / "owner.json").stat().st_mtime


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
    log_file = _beside(folder, "log")
    before = log_file.stat().st_size if log_file.is_file() else 0
    with log_file.open("ab") as log:
        child = subprocess.Popen(
            [*_SLIMTUNE, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    threading.Thread(target=child.wait, daemon=True).start()  # or it stays a zombie
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if child.poll() is not None or read_state(folder).owner.get("pid") == child.pid:
            break
        time.sleep(0.05)
    else:
        raise UserError(
            f"{folder.name} has not begun after {_START_S:.0f} s; its process is {child.pid}. {log_file} tells."
        )
    if child.poll():
        said = log_file.read_bytes()[before:].decode("utf-8", "replace").strip()
        raise UserError(said or f"The process ended with exit code {child.returncode}.")


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(f"{folder.name}.{ending}")


def stop_flag() -> Callable[[], bool]:
    """True once SIGTERM or Ctrl-C came: the work stops at the next whole step. A third Ctrl-C ends the process."""
    flag, count = threading.Event(), [0]

    def stop(number: int, frame: object) -> None:
        flag.set()
        count[0] += 1
        if number == signal.SIGINT and count[0] >= 3:
            os._exit(130)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return flag.is_set
