"""`python -m slimtune.engine.contestant JOB OUT`: OUT gets {"pace": a Pace} as JSON, or {"failed": why}."""

import math
import os
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import slimtune.engine  # noqa: F401  the environment that the libraries read at their import
from slimtune.engine.contestant.job import OUT_OF_MEMORY, PLAIN, SLIMTUNE, Job, Pace
from slimtune.errors import SlimtuneError
from slimtune.files import write_json
from slimtune.gpus import get_gpu


def train(job: Job, folder: Path) -> Pace:
    """Train as the job says, with nothing imported that its way does not need."""
    if job.as_gpu:
        from slimtune.engine.memory import cap_memory

        cap_memory(get_gpu(job.as_gpu))
    if job.way.library == SLIMTUNE:
        from slimtune.engine.contestant import ours

        return ours.train(job, folder)
    from slimtune.engine.contestant import theirs

    return (theirs.train_plain if job.way.library == PLAIN else theirs.train_unsloth)(job, folder)


def as_told(pace: Pace) -> dict[str, Any]:
    """For a file: what is not a number cannot stand in JSON, and is a failure."""
    figures = asdict(pace)
    finite = all(math.isfinite(figure) for figure in figures.values() if figure is not None)
    return {"pace": figures} if finite else {"failed": pace.refusal}


def end_with(parent: int) -> None:
    """Nobody trains on after whoever asked is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(75)


def main(job: Path, out: Path) -> int:
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    try:
        said = as_told(train(Job.read(job), out.parent))
    except SlimtuneError as error:
        said = {"failed": str(error)}
    except Exception as error:
        from slimtune.engine.memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        said = {"failed": OUT_OF_MEMORY}
    write_json(out, said)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
