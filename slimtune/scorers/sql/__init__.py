"""Does the query give what the gold query gives? Execution accuracy in SQLite, over databases filled for the purpose.

The idea is Spider's execution accuracy over several databases (Zhong, Yu and Klein, EMNLP 2020), with rows made from
the schema and the gold query instead of fuzzed ones. An answer is run in a process of its own: see `child.py`.
"""

import time

from slimtune.data import Completion, Example, Score
from slimtune.scorers.sql.child import RESULT_BYTES, RESULT_ROWS, SQL_BYTES
from slimtune.scorers.sql.compare import difference
from slimtune.scorers.sql.databases import Database, GoldFails, judges_for
from slimtune.scorers.sql.process import WALL_SECONDS
from slimtune.scorers.sql.text import extract_query

__all__ = ["sql_execution"]

_REASONS = {
    "late": "stopped: it took too long",
    "ended": "stopped: it took too much time or memory",
    "MemoryError": "stopped: it took too much memory",
    "TooLarge": f"stopped: its result is larger than {RESULT_ROWS:,} rows or {RESULT_BYTES >> 20} MiB",
}


def sql_execution(completion: Completion, example: Example) -> Score:
    """1 when the answer's query gives the gold query's result in every database: the same rows as a multiset, in order
    only where the gold query orders. None when the example has no schema (`meta["schema"]`) or its gold query fails.
    """
    schema, gold = example.meta.get("schema"), example.target
    if not isinstance(schema, str) or not isinstance(gold, str):
        return Score(None, None, "the example has no schema, or no SQL to compare with")
    reading = extract_query(completion.text)
    cut = "cut off; " if completion.cut_off else ""
    try:
        databases = judges_for(schema, gold).databases
        why = reading.why if reading.query is None else _wrong(reading.query, databases)
    except GoldFails as error:
        return Score(None, reading.query, str(error))
    return Score(float(not why), reading.query, (cut + why) if why else "")


def _wrong(query: str, databases: tuple[Database, ...]) -> str:
    """Why the query is wrong, or ""."""
    if len(query.encode("utf-8", "replace")) > SQL_BYTES:
        return f"longer than {SQL_BYTES:,} bytes"
    deadline = time.monotonic() + WALL_SECONDS
    for database in databases:
        reply = database.ask(query, wall_seconds=deadline - time.monotonic())
        if "error" in reply:
            return _reason(reply["error"], reply["text"])
        if why := difference(reply["rows"], database.gold, database.block_ends):
            return f"another result: {why}"
    return ""


def _reason(error: str, text: str) -> str:
    """An error of the child's as a clause."""
    if error == "OperationalError" and text == "interrupted":
        return _REASONS["late"]
    return _REASONS.get(error, f"SQLite: {text}")
