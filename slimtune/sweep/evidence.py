"""What is known of contestants for one kind of task: own cells first, on the nearest tasks there are; else what others
printed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slimtune.errors import UserError, unknown_name
from slimtune.plan.cost import Request
from slimtune.published import EDITIONS, PublishedRank, published_ranks
from slimtune.report.board import Measured
from slimtune.report.text import clean
from slimtune.stats import complete_block, score_interval
from slimtune.sweep.gather import SEED, Answers, Grid
from slimtune.tasks import get_task, list_tasks
from slimtune.tasks.kinds import KINDS


@dataclass(frozen=True)
class Evidence:
    """Own answers on `tasks`, pooled: each row of them counts the same. `near` says how near they are to what is asked:
    "task", "kind" or "other". `pooled` are the contestants that have all of them; `bases` the same models' answers
    before training, of those that have them."""

    near: str
    tasks: tuple[str, ...]
    pooled: Mapping[str, Answers]
    bases: Mapping[str, Answers]
    models: Mapping[str, str]


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
    """Own tuned cells of the contestants in `among`: on the task itself, else on its kind, else on any task."""
    kinds = _kinds(grid)
    levels = (
        ("task", [name for name in grid.tasks if name == task]),
        ("kind", [name for name in grid.tasks if kind is not None and kinds.get(name) == kind]),
        ("other", list(grid.tasks)),
    )
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
    models = {name: grid.entries[name, kept[0]].cells[0].model for name in names}
    tuned, base = ({name: pool(grid, name, kept, side) for name in names} for side in ("tuned", "base"))
    return Evidence(near, kept, tuned, {name: answers for name, answers in base.items() if answers}, models)


def pool(grid: Grid, contestant: str, tasks: Sequence[str], side: str) -> Answers | None:
    """One side of a contestant on several tasks as if they were one; None where it lacks one of them."""
    parts = {task: grid.answers(contestant, task, side) for task in tasks}
    if not all(parts.values()):
        return None
    if len(parts) == 1:
        return parts[tasks[0]]
    rows = {f"{task}/{key}": value for task, part in parts.items() for key, value in part.rows.items()}
    groups = {f"{task}/{key}": f"{task}/{group}" for task, part in parts.items() for key, group in part.groups.items()}
    seeds = min((part.seeds for part in parts.values()), key=len)
    interval = score_interval(list(rows.values()), [groups[key] for key in rows], rng=np.random.default_rng(SEED))
    unscored = sum(part.measured.unscored for part in parts.values())
    return Answers(rows, groups, seeds, Measured(interval, len(seeds), None, unscored), contestant)


def _kinds(grid: Grid) -> dict[str, str]:
    return {task: clean(str(cell.result["kind"])) for (_, task), entry in grid.entries.items() for cell in entry.done}


def refuse_both(task: str | None, kind: str | None) -> None:
    if task is not None and kind is not None:
        raise UserError("--task says what kind it is: give it, or --task-kind, not both.")
