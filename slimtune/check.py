"""Is this recipe ready to run? Everything wrong with it and its data, all at once; what will be trained; what it takes.

The first part needs no torch and answers in a fraction of a second. The token part (rendered rows, lengths against the
context) needs the model's tokenizer, so it is there where the `train` extra is installed and the model at hand.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from slimtune.errors import Problem, Problems, ServiceAway, UserError, by_line
from slimtune.gpus import DetectedGpu, GpuSpec
from slimtune.lengths import RowTokens, TokenReport, guess_tokens
from slimtune.models import ModelSpec, get_model
from slimtune.plan import (
    MOST_ROWS,
    Plan,
    context_problem,
    holds_needles,
    make_plan,
    pinned_words,
    refuse_needles,
    usual_batch,
    yarn_for,
)
from slimtune.recipe import Recipe, RecipeSource
from slimtune.scorers import get_scorer
from slimtune.scorers.judge import judge_misfit
from slimtune.stats import smallest_detectable_difference
from slimtune.tasks import Quality, Selection, Task, get_task, inspect_task, task_from_files
from slimtune.tasks.formats import column_problems
from slimtune.tasks.mix import mix_thoughts, note_unused
from slimtune.tasks.quality import asked_in_training


@dataclass(frozen=True)
class Ready:
    """A recipe with its task read, its model known and its data inspected: nothing refuses it so far."""

    recipe: Recipe
    task: Task
    spec: ModelSpec
    quality: Quality

    @property
    def usual_batch(self) -> int:
        """Rows of a step, where the recipe does not say."""
        return usual_batch(len(self.task.train), self.recipe.train.epochs)

    @property
    def batch(self) -> int:
        """Rows of a step: of a pinned micro-batch so many as come nearest to the usual."""
        train = self.recipe.train
        return train.batch or math.ceil(self.usual_batch / (each := train.micro_batch or 1)) * each

    @property
    def chosen(self) -> dict[str, str]:
        """What the recipe leaves open and another version might choose otherwise: a part of what a run is of."""
        return {} if self.recipe.train.batch else {"batch": str(self.batch)}


def read_rows(recipe: Recipe, data_dir: Path | None = None) -> tuple[Task, Quality]:
    """A recipe's task and what is to be said of its rows. Raises Problems for rows that cannot be read, and UserError
    where `thinking: mixed` has rows of one kind alone."""
    task = _read_task(recipe, data_dir)
    if recipe.thinking == "mixed":
        task = mix_thoughts(task, seed=recipe.seed)
    elif recipe.thinking == "off":
        task = note_unused(task)
    return task, inspect_task(task, allowed_leaks=1.0 if recipe.data.allow_overlap else 0.05)


Rows = Callable[[Recipe, Path | None], tuple[Task, Quality]]
Say = Callable[[str], None]


def ready(source: RecipeSource, *, data_dir: Path | None = None, rows: Rows = read_rows) -> Ready:
    """Everything before the first download. Raises Problems with every mistake in the recipe and its data. `rows` reads
    the task: a form that is filled in step by step remembers it."""
    problems = list(source.problems)
    recipe = source.rest
    revision = recipe.revision if recipe is not None else None
    spec = _try(problems, source.where("model"), lambda: get_model(_text(source, "model"), revision=revision))
    if recipe is None:
        _try_task_name(problems, source, data_dir)
        raise Problems(source.path, by_line(problems))
    if recipe.data.scorer is not None:
        _try(problems, source.where("data", "scorer"), lambda: get_scorer(recipe.data.scorer))
    key = "task" if recipe.task is not None else "data"
    wrong = column_problems(recipe.data.columns, where=lambda name: source.where("data", "columns", name))
    problems += wrong
    read = None if wrong else _try(problems, source.where(key), lambda: rows(recipe, data_dir))
    task, quality = read or (None, None)
    problems += quality.errors if quality is not None else []
    if spec is not None and not spec.trainable:
        problems.append(Problem(source.where("model"), spec.untrainable))
    if spec is not None:
        problems += filter(None, [context_problem(spec, recipe.context, where=source.where("context"))])
    if spec is not None and recipe.thinking != "off" and spec.thinking != "hybrid":
        problems.append(
            Problem(source.where("thinking"), f"{spec.label} has no thinking mode to switch.", "Set it off.")
        )
    if spec is not None and recipe.thinking_room >= spec.native_context:
        what = f"leaves no room for a prompt in the {spec.native_context:,} tokens of {spec.label}."
        problems.append(Problem(source.where("evaluate", "thinking_tokens"), what, "Lower it."))
    if spec is not None and recipe.revision is not None and spec.repo is None:
        problems.append(Problem(source.where("revision"), f"{spec.label} comes from this machine, not from a hub."))
    if task is not None and (misfit := judge_misfit(task.scorer, task.test, there=recipe.judge is not None)):
        problems.append(Problem(source.where("judge"), misfit))
    if problems:
        raise Problems(source.path, by_line(problems))
    return Ready(recipe, task, spec, quality)


def checked_task(recipe: Recipe | None, *, task_name: str | None, rows: int | None, data_dir: Path | None) -> Task:
    """The task to score: the named one, or the recipe's own. Raises UserError where there is neither, Problems for
    what is wrong with its rows."""
    if task_name is not None:
        return get_task(task_name, data_dir=data_dir, selection=Selection(test_rows=rows))
    if recipe is None:
        raise UserError("Say what to score the model on: --task TASK. `slimtune list tasks` has names.")
    data = recipe.data.model_copy(update={"test_rows": rows or recipe.data.test_rows})
    return _read_task(recipe.model_copy(update={"data": data}), data_dir)


def unlearned(task: Task, recipe: Recipe, *, digest: str, say: Say) -> Task:
    """`task` without the test rows that ask what a run of `recipe` was trained on, its own task being of that `digest`:
    a score on those is no proof. Raises UserError where none is left."""
    unknown = "Whether this run was trained on some of these rows is not known: its own"
    try:
        own, _ = read_rows(recipe)
    except (UserError, ServiceAway) as gone:
        say(f"{unknown} cannot be read. {gone}")
        return task
    if own.digest != digest:
        say(f"{unknown} are not those any more that it was trained on.")
        return task
    if not (learned := {id(row) for row in asked_in_training(replace(task, train=own.train))}):
        return task
    kept = tuple(row for row in task.test if id(row) not in learned)
    rows = f"{len(learned)} of {len(task.test)} {task.scored_noun}s"
    if not kept:
        raise UserError(f"{rows} of {task.title} ask what this run was trained on: none is left to prove anything.")
    say(f"Left out: {rows} that ask what this run was trained on.")
    return replace(task, test=kept)


_FREE = {"micro_batch": None, "quantisation": "auto", "collation": "auto"}  # nothing is pinned


def plan_of(
    prepared: Ready,
    *,
    gpu: GpuSpec | DetectedGpu | None,
    counted: RowTokens | None = None,
    quantisation: str | None = None,
) -> Plan:
    """The plan for a recipe: from the rows' tokens where they have been counted, else from their text.

    Raises UserError where nothing fits, with the numbers and what would help.
    """
    recipe, spec = prepared.recipe, prepared.spec
    rows = counted or guess_tokens(prepared.task.train, spec)
    lengths, answers, together = rows.lengths, rows.answers, rows.together(recipe)
    train = recipe.train
    given = {
        "gpu": gpu,
        "asked": train.quantisation,
        "lora_r": recipe.lora.r,
        "context_tokens": recipe.context.length,
        "batch": prepared.batch,
        "rows": len(lengths),
        "epochs": train.epochs,
        "longest_row_tokens": max(lengths),
        "longest_answer_tokens": max(answers),
        "row_tokens_mean": sum(lengths) / len(lengths),
        "together": partial(together, prepared.batch),
        "prefix_tokens": rows.prefix,
    }
    layout = "padded" if recipe.lora.dropout and train.collation == "auto" else train.collation
    pinned = {"micro_batch": train.micro_batch, "quantisation": train.quantisation, "collation": layout}
    plan, yarn = make_plan(spec, **given, **pinned), yarn_for(spec, recipe.context)
    kept, notes = {"quantisation": quantisation} if quantisation else {}, [yarn.note] if yarn else []
    free_to = train.quantisation == "auto" and quantisation != "16bit"  # a run keeps what it began with
    if free_to and plan.gpu and plan.quantisation == "16bit" and not holds_needles(spec, plan, yarn):
        kept = {"quantisation": "4bit"}
        notes.append("4-bit weights: beside 16-bit ones the long-context check does not fit.")
    plan = make_plan(spec, **given, **{**pinned, **kept}) if kept else plan
    refuse_needles(spec, plan, yarn)
    at_usual = {"batch": prepared.usual_batch, "together": partial(together, prepared.usual_batch)}
    free = make_plan(spec, **given, **kept) if pinned != _FREE else plan
    usual = make_plan(spec, **given | at_usual, **kept) if train.batch else free
    slower = pinned_words(recipe, spec, gpu, plan=plan, free=free, usual=usual)
    if train.batch is None and prepared.usual_batch < MOST_ROWS:
        few = f"{len(prepared.task.train):,} rows make few steps"
        notes.append(f"{few}: {plan.batch} a step, where more rows have {MOST_ROWS}.")
    if counted is None and (longer := sum(length > recipe.context.length for length in lengths)):
        notes.append(f"Training rows that may exceed the context of {recipe.context.length:,} tokens: {longer:,}.")
    return replace(plan, notes=(*plan.notes, *slower, *notes))


def detectable(prepared: Ready) -> float:
    """The smallest difference that the test rows would usually show: `detectable_words` says on which assumption."""
    return smallest_detectable_difference(len(prepared.task.test))


def as_json(prepared: Ready, tokens: TokenReport | str, plan: Plan) -> dict[str, Any]:
    """All that a check found, for a program. `tokens` is a sentence where they could not be counted."""
    quality = prepared.quality
    return {
        "title": prepared.task.title,
        "model": prepared.spec.label,
        "notes": [*prepared.task.notes, *prepared.recipe.key_notes],
        "quality": asdict(quality) | {"leaks": quality.leaks},
        "tokens": tokens if isinstance(tokens, str) else tokens.as_json(),
        "detectable": detectable(prepared),
        "plan": plan.as_json(),
    }


def _read_task(recipe: Recipe, data_dir: Path | None) -> Task:
    data = recipe.data
    selection = Selection(
        labels=data.labels,
        train_rows=data.train_rows,
        test_rows=data.test_rows,
        skip_bad=data.skip_bad,
        seed=recipe.seed,
        test_seed=data.test_seed,
        validation_rows=data.validation_rows,
    )
    if recipe.task is not None:
        return get_task(recipe.task, data_dir=data_dir, selection=selection)
    return task_from_files(
        Path(data.train),
        Path(data.test) if data.test else None,
        format=data.format,
        columns=data.columns or None,
        kind=data.kind,
        instruction=data.instruction or "",
        scorer=data.scorer or "",
        selection=selection,
    )


def _try(problems: list[Problem], where: str, do: Any) -> Any:
    """What `do` returns; or None, and its complaint among the problems."""
    try:
        return do()
    except Problems as error:
        problems += error.problems
    except UserError as error:
        problems.append(Problem(where, str(error)))
    return None


def _try_task_name(problems: list[Problem], source: RecipeSource, data_dir: Path | None) -> None:
    name = source.document.value.get("task")
    if isinstance(name, str):
        _try(problems, source.where("task"), lambda: get_task(name, data_dir=data_dir))


def _text(source: RecipeSource, key: str) -> str:
    value = source.document.value.get(key)
    if not isinstance(value, str):
        raise UserError("is not a name." if value is not None else "names no model.")
    return value
