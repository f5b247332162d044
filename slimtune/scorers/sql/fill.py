"""Rows for a schema that tell a gold query from its neighbours, the same for the same seed.

Keys are kept: a primary key and whatever is UNIQUE repeats nothing, a foreign key holds values of its parent, some
parents have many children and some none. Some rows of a table are wanted: they satisfy the conditions that
the query puts on the table, and refer to wanted rows of others, so that a chain of joins finds something. There is no
NULL but where the query asks for it: count(*) and count(name) are the same thing then, as they are in real tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from slimtune.scorers.sql.hints import Column, Hints, Table
from slimtune.scorers.sql.pools import Condition, Pool, Value, dates, make_pool, numbers, words

Rows = dict[str, list[list[Value]]]
_ROOM = 200  # rows of a table, at most


def fill(tables: Sequence[Table], hints: Hints, seed: int) -> Rows:
    """Rows of every table, in the order of its columns."""
    return _Filling(tables, hints, seed).fill()


def loosened(tables: Sequence[Table]) -> list[Table]:
    """The same tables with no key on a column that refers to another table: a schema may name one column of a longer
    key, and then allow no group of two rows. For a query that finds nothing otherwise."""
    return [
        Table(
            table.name,
            table.columns,
            table.types,
            table.not_null,
            tuple(key for key in table.unique if not set(key) & {column for column, _, _ in table.foreign}),
            table.foreign,
        )
        for table in tables
    ]


def plain_ddl(tables: Sequence[Table]) -> str:
    """The tables with columns and types alone."""
    return "\n".join(
        f"CREATE TABLE {_quoted(table.name)} ("
        + ", ".join(f"{_quoted(column)} {table.types[column]}" for column in table.columns)
        + ");"
        for table in tables
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@dataclass
class _Filling:
    tables: Sequence[Table]
    hints: Hints
    seed: int
    done: dict[str, list[dict[str, Value]]] = field(default_factory=dict)
    wanted: dict[str, list[bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = Random(f"rows {self.seed}")
        self.by_name = {table.name.lower(): table for table in self.tables}
        self.single = {(table.name, key[0]) for table in self.tables for key in table.unique if len(key) == 1}
        self.parents = self._read_parents()
        self.domains = self._read_domains()
        self.members: dict[Column, list[Column]] = {}
        for column, domain in self.domains.items():
            self.members.setdefault(domain, []).append(column)
        self.pools: dict[Column, Pool] = {}
        self.wanted_share = self.rng.choice((0.3, 0.5, 0.7))
        self.exact_groups = self.hints.group_rows > 0 and (self.seed % 2 == 0 or self.hints.group_rows > 9)

    def fill(self) -> Rows:
        for table in self._parents_first():
            self._fill_table(table)
        return {
            table.name: [[row[column] for column in table.columns] for row in self.done[table.name]]
            for table in self.tables
        }

    def _read_parents(self) -> dict[Column, Column]:
        """For each column that refers, the one it refers to: by the schema, else by how the query joins."""
        found: dict[Column, Column] = {}
        for table in self.tables:
            for column, other, key in table.foreign:
                parent = self.by_name.get(other.lower())
                key = key or (parent.unique[0][0] if parent and parent.unique else None)
                spelt = next((name for name in parent.columns if name.lower() == key.lower()), None) if key else None
                mine = next(name for name in table.columns if name.lower() == column.lower())
                if spelt:
                    found.setdefault((table.name, mine), (parent.name, spelt))
        for first, second in self.hints.equal:
            for child, parent in ((first, second), (second, first)):
                if parent in self.single and child not in self.single and child[0] != parent[0]:
                    found.setdefault(child, parent)
        return found

    def _read_domains(self) -> dict[Column, Column]:
        """For each column one that stands for all it is compared with."""
        stands = {(table.name, column): (table.name, column) for table in self.tables for column in table.columns}
        for first, second in [*self.parents.items(), *self.hints.equal]:
            kept, gone = stands[first], stands[second]
            for column, which in stands.items():
                if which == gone:
                    stands[column] = kept
        return stands

    def _parents_first(self) -> list[Table]:
        """Tables after those they refer to, as far as there is such an order; in a circle the later one comes last."""
        order: list[Table] = []
        waiting = list(self.tables)
        while waiting:
            names = {table.name for table in waiting}
            free = [table for table in waiting if not (self._refers(table) & names)] or waiting[:1]
            order += free
            waiting = [table for table in waiting if table not in free]
        return order

    def _refers(self, table: Table) -> set[str]:
        return {
            parent for (child, _), (parent, _) in self.parents.items() if child == table.name and parent != table.name
        }

    def _fill_table(self, table: Table) -> None:
        count = self._count(table)
        wanted = [self.rng.random() < self.wanted_share for _ in range(count)]
        columns: dict[str, list[Value]] = {}
        self.done[table.name], self.wanted[table.name] = [], wanted
        for column in sorted(table.columns, key=lambda name: (table.name, name) not in self.single):
            columns[column] = self._column(table, column, columns, wanted)
        rows = [{name: columns[name][place] for name in table.columns} for place in range(count)]
        kept = [place for place, row in enumerate(rows) if self._is_new(table, rows[:place], row)]
        self.done[table.name] = [rows[place] for place in kept]
        self.wanted[table.name] = [wanted[place] for place in kept]

    def _is_new(self, table: Table, before: Sequence[Mapping[str, Value]], row: Mapping[str, Value]) -> bool:
        longer = [key for key in table.unique if len(key) > 1]
        return not any(all(row[name] == other[name] for name in key) for key in longer for other in before)

    def _count(self, table: Table) -> int:
        if table.name not in self.hints.tables:
            count = self.rng.randint(3, 6)
        else:
            count = self.rng.randint(14, 28) if self._refers(table) else self.rng.randint(7, 13) + self.hints.limit
            count = min(count + self.hints.group_rows * self.rng.choice((1, 2, 4)), _ROOM)
        for column in table.columns:
            parent = self.parents.get((table.name, column))
            if (table.name, column) in self.single and parent and self.done.get(parent[0]):
                known = {row[parent[1]] for row in self.done[parent[0]]}
                count = min(count, max(1, len(known) * 4 // 5))
        return count

    def _column(self, table: Table, column: str, own: Mapping[str, list[Value]], wanted: Sequence[bool]) -> list[Value]:
        here = (table.name, column)
        parent = self.parents.get(here)
        if parent and parent[0] == table.name and parent[1] in own:
            return self._referring(here, list(zip(own[parent[1]], wanted, strict=True)), wanted)
        if parent and self.done.get(parent[0]):
            known = [row[parent[1]] for row in self.done[parent[0]]]
            return self._referring(here, list(zip(known, self.wanted[parent[0]], strict=True)), wanted)
        if here in self.single:
            return self._distinct(here, wanted)
        pool, nullable = self._pool(here), column not in table.not_null
        if self.exact_groups and here in self.hints.grouped:
            return self._in_groups(pool.distinct()[:9], len(wanted))
        drawn = [pool.draw(self.rng, wanted=want) for want in wanted]
        return drawn if nullable else [self.rng.choice(pool.others) if value is None else value for value in drawn]

    def _referring(self, here: Column, known: Sequence[tuple[Value, bool]], wanted: Sequence[bool]) -> list[Value]:
        """Values of the parent: a few of them often, some never, and wanted ones for wanted rows."""
        values = list(dict.fromkeys(value for value, _ in known))
        self.rng.shuffle(values)
        if here in self.single:
            return values[: len(wanted)]
        chosen = values[: max(1, len(values) * 4 // 5)]
        if self.exact_groups:
            return self._in_groups(chosen, len(wanted))
        hits = [value for value in chosen if value in self._pool(here).hits]
        liked = hits or [value for value in chosen if (value, True) in set(known)] or chosen
        rows = []
        for want in wanted:
            among = liked if want and self.rng.random() < 0.75 else chosen
            rows.append(among[int(len(among) * self.rng.random() ** 1.7)])
        return rows

    def _in_groups(self, values: Sequence[Value], count: int) -> list[Value]:
        """Values of which some come as often as the query asks for, some once more and some once less."""
        sizes = [self.hints.group_rows + more for more in (0, 1, -1)]
        self.rng.shuffle(sizes)
        exact = [value for value, size in zip(values, sizes, strict=False) for _ in range(size)]
        rest = values[len(sizes) :] or values
        rows = (exact + [rest[int(len(rest) * self.rng.random() ** 1.7)] for _ in range(count)])[:count]
        self.rng.shuffle(rows)
        return rows

    def _distinct(self, here: Column, wanted: Sequence[bool]) -> list[Value]:
        """As many values as there are rows, no two the same; those that satisfy a condition on wanted rows."""
        values = self._pool(here, keys=len(wanted) + 3).distinct()
        if "INT" in self._type(here):
            values = [value for value in values if isinstance(value, int)]
            values += [number for number in range(1, 2 * len(wanted) + 1) if number not in values]
        values = values[: len(wanted)]
        hits = [value for value in values if value in self._pool(here).hits]
        rest = [value for value in values if value not in hits]
        self.rng.shuffle(rest)
        return [hits.pop(0) if hits and (want or not rest) else rest.pop(0) if rest else hits.pop(0) for want in wanted]

    def _type(self, here: Column) -> str:
        return self.by_name[here[0].lower()].types[here[1]].upper()

    def _pool(self, here: Column, *, keys: int = 0) -> Pool:
        """The pool of a column's domain. `keys`: how many distinct values it must have."""
        domain = self.domains[here]
        if domain not in self.pools or len(self.pools[domain].distinct()) < keys:
            members = self.members[domain]
            conditions = [condition for column in members for condition in self.hints.conditions.get(column, ())]
            self.pools[domain] = make_pool(conditions, self._others(members, conditions, keys), self.rng)
        return self.pools[domain]

    def _others(self, members: Sequence[Column], conditions: Sequence[Condition], keys: int) -> list[Value]:
        types = {self._type(column) for column in members}
        names = " ".join(column for _, column in members).lower()
        literals = [literal for operator, literal in conditions if operator != "null"]
        spoken_numbers = bool(literals) and all(not isinstance(literal, str) for literal in literals)
        integer = any("INT" in kind for kind in types)
        if any(column in self.single for column in members):
            size = max(keys, 30)
            return list(range(1, size + 9)) if integer or spoken_numbers else words(min(size + 9, 200), self.rng)
        size = self.rng.choice((4, 6, 40))
        textual = all(any(sign in kind for sign in ("TEXT", "CHAR", "CLOB")) for kind in types)
        if any("BOOL" in kind for kind in types):
            return [0, 1]
        if any("DATE" in kind or "TIME" in kind for kind in types) or (textual and "date" in names):
            return dates(size, self.rng)
        if spoken_numbers or not textual or self.hints.numeric & set(members):
            low, high = (1990, 2021) if "year" in names else (1, 900)
            return numbers(size, conditions, self.rng, low=low, high=high, whole=integer or "year" in names)
        return words(size, self.rng)
