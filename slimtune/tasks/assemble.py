"""From rows to a Task: labels, the selection, the system turn, ids. What folders and foreign files have in common."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slimtune.data import Example, JsonlRows, Message, listed
from slimtune.errors import Problem, Problems, UserError, did_you_mean
from slimtune.scorers import get_scorer, gold_completion
from slimtune.tasks.job import Job
from slimtune.tasks.kinds import KINDS
from slimtune.tasks.prompting import system_turn
from slimtune.tasks.split import hold_out_validation, spread, stratum
from slimtune.tasks.task import TEST, TRAINING_TEXT, VALIDATION, Selection, Task
from slimtune.wording import counted

_ANSWER_CAP_TOKENS = 4096


@dataclass(frozen=True)
class Drafts:
    """The rows of one file: read, but without the task's system turn. `problems` are rows that could not be read."""

    path: Path
    examples: tuple[Example, ...]
    problems: tuple[Problem, ...] = ()


def read_drafts(path: Path, lines: JsonlRows, read: Callable[[Mapping[str, Any], Job], Example], job: Job) -> Drafts:
    """Rows through a reader. An example without an id gets its file and line, which no selection changes."""
    examples, problems = [], list(lines.skipped)
    for number, row in lines.rows:
        try:
            example = read(row, job)
        except ValueError as error:
            problems.append(Problem(f"{path.name}:{number}", str(error)))
        else:
            examples.append(example if example.id else replace(example, id=f"{path.stem}-{number}"))
    return Drafts(path, tuple(examples), tuple(problems))


def refuse_bad(title: str, sides: Iterable[Drafts], *, skip_bad: bool) -> None:
    """Raises Problems with every bad row of every file, each with its path, unless they are to be skipped."""
    bad = [replace(one, where=str(side.path.parent / one.where)) for side in sides for one in side.problems]
    if bad and not skip_bad:
        way_out = "`data.skip_bad: true` leaves such rows out, and so does `slimtune new --skip-bad`."
        shown = list(listed(bad))
        raise Problems(title, [*shown[:-1], replace(shown[-1], fix=f"{shown[-1].fix} {way_out}".strip())])


def assemble(job: Job, train: Drafts, test: Drafts, selection: Selection) -> Task:
    """The Task. Raises UserError for a selection that the task cannot meet."""
    for drafts in (train, test):
        if not drafts.examples:
            raise UserError(f"{drafts.path} has no rows that can be used.")
    kind = KINDS[job.kind]
    if job.kind == "classification" and not job.labels:
        job = replace(job, labels=tuple(sorted({str(example.target) for example in train.examples})))
    chosen_job, chosen_train, chosen_test = _select(job, train.examples, test.examples, selection)
    instruction, validation = _instruction(chosen_job), selection.validation_rows is not None
    return Task(
        name=job.name,
        title=_title(
            job, chosen_job, (train.examples, chosen_train), (test.examples, chosen_test), validation=validation
        ),
        kind=job.kind,
        instruction=instruction or _common_system(chosen_train + chosen_test),
        scorer=get_scorer(job.scorer or kind.scorer).name,
        also=tuple(name for name in kind.also if name != (job.scorer or kind.scorer)),
        labels=chosen_job.labels,
        train=tuple(_finish(example, instruction, chosen_job.labels) for example in chosen_train),
        test=tuple(_finish(example, instruction, chosen_job.labels) for example in chosen_test),
        max_new_tokens=job.max_new_tokens or _room_tokens(train.examples, kind.max_new_tokens),
        licence=job.licence,
        attribution=job.attribution,
        source=job.source,
        notes=_notes(job, chosen_job, selection, len(train.examples), len(test.examples)),
        skipped=(*train.problems, *test.problems),
        scored_on=VALIDATION if validation else TEST,
        openings=job.openings,
    )


def _instruction(job: Job) -> str:
    try:
        return system_turn(job)
    except ValueError as error:
        raise UserError(f"{job.shown}: the task {error}") from error


def _select(
    job: Job, train: tuple[Example, ...], test: tuple[Example, ...], selection: Selection
) -> tuple[Job, tuple[Example, ...], tuple[Example, ...]]:
    if selection.labels:
        job = _with_labels(job, selection.labels)
        train = tuple(example for example in train if example.target in job.labels)
        test = tuple(example for example in test if example.target in job.labels)
        if not train or not test:
            raise UserError(f"{job.shown}: no {'test' if train else 'training'} row has one of the selected labels.")
    if selection.validation_rows is not None:
        rows, seed = selection.validation_rows, _test_seed(selection)
        held = hold_out_validation(train, kind=job.kind, rows=rows, seed=seed)
        test = tuple(example for index, example in enumerate(train) if index in held)
        train = tuple(example for index, example in enumerate(train) if index not in held)
    return (
        job,
        _choose(train, job.kind, selection.train_rows, (selection.seed, 0)),
        _choose(test, job.kind, selection.test_rows, (_test_seed(selection), 1)),
    )


def _test_seed(selection: Selection) -> int:
    return selection.seed if selection.test_seed is None else selection.test_seed


def _choose(examples: tuple[Example, ...], kind: str, rows: int | None, seed: Sequence[int]) -> tuple[Example, ...]:
    if rows is None or rows >= len(examples):
        return examples
    order = spread([stratum(example, kind) for example in examples], seed)
    return tuple(examples[index] for index in sorted(order[:rows]))


def _with_labels(job: Job, labels: tuple[str, ...]) -> Job:
    """The job with these labels only, in its own order, so that the same choice is always the same prompt."""
    if job.kind != "classification":
        raise UserError(f"{job.shown} is a {job.kind} task: only a classification task can be limited to labels.")
    if unknown := [label for label in labels if label not in job.labels]:
        hints = [f"There is no label named {label!r}. {did_you_mean(label, job.labels)}" for label in unknown]
        raise UserError(f"{job.shown} cannot be limited to these labels:\n  " + "\n  ".join(hints))
    # a description that says "one of 77 intents" would contradict the list below it
    description = re.sub(rf"\b{len(job.labels)}\b", str(len(labels)), job.description)
    return replace(job, description=description, labels=tuple(label for label in job.labels if label in labels))


def _finish(example: Example, instruction: str, labels: tuple[str, ...]) -> Example:
    """With the task's system turn. A row's own system text moves to the head of its user turn: the system turn stays
    the same in every row, and nothing that the row says is lost."""
    messages = example.messages
    if instruction:
        if messages[0].role == "system":
            head, user, *rest = messages
            messages = (replace(user, content=f"{head.content}\n\n{user.content}"), *rest)
        messages = (Message("system", instruction), *messages)
    meta = {**example.meta, "labels": labels} if labels else example.meta
    return replace(example, messages=messages, meta=meta)


def _common_system(examples: tuple[Example, ...]) -> str:
    found = {turn.content if (turn := example.messages[0]).role == "system" else "" for example in examples}
    return found.pop() if len(found) == 1 else ""


def _room_tokens(examples: tuple[Example, ...], least: int) -> int:
    """Tokens an answer may take: enough for the longest right one of the train rows at two characters a token."""
    asked = [example for example in examples if TRAINING_TEXT not in example.meta]
    longest = max((len(gold_completion(example).text) for example in asked), default=0)
    return min(max(least, longest // 2 + 8), _ANSWER_CAP_TOKENS)


def _title(
    job: Job,
    chosen: Job,
    train: tuple[tuple[Example, ...], tuple[Example, ...]],
    test: tuple[tuple[Example, ...], tuple[Example, ...]],
    *,
    validation: bool,
) -> str:
    parts = [job.shown]
    labels = set(chosen.labels)
    limited = labels != set(job.labels)
    if limited:
        parts.append(f"{len(labels)} of {len(job.labels)} {job.label_noun}")
    for side, (every, rows) in {"training": train, **({} if validation else {"test": test})}.items():
        of = [example for example in every if example.target in labels] if limited else every
        if len(rows) < len(of):
            parts.append(f"{len(rows):,} of {len(of):,} {side} rows")
    if validation:
        parts.append(f"scored on {counted(len(test[1]), 'validation row')} held out of train")
    return ", ".join(parts)


def _notes(job: Job, chosen: Job, selection: Selection, train_rows: int, test_rows: int) -> tuple[str, ...]:
    notes = [job.slice, job.note]
    if chosen.labels != job.labels:
        notes.append(
            f"Only {len(chosen.labels)} of {len(job.labels)} {job.label_noun} are used, in the prompt and in the rows: "
            "the scores may not be set beside those on all of them."
        )
    sides = [("training", selection.train_rows, train_rows, selection.seed)]
    if selection.validation_rows is None:
        sides.append(("test", selection.test_rows, test_rows, _test_seed(selection)))
    else:
        notes.append(
            f"Scored on validation rows held out of train (seed {_test_seed(selection)}), not on the test rows: such "
            "scores choose settings, and may not be set beside scores on test rows."
        )
    for side, asked, there, seed in sides:
        if asked is not None:
            text = f"At most {asked:,} {side} rows were asked for; there are {there:,}."
            notes.append(text if asked > there else f"The {side} rows are a seeded choice (seed {seed}).")
    return tuple(note for note in notes if note)
