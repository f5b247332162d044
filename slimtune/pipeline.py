"""The main job: check -> plan -> base score -> fine-tune -> tuned score -> report, each step done once.

`run_recipe` is the function to read first. Kill it anywhere and call it again: what is complete is not done again.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.answering import Listener, answer, fitting_shots
from slimtune.check import Ready, checked_task
from slimtune.data import Example
from slimtune.engine import require_training
from slimtune.errors import UserError
from slimtune.evaluate import Evaluation, choose_shots, with_shots, write_evaluation
from slimtune.files import DISK_GONE, read_json, writing
from slimtune.gpus import GpuSpec, detect_gpu
from slimtune.models import ModelSpec, get_model
from slimtune.plan import choose_precision, usable_tokens, yarn_for
from slimtune.plan.context import learned_context
from slimtune.recipe import Recipe
from slimtune.report import Report, read_report, write_report
from slimtune.runs import fingerprint, open_run
from slimtune.steps import Steps
from slimtune.tasks import Task


@dataclass(frozen=True)
class Outcome:
    """A finished run: where it is, its report, and whether there was nothing left to do."""

    folder: Path
    report: Report
    already_done: bool


def run_recipe(
    prepared: Ready,
    *,
    name: str,
    out: Path | None = None,
    as_gpu: GpuSpec | None = None,
    listener: Listener,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Run a checked recipe to its report, or go on where an earlier call stopped.

    `out` is the run's folder; without it, runs/<name>-<fingerprint>. `as_gpu` plans for that card and holds this one to
    its memory. Raises the errors of slimtune.errors, whose exit codes say whether the same command can help.
    """
    identity = {
        "recipe": prepared.recipe.digest,
        "data": prepared.task.digest,
        "model": prepared.spec.key,
        "card": as_gpu.name if as_gpu else "this machine's",
    }
    folder = out or Path("runs") / f"{name}-{fingerprint(identity)[:8]}"
    with open_run(folder, identity) as run, _library_output(folder):
        if run.has("report.html"):
            return Outcome(folder, read_report(folder), True)
        require_training()
        run.step("recipe.json", prepared.recipe.as_json)
        steps = Steps(prepared, run, as_gpu=as_gpu, listener=listener, should_stop=should_stop)
        base = steps.base()
        few_shot = steps.few_shot()
        steps.needles("base")
        steps.train()
        tuned = steps.tuned()
        steps.needles("tuned")
        _assert_same_rows(base, few_shot, tuned)
        listener.say("Writing the report.")
        return Outcome(folder, write_report(folder), False)


@contextlib.contextmanager
def _library_output(folder: Path) -> Iterator[None]:
    """What the training libraries print goes to engine.log in the run's folder; the screen is ours."""
    with (
        (folder / "engine.log").open("a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        yield


def _assert_same_rows(*evaluations: Evaluation | None) -> None:
    ids = {tuple(record.id for record in evaluation.records) for evaluation in evaluations if evaluation is not None}
    assert len(ids) == 1, "base and tuned were scored on different rows"


def evaluate_target(
    target: str,
    *,
    task_name: str | None,
    rows: int | None,
    few_shot: int,
    out: Path | None,
    data_dir: Path | None,
    listener: Listener,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Path, Evaluation]:
    """Score a finished run's adapter, or a model, on the test rows of a task (by default the run's own).

    Interrupted? The same call goes on with the answers it has. Raises UserError where the target is neither.
    """
    run = Path(target) if (Path(target) / "recipe.json").is_file() else None
    if run is not None and not (run / "training.json").is_file():
        raise UserError(f"{run} is not trained yet. Finish it first: the command stands in its environment.json.")
    recipe = Recipe.model_validate(read_json(run / "recipe.json")) if run else None
    spec = get_model(recipe.model, revision=recipe.revision) if recipe else get_model(target)
    task = checked_task(recipe, task_name=task_name, rows=rows, data_dir=data_dir)
    limit = recipe.evaluate.max_new_tokens if recipe and task_name is None else None
    name = f"{task.name}-{task.digest[:8]}-{few_shot}-shot"
    folder = out or (run / "evaluations" / name if run else Path("runs") / f"{spec.key}-on-{name}")
    journal = folder.with_name(f"{folder.name}.journal")
    require_training()
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with writing(folder, only=DISK_GONE), _library_output(folder.parent):
        listener.say(f"Loading {spec.label}.")
        asked = choose_shots(task, few_shot, seed=recipe.seed if recipe else 0)
        loaded, shots = _loaded_target(spec, recipe, run, task, asked, limit or task.max_new_tokens)
        evaluation = answer(
            loaded,
            task,
            [with_shots(example, shots) for example in task.test],
            name=name,
            label=f"{spec.label}{', tuned' if run else ''}, {len(shots) or 'zero'}-shot",
            few_shot_k=len(shots),
            max_new_tokens=limit,
            journal=journal,
            listener=listener,
            should_stop=should_stop,
            adapter_sha256=read_json(run / "training.json")["adapter_sha256"] if run else None,
        )
        write_evaluation(folder, evaluation)
        journal.unlink(missing_ok=True)
    return folder, evaluation


def _loaded_target(
    spec: ModelSpec, recipe: Recipe | None, run: Path | None, task: Task, asked: Sequence[Example], limit: int
) -> tuple[Any, Sequence[Example]]:
    """The model of a finished run with its adapter, as it was trained, or a base model in 16-bit; and the shots that
    fit it."""
    from slimtune.engine import load, lora, source

    began = read_json(run / "environment.json") if run else {}
    quantisation = began.get("quantisation", "16bit")
    precision = began.get("precision") or choose_precision(spec, detect_gpu())
    where = source.resolve_source(
        spec, quantisation=quantisation, revision=read_json(run / "source.json")["revision"] if run else None
    )
    if run and where.digest != began["model"]["digest"]:
        raise UserError(f"The files of {where.repository} have changed since {run} was trained.")
    renderer = load.load_renderer(spec, where, thinking=recipe.thinking if recipe else "off")
    context = learned_context(run / "adapter", recipe.context) if run else None
    yarn = yarn_for(spec, context) if context else None
    shots, longest = fitting_shots(renderer, task, asked, room_tokens=usable_tokens(spec, yarn) - limit)
    window = max(longest + limit, context.length if context else 0)
    loaded = load.load_model(
        spec, where, renderer, precision=precision, quantisation=quantisation, window=window, yarn=yarn
    )
    if run:
        loaded.model = lora.attach_lora(
            loaded.model,
            spec,
            r=recipe.lora.r,
            alpha=recipe.lora.alpha,
            dropout=0.0,
            seed=recipe.seed,
            checkpointing=False,
            window=window,
        )
        lora.load_adapter(loaded.model, run / "adapter")
    return loaded, shots
