"""Tasks that are folders: job.json, train.jsonl, test.jsonl. Those that come with slimtune stand beside this file."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from slimtune.data import Example, JsonlRows, Message, read_jsonl
from slimtune.errors import Problem, Problems, UserError, unknown_name
from slimtune.tasks.assemble import Drafts, assemble, read_drafts, refuse_bad
from slimtune.tasks.distil import is_distil_folder, load_distil_folder
from slimtune.tasks.grouping import grouped
from slimtune.tasks.hub_rows import as_fetched, hub_rows
from slimtune.tasks.job import JOB, PROMPT, Job, read_job
from slimtune.tasks.kinds import KINDS, text_of
from slimtune.tasks.prompting import check_templates, user_turn
from slimtune.tasks.task import TRAINING_TEXT, Selection, Task

SHIPPED = Path(__file__).parent
CONTEXTS = "contexts.jsonl"
HUB = "hub:"  # before a name: all rows of the task, from the hub, instead of those that come with slimtune
_EVERYTHING = Selection()


def list_tasks(*, data_dir: Path | None = None) -> tuple[Job, ...]:
    """What `get_task` knows by name: the tasks that come with slimtune, and those in `data_dir`, which win."""
    return tuple(read_job(_folder(name, data_dir), kinds=KINDS) for name in _names(data_dir))


def get_task(name_or_path: str | Path, *, data_dir: Path | None = None, selection: Selection = _EVERYTHING) -> Task:
    """A task by name, from `data_dir` if it has that folder and else from those that come with slimtune; or the task
    in a folder of yours; or, as hub:NAME, all its rows from the hub. Raises UserError for an unknown name, and Problems
    for everything wrong with its files."""
    name = str(name_or_path)
    if name.startswith(HUB):
        return _fetched(name.removeprefix(HUB), selection)
    if name in _names(data_dir):
        return _load(_folder(name, data_dir), selection)
    if Path(name).is_dir():
        return _load(Path(name), selection)
    if "/" in name or "\\" in name:
        raise UserError(f"There is no folder {name}. A task folder holds {JOB}, train.jsonl and test.jsonl.")
    places = ["among the tasks that come with slimtune", *([f"in {data_dir}"] if data_dir else [])]
    raise UserError(
        f"{unknown_name('task', name, _names(data_dir))} It was looked for {', '.join(places)}, and as a folder of "
        f"{Path.cwd()}. A folder elsewhere is named with its path."
    )


def _fetched(name: str, selection: Selection) -> Task:
    """All rows of a task that the hub has. Raises UserError for a task whose rows have to come from a folder."""
    jobs = {job.name: job for job in list_tasks()}
    there = [known for known, job in jobs.items() if job.hub]
    if name in jobs and name not in there:
        job = jobs[name]
        more = f"More rows come with --data DIR, made from {job.source}." if job.slice else "It comes whole."
        raise UserError(f"{job.shown} is not fetched from the hub. {more} {HUB} goes before {', '.join(there)}.")
    if name not in there:
        raise UserError(f"{unknown_name('task', name, there)} {HUB} goes before {', '.join(there)}.")
    job = as_fetched(jobs[name])
    train, test = (_drafts(SHIPPED / name / f"{side}.jsonl", hub_rows(job, side), job) for side in ("train", "test"))
    refuse_bad(job.shown, [train, test], skip_bad=selection.skip_bad)
    return assemble(job, train, test, selection)


def _load(folder: Path, selection: Selection) -> Task:
    """The task in a folder, which it remembers unless it is one that comes with slimtune."""
    task = load_folder(folder, selection=selection)
    return task if folder.parent == SHIPPED else replace(task, folder=str(folder.resolve()))


def load_folder(folder: Path, *, selection: Selection = _EVERYTHING) -> Task:
    """The task in a folder. Raises UserError when a file is missing, and Problems for all that is wrong with them."""
    if not (folder / JOB).is_file() and is_distil_folder(folder):
        return load_distil_folder(folder, selection=selection)
    job = _as_shipped(read_job(folder, kinds=KINDS)) if (folder / JOB).is_file() else None
    sides = ("train.jsonl", "test.jsonl")
    fetched = job is not None and job.hub and not any((folder / side).is_file() for side in sides)
    needed = (JOB,) if fetched else (JOB, *sides)
    if missing := [file for file in needed if not (folder / file).is_file()]:
        raise UserError(
            f"{folder} is no task folder: {' and '.join(missing)} is missing. It needs {', '.join(needed)}."
        )
    _check_prompts(folder, job)
    train, test = (_read(folder / f"{split}.jsonl", job) for split in ("train", "test"))
    sides = [train, test, *_contexts(folder, job)]
    refuse_bad(job.shown, sides, skip_bad=selection.skip_bad)
    more = tuple(example for side in sides[2:] for example in side.examples)
    train = replace(train, examples=(*train.examples, *more))
    return assemble(job, train, test, selection)


def _as_shipped(job: Job) -> Job:
    """A whole task of the same name as one that comes with slimtune is read like that one: its groups, the openings
    its sides share, what its paragraphs are asked with, and its scorer, where it does not say so itself."""
    if not (SHIPPED / job.name / JOB).is_file():
        return job
    ours = read_job(SHIPPED / job.name, kinds=KINDS)
    if ours.kind != job.kind:
        return job
    same = {key: getattr(job, key) or getattr(ours, key) for key in ("groups", "openings", "contexts", "scorer")}
    return replace(job, **same)


def _contexts(folder: Path, job: Job) -> list[Drafts]:
    """The paragraphs that are learned beside the training rows, asked for as job.json says; at inference none is shown.
    They belong to no group: a paragraph of a test question is no leak where the book is closed."""
    path = folder / CONTEXTS
    if not job.contexts or not path.is_file():
        return []

    def read(row: Mapping[str, Any], job: Job) -> Example:
        paragraph = text_of(row, "context")
        asked = user_turn("qa", replace(job, user=job.contexts), row)
        meta = {"answers": (paragraph,), TRAINING_TEXT: True}
        return Example("", (Message("user", asked),), paragraph, meta=meta)

    return [read_drafts(path, _lines(path, job, path.name), read, job)]


def _check_prompts(folder: Path, job: Job) -> None:
    sources = {name: text for name in ("system", "user", "prompt", "contexts") if (text := getattr(job, name))}
    problems = [
        Problem(PROMPT if name == "prompt" else f"{JOB} {name}", what) for name, what in check_templates(sources)
    ]
    if problems:
        raise Problems(str(folder), problems)


def _names(data_dir: Path | None) -> tuple[str, ...]:
    roots = [SHIPPED] if data_dir is None else [SHIPPED, data_dir]
    return tuple(sorted({job.parent.name for root in roots for job in root.glob(f"*/{JOB}")}))


def _folder(name: str, data_dir: Path | None) -> Path:
    own = data_dir / name if data_dir is not None else SHIPPED / name
    return own if (own / JOB).is_file() else SHIPPED / name


def _read(path: Path, job: Job) -> Drafts:
    """The rows of a side, from its file or, where there is none, from the hub."""
    fetched = job.hub and not path.is_file()
    return _drafts(path, hub_rows(job, path.stem) if fetched else _lines(path, job, path.stem), job)


def _drafts(path: Path, lines: JsonlRows, job: Job) -> Drafts:
    drafts = read_drafts(path, lines, KINDS[job.kind].read, job)
    return replace(drafts, examples=grouped(drafts.examples, job.groups))


def _lines(path: Path, job: Job, name: str) -> JsonlRows:
    """The rows of a file. Bad ones are gathered, so that both files are told of at once. A file with fewer lines than
    job.json counts was cut at a line's end, where no reader can see it: that raises UserError."""
    lines = read_jsonl(path, skip_bad=True)
    due, found = job.rows.get(name), len(lines.rows) + len(lines.skipped)
    if due is not None and due != found:
        raise UserError(
            f"{path} has {found:,} rows and {JOB} says {due:,}. Restore the file, or correct 'rows' in {JOB}."
        )
    return lines
