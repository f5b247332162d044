"""SQL as text: its tokens, and the one query that an answer gives.

How an answer is read, first that fits:
    one fenced block of SQL       what stands in it, all of it
    a line that begins a SELECT   from there to the first semicolon, or to a blank line where there is none; prose may
                                  stand before and after, another statement may not
    a statement of another kind   all of it, so that it is refused by name
"""

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|/\*.*?(?:\*/|\Z))
      | (?P<text>'(?:[^']|'')*')
      | (?P<quoted>"(?:[^"]|"")*"|`[^`]*`|\[[^\[\]]*\])
      | (?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)
      | (?P<word>[^\W\d][\w$]*)
      | (?P<sign><=|>=|<>|!=|==|\|\||.)""",
    re.DOTALL | re.VERBOSE,
)
_FENCE = re.compile(r"```[ \t]*(sqlite3?\b|sql\b|\w*(?=[ \t]*\n))?(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_SQL_FENCES = ("", "sql", "sqlite", "sqlite3")
_QUERY = re.compile(
    r"^[ \t]*(?:(?:sql|sqlite|query|answer)[ \t]*:[ \t]*)?(?=SELECT\b|VALUES[ \t]*\(|WITH\s+(?:RECURSIVE\s+)?\S+\s*"
    r"(?:\([^()]*\)\s*)?AS\s*(?:(?:NOT\s+)?MATERIALIZED\s*)?\()",
    re.IGNORECASE | re.MULTILINE,
)
_STATEMENT = re.compile(
    r"\s*(?:ALTER|ANALYZE|ATTACH|BEGIN|COMMIT|CREATE|DELETE|DETACH|DROP|END|EXPLAIN|INSERT|PRAGMA|REINDEX|RELEASE|REPLACE|"
    r"ROLLBACK|SAVEPOINT|SELECT|UPDATE|VACUUM|VALUES|WITH)\b",
    re.IGNORECASE,
)
_LONGEST = 40_000  # characters: what ends later than that is no query anybody runs
_BLANK = re.compile(r"\n[ \t\r]*\n")


@dataclass(frozen=True)
class Token:
    """A piece of SQL. `value`: what a literal means, a name without its quotes, a word or sign in lower case."""

    kind: str  # text, quoted, number, word, sign
    value: str
    start: int
    end: int


@dataclass(frozen=True)
class Reading:
    """The query of an answer, or None and why none could be read."""

    query: str | None
    why: str = ""


def tokenize(sql: str) -> list[Token]:
    """All tokens but spaces and comments. Never fails: what opens and does not close is a sign."""
    return [
        Token(match.lastgroup or "", _value(match.lastgroup or "", match.group()), match.start(), match.end())
        for match in _TOKEN.finditer(sql)
        if match.lastgroup != "space"
    ]


def extract_query(answer: str) -> Reading:
    """The one query in an answer, as the module's opening says."""
    text = answer.strip()
    if not text:
        return Reading(None, "empty answer")
    blocks = [body.strip() for label, body in _FENCE.findall(text) if label.lower() in _SQL_FENCES]
    blocks = [body for body in blocks if _STATEMENT.match(body)]
    if len(set(blocks)) > 1:
        return Reading(None, f"{len(blocks)} blocks of SQL, so that it is open which one is the answer")
    return Reading(blocks[0]) if blocks else _from_prose(text)


def _from_prose(text: str) -> Reading:
    text = text.strip("`").strip()
    begin = _QUERY.search(text)
    before = text[: begin.start()] if begin else text
    if _STATEMENT.match(before) and (";" in before or begin is None):
        return Reading(text)
    return Reading(_first_statement(text[begin.end() :])) if begin else Reading(None, "no query in it")


def _first_statement(text: str) -> str:
    for token in tokenize(text[:_LONGEST]):
        if token.value == ";" and token.kind == "sign":
            return text if _STATEMENT.match(text, token.end) else text[: token.start].rstrip()
    return text[: blank.start()] if (blank := _BLANK.search(text)) else text


def _value(kind: str, text: str) -> str:
    if kind == "text":
        return text[1:-1].replace("''", "'")
    if kind == "quoted":
        return text[1:-1].replace('""', '"')
    return text.lower()
