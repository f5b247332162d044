"""Rows of a task that may not be passed on: fetched from their own repository on the hub, where its makers keep them.

The file itself is fetched (`huggingface_hub`) and read with pandas, not through `datasets`: that library takes seconds
to import, belongs to the training half, and would have to be there to list or score a task on a laptop.
"""

from pathlib import Path
from typing import Any

from slimtune.data import JsonlRows, read_jsonl
from slimtune.errors import Problem, Problems, UserError, did_you_mean
from slimtune.models.hub import hub_file
from slimtune.tasks.job import JOB, Job
from slimtune.tasks.table import read_table

_NEEDED = ("repository", "revision", "train", "test", "columns")
_KEYS = (*_NEEDED, "names")


def hub_problems(hub: dict[str, Any]) -> list[Problem]:
    """What is wrong with the `hub` of a job.json: {"repository", "revision", "train" and "test" (files), "columns"
    (ours to theirs), "names" (of a column whose values are numbers)}."""
    problems = [Problem(f"{JOB} hub", f"has no {key!r}.") for key in _NEEDED if not hub.get(key)]
    problems += [
        Problem(f"{JOB} hub", f"has {key!r}, which is no key of it.", did_you_mean(key, _KEYS))
        for key in hub
        if key not in _KEYS
    ]
    return problems


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
    rows = [(number, _renamed(row, job, repository)) for number, row in found.rows]
    return JsonlRows(tuple(rows), found.skipped)


def _rows(path: Path) -> JsonlRows:
    if path.suffix == ".parquet":
        import pandas as pd

        return JsonlRows(tuple(enumerate(pd.read_parquet(path).to_dict("records"), start=1)))
    return read_table(path) if path.suffix in (".csv", ".tsv") else read_jsonl(path, skip_bad=True)


def _renamed(row: dict[str, Any], job: Job, repository: str) -> dict[str, Any]:
    columns, names = job.hub["columns"], job.hub.get("names", {})
    if missing := [theirs for theirs in columns.values() if theirs not in row]:
        raise UserError(f"{repository} has no column {missing[0]!r}. {did_you_mean(missing[0], row)}")
    return {ours: _named(row[theirs], names.get(ours)) for ours, theirs in columns.items()}


def _named(value: Any, names: list[str] | None) -> Any:
    """The name of a numbered class where the column has names. Other numbers are left, for the reader to refuse."""
    if names is None:
        return value
    return names[int(value)] if str(value).isdigit() and int(value) < len(names) else value
