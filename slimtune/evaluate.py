"""Scores for anything that answers: a base model, its adapter, a teacher, a lambda. Same rows, prompts and parser.

`Generate` takes examples and yields (index, completion) as they come. Every example's output, parsed answer, score and
reason is kept; intervals and comparisons are computed from those records and nothing else.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from slimtune.data import Completion, Example, Message, Score, Tally, ToolCall
from slimtune.errors import UserError
from slimtune.files import append_line, digest_json, publish_folder, read_json, read_log, write_json
from slimtune.models.toolcalls import answer_turn, render_tool_calls
from slimtune.scorers import get_scorer
from slimtune.scorers.judge import JUDGE, Judge
from slimtune.scorers.marking import Marked, mark, refuse_many_raised
from slimtune.stats import Interval, score_interval
from slimtune.tallies import Aggregate, aggregate
from slimtune.tasks import Task
from slimtune.tasks.task import TRAINING_TEXT

Generate = Callable[[Sequence[Example], int], Iterator[tuple[int, Completion]]]

WITHOUT_OPENINGS = ", without the openings that training shares"  # after a scorer's name, in `also`
_SEED = 20240726  # of the resampling; the same records always give the same interval
_FEW_CLASSES = 16


@dataclass(frozen=True)
class Record:
    """One example, answered and scored. `score` None: we could not judge; `answer` None: nothing could be read."""

    id: str
    group: str
    prompt_sha256: str
    prompt: str
    target: str
    label: str | None
    output: str
    answer: str | None
    score: float | None
    also: dict[str, float | None]
    why: str
    stopped: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    part: str | None = None  # of the test rows, where they have parts that are worth a score of their own
    counts: dict[str, dict[str, Tally]] = field(default_factory=dict)  # by scorer and type
    thought: bool = False  # it thought before it answered; an empty thought is none
    thinking_tokens: int = 0  # of `completion_tokens`


@dataclass(frozen=True)
class Evaluation:
    """All records of one column of the comparison (base, few_shot, tuned, teacher). `served` says what answered, where
    that was an endpoint; `judge` what judged, where something did."""

    name: str
    label: str
    scorer: str
    few_shot_k: int
    records: tuple[Record, ...]
    served: Mapping[str, Any] = field(default_factory=dict)
    judge: Mapping[str, Any] = field(default_factory=dict)

    @property
    def score(self) -> Interval:
        """Mean score with its 95% interval, over the examples that could be judged."""
        return self._interval([(record.score, record.group) for record in self.records])

    def also(self, scorer: str) -> Interval:
        return self._interval([(record.also[scorer], record.group) for record in self.records])

    def aggregate(self) -> dict[str, Aggregate]:
        """For each scorer that counts: micro and macro measures over all judged rows, and each type's."""
        judged, rng = [record for record in self.records if record.score is not None], np.random.default_rng
        groups, counts = [record.group for record in judged], [record.counts for record in judged]
        return {
            name: aggregate([one[name] for one in counts], groups, measures=get_scorer(name).measures, rng=rng(_SEED))
            for name in (counts[0] if counts else ())
        }

    def parts(self) -> dict[str, "Evaluation"]:
        """The same evaluation of each part of the rows, where there are several: {"HasAns": ..., "NoAns": ...}."""
        names = sorted({record.part for record in self.records if record.part and record.score is not None})
        of = {name: tuple(record for record in self.records if record.part == name) for name in names}
        return {name: replace(self, records=records) for name, records in of.items()} if len(names) > 1 else {}

    def summary(self) -> dict[str, Any]:
        n = len(self.records)
        return {
            "name": self.name,
            "label": self.label,
            "scorer": self.scorer,
            "n": n,
            **self._scores(),
            "aggregate": {scorer: found.as_json() for scorer, found in self.aggregate().items()},
            "parts": {name: part._scores() for name, part in self.parts().items()},
            "unparseable": sum(record.answer is None for record in self.records) / n,
            "unscored": sum(record.score is None for record in self.records),
            "truncated": sum(record.stopped == "length" for record in self.records) / n,
            "repeated": sum(record.stopped == "repetition" for record in self.records) / n,
            "thinking": sum(record.thought for record in self.records) / n,
            "thinking_tokens": sum(record.thinking_tokens for record in self.records),
            "seconds": sum(record.seconds for record in self.records),
            "prompt_tokens": sum(record.prompt_tokens for record in self.records),
            "completion_tokens": sum(record.completion_tokens for record in self.records),
            "few_shot_k": self.few_shot_k,
            **({"served": dict(self.served)} if self.served else {}),
            **({"judge": dict(self.judge)} if self.judge else {}),
        }

    def _scores(self) -> dict[str, Any]:
        judged = {scorer for record in self.records for scorer, value in record.also.items() if value is not None}
        also = {scorer: self.also(scorer).as_json() for scorer in self.records[0].also if scorer in judged}
        return {"score": self.score.as_json(), "also": also}

    def _interval(self, judged: Sequence[tuple[float | None, str]]) -> Interval:
        pairs = [(value, group) for value, group in judged if value is not None]
        return score_interval(
            [value for value, _ in pairs], [group for _, group in pairs], rng=np.random.default_rng(_SEED)
        )


def evaluate(
    task: Task,
    examples: Sequence[Example],
    generate: Generate,
    *,
    name: str,
    label: str,
    few_shot_k: int = 0,
    tool_format: str = "json",
    max_new_tokens: int | None = None,
    journal: Path | None = None,
    answerer: str = "",
    judge: Judge | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Answer and score every example. With a `journal`, what `answerer` (all that decides an answer, digested) has
    answered there is not asked for again. `examples` carry the prompts: see `with_shots` for few-shot ones.

    A `judge` gives the score where the task's scorer is `judge`, and one beside it elsewhere. Raises UserError where it
    is missing there or no answer could be judged, RuntimeError where our scoring breaks on many."""
    if judge is None and task.scorer == JUDGE:
        to_do = "give `judge:` in a recipe; a served model is scored there as its `teacher:`"
        raise UserError(f"{task.title} is scored by a judge, and there is none: {to_do}.")
    hashes = [prompt_digest(example) for example in examples]
    answered = _read_journal(journal, answerer)
    waiting = [index for index, digest in enumerate(hashes) if digest not in answered]
    on_progress(len(examples) - len(waiting), len(examples))
    limit = max_new_tokens or task.max_new_tokens
    for done, (place, completion) in enumerate(generate([examples[index] for index in waiting], limit), start=1):
        digest = hashes[waiting[place]]
        answered[digest] = completion
        if journal is not None:
            entry = {"prompt": digest, "answerer": answerer, "completion": asdict(completion)}
            append_line(journal, json.dumps(entry))
        on_progress(len(examples) - len(waiting) + done, len(examples))
    asked = list(zip(examples, hashes, strict=True))
    missing = [example.id for example, digest in asked if digest not in answered]
    assert not missing, f"{len(missing)} examples were never answered, {missing[0]} first"
    scorers = (task.scorer, *task.also)
    marked = [mark(answered[digest], example, scorers, tool_format=tool_format) for example, digest in asked]
    refuse_many_raised(marked, examples, label)
    pairs = [(one.spoken.completion, example) for one, example in zip(marked, examples, strict=True)]
    judged = judge(pairs) if judge else None
    records = [
        _record(task, example, digest, answered[digest], marked[place], judged.scores[place] if judged else None)
        for place, (example, digest) in enumerate(asked)
    ]
    if all(record.score is None for record in records):
        raise UserError(f"No answer of {label} could be judged: {records[0].why} ({records[0].id}). Mend the rows.")
    return Evaluation(name, label, task.scorer, few_shot_k, tuple(records), judge=judged.facts if judged else {})


def choose_shots(task: Task, k: int, *, seed: int) -> tuple[Example, ...]:
    """k training examples for the few-shot prompt, one of each class first; where there are at most 16 classes, at
    least one of each."""
    if k == 0:
        return ()
    there = [example for example in task.train if TRAINING_TEXT not in example.meta]
    shuffled = [there[index] for index in np.random.default_rng(seed).permutation(len(there))]
    firsts = list({example.target: example for example in reversed(shuffled) if task.labels}.values())
    if task.labels and len(task.labels) <= _FEW_CLASSES:
        k = max(k, len(firsts))
    chosen = [example for example in shuffled if example in firsts][:k] if task.labels else []
    rest = [example for example in shuffled if example not in chosen]
    return tuple((chosen + rest)[:k])


def with_shots(example: Example, shots: Sequence[Example]) -> Example:
    """The example with worked examples between its system turn and its question."""
    system = [message for message in example.messages[:1] if message.role == "system"]
    turns: list[Message] = []
    for shot in shots:
        turns += [message for message in shot.messages if message.role != "system"]
        turns.append(answer_turn(shot.target))
    return replace(example, messages=(*system, *turns, *example.messages[len(system) :]))


def target_text(example: Example) -> str:
    """What should be answered, as one text."""
    return example.target if isinstance(example.target, str) else render_tool_calls(example.target, "json")


def prompt_digest(example: Example) -> str:
    """SHA-256 over id, messages and tools: what is asked, of whom."""
    return digest_json([example.id, *_asked(example)])


def group_of(example: Example) -> str:
    """What is resampled as one with it: its own group, or all that ask the same, and so are answered the same."""
    return example.group or digest_json(_asked(example))


def _asked(example: Example) -> list[Any]:
    messages = [
        [message.role, message.content, [call.as_json() for call in message.tool_calls]] for message in example.messages
    ]
    return [messages, [dict(tool) for tool in example.tools]]


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """examples.parquet and evaluation.json, in a folder that is whole or absent. Raises CannotWrite."""
    import pandas as pd

    def fill(out: Path) -> None:
        rows = [
            {**asdict(record), "also": json.dumps(record.also), "counts": json.dumps(asdict(record)["counts"])}
            for record in evaluation.records
        ]
        pd.DataFrame(rows).to_parquet(out / "examples.parquet", index=False)
        write_json(out / "evaluation.json", evaluation.summary())

    publish_folder(folder, fill)


def read_evaluation(folder: Path) -> Evaluation:
    """What `write_evaluation` wrote."""
    import pandas as pd

    summary = read_json(folder / "evaluation.json")
    rows = pd.read_parquet(folder / "examples.parquet").to_dict("records")
    records = [
        Record(
            **{**{key: _absent(value) for key, value in row.items()}, "also": json.loads(row["also"]), "counts": held}
        )
        for row, held in zip(rows, map(_counts, rows), strict=True)
    ]
    facts = {key: summary.get(key, {}) for key in ("served", "judge")}
    return Evaluation(*(summary[key] for key in ("name", "label", "scorer", "few_shot_k")), tuple(records), **facts)


def _counts(row: dict[str, Any]) -> dict[str, dict[str, Tally]]:
    """Empty where an older slimtune wrote the row."""
    by_scorer = json.loads(row.get("counts", "{}"))
    return {scorer: {name: Tally(**tally) for name, tally in types.items()} for scorer, types in by_scorer.items()}


def _absent(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value


def _record(
    task: Task, example: Example, digest: str, completion: Completion, marked: Marked, verdict: Score | None
) -> Record:
    split, scores = marked.spoken.split, marked.judged(verdict)
    score = scores[task.scorer]
    also = {name: found.value for name, found in scores.items() if name != task.scorer}
    if task.openings:
        also[f"{task.scorer}{WITHOUT_OPENINGS}"] = None if task.is_opening(example) else score.value
    asked = next((message.content for message in reversed(example.messages) if message.role == "user"), "")
    counts = {scorer: dict(found.counts) for scorer, found in scores.items() if get_scorer(scorer).measures}
    return Record(
        example.id, group_of(example), digest, asked, target_text(example), example.target if task.labels else None,
        completion.text, score.answer, score.value, also, score.why, completion.stopped, completion.prompt_tokens,
        completion.completion_tokens, completion.seconds, example.meta.get("part"), counts,
        split.thought is not None or completion.thinking_tokens > 0, completion.thinking_tokens,
    )  # fmt: skip


def _read_journal(path: Path | None, answerer: str) -> dict[str, Completion]:
    entries = read_log(path) if path is not None and path.exists() else []
    return {entry["prompt"]: _completion(entry["completion"]) for entry in entries if entry["answerer"] == answerer}


def _completion(entry: dict[str, Any]) -> Completion:
    calls = entry["tool_calls"]
    return Completion(**{**entry, "tool_calls": None if calls is None else tuple(ToolCall(**call) for call in calls)})
