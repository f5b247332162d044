"""What a gold query says about the rows it needs: which values its conditions look for, which columns it joins, how
many rows it counts. Read from tokens, not parsed: a hint that is missed costs a little sharpness and nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from slimtune.scorers.sql.text import Token, tokenize

Column = tuple[str, str]  # table and column, as the schema spells them
_COMPARE = {"=", "==", "!=", "<>", "<", ">", "<=", ">="}
_SETS = {"intersect", "except", "union"}
_AGGREGATES = {"avg", "sum", "min", "max", "count"}


@dataclass(frozen=True)
class Table:
    """A table as SQLite describes it."""

    name: str
    columns: tuple[str, ...]
    types: Mapping[str, str]
    not_null: frozenset[str]
    unique: tuple[tuple[str, ...], ...]  # the primary key first
    foreign: tuple[tuple[str, str, str | None], ...]  # column, table, its column or its key


@dataclass
class Hints:
    """`conditions`: for a column, operators in SQL's spelling and the literal. `equal`: columns that are compared.
    `numeric`: those that are summed. `grouped`: those of GROUP BY. `group_rows`: what a count(*) is compared with."""

    conditions: dict[Column, list[tuple[str, str | float]]] = field(default_factory=dict)
    equal: list[tuple[Column, Column]] = field(default_factory=list)
    numeric: set[Column] = field(default_factory=set)
    tables: set[str] = field(default_factory=set)
    grouped: set[Column] = field(default_factory=set)
    group_rows: int = 0
    limit: int = 0


def read_hints(sql: str, tables: Sequence[Table]) -> Hints:
    """The hints of one query over `tables`."""
    return _Reader(tokenize(sql), tables).read()


@dataclass
class _Reader:
    tokens: list[Token]
    tables: Sequence[Table]
    hints: Hints = field(default_factory=Hints)
    scopes: dict[str, set[str]] = field(default_factory=dict)  # alias or name, in lower case -> tables

    def read(self) -> Hints:
        self._read_scopes()
        first_columns: dict[int, tuple[Column, ...]] = {}
        pending: dict[int, tuple[Column, ...]] = {}
        depth = 0
        for place, token in enumerate(self.tokens):
            depth += (token.value == "(") - (token.value == ")") if token.kind == "sign" else 0
            if self._is(place, "select"):
                first_columns[depth] = self._columns(place + 1 + self._is(place + 1, "distinct"))
                self._join(pending.pop(depth, ()), first_columns[depth])
            elif token.kind == "word" and token.value in _SETS:
                pending[depth] = first_columns.get(depth, ())
            self._read_at(place)
        return self.hints

    def _read_scopes(self) -> None:
        names = {table.name.lower(): table.name for table in self.tables}
        for place, token in enumerate(self.tokens):
            led = any(self._is(place - 1, word) for word in ("from", "join", ","))
            if token.kind not in ("word", "quoted") or token.value.lower() not in names or not led:
                continue
            table = names[token.value.lower()]
            self.hints.tables.add(table)
            alias = self._at(place + 1 + self._is(place + 1, "as"))
            for name in {token.value.lower(), alias.value.lower() if alias else ""}:
                self.scopes.setdefault(name, set()).add(table)

    def _read_at(self, place: int) -> None:
        token = self.tokens[place]
        if self._is(place, "limit"):
            self.hints.limit = max(self.hints.limit, _rows(self._literal(place + 1)))
        if self._is(place, "group"):
            self.hints.grouped.update(self._columns(place + 2))
        if token.kind == "word" and token.value in _AGGREGATES and self._is(place + 1, "("):
            self._read_aggregate(place)
        after_dot = self._is(place - 1, ".")
        columns = () if after_dot else self._columns(place)
        if columns:
            self._read_condition(columns, place + (3 if self._is(place + 1, ".") else 1))

    def _read_aggregate(self, place: int) -> None:
        name = self.tokens[place].value
        inside = place + 2 + self._is(place + 2, "distinct")
        columns = self._columns(inside)
        if name in ("avg", "sum"):
            self.hints.numeric.update(columns)
        close = next((at for at in range(inside, len(self.tokens)) if self._is(at, ")")), len(self.tokens))
        sign, bound = self._at(close + 1), self._literal(close + 2)
        between = sign is not None and sign.value == "between"
        if sign is None or bound is None or not (sign.value in _COMPARE or between):
            return
        if name == "count":
            self.hints.group_rows = max(self.hints.group_rows, _rows(bound))
        else:
            for column in columns:
                self._note(column, ">=" if between else sign.value, bound)

    def _read_condition(self, columns: tuple[Column, ...], place: int) -> None:
        negated = self._is(place, "not")
        operator = self._at(place + negated)
        if operator is None:
            return
        value_at = place + negated + 1
        if operator.value in _COMPARE and operator.kind == "sign":
            self._read_comparison(columns, operator.value, value_at)
        elif operator.value == "like" and (pattern := self._literal(value_at)) is not None:
            self._note_all(columns, "like", pattern)
        elif operator.value == "between":
            low, high = self._literal(value_at), self._literal(value_at + 2)
            if low is not None and high is not None:
                self._note_all(columns, ">=", low)
                self._note_all(columns, "<=", high)
        elif operator.value == "is":
            self._note_all(columns, "null", "")
        elif operator.value == "in":
            self._read_members(columns, value_at + 1)

    def _read_comparison(self, columns: tuple[Column, ...], sign: str, place: int) -> None:
        while self._is(place, "("):
            place += 1
        if (value := self._literal(place)) is not None:
            self._note_all(columns, sign, value)
        elif self._is(place, "select"):
            self._join(columns, self._columns(place + 1))
        else:
            self._join(columns, self._columns(place))

    def _read_members(self, columns: tuple[Column, ...], place: int) -> None:
        if self._is(place, "select"):
            self._join(columns, self._columns(place + 1 + self._is(place + 1, "distinct")))
        while (value := self._literal(place)) is not None:
            self._note_all(columns, "=", value)
            place += 2

    def _columns(self, place: int) -> tuple[Column, ...]:
        """The columns that a name at `place` may mean."""
        first = self._at(place)
        if first is None or first.kind not in ("word", "quoted"):
            return ()
        dotted = self._is(place + 1, ".")
        name = self._at(place + 2) if dotted else first
        scope = self.scopes.get(first.value.lower(), set()) if dotted else self.hints.tables
        if name is None:
            return ()
        return tuple(
            (table.name, column)
            for table in self.tables
            if table.name in scope
            for column in table.columns
            if column.lower() == name.value.lower()
        )

    def _literal(self, place: int) -> str | float | None:
        negative = self._is(place, "-")
        token = self._at(place + negative)
        if token is None:
            return None
        if token.kind == "number":
            number = float(token.value)
            number = int(number) if number.is_integer() and "." not in token.value else number
            return -number if negative else number
        text = token.kind == "text" or (token.kind == "quoted" and not self._columns(place))
        return token.value if text else None

    def _join(self, first: tuple[Column, ...], second: tuple[Column, ...]) -> None:
        self.hints.equal += [(one, other) for one in first for other in second if one != other]

    def _note_all(self, columns: tuple[Column, ...], operator: str, value: str | float) -> None:
        for column in columns:
            self._note(column, operator, value)

    def _note(self, column: Column, operator: str, value: str | float) -> None:
        self.hints.conditions.setdefault(column, []).append((operator, value))

    def _at(self, place: int) -> Token | None:
        return self.tokens[place] if 0 <= place < len(self.tokens) else None

    def _is(self, place: int, value: str) -> bool:
        token = self._at(place)
        return token is not None and token.kind in ("word", "sign") and token.value == value


def _rows(bound: str | float | None) -> int:
    """A literal as a number of rows, within reason."""
    return min(int(abs(bound)), 60) if isinstance(bound, int | float) else 0
