"""The databases that judge a query: filled for one gold query, kept for the next answer to it.

Seed after seed is tried. A database serves when the gold query gives the same rows whichever way its tables are walked
and its ties are broken: a row that only ties for a LIMIT would make the right answer a matter of luck. It tells
something when the gold query finds more than nothing in it. The first JUDGES that do both are taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any

from slimtune.scorers.sql.compare import in_blocks
from slimtune.scorers.sql.fill import Rows, fill, loosened, plain_ddl
from slimtune.scorers.sql.hints import Hints, Table, read_hints
from slimtune.scorers.sql.order import break_ties, has_order, orders
from slimtune.scorers.sql.process import SQL_PROCESS, WALL_SECONDS

JUDGES = 8
SEEDS = 24
_KEPT = 1_000  # gold queries
_KEYS = count()


class GoldFails(Exception):
    """The gold query, or its schema, does not run: the item is invalid. The text says why, as a clause."""


@dataclass(frozen=True)
class Database:
    """Rows for a schema, and what the gold query gives over them. `block_ends`: see compare."""

    key: str
    ddl: str
    rows: Rows
    gold: list[list[Any]]
    block_ends: tuple[int, ...]

    @property
    def tells(self) -> bool:
        """Whether the gold query finds more than no rows, and more than zeros and NULLs."""
        return any(value not in (None, 0) for row in self.gold for value in row)

    def ask(self, sql: str, *, reverse: bool = False, wall_seconds: float = WALL_SECONDS) -> dict[str, Any]:
        """What `sql` gives here: {"rows"} or {"error", "text"}. Raises GoldFails when the database cannot be built."""
        request = {"do": "query", "key": self.key, "sql": sql, "reverse": reverse}
        reply = SQL_PROCESS.ask(request, wall_seconds=wall_seconds)
        if reply.get("error") != "missing":
            return reply
        built = SQL_PROCESS.ask({"do": "build", "key": self.key, "ddl": self.ddl, "rows": self.rows})
        if "error" in built:
            raise GoldFails(f"its database does not build: {built['text'] or built['error']}")
        return SQL_PROCESS.ask(request, wall_seconds=wall_seconds)


@dataclass(frozen=True)
class Judges:
    """The databases for a gold query. `settled`: it gives the same rows in them however ties are broken. `loose`: it
    does so only without the schema's keys."""

    databases: tuple[Database, ...]
    settled: bool
    loose: bool

    @property
    def tell(self) -> bool:
        """Whether the gold query finds anything in them, and the same each time."""
        return self.settled and any(database.tells for database in self.databases)


@lru_cache(maxsize=_KEPT)
def judges_for(ddl: str, gold: str) -> Judges:
    """The databases that judge answers to `gold`. Raises GoldFails."""
    tables = _tables(ddl)
    hints = read_hints(gold, tables)
    strict = _try_seeds(ddl, tables, hints, gold)
    if strict.tell:
        return strict
    loose = loosened(tables)
    found = _try_seeds(plain_ddl(loose), loose, hints, gold)
    return Judges(found.databases, found.settled, True) if found.tell else strict


def _try_seeds(ddl: str, tables: Sequence[Table], hints: Hints, gold: str) -> Judges:
    telling: list[Database] = []
    silent: list[Database] = []
    unsettled: list[Database] = []
    for seed in range(SEEDS):
        database, settled = _judge(ddl, fill(tables, hints, seed), gold)
        (unsettled if not settled else telling if database.tells else silent).append(database)
        if len(telling) == JUDGES:
            break
    return Judges(tuple((telling or silent or unsettled)[:JUDGES]), bool(telling or silent), False)


def _judge(ddl: str, rows: Rows, gold: str) -> tuple[Database, bool]:
    """A database with the gold result in it, and whether that is the same however ties are broken. Raises GoldFails."""
    empty = Database(f"{next(_KEYS)}", ddl, rows, [], ())
    reply = empty.ask(gold)
    if "error" in reply:
        raise GoldFails(f"the gold query fails: {reply['text'] or reply['error']}")
    result = reply["rows"]
    others = [empty.ask(gold, reverse=True)]
    if has_order(gold):
        width = len(result[0]) if result else 1
        others += [empty.ask(break_ties(gold, width, way)) for way in ("ASC", "DESC")]
    ends = [in_blocks(result, other["rows"]) for other in others if "rows" in other]
    settled = None not in ends
    shared = set.intersection(*map(set, ends)) if orders(gold) and ends and settled else {len(result)}
    return Database(empty.key, ddl, rows, result, tuple(sorted(shared))), settled


def _tables(ddl: str) -> list[Table]:
    reply = SQL_PROCESS.ask({"do": "describe", "ddl": ddl})
    if "error" in reply:
        raise GoldFails(f"the schema does not build: {reply['text'] or reply['error']}")
    tables = []
    for name, facts in reply["tables"].items():
        columns = facts["columns"]
        key = tuple(column[0] for column in sorted(columns, key=lambda column: column[3]) if column[3])
        unique = tuple(dict.fromkeys([key] * bool(key) + [tuple(index) for index in facts["unique"]]))
        names = tuple(column[0] for column in columns)
        not_null = frozenset(column[0] for column in columns if column[2] or column[3])
        foreign = tuple((child, parent, target) for child, parent, target in facts["foreign"])
        tables.append(Table(name, names, {column[0]: column[1] for column in columns}, not_null, unique, foreign))
    return tables
