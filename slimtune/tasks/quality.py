"""Is this task's data fit to learn from and to prove with? `inspect_task` looks at every row and changes none."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from slimtune.data import Example, Message
from slimtune.errors import Problem
from slimtune.scorers.exact import normalise_label
from slimtune.tasks.task import Task
from slimtune.wording import counted

_WORDS = re.compile(r"\w+")


@dataclass(frozen=True)
class Quality:
    """What was found. `errors` stop a run, `warnings` are for the reader.

    A test row overlaps when the same is asked in training. It is explained when its task lists it as an opening that
    both sides share (a score is given without those), or when it only opens a conversation that goes on, in the test
    rows, to something training has not seen ("Hello" is nobody's secret). The rest are leaks.
    """

    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    train_rows: int
    test_rows: int
    train_labels: Mapping[str, int]  # rows of each label; empty where there are no labels
    test_labels: Mapping[str, int]
    duplicate_train_rows: int  # rows that repeat an earlier one, prompt and target
    duplicate_test_rows: int
    contrary_train_rows: int  # rows that ask what an earlier one asks, training rows first, and have another answer
    contrary_test_rows: int
    overlap_exact: int  # test rows whose prompt is also a training prompt
    overlap_normalised: int  # the same, but for case, punctuation and spaces
    overlap_openings: int  # those of overlap_normalised that are explained
    skipped_rows: int

    @property
    def leaks(self) -> int:
        return self.overlap_normalised - self.overlap_openings


def inspect_task(task: Task, *, allowed_leaks: float = 0.05) -> Quality:
    """The Quality of a task's rows. Leaks above the share `allowed_leaks` of the test rows are an error, fewer a
    warning: 1.0 allows all."""
    labelled = task.kind == "classification"
    overlap = _overlap(task)
    leaks, contrary = overlap.normalised - overlap.openings, _contrary(task)
    return Quality(
        errors=(
            *_duplicate_ids(task),
            *_empty_answers(task),
            *(_labels_outside(task) if labelled else ()),
            *_leaks(leaks, overlap.examples, len(task.test), allowed_leaks, error=True),
        ),
        warnings=(
            *(_labels_unlearned(task) if labelled else ()),
            *_incomplete_calls(task),
            *_contradictions(contrary),
            *_shared_groups(task),
            *_leaks(leaks, overlap.examples, len(task.test), allowed_leaks, error=False),
            *_listed(overlap.listed),
            *_openings(overlap.openings - overlap.listed),
            *_skipped(task),
        ),
        train_rows=len(task.train),
        test_rows=len(task.test),
        train_labels=_label_counts(task.train) if labelled else {},
        test_labels=_label_counts(task.test) if labelled else {},
        duplicate_train_rows=_duplicates(task.train),
        duplicate_test_rows=_duplicates(task.test),
        contrary_train_rows=len(contrary["train"]),
        contrary_test_rows=len(contrary["test"]),
        overlap_exact=overlap.exact,
        overlap_normalised=overlap.normalised,
        overlap_openings=overlap.openings,
        skipped_rows=len(task.skipped),
    )


def prompt(example: Example) -> str:
    """What a row asks: its turns but for the system turn, as one string."""
    turns = [
        [turn.role, turn.content, [call.as_json() for call in turn.tool_calls]]
        for turn in example.messages
        if turn.role != "system"
    ]
    return json.dumps(turns, sort_keys=True, ensure_ascii=False)


def normal_prompt(example: Example) -> str:
    """`prompt` by its words alone: compatible forms joined, case folded, punctuation off. A prompt without a word in
    it stays as it is."""
    said = " ".join(turn.content for turn in example.messages if turn.role != "system")
    if not _WORDS.search(said):
        return prompt(example)
    return " ".join(_WORDS.findall(unicodedata.normalize("NFKC", prompt(example)).casefold()))


def asked_in_training(task: Task) -> tuple[Example, ...]:
    """The test rows that ask what training rows ask, but for case and punctuation, and are not explained: leaks."""
    return _overlap(task).examples


@dataclass(frozen=True)
class _Overlap:
    exact: int
    normalised: int
    openings: int
    listed: int  # those of `openings` that the task lists
    examples: tuple[Example, ...]  # the leaks


def _overlap(task: Task) -> _Overlap:
    learned_exactly = {prompt(example) for example in task.train}
    learned = {normal_prompt(example) for example in task.train}
    seen = [example for example in task.test if normal_prompt(example) in learned]
    unseen: dict[str, list[tuple[Message, ...]]] = {}
    for example in task.test:
        if example.group is not None and normal_prompt(example) not in learned:
            unseen.setdefault(example.group, []).append(example.messages)
    listed = sum(map(task.is_opening, seen))
    leaks = tuple(
        row for row in seen if not task.is_opening(row) and not _goes_on(row, unseen.get(row.group or "", ()))
    )
    exact = sum(prompt(example) in learned_exactly for example in task.test)
    return _Overlap(exact, len(seen), len(seen) - len(leaks), listed, leaks)


def _goes_on(row: Example, chats: Iterable[tuple[Message, ...]]) -> bool:
    return any(chat[: len(row.messages)] == row.messages for chat in chats)


def _leaks(leaks: int, examples: Sequence[Example], rows: int, allowed: float, *, error: bool) -> list[Problem]:
    if not leaks or (leaks > allowed * rows) is not error:
        return []
    first = ", ".join(example.id for example in examples[:5]) + (", ..." if leaks > 5 else "")
    what = f"{leaks} of {counted(rows, 'row')} ({leaks / rows:.1%}) asked in training too: {first}."
    fix = f"At most {allowed:.0%} may: take them out of one side, or allow more." if error else ""
    return [Problem("test", what, fix)]


def _listed(listed: int) -> list[Problem]:
    what = f"Rows that ask what training asks too, as its task lists: {listed}. A score is given without them."
    return [Problem("test", what)] if listed else []


def _openings(openings: int) -> list[Problem]:
    what = f"Rows that open a conversation as training rows do, and then go on to something new: {openings}."
    return [Problem("test", what)] if openings else []


def _duplicate_ids(task: Task) -> list[Problem]:
    return [
        Problem(f"{side} {name}", f"is the id of {count} rows.", "Give each row its own id, or none.")
        for side, examples in (("train", task.train), ("test", task.test))
        for name, count in Counter(example.id for example in examples).items()
        if count > 1
    ]


def _empty_answers(task: Task) -> list[Problem]:
    return [
        Problem(f"{side} {example.id}", "has an empty answer.")
        for side, examples in (("train", task.train), ("test", task.test))
        for example in examples
        if isinstance(example.target, str) and not example.target.strip()
    ]


def _labels_outside(task: Task) -> list[Problem]:
    """Labels that are none of the task's, one problem a label, and labels that differ in their dress only."""
    problems = []
    for side, examples in (("train", task.train), ("test", task.test)):
        for label, count in _label_counts(examples).items():
            if label not in task.labels:
                first = next(example.id for example in examples if example.target == label)
                rows = f"{counted(count, 'row')}, first {first}"
                fix = _nearest(label, task.labels)
                problems.append(
                    Problem(f"{side} label {label!r}", f"is not one of the {len(task.labels)} ({rows}).", fix)
                )
    dressed: dict[str, str] = {}
    for label in task.labels:
        twin = dressed.setdefault(normalise_label(label), label)
        if twin != label:
            fix = "Write them the same, or name them apart."
            problems.append(Problem(f"label {label!r}", f"differs from {twin!r} in case or spaces only.", fix))
    return problems


def _nearest(label: str, labels: Sequence[str]) -> str:
    dressed = {normalise_label(known): known for known in labels}
    near = dressed.get(normalise_label(label)) or next(iter(get_close_matches(label, labels, n=1)), None)
    return f"Nearest: {near!r}." if near else f"Known: {', '.join(labels[:10])}{', ...' if len(labels) > 10 else ''}."


def _labels_unlearned(task: Task) -> list[Problem]:
    learned = {example.target for example in task.train}
    missing = [label for label in task.labels if label not in learned and label in _label_counts(task.test)]
    what = f"Labels of the test rows without a row to learn from: {', '.join(missing)}."
    return [Problem("train", what)] if missing else []


def lacking_arguments(example: Example) -> list[str]:
    """The arguments that the calls of a target leave out though their own functions require them: "x of f"."""
    if isinstance(example.target, str):
        return []
    functions = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in example.tools}
    return [
        f"{argument} of {call.name}"
        for call in example.target
        for argument in functions.get(call.name, {}).get("required") or ()
        if argument not in call.arguments
    ]


def _incomplete_calls(task: Task) -> list[Problem]:
    problems = []
    for side, examples in (("train", task.train), ("test", task.test)):
        if lacking := {example.id: names for example in examples if (names := lacking_arguments(example))}:
            first, names = next(iter(lacking.items()))
            rows = f"{counted(len(lacking), 'row')} of {len(examples)}, first {first} ({names[0]})"
            problems.append(Problem(side, f"The answer leaves out an argument that its function requires: {rows}."))
    return problems


def _contrary(task: Task) -> dict[str, list[tuple[Example, Example]]]:
    """By side, the rows whose question an earlier row answers otherwise, each with that row. What one of the two
    accepts is no other answer."""
    earlier: dict[str, list[Example]] = {}
    found: dict[str, list[tuple[Example, Example]]] = {"train": [], "test": []}
    for side in found:
        for example in getattr(task, side):
            before = earlier.setdefault(repr((example.messages, example.tools)), [])
            if before and all(_differ(example, other) for other in before):
                found[side].append((example, before[0]))
            before.append(example)
    return found


def _differ(one: Example, other: Example) -> bool:
    accepted = [{repr(row.target), *map(repr, row.meta.get("answers", ()))} for row in (one, other)]
    return accepted[0].isdisjoint(accepted[1])


def _contradictions(contrary: Mapping[str, Sequence[tuple[Example, Example]]]) -> list[Problem]:
    what = "Rows that ask what an earlier row asks and have another answer"
    return [
        Problem(side, f"{what}: {len(pairs)}, first {pairs[0][0].id}, against {pairs[0][1].id}.", "Keep the right one.")
        for side, pairs in contrary.items()
        if pairs
    ]


def _shared_groups(task: Task) -> list[Problem]:
    shared = sorted({example.group for example in task.train if example.group} & {row.group for row in task.test})
    more = f" and {len(shared) - 5} more" if len(shared) > 5 else ""
    what = f"Conversations or documents with rows in training and in test: {', '.join(shared[:5])}{more}."
    return [Problem("test", what)] if shared else []


def _skipped(task: Task) -> list[Problem]:
    what = (
        f"Rows left out because they could not be read: {len(task.skipped)}, first {task.skipped[0].where}."
        if task.skipped
        else ""
    )
    return [Problem(task.name, what)] if what else []


def _label_counts(examples: Iterable[Example]) -> dict[str, int]:
    return dict(sorted(Counter(str(example.target) for example in examples).items()))


def _duplicates(examples: Sequence[Example]) -> int:
    return len(examples) - len({(prompt(example), repr(example.target), repr(example.tools)) for example in examples})
