"""The main job: check -> plan -> base score -> fine-tune -> tuned score -> report, each step done once.

`run_recipe` is the function to read first. Kill it anywhere and call it again: what is complete is not done again.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from slimtune.check import Ready
from slimtune.evaluate import Evaluation
from slimtune.gpus import GpuSpec
from slimtune.report import Report, read_report, write_report
from slimtune.runs import fingerprint, open_run
from slimtune.steps import Listener, Steps


@dataclass(frozen=True)
class Outcome:
    """A finished run: where it is, its report, and whether there was nothing left to do."""

    folder: Path
    report: Report
    already_done: bool


def run_recipe(prepared: Ready, *, name: str, out: Path | None = None, as_gpu: GpuSpec | None = None,
               listener: Listener, should_stop: Callable[[], bool] = lambda: False) -> Outcome:
    """Run a checked recipe to its report, or go on where an earlier call stopped.

    `out` is the run's folder; without it, runs/<name>-<fingerprint>. `as_gpu` plans for that card and holds this one to
    its memory. Raises the errors of slimtune.errors, whose exit codes say whether the same command can help.
    """
    identity = {"recipe": prepared.recipe.digest, "data": prepared.task.digest, "model": prepared.spec.key,
                "card": as_gpu.name if as_gpu else "this machine's"}
    folder = out or Path("runs") / f"{name}-{fingerprint(identity)[:8]}"
    with open_run(folder, identity) as run, _library_output(folder):
        if run.has("report.html"):
            return Outcome(folder, read_report(folder), True)
        run.step("recipe.json", prepared.recipe.as_json)
        steps = Steps(prepared, run, as_gpu=as_gpu, listener=listener, should_stop=should_stop)
        base = steps.base()
        few_shot = steps.few_shot()
        steps.train()
        tuned = steps.tuned()
        _assert_same_rows(base, few_shot, tuned)
        listener.say("Writing the report.")
        return Outcome(folder, write_report(folder), False)


@contextlib.contextmanager
def _library_output(folder: Path) -> Iterator[None]:
    """What the training libraries print goes to engine.log in the run's folder; the screen is ours."""
    with (folder / "engine.log").open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log), \
            contextlib.redirect_stderr(log):
        yield


def _assert_same_rows(*evaluations: Evaluation | None) -> None:
    ids = {tuple(record.id for record in evaluation.records) for evaluation in evaluations if evaluation is not None}
    assert len(ids) == 1, "base and tuned were scored on different rows"
