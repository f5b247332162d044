"""What a contestant told, beside what it was asked: a process each, which is asked again only where it failed, or where
the job, the machine or slimtune's code is another."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slimtune import __version__
from slimtune.contest.table import Outcome
from slimtune.contest.ways import Entry
from slimtune.engine.contestant.job import Job, Pace
from slimtune.errors import Interrupted
from slimtune.files import digest_file, digest_json, read_json, write_json

_LAST_WORDS = 2000
_TICK_S = 0.2
_PACKAGE = Path(__file__).parents[1]


def own_code(package: Path = _PACKAGE) -> str:
    """slimtune's version and a digest of its modules: what other code measured is not this one's speed."""
    files = {str(file.relative_to(package)): digest_file(file) for file in sorted(package.rglob("*.py"))}
    return f"slimtune {__version__} (code {digest_json(files)[:12]})"


def ask(entry: Entry, job: Job, folder: Path, should_stop: Callable[[], bool], *, today: str) -> Outcome:
    """What becomes of an entry: what it told in `folder` for the very same job, or now, which is `today`. Raises
    Interrupted."""
    asked, told = folder / "job.json", folder / "told.json"
    if not (told.is_file() and read_json(asked) == job.as_json() and "pace" in read_json(told)):
        folder.mkdir(parents=True, exist_ok=True)
        told.unlink(missing_ok=True)
        write_json(asked, job.as_json())
        write_json(told, {"measured": today, **_train(folder, should_stop)})
    said = read_json(told)
    pace = Pace(**said["pace"]) if "pace" in said else None
    return Outcome(entry, pace, said.get("failed", ""), measured=said["measured"])


def _train(folder: Path, should_stop: Callable[[], bool]) -> dict[str, Any]:
    """Run the contestant's process: what it wrote, or "failed" with its last words."""
    files = [folder / name for name in ("job.json", "wrote.json")]
    command = [sys.executable, "-P", "-m", "slimtune.engine.contestant", *map(str, files)]
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        while process.poll() is None and not should_stop():
            time.sleep(_TICK_S)
    if process.poll() is None:
        process.kill()
        process.wait()
        raise Interrupted("Stopped. The same command goes on with whoever has not trained yet.")
    if process.returncode == 0:
        return read_json(files[1])
    lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")[-_LAST_WORDS:].strip().splitlines()
    return {"failed": f"it ended with {process.returncode}: {lines[-1] if lines else 'without a word'}"}
