"""What is known of contestants for one kind of task: own cells first, on the nearest tasks there are; else what others
printed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slimtune.errors import ServiceAway, UserError, unknown_name
from slimtune.forecast import Line
from slimtune.lengths import guess_tokens
from slimtune.models import MODELS, find_model
from slimtune.plan.cost import Request
from slimtune.published import EDITIONS, PublishedRank, published_ranks
from slimtune.report.board import Measured
from slimtune.report.text import clean
from slimtune.stats import complete_block, score_interval
from slimtune.sweep.gather import SEED, Answers, Grid, Scored, paired
from slimtune.tasks import get_task, list_tasks
from slimtune.tasks.kinds import KINDS
from slimtune.wording import counted, listed


@dataclass(frozen=True)
class Evidence:
    """Own answers on `tasks`, pooled: each row of them counts the same. `near` says how near they are to what is asked:
    "asked" is that itself, "kind" other tasks of its kind, "other" the rest. `pooled` are the contestants that have all
    of them; `untuned` what each is set against, of those that have it; `models` their models' keys; `scored_on` which
    rows."""

    near: str
    tasks: tuple[str, ...]
    pooled: Mapping[str, Answers]
    untuned: Mapping[str, "Untuned"]
    models: Mapping[str, str]
    scored_on: str


@dataclass(frozen=True)
class Untuned:
    """What a model does without training, zero-shot or with examples in its prompt, whichever scored better. `words`:
    "its own base", "its own base with 4 examples"."""

    answers: Scored
    words: str


@dataclass(frozen=True)
class PassedOver:
    """An own contestant that is not ranked, and why, without its name."""

    name: str
    why: str


def kind_of(task: str, grid: Grid | None) -> str:
    """The kind of a task: of the store, of those that slimtune knows, or of a folder. Raises UserError for another."""
    if grid and (found := _kinds(grid).get(task)):
        return found
    jobs = {job.name: job.kind for job in list_tasks()}
    return jobs[task] if task in jobs else get_task(task).kind


def check_kind(kind: str) -> str:
    if kind not in KINDS:
        raise unknown_name("kind of task", kind, KINDS)
    return kind


def own_evidence(grid: Grid, *, task: str | None, kind: str | None, among: Sequence[str]) -> Evidence | None:
    """Own tuned cells of the contestants in `among`: on the task itself, else on its kind, else on any task. Where only
    a kind is asked for, that is what is asked for; where nothing is, any task."""
    kinds = _kinds(grid)
    of_kind = [name for name in grid.tasks if kind is not None and kinds.get(name) == kind]
    itself = [name for name in grid.tasks if name == task] if task else of_kind if kind else list(grid.tasks)
    levels = (("asked", itself), ("kind", of_kind), ("other", list(grid.tasks)))
    for near, tasks in levels:
        scores = grid.scores("tuned", among, tasks)
        if tasks and among and not np.isnan(scores).all():
            return _evidence(near, grid, among, tasks)
    return None


def request_of(grid: Grid, contestant: str, tasks: Sequence[str]) -> Request | None:
    """The mean lengths that its own answers had; None where they were not written down."""
    sides = [cell.result["sides"]["tuned"] for task in tasks for cell in grid.entries[contestant, task].done]
    rows, prompt, answer = (
        sum(side.get(key) or 0 for side in sides) for key in ("n", "prompt_tokens", "completion_tokens")
    )
    return Request(prompt / rows, answer / rows) if rows and prompt else None


def guessed_request(task: str) -> Request | None:
    """The mean lengths of a task's test rows, by their text; None where they are not at hand."""
    try:
        rows = guess_tokens(get_task(task).test, MODELS["qwen3-4b"])  # most vocabularies are as large as its
    except (UserError, ServiceAway):
        return None
    answer = sum(rows.answers) / len(rows.answers)
    return Request(sum(rows.lengths) / len(rows.lengths) - answer, answer)


def printed_ranks() -> dict[str, PublishedRank]:
    """By model: its fine-tuned rank in the newest edition that prints one."""
    found: dict[str, PublishedRank] = {}
    for edition in sorted(EDITIONS, reverse=True):
        for row in published_ranks(edition):
            if row.table == "fine-tuned" and row.mean is not None:
                found.setdefault(row.model, row)
    return found


def teacher_usd(grid: Grid) -> float | None:
    """What a request to a served model cost here: dollars over rows, of all that told it."""
    sides = [
        cell.result["sides"][side]
        for entry in grid.entries.values()
        for cell in entry.done
        for side in ("served", "teacher")
        if side in cell.result["sides"]
    ]
    told = [(side["served"]["usd"], side["n"]) for side in sides if (side.get("served") or {}).get("usd")]
    return sum(usd for usd, _ in told) / sum(n for _, n in told) if told else None


def _evidence(near: str, grid: Grid, among: Sequence[str], tasks: Sequence[str]) -> Evidence:
    block = complete_block(grid.scores("tuned", among, tasks), among, tasks)
    names, kept = [among[at] for at in block.contestants], tuple(tasks[at] for at in block.tasks)
    models = {name: find_model(grid.entries[name, kept[0]].cells[0].model).key for name in names}
    tuned = {name: pool(grid, name, kept, "tuned") for name in names}
    prompted = {(name, side): merged(grid, name, kept, side) for side in ("base", "few_shot") for name in names}
    there = {key: Untuned(answers, _words(grid, key[0], kept, key[1])) for key, answers in prompted.items() if answers}
    found = {
        name: _best(tuned[name], [there[key] for key in there if models[key[0]] == models[name]]) for name in names
    }
    return Evidence(near, kept, tuned, {name: one for name, one in found.items() if one}, models, grid.scored_on)


def _best(tuned: Answers, untuned: Sequence[Untuned]) -> Untuned | None:
    """The one with the best mean over the rows that the tuned one answered too. All contestants of a model offer
    theirs: a prompt needs no training, so one with few rows to train on is no better for a worse prompt."""
    scores = {at: float(np.mean(rows)) for at, one in enumerate(untuned) if (rows := paired(one.answers, tuned)[0])}
    return untuned[max(scores, key=scores.get)] if scores else None


def _words(grid: Grid, contestant: str, tasks: Sequence[str], side: str) -> str:
    if side == "base":
        return "its own base"
    sides = [cell.result["sides"] for task in tasks for cell in grid.entries[contestant, task].done]
    shots = sorted({one[side]["few_shot_k"] for one in sides if side in one})
    return f"its own base with {f'{shots[0]} to {shots[-1]} examples' if shots[1:] else counted(shots[0], 'example')}"


def pool(grid: Grid, contestant: str, tasks: Sequence[str], side: str) -> Answers | None:
    """One side of a contestant on several tasks as if they were one; None where it lacks one of them."""
    if (found := merged(grid, contestant, tasks, side)) is None or isinstance(found, Answers):
        return found
    rng = np.random.default_rng(SEED)
    interval = score_interval(list(found.rows.values()), [found.groups[key] for key in found.rows], rng=rng)
    unscored = sum(grid.answers(contestant, task, side).measured.unscored for task in tasks)
    measured = Measured(interval, len(found.seeds), None, unscored)
    return Answers(found.rows, found.groups, found.seeds, measured, contestant)


def merged(grid: Grid, contestant: str, tasks: Sequence[str], side: str) -> Scored | None:
    """The rows alone: an interval takes thousands of draws."""
    parts = {task: grid.answers(contestant, task, side) for task in tasks}
    if not all(parts.values()):
        return None
    if len(parts) == 1:
        return parts[tasks[0]]
    rows = {f"{task}/{key}": value for task, part in parts.items() for key, value in part.rows.items()}
    groups = {f"{task}/{key}": f"{task}/{group}" for task, part in parts.items() for key, group in part.groups.items()}
    return Scored(rows, groups, min((part.seeds for part in parts.values()), key=len))


def passed_over(grid: Grid, own: Evidence | None, lines: Mapping[str, Line]) -> tuple[PassedOver, ...]:
    """The own contestants that are no part of the evidence; `lines` are the plans of the models that were asked for."""
    gone = [name for name in grid.trained if own is None or name not in own.pooled]
    return tuple(PassedOver(name, _why_passed(grid, own, lines, name)) for name in gone)


def _why_passed(grid: Grid, own: Evidence | None, lines: Mapping[str, Line], name: str) -> str:
    entries = {task: entry for (one, task), entry in grid.entries.items() if one == name}
    spec = find_model(next(iter(entries.values())).cells[0].model)
    if spec is None:
        return "the model is not listed, so whether it fits is not known"
    line = lines.get(spec.key)
    if line is None:
        return "larger than what was asked for" if spec.trainable else "cannot be fine-tuned here"
    if line.plan is None:
        return f"does not train as asked: {line.why}"
    done = [task for task, entry in entries.items() if "tuned" in entry.sides]
    lacking = [task for task in (own.tasks if own else ()) if task not in done] or [
        task for task in grid.tasks if task not in done
    ]
    return f"no score on {listed(lacking)}"


def _kinds(grid: Grid) -> dict[str, str]:
    return {task: clean(str(cell.result["kind"])) for (_, task), entry in grid.entries.items() for cell in entry.done}


def refuse_both(task: str | None, kind: str | None) -> None:
    if task is not None and kind is not None:
        raise UserError("--task says what kind it is: give it, or --task-kind, not both.")
