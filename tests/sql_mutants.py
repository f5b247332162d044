"""How often does a wrong query pass? Gold queries changed in one place, scored against the unchanged.

    python tests/sql_mutants.py ../shared/data/text2sql/test.jsonl [--show KIND]

prints a line for each kind of change: how many mutants ran, how many passed, and with --show those that did. Not every
mutant is wrong: `DISTINCT` over a key, or `ASC` on one row, changes nothing.
"""

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from slimtune.data import Completion, Example
from slimtune.scorers.sql import sql_execution
from slimtune.scorers.sql.databases import SQL_PROCESS
from slimtune.scorers.sql.text import Token, tokenize

CLAUSES = {"where", "group", "having", "order", "limit", "intersect", "except", "union"}
BOUNDS = {">": ">=", ">=": ">", "<": "<=", "<=": "<"}
REVERSED = {">": "<", ">=": "<=", "<": ">", "<=": ">=", "=": "!=", "!=": "=", "<>": "="}
AGGREGATES = {"max": "min", "min": "max", "avg": "sum", "sum": "avg"}
SETS = {"intersect": "UNION", "union": "INTERSECT", "except": "INTERSECT"}


def mutants(sql: str, columns: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """(kind of change, changed query), each once. `columns`: of each table, both in lower case."""
    seen = {sql}
    for kind, start, end, text in _edits(tokenize(sql), columns):
        changed = sql[:start] + text + sql[end:]
        if changed not in seen:
            seen.add(changed)
            yield kind, changed


def _edits(tokens: list[Token], columns: dict[str, list[str]]) -> Iterator[tuple[str, int, int, str]]:
    for place, token in enumerate(tokens):
        after = tokens[place + 1] if place + 1 < len(tokens) else None
        if token.kind == "word":
            yield from _word_edits(tokens, place, token, after)
        if token.kind == "sign":
            if token.value in BOUNDS:
                yield "comparison, at its bound", token.start, token.end, BOUNDS[token.value]
            if token.value in REVERSED:
                yield "comparison, reversed", token.start, token.end, REVERSED[token.value]
        if token.kind == "number" and not (place and tokens[place - 1].value == "limit"):
            yield "number, one more", token.start, token.end, str(float(token.value) + 1).removesuffix(".0")
            yield "number, doubled", token.start, token.end, str(float(token.value) * 2 + 7).removesuffix(".0")
        if token.kind in ("text", "quoted") and not token.value.replace(" ", "").startswith("%"):
            yield "text, another", token.start, token.end, f"'{token.value.replace(chr(39), chr(39) * 2)}q'"
        if token.kind == "text" and token.value.startswith("%"):
            yield "pattern, anchored", token.start, token.end, "'" + token.value[1:].replace("'", "''") + "'"
    yield from _column_edits(tokens, columns)


def _word_edits(tokens: list[Token], place: int, token: Token, after: Token | None):
    value = token.value
    if value in ("where", "having", "order", "group"):
        yield f"no {value.upper()}", token.start, _clause_end(tokens, place), ""
    if value in AGGREGATES and after and after.value == "(":
        yield "aggregate", token.start, token.end, AGGREGATES[value]
    if value == "distinct":
        yield "no DISTINCT", token.start, token.end, ""
    if value == "select" and after and after.value not in ("distinct", "count", *AGGREGATES):
        yield "DISTINCT added", token.end, token.end, " DISTINCT"
    if value in ("asc", "desc"):
        yield "order, reversed", token.start, token.end, "ASC" if value == "desc" else "DESC"
    if value == "order":
        end = _clause_end(tokens, place)
        last = [other for other in tokens[place:] if other.end <= end][-1]
        if last.value not in ("asc", "desc"):
            yield "order, reversed", last.end, last.end, " DESC"
    if value == "limit" and after and after.kind == "number":
        yield "LIMIT, one more", after.start, after.end, str(int(after.value) + 1)
        yield "no LIMIT", token.start, after.end, ""
    if value in SETS:
        yield "set operation", token.start, token.end, SETS[value]
    if value == "and" and not any(other.value == "between" for other in tokens[max(0, place - 4) : place]):
        yield "AND to OR", token.start, token.end, "OR"
        ends = [_clause_end(tokens, place)]
        ends += [other.start for other in tokens[place + 1 :] if other.value in ("and", "or") and other.start < ends[0]]
        yield "no second condition", token.start, min(ends), ""
    if value == "or":
        yield "OR to AND", token.start, token.end, "AND"


def _clause_end(tokens: list[Token], place: int) -> int:
    """Where the clause that begins at `place` ends: before the next of its depth, or the bracket around it."""
    depth = 0
    for other in tokens[place + 1 :]:
        depth += (other.value == "(") - (other.value == ")") if other.kind == "sign" else 0
        if depth < 0 or other.value == ";" or (depth == 0 and other.kind == "word" and other.value in CLAUSES):
            return other.start
    return tokens[-1].end


def _column_edits(tokens: list[Token], columns: dict[str, list[str]]):
    aliases = defaultdict(set)
    for place, token in enumerate(tokens):
        if token.value.lower() in columns and place and tokens[place - 1].value in ("from", "join", ","):
            named = place + 2 < len(tokens) and tokens[place + 1].value == "as"
            aliases[tokens[place + 2].value if named else token.value.lower()].add(token.value.lower())
    clause = ""
    for place, token in enumerate(tokens):
        if token.kind == "word" and token.value in CLAUSES | {"select", "from", "on"}:
            clause = token.value
        if token.kind != "word" or (place and tokens[place - 1].value in ("from", "join", "as")):
            continue
        dotted = place > 1 and tokens[place - 1].value == "."
        scope = aliases[tokens[place - 2].value] if dotted else set().union(*aliases.values())
        tables = [table for table in scope if token.value in columns[table]]
        if len(tables) != 1:
            continue
        kind = {"on": "join key", "select": "column of SELECT", "where": "column of WHERE"}.get(
            clause, "column elsewhere"
        )
        for other in [name for name in columns[tables[0]] if name != token.value][:2]:
            yield kind, token.start, token.end, f'"{other}"' if " " in other else other


def columns_of(schema: str) -> dict[str, list[str]]:
    """Column names of each table, in lower case."""
    facts = SQL_PROCESS.ask({"do": "describe", "ddl": schema})["tables"]
    return {table.lower(): [column[0].lower() for column in one["columns"]] for table, one in facts.items()}


def measure(path: Path, *, every: int = 1) -> dict[str, dict[str, list]]:
    """For each kind: the mutants that ran, as `passed` and `caught` pairs of gold and mutant."""
    found: dict[str, dict[str, list]] = defaultdict(lambda: {"passed": [], "caught": []})
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for schema, gold in list(dict.fromkeys((row["schema"], row["sql"]) for row in rows))[::every]:
        example = Example("1", (), gold, meta={"schema": schema})
        for kind, changed in mutants(gold, columns_of(schema)):
            score = sql_execution(Completion(f"```sql\n{changed}\n```"), example)
            if not score.why.startswith("SQLite"):
                found[kind]["passed" if score.value else "caught"].append((gold, changed))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--show", default="")
    parser.add_argument("--every", type=int, default=1, help="take every n-th gold query")
    options = parser.parse_args()
    start = time.perf_counter()
    found = measure(options.path, every=options.every)
    total = Counter()
    print(f"{'change':28}{'ran':>7}{'passed':>8}{'share':>8}")
    for kind, pairs in sorted(found.items()):
        passed, ran = len(pairs["passed"]), len(pairs["passed"]) + len(pairs["caught"])
        total.update(passed=passed, ran=ran)
        print(f"{kind:28}{ran:7}{passed:8}{passed / ran:8.1%}")
        if options.show and options.show in kind:
            for gold, changed in pairs["passed"]:
                print(f"    {gold}\n    {changed}\n")
    print(f"{'all':28}{total['ran']:7}{total['passed']:8}{total['passed'] / total['ran']:8.1%}")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
