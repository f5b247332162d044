"""job.json: what a task folder says about itself.

    {"kind": "classification", "description": "Classify a customer's question."}

is enough; labels are then those of the train rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from slimtune.data import decode_utf8, json_type, open_data, strict_json
from slimtune.errors import Problem, Problems, did_you_mean
from slimtune.tasks.grouping import GROUPINGS

JOB = "job.json"
PROMPT = "prompt.jinja"


@dataclass(frozen=True)
class Job:
    """A task but for its rows."""

    name: str
    kind: str
    description: str = ""
    title: str = ""
    labels: tuple[str, ...] = ()
    label_descriptions: Mapping[str, str] = field(default_factory=dict)
    label_noun: str = "labels"
    entity_types: tuple[str, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    system: str = ""  # a template of the system turn, in place of the kind's own
    user: str = ""  # and of the user turn
    prompt: str = ""  # prompt.jinja: both in blocks
    groups: str = ""  # how rows without a group are grouped: see grouping.py
    contexts: str = ""  # a template: what the rows of contexts.jsonl, learned beside the others, are asked with
    hub: Mapping[str, Any] = field(default_factory=dict)  # where rows that are not here are fetched: see hub_rows.py
    openings: tuple[str, ...] = ()  # questions that training and test share and may
    scorer: str = ""  # empty: the kind's own
    max_new_tokens: int = 0  # 0: from the kind and the longest answer
    licence: str = ""
    attribution: str = ""
    source: str = ""
    note: str = ""
    slice: str = ""  # which part of the source this is, where it is not all of it
    rows: Mapping[str, int] = field(default_factory=dict)  # as many as the files must hold

    @property
    def train_rows(self) -> int | None:
        """Training rows, where job.json counts them."""
        return self.rows.get("train")

    @property
    def test_rows(self) -> int | None:
        """Test rows, where job.json counts them."""
        return self.rows.get("test")

    @property
    def shown(self) -> str:
        """The title, or the name made fit for one."""
        return self.title or self.name[:1].upper() + self.name[1:].replace("_", " ")


_TYPES: dict[str, type] = {
    "kind": str,
    "description": str,
    "title": str,
    "labels": list,
    "label_descriptions": dict,
    "label_noun": str,
    "entity_types": list,
    "tools": list,
    "system": str,
    "user": str,
    "groups": str,
    "contexts": str,
    "openings": list,
    "hub": dict,
    "scorer": str,
    "max_new_tokens": int,
    "licence": str,
    "attribution": str,
    "source": str,
    "note": str,
    "slice": str,
    "rows": dict,
}
_FOR_PEOPLE = {"task", "metric", "source_commit", "split"}
_CAP_BYTES = 4 << 20
_PROMPT_CAP_BYTES = 1 << 20
_WORDS = {str: "text", list: "a list", dict: "an object", int: "a whole number"}


def read_job(folder: Path, *, kinds: Mapping[str, Any]) -> Job:
    """The job.json of a task folder. Raises Problems with everything that is wrong with it."""
    path = folder / JOB
    value = read_object(path)
    if problems := _problems(value, kinds):
        raise Problems(str(path), [replace(problem, where=f"{path} {problem.where}") for problem in problems])
    known = {key: _frozen(value[key]) for key in _TYPES if value.get(key) is not None}
    return Job(name=folder.resolve().name, prompt=_prompt(folder / PROMPT), **known)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file is. Raises Problems where it is none, or larger than a description is."""
    with open_data(path) as file:
        data = file.read(_CAP_BYTES)
    try:
        value = strict_json(decode_utf8(data).removeprefix("\ufeff"))
    except ValueError as error:
        raise Problems(str(path), [Problem(str(path), str(error))]) from error
    if not isinstance(value, dict):
        raise Problems(str(path), [Problem(str(path), f"is {json_type(value)}, not an object in braces")])
    return value


def _prompt(path: Path) -> str:
    """The folder's own prompt, or nothing. Raises Problems where it is not text."""
    if not path.is_file():
        return ""
    with open_data(path) as file:
        text = file.read(_PROMPT_CAP_BYTES)
    try:
        return decode_utf8(text).removeprefix("\ufeff")
    except ValueError as error:
        raise Problems(str(path), [Problem(PROMPT, str(error))]) from error


def _problems(value: Mapping[str, Any], kinds: Mapping[str, Any]) -> list[Problem]:
    problems = [
        Problem(key, "is not a key of a job.", did_you_mean(key, [*_TYPES, *_FOR_PEOPLE]))
        for key in value
        if key not in _TYPES and key not in _FOR_PEOPLE
    ]
    for key, kind in _TYPES.items():
        if value.get(key) is not None and type(value[key]) is not kind:
            problems.append(Problem(key, f"is {json_type(value[key])}, not {_WORDS[kind]}."))
    if "kind" not in value:
        problems.append(Problem("kind", "is missing.", f"Known: {', '.join(kinds)}."))
    elif isinstance(value["kind"], str) and value["kind"] not in kinds:
        problems.append(Problem("kind", f"{value['kind']!r} is no kind of task.", did_you_mean(value["kind"], kinds)))
    if value.get("groups") not in (None, *GROUPINGS):
        problems.append(Problem(f"{JOB} groups", f"{value['groups']!r} is not one of {', '.join(GROUPINGS)}."))
    labels = value.get("labels")
    if isinstance(labels, list):
        if not all(isinstance(label, str) and label == label.strip() != "" for label in labels):
            problems.append(Problem("labels", "must be texts without spaces at their ends."))
        elif len(set(labels)) < len(labels):
            problems.append(Problem("labels", "name a label twice."))
    return problems


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
