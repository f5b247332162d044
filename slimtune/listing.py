"""The tables of `slimtune list`: one function a kind, each straight from where the facts live."""

from datetime import datetime
from pathlib import Path

from slimtune import jobs
from slimtune.files import read_json
from slimtune.gpus import GPUS, PRICES_AS_OF
from slimtune.models import MODELS, ModelSpec
from slimtune.recipe import recipes_folder
from slimtune.recipe.keys import every_key
from slimtune.scorers import SCORERS
from slimtune.stats import Interval
from slimtune.status import State
from slimtune.tasks import list_tasks
from slimtune.tasks.folders import HUB
from slimtune.tasks.job import Job

Rows = tuple[str, tuple[str, ...], list[tuple[object, ...]]]
NUMBERS = {"size", "context", "GiB", "GB/s", "TFLOP/s", "USD/h", "train", "test"}


def models() -> Rows:
    rows = [
        (spec.key, f"{spec.params_total / 1e9:.2f}B", spec.native_context, spec.licence, _note(spec))
        for spec in MODELS.values()
    ]
    return "Models", ("name", "size", "context", "licence", "note"), rows


def _note(spec: ModelSpec) -> str:
    gated = ["gated"] if spec.gated else []
    return ", ".join([*([spec.note] if spec.note else []), *gated]) if spec.trainable else "planned for only"


def tasks() -> Rows:
    rows = [
        (job.name, job.kind, _count(job.train_rows), _count(job.test_rows), job.licence, _more(job))
        for job in list_tasks()
    ]
    return "Tasks", ("name", "kind", "train", "test", "licence", "more rows"), rows


def _count(rows: int | None) -> str:
    return "" if rows is None else f"{rows:,}"


def _more(job: Job) -> str:
    """Where the rows are that do not come with slimtune; empty where all come."""
    return f"{HUB}NAME" if job.hub else "--data DIR" if job.slice else ""


def gpus() -> Rows:
    rows = [
        (
            gpu.name,
            f"{gpu.total_gib:.1f}",
            "bf16" if gpu.bf16 else "fp16",
            gpu.bandwidth_gb_s,
            gpu.half_tflops,
            "" if gpu.hourly_usd is None else f"{gpu.hourly_usd:.2f}",
        )
        for gpu in GPUS.values()
    ]
    return f"GPUs (prices as of {PRICES_AS_OF})", ("name", "GiB", "precision", "GB/s", "TFLOP/s", "USD/h"), rows


def scorers() -> Rows:
    return "Scorers", ("name", "what it measures"), [(name, scorer.description) for name, scorer in SCORERS.items()]


def recipes() -> Rows:
    rows = [(file.stem, _headline(file)) for file in sorted(recipes_folder().glob("*.yaml"))]
    rows += [(file.name, _headline(file)) for file in sorted(Path().glob("*.yaml"))]
    return "Recipes", ("name", "what it does"), rows


def matrices() -> Rows:
    rows = [(file.stem, _headline(file)) for file in sorted((recipes_folder() / "matrix").glob("*.yaml"))]
    return "Matrices", ("name", "what it does"), rows


def recipe_keys() -> Rows:
    rows = [(key.name, key.takes, key.default, key.gloss) for key in every_key()]
    return "Keys of a recipe", ("key", "takes", "default", "what it is"), rows


def runs() -> Rows:
    rows = [
        (state.name, state.phase, _day(state), *(_score(state, name) for name in ("base", "tuned")))
        for state in jobs.list_runs()
    ]
    return "Runs in runs/", ("name", "state", "last seen", "base", "tuned"), rows


def _day(state: State) -> str:
    return f"{datetime.fromtimestamp(jobs.last_at_work(state)):%Y-%m-%d\n%H:%M}"


def _score(state: State, name: str) -> str:
    """A score and, below it, its interval; empty where that model was not scored yet."""
    file = state.folder / name / "evaluation.json"
    try:
        score = Interval.from_json(read_json(file)["score"])
        return f"{score.value:.3f}\n{score.span}"
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError):
        return "not readable"


def _at(state: State) -> str:
    """How far a run is that goes on or could; why one failed."""
    if state.phase == "failed":
        return state.error.split("\n")[0]
    stage = state.stages[-1] if state.stages and state.phase != "finished" else None
    return f"{stage.name}, {stage.done} of {stage.total}" if stage else ""


def notes(what: str) -> list[str]:
    """What stands below a list: of runs, how far those are that are not finished."""
    if what == "runs":
        return [f"{state.name} {state.phase}: {at}" for state in jobs.list_runs() if (at := _at(state))]
    return [NOTES[what]] if what in NOTES else []


def _headline(file: Path) -> str:
    return file.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")


KINDS = {
    "models": models,
    "tasks": tasks,
    "gpus": gpus,
    "scorers": scorers,
    "recipes": recipes,
    "recipe-keys": recipe_keys,
    "matrices": matrices,
    "runs": runs,
}
NOTES = {
    "tasks": (
        "`slimtune check` says what a recipe's task asks. hub:NAME as `task:` is the whole set, fetched from the hub; "
        "for the others the source named in their job.json has more rows, to be read as a folder with --data DIR."
    )
}
EMPTY = "Nothing is here yet. `slimtune demo` makes a run, and so does `slimtune run RECIPE`."  # only runs can be none
