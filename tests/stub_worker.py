"""A worker whose cells are real processes and files, and no training: `python stub_worker.py [PLAN.json]`.

The plan says by contestant and task what happens there, one word a try, the last for good:
{"A on trec": ["kill", "ok"]}. Words: ok, kill (SIGKILL of itself), die (of its parent too), slow (ten steps of a tenth
of a second), long (the same, but the fourth takes an hour), or an exit code.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from slimtune.errors import CannotWrite, Diverged, Interrupted, ServiceAway, UserError
from slimtune.files import append_line, read_json, write_json
from slimtune.runs import open_run
from slimtune.sweep.worker import work

CODES = {"2": UserError, "69": ServiceAway, "71": Diverged, "73": CannotWrite, "75": Interrupted}
PLAN = json.loads(Path(sys.argv[1]).read_text()) if len(sys.argv) > 1 else {}


def do(folder: Path, attempt: Path, should_stop: Callable[[], bool]) -> None:
    cell = read_json(folder / "cell.json")
    key = f"{cell['contestant']} on {cell['task']}"
    with open_run(attempt, cell["identity"]) as run:
        append_line(run.folder / "tries.jsonl", json.dumps({"pid": os.getpid(), "at": time.time()}))
        tries = (run.folder / "tries.jsonl").read_text().count("\n")
        words = PLAN.get(key, ["ok"])
        act(words[min(tries, len(words)) - 1], run, should_stop)
        finish(run.folder, cell)


def act(word: str, run, should_stop: Callable[[], bool]) -> None:
    if word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "die":
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "70":
        raise ZeroDivisionError("a bug")
    if word in CODES:
        raise CODES[word](f"told to end with {word}")
    if word in ("slow", "long"):
        steps(run, should_stop, fourth_s=3600 if word == "long" else 0.1)


def steps(run, should_stop: Callable[[], bool], *, fourth_s: float) -> None:
    """Ten steps, each kept: whoever goes on begins after the last."""
    done = read_json(run.folder / "step.json") if run.has("step.json") else 0
    for step in range(done + 1, 11):
        time.sleep(fourth_s if step == 4 else 0.1)
        append_line(run.folder / "steps.jsonl", json.dumps({"step": step}))
        write_json(run.folder / "step.json", step)
        if should_stop():
            raise Interrupted(f"Stopped after step {step} of 10; run the same command to go on.")


def finish(folder: Path, cell: dict) -> None:
    """What a run leaves, as far as a store reads it. The score is a function of the cell alone."""
    value = int(cell["cell"][:4], 16) / 65536
    for side in ("base", "tuned"):
        score = {"value": value, "low": value, "high": value, "n": 10, "method": "stub"}
        write_json(folder / side / "evaluation.json", {"name": side, "n": 10, "score": score})
    write_json(folder / "training.json", {"seconds": 1.0, "steps": 10})
    write_json(folder / "data.json", {"kind": "classification"})


if __name__ == "__main__":
    work(do)
