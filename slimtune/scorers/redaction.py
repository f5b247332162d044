"""Is the text rewritten with its personal data taken out, and nothing else? For PII, where [TYPE] stands for each.

redaction_f1        an entity is found when a placeholder of its type stands for all of it and for no word beside it
redaction_type_f1   it is enough that a placeholder of its type stands in its place
redaction_recall    the share of entities whose text is gone: what leaked is named
text_kept           the share of the words that should stay and do: the rest is redacted for nothing, or lost

The answer is laid over the gold text word by word (their longest common subsequence), so that it may be anything. Case
and punctuation do not count here: exact_match is beside these for that. An answer that keeps less than half of the
words that should stay is no rewriting of the text: it is unreadable and scores 0 in all four, also where "I cannot
help with that" would leak nothing.
"""

import re
from collections import Counter
from collections.abc import Sequence

from slimtune.data import Completion, Example, Score
from slimtune.scorers.lcs import lcs_pairs
from slimtune.scorers.spans import by_type, gold_entities, listed
from slimtune.tallies import f1

_PIECES = re.compile(r"\[[^\[\]\n]{1,40}\]|\w+")
_LEAST_KEPT = 0.5


def redaction_f1(completion: Completion, example: Example) -> Score:
    """F1 over the entities: found with its type and its bounds. A placeholder that stands for no entity, or for one of
    another type, is made up."""
    laid = _Laid(completion, example)
    return _placeholder_f1(laid, laid.whole)


def redaction_type_f1(completion: Completion, example: Example) -> Score:
    """The same, with no look at the bounds."""
    laid = _Laid(completion, example)
    return _placeholder_f1(laid, [place for place in laid.pairs if place in laid.wanted])


def redaction_recall(completion: Completion, example: Example) -> Score:
    """The share of entities whose text no longer stands in the answer, whatever stands there instead; 1 where there
    are none. Words are compared without case; a text that also stands outside of entities leaks from one more on."""
    laid = _Laid(completion, example)
    types = [name for _, name in laid.entities]
    if laid.unread:
        return Score(0.0, None, laid.unread, by_type((), (), types))
    leaked = [name for _, name in laid.leaked]
    counts = by_type((Counter(types) - Counter(leaked)).elements(), (), leaked)
    value = 1 - len(leaked) / len(types) if types else 1.0
    return Score(value, laid.answer, laid.why, counts)


def text_kept(completion: Completion, example: Example) -> Score:
    """The share of the words outside of entities that still stand, in their order; 1 where there are none."""
    laid = _Laid(completion, example)
    return Score(0.0, None, laid.unread) if laid.unread else Score(laid.kept, laid.answer, laid.why)


class _Laid:
    """An answer laid over the gold text of its example. `pairs`: place of a piece of the gold text -> its place in the
    answer, where a piece is a word or a placeholder; `wanted` and `made`: the placeholders of either, by place."""

    def __init__(self, completion: Completion, example: Example):
        self.entities = [(entity["text"], entity["type"]) for entity in gold_entities(example)]
        self.source, self.answer = example.meta["text"], completion.text.strip()
        self.gold, self.said = _pieces(str(example.target)), _pieces(completion.text)
        self.pairs = lcs_pairs(self.gold, self.said)
        self.wanted, self.made = self._placeholders(self.gold), self._placeholders(self.said)
        self.stay = len(self.gold) - len(self.wanted)
        self.kept = sum(place not in self.wanted for place in self.pairs) / self.stay if self.stay else 1.0
        self.cut = completion.cut_off

    def _placeholders(self, pieces: Sequence[str]) -> dict[int, str]:
        """Place -> type. What stands in brackets in the source is text, not a placeholder."""
        marks = {piece for piece in pieces if piece[0] == "["}
        marks = {mark for mark in marks if mark not in self.source}
        return {place: piece[1:-1] for place, piece in enumerate(pieces) if piece in marks}

    @property
    def unread(self) -> str:
        """Why this is no rewriting of the text, if it is none."""
        if not self.answer:
            return "empty answer"
        if self.kept >= _LEAST_KEPT:
            return ""
        return "cut off before half of the text" if self.cut else "not the text: less than half of its words are there"

    @property
    def leaked(self) -> list[tuple[str, str]]:
        """The entities that still stand: one for each time that the text of it is found more often than it should be,
        not counting where it is part of a longer one that leaked."""
        gold, said = _line(self.gold), _line(self.said)
        times = Counter(_line(_pieces(text)) for text, _ in self.entities)
        extra: Counter[str] = Counter()
        for line in sorted(times, key=len, reverse=True):
            within = sum(extra[longer] * longer.count(line) for longer in extra)
            extra[line] = min(times[line], max(0, said.count(line) - gold.count(line) - within))
        found = []
        for entity in self.entities:
            line = _line(_pieces(entity[0]))
            if extra[line] > 0:
                extra[line] -= 1
                found.append(entity)
        return found

    @property
    def whole(self) -> list[int]:
        """The places of placeholders that stand for all of their entity, and for no word beside it."""
        known = len(self.wanted) == len(self.entities)
        own = {place: {*_pieces(self.entities[at][0])} for at, place in enumerate(self.wanted)} if known else {}
        joined = [(-1, -1), *self.pairs.items(), (len(self.gold), len(self.said))]
        return [
            here[0]
            for before, here, after in zip(joined, joined[1:], joined[2:], strict=False)
            if here[0] in self.wanted
            and not self._swallowed(before, here, here[0] - 1)
            and not self._swallowed(here, after, here[0] + 1)
            and own.get(here[0], set()).isdisjoint(
                self.said[before[1] + 1 : here[1]] + self.said[here[1] + 1 : after[1]]
            )
        ]

    def _swallowed(self, one: tuple[int, int], next_one: tuple[int, int], beside: int) -> bool:
        """Is the gold word `beside` a placeholder gone, with nothing said in its place?"""
        lost = one[0] < beside < next_one[0] and beside not in self.wanted
        return lost and next_one[1] == one[1] + 1

    @property
    def why(self) -> str:
        """What leaked, what was redacted for nothing, how much is gone."""
        extra = Counter(self.made.values()) - Counter(self.wanted.values())
        gone = self.stay - round(self.kept * self.stay)
        parts = [
            f"leaked: {listed(leaked)}" if (leaked := self.leaked) else "",
            f"too many: {', '.join(f'[{name}]' for name in [*extra][:5])}" if extra else "",
            f"{gone} of the {self.stay} words that should stay are gone" if gone else "",
            "cut off before its end" if self.cut else "",
        ]
        return "; ".join(part for part in parts if part)


def _placeholder_f1(laid: _Laid, found: Sequence[int]) -> Score:
    wanted = laid.wanted.values()
    if laid.unread:
        return Score(0.0, None, laid.unread, by_type((), (), wanted))
    hits = Counter(laid.wanted[place] for place in found)
    made_up, missed = Counter(laid.made.values()) - hits, Counter(wanted) - hits
    counts = by_type(hits.elements(), made_up.elements(), missed.elements())
    return Score(f1(counts), laid.answer, laid.why, counts)


def _pieces(text: str) -> list[str]:
    """Placeholders as they are, and words without case."""
    return [piece if piece[0] == "[" else piece.casefold() for piece in _PIECES.findall(text)]


def _line(words: Sequence[str]) -> str:
    """Words so written that a count of one line within another is a count of whole words."""
    return " " + "  ".join(words) + " "
