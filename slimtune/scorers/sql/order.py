"""What a query says about the order of its rows, and the same query with its ties broken one way or the other."""

from slimtune.scorers.sql.text import Token, tokenize

_AFTER_ORDER = {"limit", "union", "intersect", "except"}


def orders(sql: str) -> bool:
    """Whether the outermost query has an ORDER BY."""
    return any(depth == 0 for depth, _ in _order_clauses(sql))


def has_order(sql: str) -> bool:
    """Whether there is an ORDER BY anywhere in it."""
    return bool(_order_clauses(sql))


def break_ties(sql: str, width: int, way: str) -> str:
    """The query with every ORDER BY extended by the result's columns, `way` ASC or DESC: by all `width` of the
    outermost query, by the first of a query inside it."""
    for depth, end in reversed(_order_clauses(sql)):
        terms = "".join(f", {column} {way}" for column in range(1, (width if depth == 0 else 1) + 1))
        sql = f"{sql[:end]}{terms} {sql[end:]}"
    return sql


def _order_clauses(sql: str) -> list[tuple[int, int]]:
    """Of each ORDER BY how deep in brackets it stands and where its last term ends, in the order of the ends."""
    tokens, depth, found = tokenize(sql), 0, []
    for place, token in enumerate(tokens):
        depth += _step(token)
        if token.kind == "word" and token.value == "order":
            found.append((depth, _end(tokens, place)))
    return sorted(found, key=lambda clause: clause[1])


def _end(tokens: list[Token], place: int) -> int:
    depth = 0
    for last, token in zip(tokens[place:], tokens[place + 1 :], strict=False):
        depth += _step(token)
        ends = token.value == ";" or (token.kind == "word" and token.value in _AFTER_ORDER)
        if depth < 0 or (depth == 0 and ends):
            return last.end
    return tokens[-1].end


def _step(token: Token) -> int:
    return (token.value == "(") - (token.value == ")") if token.kind == "sign" else 0
