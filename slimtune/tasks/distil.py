"""The job folders of distil labs' platform, read as they are: job_description.json, train and test, config.yaml.

Rows are {"question", "answer", "context"?}, or {"messages", "context"?} in their newer form, as .jsonl or .csv. Of a
conversation each assistant turn that calls is one case, and the cases of a conversation are one group.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from slimtune.data import JsonlRows, read_jsonl, strict_json
from slimtune.errors import Problem, Problems, UserError, did_you_mean
from slimtune.models.toolcalls import tool_call_from_json
from slimtune.tasks.assemble import Drafts, assemble, read_drafts, refuse_bad
from slimtune.tasks.job import Job, read_object
from slimtune.tasks.kinds import KINDS
from slimtune.tasks.table import read_table
from slimtune.tasks.task import Selection, Task

DESCRIPTION = "job_description.json"
KIND_OF = {
    "classification": "classification",
    "question-answering": "qa",
    "question-answering-open-book": "qa",
    "question-answering-closed-book": "qa",
    "tool-calling-closed-book": "tool_calling",
    "multi-turn-tool-calling-closed-book": "tool_calling",
}


def is_distil_folder(folder: Path) -> bool:
    return (folder / DESCRIPTION).is_file()


def load_distil_folder(folder: Path, *, selection: Selection) -> Task:
    """The task in such a folder. Raises UserError for a file that is missing and Problems for every bad row."""
    job = _job(folder)
    train, test = (_side(folder, side, job) for side in ("train", "test"))
    refuse_bad(job.shown, (train, test), skip_bad=selection.skip_bad)
    return assemble(job, train, test, selection)


def _job(folder: Path) -> Job:
    said = read_object(folder / DESCRIPTION)
    classes, tools = said.get("classes_description") or {}, said.get("tools") or []
    if not isinstance(classes, dict) or not isinstance(tools, list):
        raise Problems(
            str(folder), [Problem(DESCRIPTION, "has classes that are no object, or tools that are no list.")]
        )
    kind = _kind(folder, classes=bool(classes), tools=bool(tools))
    parts = [said.get("task_description"), said.get("input_description") if kind == "qa" else None]
    return Job(
        name=folder.resolve().name,
        kind=kind,
        description="\n\n".join(str(part) for part in parts if part),
        labels=tuple(map(str, classes)),
        label_descriptions={str(label): str(text) for label, text in classes.items()},
        tools=tuple(tools),
        note="A job folder of distil labs. Its judge and its generated rows are not used: only what it holds is.",
    )


def _kind(folder: Path, *, classes: bool, tools: bool) -> str:
    """What config.yaml says; without it, what the description has. Raises UserError for a task that is none of ours."""
    path = folder / "config.yaml"
    if not path.is_file():
        return "classification" if classes else "tool_calling" if tools else "qa"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {error}.") from error
    base = config.get("base") if isinstance(config, dict) else None
    task = base.get("task") if isinstance(base, dict) else None
    if task not in KIND_OF:
        raise UserError(f"{path} has the base.task {task!r}. {did_you_mean(str(task), KIND_OF)}")
    return KIND_OF[task]


def _side(folder: Path, side: str, job: Job) -> Drafts:
    path = next((path for end in ("jsonl", "csv") if (path := folder / f"{side}.{end}").is_file()), None)
    if path is None:
        raise UserError(f"{folder} has neither {side}.jsonl nor {side}.csv.")
    lines = read_table(path) if path.suffix == ".csv" else read_jsonl(path, skip_bad=True)
    rows, bad = [], list(lines.skipped)
    for number, row in lines.rows:
        try:
            cases = list(_cases(row, job.kind, f"{side}-{number}"))
        except ValueError as error:
            bad.append(Problem(f"{path.name}:{number}", str(error)))
        else:
            rows += [(number, case) for case in cases]
    return read_drafts(path, JsonlRows(tuple(rows), tuple(bad)), KINDS[job.kind].read, job)


def _cases(row: Mapping[str, Any], kind: str, name: str) -> Iterator[dict[str, Any]]:
    """The row in slimtune's own terms: one case, or one for each turn of a conversation that calls."""
    turns = _turns(row, kind)
    if kind != "tool_calling":
        question, answer = turns[-2].get("content"), turns[-1].get("content")
        if len(turns) != 2:
            raise ValueError("is a conversation of several turns; only tasks that call tools have those")
        if kind == "classification":
            yield {"id": name, "text": question, "label": answer}
        else:
            context = {"context": row["context"]} if row.get("context") else {}
            yield {"id": name, "question": question, "answers": [answer], **context}
        return
    calling = [place for place, turn in enumerate(turns) if turn.get("role") == "assistant" and turn.get("tool_calls")]
    if not calling:
        raise ValueError("has no assistant turn that calls a tool")
    for place in calling:
        calls = [tool_call_from_json(call).as_json() for call in turns[place]["tool_calls"]]
        yield {"id": f"{name}-{place}", "messages": turns[:place], "expected": calls, "conversation": name}


def _turns(row: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """Both forms as one list of turns, the answer last."""
    if row.get("messages") is not None:
        turns = _json(row["messages"], "messages")
    elif "question" in row and "answer" in row:
        asked = _history(row["question"]) if kind == "tool_calling" else None
        turns = asked or [{"role": "user", "content": row["question"]}]
        turns = [*turns, _answer(row["answer"], kind)]
    else:
        raise ValueError("has neither 'messages' nor 'question' and 'answer'")
    if not isinstance(turns, list) or len(turns) < 2 or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError("has no list of turns with a question and an answer")
    return turns


def _history(question: Any) -> list[Any] | None:
    """The turns that a question holds as JSON in a string; None where it is plain text."""
    if not isinstance(question, str) or not question.lstrip().startswith("["):
        return None
    turns = _json(question, "question")
    return turns if isinstance(turns, list) and turns and all(isinstance(turn, dict) for turn in turns) else None


def _answer(answer: Any, kind: str) -> dict[str, Any]:
    if kind != "tool_calling":
        return {"role": "assistant", "content": answer}
    found = _json(answer, "answer")
    calls = found if isinstance(found, list) else [found]
    if not all(isinstance(call, dict) for call in calls):
        raise ValueError("has an 'answer' that is no call")
    named = [
        {"name": call.get("name"), "arguments": call.get("parameters", call.get("arguments", {}))}
        if "function" not in call
        else call
        for call in calls
    ]
    return {"role": "assistant", "content": "", "tool_calls": named}


def _json(value: Any, key: str) -> Any:
    """A value, or what stands in it as JSON. Raises ValueError."""
    if not isinstance(value, str):
        return value
    try:
        return strict_json(value)
    except ValueError as error:
        raise ValueError(f"has a {key!r} that {error}") from error
