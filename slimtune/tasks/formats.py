"""The formats other people's data come in, read into a Task: `task_from_files`.

    messages            {"messages": [{"role": "user", "content": ...}, ..., {"role": "assistant", ...}], "tools"?}
    sharegpt            {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}], "system"?}
    alpaca              {"instruction": ..., "input"?: ..., "output": ...}
    prompt_completion   {"prompt": ..., "completion": ...}: texts, or lists of chat turns
    and the rows of slimtune's own kinds: {"text", "label"}, {"question", "answers", "context"?}, ...

each as JSON Lines, or as a .csv or .tsv file with a header, its columns named by the caller where they differ.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slimtune.data import Example, JsonlRows, json_type, read_jsonl, strict_json
from slimtune.errors import Problem, Problems, UserError, did_you_mean, unknown_name
from slimtune.tasks.assemble import Drafts, assemble, read_drafts, refuse_bad
from slimtune.tasks.chat import read_turns, split_answer
from slimtune.tasks.job import Job
from slimtune.tasks.kinds import GROUPS, KINDS, Row, draft, text_of, tools_of
from slimtune.tasks.split import hold_out
from slimtune.tasks.table import read_table
from slimtune.tasks.task import Selection, Task

_EVERYTHING = Selection()
_OPTIONAL = ("id", "answer", "context", "input", "system", "tools", "accepted")
_SPEAKERS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
}


def task_from_files(
    train: Path,
    test: Path | None = None,
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    kind: str | None = None,
    labels: Sequence[str] = (),
    instruction: str = "",
    scorer: str | None = None,
    title: str = "",
    held_out: float = 0.2,
    selection: Selection = _EVERYTHING,
) -> Task:
    """A task from files in one of FORMATS, told from the first row where `format` is None.

    `columns` maps our field to their column: {"text": "body", "label": "intent"}. `kind` says what rows of prompt and
    answer are: "classification" (answers are labels), "qa", or "text". Without `test`, a share `held_out` of the rows
    is held out by group, near-duplicates on one side (`hold_out`). Raises Problems with every bad row of both files,
    and UserError where the format is unclear or a name is unknown.
    """
    if wrong := column_problems(columns or {}, where=lambda name: f"columns {name}"):
        raise Problems(str(train), wrong)
    files = [path for path in (train, test) if path is not None]
    tables = [read_rows(path, columns=columns or {}) for path in files]
    format = format or _detect(tables[0].rows, train, columns or {})
    if format not in FORMATS:
        raise unknown_name("data format", format, FORMATS)
    job = Job(
        name=_name(train),
        kind="text",
        description=instruction,
        title=title,
        labels=tuple(labels),
        scorer=scorer or "",
    )
    read = FORMATS[format].read
    drafts = [read_drafts(path, lines, read, job) for path, lines in zip(files, tables, strict=True)]
    drafts = [_in_their_words(side, columns or {}) for side in drafts]
    refuse_bad(job.shown, drafts, skip_bad=selection.skip_bad)
    every = [example for side in drafts for example in side.examples]
    job = replace(job, kind=_kind(kind, format, every, labels))
    drafts = [replace(side, examples=_as_kind(side.examples, job, instruction)) for side in drafts]
    if test is None:
        drafts = _hold_out(drafts[0], job, held_out, selection.seed)
        job = replace(job, note=f"No test file was given: {held_out:.0%} of the rows were held out for testing.")
    return assemble(job, drafts[0], drafts[1], selection)


def read_rows(path: Path, *, columns: Mapping[str, str]) -> JsonlRows:
    """The rows of a JSON Lines, CSV or TSV file, columns renamed; bad lines are returned in `skipped`. Raises
    UserError for a column that is not there."""
    found = read_table(path) if path.suffix.lower() in (".csv", ".tsv") else read_jsonl(path, skip_bad=True)
    if not found.rows:
        return found
    there = found.rows[0][1]
    if missing := [theirs for theirs in columns.values() if theirs not in there]:
        hints = " ".join(f"There is no column {theirs!r}. {did_you_mean(theirs, there)}" for theirs in missing)
        raise UserError(f"{path}: {hints}")
    rows = ((line, {**row, **{ours: row.get(theirs) for ours, theirs in columns.items()}}) for line, row in found.rows)
    return JsonlRows(tuple(rows), found.skipped)


def column_problems(columns: Mapping[str, str], *, where: Callable[[str], str]) -> list[Problem]:
    """What `columns` gives a column for, and no format has. `where` says where a key of it stands."""
    known = {field for format in FORMATS.values() for field in format.fields} | {*_OPTIONAL, *GROUPS}
    return [
        Problem(where(name), "is not a field of a row.", _turned(name, theirs, known) or did_you_mean(name, known))
        for name, theirs in columns.items()
        if name not in known
    ]


def _turned(name: str, theirs: str, known: Collection[str]) -> str:
    """A pair of columns the other way round, set right; empty where it is not that."""
    return f"Our field comes first: {theirs}={name}, or {{{theirs}: {name}}} in a recipe." * (theirs in known)


def _hold_out(drafts: Drafts, job: Job, share: float, seed: int) -> list[Drafts]:
    held = hold_out(drafts.examples, kind=job.kind, share=share, seed=seed) if drafts.examples else frozenset()
    train = tuple(example for index, example in enumerate(drafts.examples) if index not in held)
    test = tuple(example for index, example in enumerate(drafts.examples) if index in held)
    return [replace(drafts, examples=train), replace(drafts, examples=test, problems=())]


def _kind(kind: str | None, format: str, examples: Sequence[Example], labels: Sequence[str]) -> str:
    """What kind of task the rows make. Raises UserError where they do not agree with each other or with `kind`."""
    if kind is not None and kind not in KINDS:
        raise unknown_name("kind of task", kind, KINDS)
    own = FORMATS[format].kind
    calls = sum(not isinstance(example.target, str) for example in examples)
    if 0 < calls < len(examples) and own == "text":
        raise UserError(
            f"{calls} of {len(examples)} rows end in tool calls and the others in text. Make them two tasks: a score "
            "is a measure of one thing."
        )
    found = "tool_calling" if calls and own == "text" else own
    if kind is None:
        return "classification" if labels and found == "text" else found
    if kind != found and (found != "text" or kind not in ("classification", "qa")):
        raise UserError(f"These rows make a {found} task, not a {kind} one. Leave kind out, or name their format.")
    return kind


def _as_kind(examples: tuple[Example, ...], job: Job, instruction: str) -> tuple[Example, ...]:
    """Rows of prompt and answer as rows of `job.kind`. An `instruction` replaces the system turns of the rows."""
    if instruction:
        examples = tuple(
            replace(example, messages=tuple(turn for turn in example.messages if turn.role != "system"))
            for example in examples
        )
    if job.kind == "qa":
        examples = tuple(
            replace(example, meta={"answers": (str(example.target),), **example.meta}) for example in examples
        )
    if job.kind == "classification":
        examples = tuple(replace(example, target=str(example.target).strip()) for example in examples)
    return examples


def _in_their_words(drafts: Drafts, columns: Mapping[str, str]) -> Drafts:
    """What is wrong with rows, said of the file's own columns."""
    said = drafts.problems
    for ours, theirs in columns.items():
        said = [replace(problem, what=problem.what.replace(repr(ours), repr(theirs))) for problem in said]
    return replace(drafts, problems=tuple(said))


def _detect(rows: Sequence[tuple[int, Row]], path: Path, columns: Mapping[str, str]) -> str:
    """The one format whose fields the first row has. Raises UserError that lists the formats."""
    if not rows:
        raise UserError(f"{path} has no rows that can be read: its first line must be a row of data.")
    there = rows[0][1]
    if found := format_of(there):
        return found
    known = "\n".join(f"  {name}: {', '.join(format.fields)}" for name, format in FORMATS.items())
    own = [name for name in there if name not in columns]
    raise UserError(
        f"The format of {path} is unclear: its first row has {', '.join(map(repr, own))}. Name the columns, ours "
        f"first: {_suggested(rows, columns)}. Formats and the fields they need:\n{known}"
    )


def _suggested(rows: Sequence[tuple[int, Row]], columns: Mapping[str, str]) -> str:
    """Columns that may be a text and its label, as they are named on the command line and in a recipe."""
    taken = {"id", *GROUPS, *columns, *columns.values()}
    free = [name for name, value in rows[0][1].items() if isinstance(value, str) and name not in taken] or ["theirs"]
    text = max(free, key=lambda name: sum(len(str(row.get(name))) for _, row in rows))
    kinds = {name: len({str(row.get(name)) for _, row in rows}) for name in free if name != text} or {text: 1}
    label = min(kinds, key=lambda name: (kinds[name] < 2, kinds[name]))
    pairs = {"text": text, "label": label} if "text" not in columns else {"label": label}
    typed = " ".join(f"--column {ours}={theirs}" for ours, theirs in pairs.items())
    return f"{typed} with `slimtune new`, `columns: {{{', '.join(map(': '.join, pairs.items()))}}}` in a recipe"


def format_of(row: Mapping[str, Any]) -> str | None:
    """The one of FORMATS whose fields a row has; None where it has those of none."""
    fits = [name for name, format in FORMATS.items() if all(row.get(field) is not None for field in format.fields)]
    return max(fits, key=lambda name: len(FORMATS[name].fields), default=None)


def _name(train: Path) -> str:
    return train.resolve().parent.name if train.stem == "train" else train.stem


def _messages(row: Row, job: Job) -> Example:
    prompt, answer = split_answer(read_turns(row.get("messages")))
    reasoning = row["messages"][-1].get("reasoning_content")
    meta = {"reasoning": reasoning} if isinstance(reasoning, str) and reasoning.strip() else None
    return draft(row, prompt, answer.tool_calls or answer.content, tools=tools_of(row, job), meta=meta)


def _sharegpt(row: Row, job: Job) -> Example:
    turns = row.get("conversations")
    if not isinstance(turns, list):
        raise ValueError(f"has {json_type(turns)} for 'conversations', not a list")
    chat = [_said(turn) for turn in turns]
    if row.get("system"):
        chat.insert(0, {"role": "system", "content": text_of(row, "system")})
    return _messages({**row, "messages": chat, "tools": _loaded(row.get("tools"))}, job)


def _said(turn: Any) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise ValueError("has a turn that is no object with from and value")
    if (speaker := turn.get("from")) not in _SPEAKERS:
        raise ValueError(f"has a turn from {speaker!r}. {did_you_mean(str(speaker), _SPEAKERS)}")
    if speaker == "function_call":
        call = _loaded(turn.get("value"))
        return {"role": "assistant", "content": "", "tool_calls": call if isinstance(call, list) else [call]}
    return {"role": _SPEAKERS[speaker], "content": turn.get("value")}


def _loaded(value: Any) -> Any:
    """ShareGPT files hold tools and calls as JSON in a string."""
    return strict_json(value) if isinstance(value, str) and value.strip() else value or None


def _alpaca(row: Row, job: Job) -> Example:
    extra = row.get("input")
    if extra is not None and not isinstance(extra, str):
        raise ValueError(f"has {json_type(extra)} for 'input', not text")
    parts = [text_of(row, "instruction"), extra or ""]
    return draft(row, "\n\n".join(part for part in parts if part.strip()), text_of(row, "output"))


def _prompt_completion(row: Row, job: Job) -> Example:
    prompt, completion = row.get("prompt"), row.get("completion")
    if not isinstance(prompt, list) and not isinstance(completion, list):
        return KINDS["text"].read(row, job)
    turns = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    answer = completion if isinstance(completion, list) else [{"role": "assistant", "content": completion}]
    return _messages({**row, "messages": [*turns, *answer]}, job)


@dataclass(frozen=True)
class Format:
    """The fields that tell a format, how a row of it is read, and the kind of task its rows make."""

    fields: tuple[str, ...]
    read: Callable[[Row, Job], Example]
    kind: str = "text"


FORMATS = {
    "messages": Format(("messages",), _messages),
    "sharegpt": Format(("conversations",), _sharegpt),
    "alpaca": Format(("instruction", "output"), _alpaca),
    "prompt_completion": Format(("prompt", "completion"), _prompt_completion),
    "classification": Format(("text", "label"), KINDS["classification"].read, "classification"),
    "qa": Format(("question", "answers"), KINDS["qa"].read, "qa"),
    "tool_calling": Format(("messages", "expected"), KINDS["tool_calling"].read, "tool_calling"),
    "ner": Format(("text", "entities"), KINDS["ner"].read, "ner"),
    "text2sql": Format(("question", "schema", "sql"), KINDS["text2sql"].read, "text2sql"),
    "pii": Format(("text", "redacted", "entities"), KINDS["pii"].read, "pii"),
}
