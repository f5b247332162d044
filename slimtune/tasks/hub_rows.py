"""Rows of a task that do not come with slimtune: fetched from their repository on the hub, at the commit named there.

A task is fetched where its columns are ours under other names, and a class a number of a list: `columns`, `names`,
`leave_out`. What takes more (tags into spans, paragraphs into one context) is read from a folder, `--data`.

The file itself is fetched (`huggingface_hub`) and read with pandas, not through `datasets`: that library takes seconds
to import, belongs to the training half, and would have to be there to list or score a task on a laptop.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from slimtune.data import JsonlRows, read_jsonl
from slimtune.errors import Problem, Problems, UserError, did_you_mean
from slimtune.models.hub import hub_file
from slimtune.tasks.job import JOB, Job
from slimtune.tasks.table import read_table

_NEEDED = ("repository", "revision", "train", "test", "columns")
_KEYS = (*_NEEDED, "names", "leave_out")
_SLICE = " (a slice)"


def hub_problems(hub: dict[str, Any]) -> list[Problem]:
    """What is wrong with the `hub` of a job.json: {"repository", "revision", "train" and "test" (files), "columns"
    (ours to theirs, "answers.text" for what is in a column), "names" (of a column whose values are numbers),
    "leave_out" (values of ours whose rows are no part of the task)}."""
    problems = [Problem(f"{JOB} hub", f"has no {key!r}.") for key in _NEEDED if not hub.get(key)]
    problems += [
        Problem(f"{JOB} hub", f"has {key!r}, which is no key of it.", did_you_mean(key, _KEYS))
        for key in hub
        if key not in _KEYS
    ]
    problems += [
        Problem(f"{JOB} hub", f"names {key!r}, which `columns` does not.")
        for key in {**hub.get("names", {}), **hub.get("leave_out", {})}
        if key not in hub.get("columns", {})
    ]
    return problems


def as_fetched(job: Job) -> Job:
    """A task's job.json as it is for the rows of the hub: all of them, in the division they have there."""
    where = f"{job.hub['repository']} at {job.hub['revision'][:12]}"
    return replace(
        job,
        title=job.title.removesuffix(_SLICE),
        attribution=job.attribution.removesuffix(" Cut to a slice.").removesuffix(" Sub-sampled."),
        source=f"{where} on the hub",
        slice=f"All rows of {where}, in the division into sides that it has there.",
        rows={},
    )


def hub_rows(job: Job, side: str) -> JsonlRows:
    """The rows of one side ("train" or "test"). Raises UserError for a repository, file or column that is not there,
    and ServiceAway without a network where it is not in the cache."""
    if problems := hub_problems(dict(job.hub)):
        raise Problems(job.shown, problems)
    repository, revision, name = job.hub["repository"], job.hub["revision"], job.hub[side]
    path = hub_file(repository, name, revision=revision, known=(), dataset=True)
    if path is None:
        raise UserError(f"{repository} has no file {name} at {revision}. Correct `hub` in the {JOB} of {job.shown}.")
    found = _rows(path)
    out = job.hub.get("leave_out", {})
    renamed = ((number, _renamed(row, job, repository)) for number, row in found.rows)
    rows = [(number, row) for number, row in renamed if not any(row[key] in out[key] for key in out)]
    return JsonlRows(tuple(rows), found.skipped)


def _rows(path: Path) -> JsonlRows:
    if path.suffix == ".parquet":
        import pandas as pd

        return JsonlRows(tuple(enumerate(pd.read_parquet(path).to_dict("records"), start=1)))
    return read_table(path) if path.suffix in (".csv", ".tsv") else read_jsonl(path, skip_bad=True)


def _renamed(row: dict[str, Any], job: Job, repository: str) -> dict[str, Any]:
    columns, names = job.hub["columns"], job.hub.get("names", {})
    if missing := [column for theirs in columns.values() if (column := theirs.partition(".")[0]) not in row]:
        raise UserError(f"{repository} has no column {missing[0]!r}. {did_you_mean(missing[0], row)}")
    return {ours: _named(_value(row, theirs), names.get(ours)) for ours, theirs in columns.items()}


def _value(row: dict[str, Any], column: str) -> Any:
    """What stands in a column, or inside it: "answers.text". pandas gives a list as an array."""
    name, _, inside = column.partition(".")
    value = row[name][inside] if inside else row[name]
    return value.tolist() if hasattr(value, "tolist") else value


def _named(value: Any, names: list[str] | None) -> Any:
    """The name of a numbered class where the column has names. Other numbers are left, for the reader to refuse."""
    if names is None:
        return value
    return names[int(value)] if str(value).isdigit() and int(value) < len(names) else value
