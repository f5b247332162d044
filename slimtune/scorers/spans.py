"""Are these the entities of the text? For NER, where the answer is a JSON list of {"text", "type"}.

span_f1        an entity is found when its text and its type are the gold ones, to the letter; each counts as often as
               it stands in the gold list
span_type_f1   it is enough to overlap a gold entity of that type: nervaluate's "ent_type"

One example's F1 is its score; the counts behind it are summed for the F1 of the test set (slimtune/tallies.py).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from slimtune.data import Completion, Example, Score, Tally, json_type, strict_json, strict_json_at
from slimtune.tallies import f1

_SHOWN = 5

Span = tuple[str, str]  # text, type


def span_f1(completion: Completion, example: Example) -> Score:
    """F1 over (text, type), as multisets. Nothing to find and nothing said is 1; an answer that is no list of entities
    finds nothing."""
    gold = Counter((entity["text"], entity["type"]) for entity in gold_entities(example))
    return _scored(completion, example, gold, lambda said: said & gold)


def span_type_f1(completion: Completion, example: Example) -> Score:
    """F1 over types: a span of the text that overlaps a gold entity of its type finds it. Each side counts once, exact
    spans are joined first, and a span that does not stand in the text finds nothing."""
    entities = gold_entities(example)
    gold = Counter((entity["text"], entity["type"]) for entity in entities)
    text = example.meta["text"]
    return _scored(completion, example, gold, lambda said: _overlapping(said, entities, text))


def gold_entities(example: Example) -> Sequence[Mapping[str, Any]]:
    """The entities that a row is to be read for. Raises TypeError for a row of another kind of task."""
    if "entities" not in example.meta:
        raise TypeError(f"example {example.id} has no entities: this scorer is for NER and PII rows")
    return example.meta["entities"]


def read_spans(text: str) -> list[Span]:
    """The (text, type) of each entity in an answer: all of it is a JSON list, or one begins at its first bracket, as
    in a code fence or after a sentence. Raises ValueError with the reason."""
    try:
        value = strict_json(text)
    except ValueError:
        value = _list_within(text)
    if not isinstance(value, list):
        raise ValueError(f"is {json_type(value)}, not a list of entities")
    for number, item in enumerate(value, start=1):
        if not (isinstance(item, dict) and isinstance(item.get("text"), str) and isinstance(item.get("type"), str)):
            raise ValueError(f'has an item {number} that is no object with "text" and "type"')
    return [(item["text"], item["type"]) for item in value]


def by_type(found: Iterable[str], made_up: Iterable[str], missed: Iterable[str]) -> dict[str, Tally]:
    """Counts by type, from the types of what was found, made up and missed."""
    sides = [Counter(side) for side in (found, made_up, missed)]
    return {name: Tally(*(side[name] for side in sides)) for name in sorted(set().union(*sides))}


def _list_within(text: str) -> Any:
    if (start := text.find("[")) < 0:
        raise ValueError("holds no JSON list")
    return strict_json_at(text, start)[0]


def _scored(
    completion: Completion, example: Example, gold: Counter[Span], match: Callable[[Counter[Span]], Counter[Span]]
) -> Score:
    """`match` gives those spans of the answer that find a gold entity of their type."""
    try:
        said = Counter(read_spans(completion.text))
    except ValueError as error:
        why = "cut off before the list was whole" if completion.cut_off else f"the answer {error}"
        return Score(0.0, None, why, by_type((), (), (name for _, name in gold.elements())))
    found, made_up, missed = (_types(side) for side in (match(said), said, gold))
    counts = by_type(found.elements(), (made_up - found).elements(), (missed - found).elements())
    answer = json.dumps([{"text": text, "type": name} for text, name in said.elements()], ensure_ascii=False)
    return Score(f1(counts), answer, _difference(said, gold, example.meta["text"]), counts)


def _types(spans: Counter[Span]) -> Counter[str]:
    types: Counter[str] = Counter()
    for (_, name), times in spans.items():
        types[name] += times
    return types


def _overlapping(said: Counter[Span], entities: Sequence[Mapping[str, Any]], text: str) -> Counter[Span]:
    """The spans that overlap a gold entity of their type, each gold entity taken once and exact ones first."""
    found = said & Counter((entity["text"], entity["type"]) for entity in entities)
    taken, waiting = Counter(found), []
    for entity, start in zip(entities, _starts(entities, text), strict=True):
        span = entity["text"], entity["type"]
        if taken[span]:
            taken[span] -= 1
        else:
            waiting.append((start, span))
    for span, times in (said - found).items():
        near = [gold for gold in waiting if gold[1][1] == span[1] and _overlap(span[0], gold[0], gold[1][0], text)]
        for gold in near[:times]:
            waiting.remove(gold)
            found[span] += 1
    return found


def _starts(entities: Sequence[Mapping[str, Any]], text: str) -> list[int]:
    """Where each entity stands: at its offset, or else where its text comes next after the entity before it."""
    starts, at = [], 0
    for entity in entities:
        start = entity.get("start")
        at = start if isinstance(start, int) else max(text.find(entity["text"], at), 0)
        starts.append(at)
        at += len(entity["text"])
    return starts


def _overlap(span: str, start: int, gold: str, text: str) -> bool:
    """Does `span` stand in the text so that it shares a character with the gold entity at `start`?"""
    reach = len(span) - 1
    return bool(span) and text.find(span, max(0, start - reach), start + len(gold) + reach) >= 0


def _difference(said: Counter[Span], gold: Counter[Span], text: str) -> str:
    """What was missed and what was made up, a few of each."""
    missed, extra = [*(gold - said)], [*(said - gold)]
    absent = [span for span in extra if span[0] not in text]
    sides = (("missed", missed), ("not right", [span for span in extra if span not in absent]), ("not there", absent))
    return "; ".join(f"{name}: {listed(spans)}" for name, spans in sides if spans)


def listed(spans: Sequence[Span]) -> str:
    """A few spans, for a person: person 'Ann', product 'AGRA drives' and 3 more."""
    shown = ", ".join(f"{name[:40]} {text[:60]!r}" for text, name in spans[:_SHOWN])
    return shown + (f" and {len(spans) - _SHOWN} more" if len(spans) > _SHOWN else "")
