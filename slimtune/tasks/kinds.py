"""The kinds of task, each one entry of KINDS: how a row is read, and how answers are scored.

A reader takes a row as it stands in the file and gives an Example without id and without the task's system turn, or
raises ValueError with a clause about the row. What is said stands in prompts/KIND.jinja (prompting.py). To add a kind:
a reader, a prompt, a line in KINDS.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from slimtune.data import Example, Message, ToolCall, json_type
from slimtune.errors import did_you_mean
from slimtune.models.toolcalls import tool_call_from_json
from slimtune.scorers.bfcl import check_accepted
from slimtune.scorers.qa import HAS_ANSWER, NO_ANSWER, UNANSWERABLE
from slimtune.tasks.chat import read_turns
from slimtune.tasks.job import Job
from slimtune.tasks.needle import ANSWER_TOKENS, read_needle
from slimtune.tasks.prompting import user_turn

Row = Mapping[str, Any]
GROUPS = ("group", "conversation", "context_id", "doc_id", "db_id")


@dataclass(frozen=True)
class Kind:
    """One kind of task. `also`: what is reported beside the scorer, but for the scorer itself. `max_new_tokens` is the
    least room an answer gets. `words` are its name in a sentence, before "task"."""

    read: Callable[[Row, Job], Example]
    scorer: str
    words: str
    also: tuple[str, ...] = ()
    max_new_tokens: int = 64


def text_of(row: Row, key: str) -> str:
    """The text at `key`. Raises ValueError when it is missing, no text, or blank."""
    if key not in row:
        raise ValueError(f"has no {key!r}. {did_you_mean(key, row)}".rstrip())
    if not isinstance(row[key], str):
        raise ValueError(f"has {json_type(row[key])} for {key!r}, not text")
    if not row[key].strip():
        raise ValueError(f"has an empty {key!r}")
    return row[key]


def draft(
    row: Row,
    prompt: str | tuple[Message, ...],
    target: str | tuple[ToolCall, ...],
    *,
    tools: tuple[Mapping[str, Any], ...] = (),
    meta: Mapping[str, Any] | None = None,
) -> Example:
    """An Example with the id and the group that the row gives, if it gives them."""
    messages = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    group = next((str(row[key]) for key in GROUPS if row.get(key) not in (None, "")), None)
    own_id = "" if row.get("id") is None else str(row["id"])
    return Example(own_id, messages, target, tools, group, meta or {})


def tools_of(row: Row, job: Job) -> tuple[Mapping[str, Any], ...]:
    """The functions a row offers: its own, or the task's. Raises ValueError for what is no function schema."""
    tools = row["tools"] if row.get("tools") is not None else job.tools
    if not isinstance(tools, list | tuple):
        raise ValueError(f"has {json_type(tools)} for 'tools', not a list")
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ValueError("has a tool without a name")
    return tuple(tools)


def _classification(row: Row, job: Job) -> Example:
    text_of(row, "text")
    return draft(row, user_turn("classification", job, row), text_of(row, "label"))


def _qa(row: Row, job: Job) -> Example:
    answers = row.get("answers", row.get("answer")) if text_of(row, "question") else None
    answers = [answers] if isinstance(answers, str) else answers
    if row.get("is_impossible") is True:  # SQuAD 2.0's word for a question that its text does not answer
        answers = [UNANSWERABLE]
    if not isinstance(answers, list) or not answers:
        raise ValueError("has no 'answers': a text, or a list of texts of which any is right")
    if not all(isinstance(answer, str) and answer.strip() for answer in answers):
        raise ValueError("has an answer that is empty or no text")
    meta: dict[str, Any] = {"answers": tuple(answers)}
    if isinstance(row.get("is_impossible"), bool):
        meta["part"] = NO_ANSWER if row["is_impossible"] else HAS_ANSWER
    if row.get("context") is not None:
        text_of(row, "context")
    return draft(row, user_turn("qa", job, row), answers[0], meta=meta)


def _tool_calling(row: Row, job: Job) -> Example:
    if "messages" not in row:
        raise ValueError(f"has no 'messages'. {did_you_mean('messages', row)}".rstrip())
    messages = read_turns(row["messages"])
    if messages[-1].role not in ("user", "tool"):
        raise ValueError(f"ends with a {messages[-1].role} turn: the last turn must be the one to answer")
    if not isinstance(row.get("expected"), list):
        raise ValueError("has no 'expected': the list of calls, each with name and arguments")
    calls = tuple(tool_call_from_json(call) for call in row["expected"])
    if accepted := row.get("accepted"):
        check_accepted(accepted)
    return draft(row, messages, calls, tools=tools_of(row, job), meta={"accepted": accepted} if accepted else {})


def _entities(row: Row) -> list[Row]:
    """The entities of a row's text. Raises ValueError for what is none, or stands elsewhere than it says."""
    text, entities = text_of(row, "text"), row.get("entities")
    if not isinstance(entities, list):
        raise ValueError("has no 'entities': a list, which may be empty")
    for entity in entities:
        if not isinstance(entity, Mapping):
            raise ValueError("has an entity that is no object")
        found, start, _ = text_of(entity, "text"), entity.get("start"), text_of(entity, "type")
        if start is not None and not (isinstance(start, int) and text.startswith(found, start)):
            raise ValueError(f"has the entity {found!r}, which is not what stands at its offsets")
    return entities


def _ner(row: Row, job: Job) -> Example:
    entities = _entities(row)
    bare = [{"text": entity["text"], "type": entity["type"]} for entity in entities]
    meta = {"entities": entities, "text": row["text"]}
    return draft(row, user_turn("ner", job, row), json.dumps(bare, ensure_ascii=False), meta=meta)


def _text2sql(row: Row, job: Job) -> Example:
    meta = {"schema": text_of(row, "schema"), "db_id": row.get("db_id")}
    text_of(row, "question")
    return draft(row, user_turn("text2sql", job, row), text_of(row, "sql"), meta=meta)


def _pii(row: Row, job: Job) -> Example:
    redacted, entities = text_of(row, "redacted"), _entities(row)
    if all("start" in entity for entity in entities):
        entities = sorted(entities, key=lambda entity: entity["start"])
    return draft(row, user_turn("pii", job, row), redacted, meta={"entities": entities, "text": row["text"]})


def _needle(row: Row, job: Job) -> Example:
    return read_needle(row)


def _text(row: Row, job: Job) -> Example:
    text_of(row, "prompt")
    return draft(row, user_turn("text", job, row), text_of(row, "completion"))


KINDS = {
    "classification": Kind(
        _classification, "exact_match", "classification", ("exact_match_normalised",), max_new_tokens=32
    ),
    "qa": Kind(_qa, "squad_em", "question-answering", ("squad_f1", "rouge_l")),
    "tool_calling": Kind(
        _tool_calling,
        "tool_call_equivalence",
        "tool-calling",
        ("tool_call_equivalence", "staged_tool_call", "binary_tool_call"),
        max_new_tokens=192,
    ),
    "ner": Kind(_ner, "span_f1", "named-entity", ("span_type_f1", "exact_match"), max_new_tokens=256),
    "text2sql": Kind(_text2sql, "sql_execution", "text-to-SQL", ("exact_match_normalised",), max_new_tokens=256),
    "pii": Kind(
        _pii,
        "redaction_f1",
        "redaction",
        ("redaction_recall", "redaction_type_f1", "text_kept", "exact_match"),
        max_new_tokens=256,
    ),
    "needle": Kind(_needle, "six_digit_code", "needle-in-a-haystack", ("exact_match",), max_new_tokens=ANSWER_TOKENS),
    "text": Kind(_text, "exact_match", "free-text", ("exact_match_normalised",), max_new_tokens=256),
}
