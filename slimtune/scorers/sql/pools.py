"""Which values a column may hold: those its conditions look for, those that only just miss them, and others.

A wrong query shows only where rows tell it from the right one: `>` from `>=` at the bound itself, 'cat' from 'Cat'
where both stand in the table, `LIKE 'A%'` from `LIKE '%A%'` at 'xA'.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

Value = str | int | float | None
Condition = tuple[str, str | float]  # operator as SQL spells it, "like" or "null", and its literal
_SYLLABLES = (
    "Ba",
    "Co",
    "Du",
    "El",
    "Fi",
    "Go",
    "Hu",
    "Iv",
    "Ka",
    "Lo",
    "Mi",
    "Nu",
    "Or",
    "Pe",
    "Ra",
    "So",
    "Ta",
    "Vi",
)
_NAMES = [first + second.lower() + end for first in _SYLLABLES for second in _SYLLABLES for end in "nrstl"]
_DIGITS = re.compile(r"\d+")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class Pool:
    """`hits` satisfy a condition on the column, the `best` of them as many as can be at once; `near` just miss one."""

    best: tuple[Value, ...]
    hits: tuple[Value, ...]
    near: tuple[Value, ...]
    others: tuple[Value, ...]

    def draw(self, rng: Random, *, wanted: bool) -> Value:
        """One value; mostly one that satisfies, where the row is `wanted`."""
        if not self.hits:
            return self.others[int(len(self.others) * rng.random() ** 1.4)]  # some often, some hardly ever
        if wanted and rng.random() < 0.85:
            return rng.choice(self.best if rng.random() < 0.6 else self.hits)
        parts = [part for part in (self.near, self.near, self.hits, self.others, self.others) if part]
        return rng.choice(rng.choice(parts))

    def distinct(self) -> list[Value]:
        """Every value once, those that satisfy first."""
        return [
            value for value in dict.fromkeys((*self.best, *self.hits, *self.near, *self.others)) if value is not None
        ]


def make_pool(conditions: Sequence[Condition], others: Sequence[Value], rng: Random) -> Pool:
    """The pool of a column with these conditions on it and these values for the rest."""
    hits: list[Value] = []
    near: list[Value] = []
    for operator, literal in conditions:
        good, bad = _around(operator, literal, rng)
        hits += good
        near += bad
    hits, near = list(dict.fromkeys(hits)), list(dict.fromkeys(near))
    met = {value: sum(_meets(value, *condition) for condition in conditions) for value in hits}
    best = [value for value in hits if met[value] == max(met.values())]
    return Pool(tuple(best), tuple(hits), tuple(value for value in near if value not in met), tuple(others))


def words(count: int, rng: Random) -> list[str]:
    """Distinct made-up names, at most 1,620."""
    return rng.sample(_NAMES, min(count, len(_NAMES)))


def dates(count: int, rng: Random) -> list[str]:
    """Days as ISO dates."""
    return [f"{rng.randint(1995, 2021)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}" for _ in range(count)]


def numbers(
    count: int, conditions: Sequence[Condition], rng: Random, *, low: int, high: int, whole: bool
) -> list[Value]:
    """Numbers of the size that the conditions speak of, or between `low` and `high`."""
    bounds = [float(literal) for _, literal in conditions if _NUMBER.fullmatch(str(literal))]
    if bounds:
        reach = max(5.0, 0.6 * max(abs(bound) for bound in bounds))
        low, high = int(min(bounds) - reach), int(max(bounds) + reach)
        low = max(low, 0) if min(bounds) >= 0 else low
    return [rng.randint(low, high) + (0 if whole else rng.choice((0, 0.25, 0.5))) for _ in range(count)]


def _around(operator: str, literal: str | float, rng: Random) -> tuple[list[Value], list[Value]]:
    """Values that satisfy `operator literal`, and values that just do not."""
    if operator == "null":
        return [None], []
    if operator == "like":
        return _around_pattern(str(literal), rng)
    below, above = _beside(literal, -1), _beside(literal, 1)
    if operator in ("=", "=="):
        return [literal], [*below[:2], *above[:2], *_misspelt(literal)]
    if operator in ("!=", "<>"):
        return [below[0], above[0]], [literal]
    inside, outside = (above, below) if operator.startswith(">") else (below, above)
    return ([literal, *inside], outside) if operator.endswith("=") else (inside, [literal, *outside])


def _beside(literal: str | float, way: int) -> list[Value]:
    """Three values on one side of a literal, the nearest first."""
    if isinstance(literal, str):
        return _beside_text(literal, way)
    step = way if isinstance(literal, int) else way * 10.0 ** -len(repr(literal).partition(".")[2])
    far = literal + way * max(2, abs(literal) // 2)
    return [round(literal + step, 9), round(literal + 3 * step, 9), far]


def _beside_text(literal: str, way: int) -> list[Value]:
    """For a text with digits, such as a date, its last and its first number moved; else what sorts beside it."""
    groups = list(_DIGITS.finditer(literal))
    moved: list[Value] = []
    for group in [*reversed(groups[-1:]), *groups[:1]]:
        number = max(int(group.group()[:9]) + way, 0)
        moved.append(f"{literal[: group.start()]}{number:0{min(len(group.group()), 9)}}{literal[group.end() :]}")
    return moved or ([literal + "a", literal + "z"] if way > 0 else [literal[:-1] or "A", "A" + literal])


def _misspelt(literal: str | float) -> list[Value]:
    if not isinstance(literal, str) or not literal:
        return []
    return [literal.swapcase(), f"{literal} {literal[:1]}", f"New {literal}"]


def _around_pattern(pattern: str, rng: Random) -> tuple[list[Value], list[Value]]:
    """Texts that match a LIKE pattern, and texts that hold its words elsewhere, or not quite."""
    bare = pattern.replace("%", "").replace("_", "x")
    first, second = words(2, rng)
    hits = [pattern.replace("_", "x").replace("%", filling) for filling in (first, second, " ")] + [bare]
    bent = [f"{first}{bare}{second}", f"{bare}{second}", f"{first}{bare}", bare[:-1] + "q", first]
    matches = re.compile("".join({"%": ".*", "_": "."}.get(sign, re.escape(sign)) for sign in pattern), re.I | re.S)
    return hits, [text for text in bent if not matches.fullmatch(text)]


def _meets(value: Value, operator: str, literal: str | float) -> bool:
    """Whether a value satisfies a condition; of text and number, of NULL and of patterns only as far as it is easy."""
    if operator in ("null", "like") or value is None or isinstance(value, str) != isinstance(literal, str):
        return operator == "null" and value is None
    return {
        "=": value == literal,
        "==": value == literal,
        "!=": value != literal,
        "<>": value != literal,
        "<": value < literal,
        "<=": value <= literal,
        ">": value > literal,
        ">=": value >= literal,
    }[operator]
