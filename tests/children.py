"""Child processes that start at once: a parent imports everything once and forks for every run.

`python children.py` reads a JSON request a line and answers with one: {"start": {...}} -> {"pid": n}, and
{"poll": n} -> {"code": exit code, -signal, or null while it runs}. A child is the real command line on real files: what
a shell would start, without the eight seconds of imports. `Nursery` is the other end, for tests.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMPORTED = (  # what a run imports, at once or on the way
    "slimtune.check",
    "slimtune.engine.sft",
    "slimtune.engine.generate",
    "slimtune.pipeline",
    "slimtune.screen",
    "statsmodels.stats.proportion",
    "pyarrow.parquet",
    "matplotlib.backends.backend_svg",
    "matplotlib.backends.backend_agg",
    "jinja2.sandbox",
)
STRACE_CALLS = (  # all that change a file system, and openat, which may
    "mkdir,mkdirat,openat,write,writev,pwrite64,fsync,fdatasync,ftruncate,rename,renameat,renameat2,unlink,unlinkat,"
    "rmdir"
)


def until(ready: Callable[[], Any], *, seconds: float = 120, every: float = 0.002) -> Any:
    """What `ready` returns once that is true."""
    end = time.monotonic() + seconds
    while not (value := ready()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(every)
    return value


_CLOCK = """
import os, time

now = time.time

def leapt():
    with open(os.environ["LEAP_FILE"]) as file:
        return now() + 3600 * float(file.read())

time.time, time.time_ns = leapt, lambda: int(leapt() * 1e9)
"""


class Leaping:
    """A time of day for Python processes started in `environment`, and for theirs, that jumps when it is told to: it is
    the first module that they import."""

    def __init__(self, folder: Path):
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(_CLOCK, encoding="utf-8")
        self.file = folder / "hours"
        self.leap(0)
        paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "LEAP_FILE": str(self.file)}

    def leap(self, hours: float) -> None:
        """From now on it is so many hours later than it is; earlier, where that is negative."""
        whole = self.file.with_suffix(".next")
        whole.write_text(str(hours), encoding="utf-8")
        os.replace(whole, self.file)


@dataclass
class Child:
    """One run of the command line."""

    nursery: "Nursery"
    pid: int
    output: Path

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)  # unreaped until waited for, so the number is still its own

    @property
    def code(self) -> int | None:
        return self.nursery.ask({"poll": self.pid})["code"]

    def wait(self) -> int:
        return until(lambda: [code for code in [self.code] if code is not None], every=0.01)[0]

    @property
    def said(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")


class Nursery:
    """Starts children. `start` takes what one would type after `slimtune`."""

    def __init__(self) -> None:
        self.parent = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.count, self.lock = 0, threading.Lock()

    def start(self, folder: Path, *argv: object, cache: Path, gate: tuple[str, int] | None = None) -> Child:
        """`folder` gets the child's output; with a `gate`, it stops when that (stage, done) is reported, says so by
        the file `reached`, and goes on when there is a file `open`."""
        folder.mkdir(parents=True, exist_ok=True)
        with self.lock:
            self.count += 1
        output = folder / f"said-{self.count}.txt"
        request = {
            "argv": [str(word) for word in argv],
            "cwd": str(folder),
            "output": str(output),
            "gate": gate,
            "environment": {"SLIMTUNE_CACHE": str(cache), "COLUMNS": "200"},
        }
        return Child(self, self.ask({"start": request})["pid"], output)

    def run(self, folder: Path, *argv: object, cache: Path) -> Child:
        """Start one and wait for its end, which must be a good one."""
        child = self.start(folder, *argv, cache=cache)
        assert child.wait() == 0, child.said
        return child

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            self.parent.stdin.write(json.dumps(request).encode() + b"\n")
            self.parent.stdin.flush()
            return json.loads(self.parent.stdout.readline())

    def close(self) -> None:
        self.parent.stdin.close()
        self.parent.wait()


class Gate:
    """A listener that writes down what it hears, and stops once at one place."""

    def __init__(self, stage: str, done: int):
        self.at = (stage, done)

    def say(self, text: str) -> None:
        print(text, flush=True)

    def progress(self, stage: str, done: int, total: int, detail: str = "") -> None:
        print(stage, done, total, flush=True)
        if (stage, done) == self.at:
            Path("reached").touch()
            while not Path("open").exists():
                time.sleep(0.001)


def _gated(argv: list[str], stage: str, done: int) -> None:
    """What `slimtune run RECIPE --out DIR` does, heard by a gate."""
    from slimtune import check, jobs
    from slimtune.pipeline import run_recipe
    from slimtune.recipe import read_recipe

    _, recipe, _, out = argv
    prepared = check.ready(read_recipe(Path(recipe)))
    run_recipe(prepared, name="gated", out=Path(out), listener=Gate(stage, done), should_stop=jobs.stop_flag())


def _child(request: dict[str, Any]) -> None:
    from slimtune import cli
    from slimtune.errors import SlimtuneError

    file = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.argv = ["slimtune", *request["argv"]]
    code: Any = 70
    try:
        code = cli.main() if request["gate"] is None else _gated(request["argv"], *request["gate"])
    except SystemExit as end:
        code = end.code
    except SlimtuneError as error:
        print(error)
        code = error.exit_code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    if "start" in request:
        pid = os.fork()
        if pid == 0:
            _child(request["start"])
        return {"pid": pid}
    ended, status = os.waitpid(request["poll"], os.WNOHANG)
    return {"code": os.waitstatus_to_exitcode(status) if ended else None}


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the libraries print while they are imported
    for name in IMPORTED:
        importlib.import_module(name)

    for line in sys.stdin.buffer:
        print(json.dumps(_answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
