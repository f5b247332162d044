"""The main job: check -> plan -> base score -> fine-tune -> tuned score -> report, each step done once.

`run_recipe` is the function to read first. Kill it anywhere and call it again: what is complete is not done again.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.answering import answer, asked_label, fitting_shots, judging
from slimtune.check import Ready, checked_task, unlearned
from slimtune.data import Example
from slimtune.engine import require_training
from slimtune.errors import ServiceAway, UserError, unknown_name
from slimtune.evaluate import Evaluation, choose_shots, with_shots, write_evaluation
from slimtune.files import DISK_GONE, read_json, write_json, writing
from slimtune.gpus import GpuSpec, detect_gpu
from slimtune.models import ModelSpec, get_model
from slimtune.plan import Yarn, choose_precision, usable_tokens, yarn_for
from slimtune.plan.context import learned_context
from slimtune.recipe import Recipe
from slimtune.report import Report, read_report, write_report
from slimtune.runs import Run, fingerprint, open_run, recipe_of, task_digest
from slimtune.status import Listener, telling
from slimtune.steps import Steps
from slimtune.steps.bench import Bench
from slimtune.steps.teacher import teacher_due
from slimtune.steps.whole import lost_adapter, lost_outputs

RUNS = Path("runs")  # where runs lie unless told otherwise
TRAINING_SCHEMA = 1  # raise it when a change to slimtune changes what training makes of the same recipe
THIS_MACHINE = "this machine's"  # the card of a run that rehearses for no other


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
    shelf: Any | None = None,
    command: str = "",
) -> Outcome:
    """Run a checked recipe to its report, or go on where an earlier call stopped.

    `out` is the run's folder; without it, runs/<name>-<fingerprint>. `as_gpu` plans for that card and holds this one to
    its memory. `shelf` (engine.shelf) keeps the base model for the next run of this process. `command` is what the
    report says runs it again; without it, what started this process.

    Raises the errors of slimtune.errors, whose exit codes say whether the same command can help.
    """
    identity = run_identity(prepared, as_gpu=as_gpu)
    folder = out or run_folder(RUNS, name, identity)
    with open_run(folder, identity) as run, _library_output(folder):
        lost = lost_outputs(prepared.recipe, folder) if _reported(run) else {}
        if _reported(run) and not lost and not teacher_due(prepared.recipe, folder):
            return Outcome(folder, read_report(folder), True)
        for name, why in lost.items():
            listener.say(f"{name} is no longer whole ({why}): what is missing is done again.")
        return Outcome(folder, _run(prepared, run, as_gpu, listener, should_stop, shelf, command), False)


def _reported(run: Run) -> bool:
    return run.has("report.json") and run.has("report.html")


def run_identity(prepared: Ready, *, as_gpu: GpuSpec | None) -> dict[str, str]:
    """What a run is of, part by part: two runs that agree in it are one."""
    return {
        "recipe": prepared.recipe.digest,
        "data": prepared.task.digest,
        "model": prepared.spec.key,
        "card": as_gpu.name if as_gpu else THIS_MACHINE,
        **prepared.chosen,
    }


def run_folder(runs: Path, name: str, identity: Mapping[str, str]) -> Path:
    """Where a run lies in the folder of all runs."""
    return runs / f"{name}-{fingerprint(identity)[:8]}"


def _run(
    prepared: Ready,
    run: Run,
    as_gpu: GpuSpec | None,
    listener: Listener,
    should_stop: Callable[[], bool],
    shelf: Any | None,
    command: str,
) -> Report:
    with telling(run.folder, listener) as told:
        require_training()
        asked = prepared.recipe.as_json()
        if run.step("recipe.json", lambda: asked).get("teacher") != asked.get("teacher"):
            write_json(run.folder / "recipe.json", asked)
        bench = Bench(prepared, run, as_gpu=as_gpu, listener=told, shelf=shelf, command=command)
        steps = Steps(bench, should_stop=should_stop)
        steps.greet()
        base = steps.base()
        few_shot = steps.few_shot()
        steps.needles("base")
        steps.train()
        tuned = steps.tuned()
        steps.needles("tuned")
        teacher = _teacher(steps, run)
        _assert_same_rows(base, few_shot, tuned, teacher)
        told.say("Writing the report.")
        return write_report(run.folder)


def _teacher(steps: Steps, run: Run) -> Evaluation | None:
    """The teacher's column. Where it cannot be had now, base and tuned are reported before that is said."""
    try:
        return steps.teacher()
    except (ServiceAway, UserError):
        write_report(run.folder)
        raise


@contextlib.contextmanager
def _library_output(folder: Path) -> Iterator[None]:
    """What the training libraries print goes to engine.log in the run's folder; the screen is ours."""
    with writing(place := folder / "engine.log"):
        log = place.open("a", encoding="utf-8")
    with log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
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
    """Score a finished run's adapter, or a model, on a task's test rows (by default the run's own); of another task
    without those it was trained on. Interrupted? The same call goes on. Raises UserError where the target is neither.
    """
    found = find_target(target)
    run, recipe, spec = found.run, found.recipe, found.spec
    whole = task = checked_task(recipe, task_name=task_name, rows=rows, data_dir=data_dir)
    if recipe and task_name not in (None, recipe.task):
        task = unlearned(whole, recipe, digest=task_digest(run), say=listener.say)
    own = recipe if task_name is None else None  # what it says of its own task
    limit = (own and own.evaluate.max_new_tokens) or task.max_new_tokens + (recipe.thinking_room if recipe else 0)
    name = f"{task.name}-{whole.digest[:8]}-{few_shot}-shot"
    folder = out or (run / "evaluations" / name if run else Path("runs") / f"{spec.key}-on-{name}")
    journal = folder.with_name(f"{folder.name}.journal")
    require_training()
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with writing(folder, only=DISK_GONE), _library_output(folder.parent):
        listener.say(f"Loading {spec.label}.")
        opened, shots = open_target(found), choose_shots(task, few_shot, seed=own.seed if own else 0)
        shots, longest = fitting_shots(opened.renderer, task, shots, room_tokens=opened.usable_tokens - limit)
        loaded = loaded_target(opened, window=longest + limit)
        heard = {"listener": listener, "should_stop": should_stop}
        with judging(own and own.judge, journal=journal.with_suffix(".judge"), **heard) as judge:
            evaluation = answer(
                loaded,
                task,
                [with_shots(example, shots) for example in task.test],
                name=name,
                label=asked_label(_label(f"{spec.label}{', tuned' if run else ''}", shots), recipe),
                few_shot_k=len(shots),
                max_new_tokens=limit,
                journal=journal,
                **heard,
                adapter_sha256=read_json(run / "training.json")["adapter_sha256"] if run else None,
                judge=judge,
            )
        write_evaluation(folder, evaluation)
        journal.unlink(missing_ok=True)
    return folder, evaluation


def _label(model: str, shots: Sequence[Example]) -> str:
    return f"{model}, {len(shots) or 'zero'}-shot"


@dataclass(frozen=True)
class Target:
    """What can be asked: the adapter of a finished run, or a base model."""

    spec: ModelSpec
    run: Path | None = None
    recipe: Recipe | None = None


@dataclass(frozen=True)
class Opened:
    """A target whose files are at hand: prompts can be counted before the weights are loaded."""

    target: Target
    where: Any  # engine.source.Source
    renderer: Any  # engine.render.Renderer
    yarn: Yarn | None
    context: int  # what a run learned in; 0 for a base model
    precision: str
    quantisation: str

    @property
    def usable_tokens(self) -> int:
        """The longest prompt with its answer."""
        return usable_tokens(self.target.spec, self.yarn)


def find_target(name: str) -> Target:
    """A run's folder or a model's name as a Target. UserError where it is neither, or the run is not trained yet."""
    run = Path(name)
    if name.startswith(f"{RUNS}/") and not run.is_dir():
        raise unknown_name("run", run.name, [path.parent.name for path in RUNS.glob("*/recipe.json")])
    if not (run / "recipe.json").is_file():
        return Target(get_model(name))
    if not (run / "training.json").is_file():
        raise UserError(f"{run} is not trained yet. Finish it first: the command stands in its environment.json.")
    if (why := lost_adapter(run)) is not None:
        raise UserError(f"{run}/adapter cannot be used: {why}. The command of its environment.json trains it again.")
    recipe = recipe_of(run)
    return Target(get_model(recipe.model, revision=recipe.revision), run, recipe)


def open_target(target: Target) -> Opened:
    """Its files, as a run was trained on them, or a base model's in 16-bit. UserError where they have changed."""
    from slimtune.engine import load, source

    spec, run, recipe = target.spec, target.run, target.recipe
    began = read_json(run / "environment.json") if run else {}
    quantisation = began.get("quantisation", "16bit")
    where = source.resolve_source(
        spec, quantisation=quantisation, revision=read_json(run / "source.json")["revision"] if run else None
    )
    if run and where.digest != began["model"]["digest"]:
        raise UserError(f"The files of {where.repository} have changed since {run} was trained.")
    context = learned_context(run / "adapter", recipe.context) if run else None
    return Opened(
        target,
        where,
        load.load_renderer(spec, where, thinking=recipe.thinking if recipe else "off"),
        yarn_for(spec, context) if context else None,
        context.length if context else 0,
        began.get("precision") or choose_precision(spec, detect_gpu()),
        quantisation,
    )


def loaded_target(opened: Opened, *, window: int) -> Any:
    """The model, a run's with its adapter, for `window` tokens of prompt and answer and at least what it learned in."""
    from slimtune.engine import load, lora

    target, window = opened.target, max(window, opened.context)
    loaded = load.load_model(
        target.spec,
        opened.where,
        opened.renderer,
        precision=opened.precision,
        quantisation=opened.quantisation,
        window=window,
        yarn=opened.yarn,
        seed=target.recipe.seed if target.recipe else 0,
    )
    if target.run:
        loaded.model = lora.attach_lora(
            loaded.model,
            target.spec,
            r=target.recipe.lora.r,
            alpha=target.recipe.lora.alpha,
            dropout=0.0,
            seed=target.recipe.seed,
            checkpointing=False,
            window=window,
        )
        lora.load_adapter(loaded.model, target.run / "adapter")
    return loaded
