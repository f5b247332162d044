"""A task folder out of one file of rows: `new_task` parts it without leaks, writes it, and says what to look at."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.data import Example
from slimtune.draft import Draft, recipe_text
from slimtune.errors import UserError
from slimtune.files import write_text, writing
from slimtune.stats import smallest_detectable_difference
from slimtune.tasks import Quality, Selection, Task, get_task, inspect_task, task_from_files
from slimtune.tasks.formats import FORMATS, format_of, read_rows
from slimtune.wording import counted, detectable_words

MODEL = "smollm2-135m-embedded"  # comes with slimtune's packages, so that the recipe runs as it is written
_FEW_ROWS = 10  # of a label: fewer are hardly learned
_UNEVEN = 5.0  # times as many rows of one label as of another


@dataclass(frozen=True)
class NewTask:
    """A folder that was written, and what its owner should look at first, a sentence each."""

    folder: Path
    train_rows: int
    test_rows: int
    remarks: tuple[str, ...]


def new_task(name: str, source: Path, *, columns: Mapping[str, str] | None = None, skip_bad: bool = False) -> NewTask:
    """Write the folder `name` from a CSV, TSV or JSON Lines file: job.json, train.jsonl, test.jsonl, recipe.yaml.

    Rows of one group (a column group, conversation, doc_id...: `columns` maps ours to theirs) and rows that ask the
    same but for case and punctuation stay on one side; a fifth is for testing, labels in proportion. Raises UserError
    for a folder that is there or a file that is unclear, and Problems for every bad row unless these are skipped.
    """
    folder = Path(name)
    if folder.exists():
        raise UserError(f"{folder} is there already. Choose another name, or move it away.")
    task = task_from_files(source, columns=columns, selection=Selection(skip_bad=skip_bad))
    rows = _rows_by_id(source, columns or {})
    sides = {side: [_row(example, rows, task) for example in getattr(task, side)] for side in ("train", "test")}

    job = {"kind": task.kind, "description": _description(task), "labels": list(task.labels), "source": source.name}
    job = {key: value for key, value in job.items() if value}
    draft = Draft(MODEL, task=str(folder))
    recipe = recipe_text(draft).replace(f"{draft.name}.yaml", f"{folder}/recipe.yaml")
    with writing(folder):
        for side, said in sides.items():
            write_text(folder / f"{side}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in said))
        write_text(folder / "recipe.yaml", recipe)
        write_text(folder / "job.json", json.dumps(job, indent=2, ensure_ascii=False) + "\n")  # last: now it is a task
    written = get_task(str(folder.resolve()))
    remarks = _remarks(written, inspect_task(written), source, folder)
    left_out = (
        [f"{counted(len(task.skipped), 'row')} could not be read: first {task.skipped[0]}"] if task.skipped else []
    )
    return NewTask(folder, len(written.train), len(written.test), (*left_out, *remarks))


def columns_of(pairs: Iterable[str]) -> dict[str, str]:
    """["text=body"] as {"text": "body"}. Raises UserError for what is no pair."""
    parted = [pair.partition("=") for pair in pairs]
    if wrong := [ours for ours, mark, theirs in parted if not (ours and mark and theirs)]:
        raise UserError(f"--column {wrong[0]} is no pair. Write ours=theirs, as in --column text=body.")
    return {ours: theirs for ours, _, theirs in parted}


def _description(task: Task) -> str:
    return "Choose the label that fits the text." if task.kind == "classification" else ""


def _rows_by_id(source: Path, columns: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The file's rows by the id that their examples have: their own, or file and line."""
    lines = read_rows(source, columns=columns)
    theirs = {theirs for ours, theirs in columns.items() if ours != theirs}
    return {
        str(row.get("id") or f"{source.stem}-{number}"): {key: row[key] for key in row if key not in theirs}
        for number, row in lines.rows
    }


def _row(example: Example, rows: Mapping[str, dict[str, Any]], task: Task) -> dict[str, Any]:
    """An example as a row of a task folder: its own row where that is one of a kind, else what it asks and answers."""
    row = rows[example.id]
    format = format_of(row)
    if format is not None and FORMATS[format].kind == task.kind != "text":
        return {key: value for key, value in row.items() if value not in (None, "")}
    group = {"group": example.group} if example.group is not None else {}
    if task.kind == "tool_calling":
        return {**group, **_calling(example)}
    asked = [turn for turn in example.messages if turn.role != "system"]
    if len(asked) != 1:
        raise UserError(
            "These rows are chats of several turns that end in text, which a task folder cannot hold. Put `data: "
            "{train: FILE}` into a recipe: it takes them as they are."
        )
    prompt = "\n\n".join(turn.content for turn in example.messages if turn.content != task.instruction)
    return {**group, "prompt": prompt, "completion": example.target}


def _calling(example: Example) -> dict[str, Any]:
    turns = [
        {"role": turn.role, "content": turn.content}
        | ({"tool_calls": [call.as_json() for call in turn.tool_calls]} if turn.tool_calls else {})
        for turn in example.messages
    ]
    expected = [call.as_json() for call in example.target] if not isinstance(example.target, str) else []
    return {"messages": turns, "tools": list(example.tools), "expected": expected}


def _remarks(task: Task, quality: Quality, source: Path, folder: Path) -> list[str]:
    """What to look at: the instruction, the balance of the labels, duplicates, the longest rows, what n can show."""
    found = [f"Say in {folder}/job.json what is asked: `description` is what the model is told, and it decides much."]
    found += _labels(quality)
    doubled = quality.duplicate_train_rows + quality.duplicate_test_rows
    if doubled:
        found.append(f"{doubled:,} rows repeat another, question and answer: they count twice and teach nothing new.")
    groups = {example.group for example in (*task.train, *task.test)} - {None}
    found.append(
        f"{len(groups):,} groups were kept on one side each."
        if groups
        else "No column says which rows belong together. If rows share a document, a customer or a conversation, name "
        "that column `group` (--column group=THEIRS): else the score is too good."
    )
    longest = max((*task.train, *task.test), key=lambda row: sum(len(turn.content) for turn in row.messages))
    length = sum(len(turn.content) for turn in longest.messages)
    found.append(f"The longest row has {length:,} characters with its instruction ({longest.id}).")
    n = len(task.test)
    found.append(f"{detectable_words(n, smallest_detectable_difference(n))} More rows show smaller ones.")
    return [*found, *map(str, (*quality.errors, *quality.warnings))]


def _labels(quality: Quality) -> list[str]:
    counts = quality.train_labels
    if not counts:
        return []
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    found = [f"{len(counts)} labels, from {counts[least]:,} training rows ({least}) to {counts[most]:,} ({most})."]
    if counts[most] > _UNEVEN * counts[least]:
        found.append("They are uneven: look at the score of each label, not at the mean alone.")
    if few := [label for label, count in counts.items() if count < _FEW_ROWS]:
        found.append(f"{len(few)} labels have fewer than {_FEW_ROWS} training rows, {few[0]} among them.")
    if unseen := [label for label in counts if label not in quality.test_labels]:
        found.append(f"{len(unseen)} labels have no test row: nothing will be known of them, {unseen[0]} first.")
    return found
