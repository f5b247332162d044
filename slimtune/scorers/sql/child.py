"""The process that runs SQL nobody has checked: SQLite in memory, one JSON object a line in and out, nothing of ours.

Started as `python -I -S child.py`, so it imports the standard library alone. What it keeps out, and by what:

    writes, PRAGMA, ATTACH    an authorizer that allows SELECT, reads and functions; sqlite3 refuses second statements
    endless queries           a count of SQLite's opcodes, so that a verdict is the same on every machine; and for one
                              opcode that never ends, a timer of CPU time that ends the process
    memory, disk              SQLite's own limits, RLIMIT_AS, no file may grow, results are cut at a size

Requests: {"do": "describe", "ddl"} -> {"tables"}; {"do": "build", "key", "ddl", "rows"} -> {};
{"do": "query", "key", "sql", "reverse"} -> {"rows"}. Any of them may give {"error", "text"} instead. It ends with its
input, which ends with the parent.
"""

import json
import resource
import signal
import sqlite3
import sys

MEMORY_BYTES = 512 << 20
CPU_SECONDS = 1.0  # of one request; the opcodes are used up long before, but for an opcode that does not end
OPCODES = 4_000_000
STEP = 1_000  # opcodes between two looks at the count
RESULT_ROWS = 10_000
RESULT_BYTES = 1 << 20
TEXT_BYTES = 100_000
SQL_BYTES = 20_000
KEPT = 256  # databases
LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: TEXT_BYTES,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: SQL_BYTES,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 50_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 200,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
}
READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
BUILDS = READS | {
    sqlite3.SQLITE_CREATE_TABLE,
    sqlite3.SQLITE_CREATE_INDEX,
    sqlite3.SQLITE_CREATE_VIEW,
    sqlite3.SQLITE_INSERT,
    sqlite3.SQLITE_UPDATE,  # what CREATE does to SQLite's own table of tables
    sqlite3.SQLITE_REINDEX,
    sqlite3.SQLITE_TRANSACTION,
}
FORBIDDEN = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "randomblob", "random"}
FAILURES = (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError, RecursionError)


class TooLarge(Exception):
    """The result is larger than anybody asked for."""


def connect() -> sqlite3.Connection:
    """An empty database in memory, within the limits."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.execute("PRAGMA temp_store=MEMORY")
    database.execute("PRAGMA trusted_schema=OFF")
    database.text_factory = lambda raw: raw.decode("utf-8", "replace")
    for limit, value in LIMITS.items():
        database.setlimit(limit, value)
    return database


def guard(database: sqlite3.Connection, allowed: set[int]) -> None:
    """From here on only actions of `allowed` compile, and only OPCODES of them run."""
    left = OPCODES // STEP

    def authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
        forbidden = action == sqlite3.SQLITE_FUNCTION and str(second).lower() in FORBIDDEN
        return sqlite3.SQLITE_OK if action in allowed and not forbidden else sqlite3.SQLITE_DENY

    def look() -> int:
        nonlocal left
        left -= 1
        return int(left < 0)

    database.set_authorizer(authorize)
    database.set_progress_handler(look, STEP)


def describe(ddl: str) -> dict:
    """Tables in their order, each with columns [name, type, not null, place in key], foreign keys [column, table,
    column or None], and the columns of each unique index."""
    database = opened(ddl)
    tables = {}
    for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY rowid").fetchall():
        quoted = '"' + name.replace('"', '""') + '"'
        columns = [[row[1], row[2], row[3], row[5]] for row in database.execute(f"PRAGMA table_info({quoted})")]
        keys = [[row[3], row[2], row[4]] for row in database.execute(f"PRAGMA foreign_key_list({quoted})")]
        indexes = [row[1] for row in database.execute(f"PRAGMA index_list({quoted})") if row[2]]
        unique = [[row[2] for row in database.execute(f'PRAGMA index_info("{index}")')] for index in indexes]
        tables[name] = {"columns": columns, "foreign": keys, "unique": unique}
    return {"tables": tables}


def opened(ddl: str) -> sqlite3.Connection:
    """A database with the tables of `ddl`. Raises sqlite3.Error for what does not build or does more than build."""
    database = connect()
    guard(database, BUILDS)
    database.executescript(ddl)
    database.set_authorizer(None)
    return database


def build(kept: dict[str, sqlite3.Connection], request: dict) -> dict:
    """Make the database `key`: tables, rows, and from then on nothing but reading."""
    database = opened(request["ddl"])
    database.set_progress_handler(None, 0)
    database.execute("PRAGMA ignore_check_constraints=ON")
    database.execute("BEGIN")
    for table, rows in request["rows"].items():
        if rows:
            name, marks = table.replace('"', '""'), ",".join("?" * len(rows[0]))
            database.executemany(f'INSERT INTO "{name}" VALUES ({marks})', rows)
    database.execute("COMMIT")
    database.execute("PRAGMA query_only=ON")
    while len(kept) >= KEPT:
        kept.pop(next(iter(kept))).close()
    kept[request["key"]] = database
    return {}


def query(database: sqlite3.Connection, sql: str, reverse: bool) -> dict:
    """The rows of one SELECT. `reverse` walks tables from their end, which shows an order that nobody asked for."""
    database.set_authorizer(None)
    database.execute(f"PRAGMA reverse_unordered_selects={int(reverse)}")
    guard(database, READS)
    cursor = database.execute(sql)
    rows, size = [], 0
    try:
        for row in cursor:
            rows.append(row)
            size += 8 + sum(len(value) if isinstance(value, str | bytes) else 8 for value in row)
            if len(rows) > RESULT_ROWS or size > RESULT_BYTES:
                raise TooLarge
    finally:
        cursor.close()
    return {"rows": rows}


def answer(kept: dict[str, sqlite3.Connection], request: dict) -> dict:
    """The reply to one request."""
    try:
        if request["do"] == "describe":
            return describe(request["ddl"])
        if request["do"] == "build":
            return build(kept, request)
        if request["key"] not in kept:
            return {"error": "missing", "text": "no such database"}
        return query(kept[request["key"]], request["sql"], request["reverse"])
    except (TooLarge, *FAILURES) as error:
        return {"error": type(error).__name__, "text": str(error)}


def confine() -> None:
    """The process's own limits. They hold for good."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def serve() -> None:
    """Answer line by line until the input ends."""
    kept: dict[str, sqlite3.Connection] = {}
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        reply = json.dumps(answer(kept, json.loads(line)), default=lambda blob: {"blob": blob.hex()})
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(reply + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    confine()
    serve()
