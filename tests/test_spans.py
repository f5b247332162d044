"""Entities found, made up and missed are counted as others count them, and an answer may be anything at all."""

import json
import os
import time
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from slimtune.data import Completion, Example, Message, Score, Tally
from slimtune.evaluate import evaluate, read_evaluation, write_evaluation
from slimtune.scorers import get_scorer, gold_completion
from slimtune.scorers.lcs import lcs_length, lcs_pairs
from slimtune.scorers.spans import read_spans
from slimtune.screen import show_evaluation
from slimtune.tallies import f1
from slimtune.tasks import Task, get_task

AGREEMENT = json.loads((Path(__file__).parent / "fixtures" / "other_scorers.json").read_text(encoding="utf-8"))
DATA = Path(os.environ.get("SLIMTUNE_DATA", Path(__file__).parents[2] / "shared" / "data"))
SPANS, REDACTIONS = ("span_f1", "span_type_f1"), ("redaction_f1", "redaction_type_f1", "redaction_recall", "text_kept")
TEXT = "Ann Lee of Acme met Bo Lee in Rome, and Ann Lee left."
ENTITIES = (("Ann Lee", "person"), ("Acme", "firm"), ("Bo Lee", "person"), ("Rome", "place"), ("Ann Lee", "person"))
REDACTED = "[person] of [firm] met [person] in [place], and [person] left."


def row(text=TEXT, entities=ENTITIES, target="", *, offsets=True):
    """A row with its entities in the order of the text; the target is their list, unless there is another."""
    found, at = [], 0
    for name, kind in entities:
        at = text.index(name, at)
        found.append({"text": name, "type": kind, **({"start": at} if offsets else {})})
        at += len(name)
    bare = json.dumps([{"text": one["text"], "type": one["type"]} for one in found])
    return Example("1", (Message("user", text),), target or bare, meta={"entities": found, "text": text})


def said(*spans):
    return Completion(json.dumps([{"text": text, "type": kind} for text, kind in spans]))


def score(name, completion, example):
    return get_scorer(name)(completion if isinstance(completion, Completion) else Completion(completion), example)


# entities


@pytest.mark.parametrize(
    ("spans", "exact", "by_type"),
    [
        (ENTITIES, 1.0, 1.0),
        (ENTITIES[::-1], 1.0, 1.0),  # order does not count
        (ENTITIES[:4], 2 * 4 / 9, 2 * 4 / 9),  # twice in the text, so twice to be said
        ((*ENTITIES, ENTITIES[0]), 2 * 5 / 11, 2 * 5 / 11),
        ((("Ann Lee", "firm"), *ENTITIES[1:]), 0.8, 0.8),
        ((("Ann", "person"), *ENTITIES[1:]), 0.8, 1.0),
        ((("met Bo Lee in", "person"), ("Rome", "firm")), 0.0, 2 / 7),
        ((("ann lee", "person"), ("Lee Acme", "firm"), ("", "person")), 0.0, 0.0),  # not in the text
        ((("Lee of Acme met Bo", "person"),), 0.0, 1 / 3),  # over two people: it finds one of them
        ((), 0.0, 0.0),
    ],
)
@pytest.mark.parametrize("offsets", [True, False])
def test_an_entity_counts_as_often_as_it_stands_in_the_text_and_is_right_to_the_letter(spans, exact, by_type, offsets):
    example = row(offsets=offsets)
    assert score("span_f1", said(*spans), example).value == pytest.approx(exact)
    assert score("span_type_f1", said(*spans), example).value == pytest.approx(by_type)


def test_what_was_missed_and_made_up_is_counted_by_type_and_named():
    found = score("span_f1", said(("Ann Lee", "person"), ("Rome", "firm"), ("Oslo", "place")), row())
    assert found.counts == {"firm": Tally(0, 1, 1), "person": Tally(1, 0, 2), "place": Tally(0, 1, 1)}
    assert found.why.startswith("missed: person 'Ann Lee'") and "not right: firm 'Rome'" in found.why
    assert found.why.endswith("not there: place 'Oslo'") and found.value == f1(found.counts) == 2 * 1 / (2 + 2 + 4)


def test_where_nothing_is_to_be_found_saying_so_is_right():
    assert score("span_f1", "[]", row(entities=())) == Score(1.0, "[]")
    assert score("span_f1", said(("Ann", "person")), row(entities=())).value == 0.0


@pytest.mark.parametrize(
    "text",
    [
        '```json\n[{"text": "Rome", "type": "place"}]\n```',
        'The entities are [{"text": "Rome", "type": "place", "start": 30}]. Anything else?',
        ' [{"type": "place", "text": "Rome"}]\n',
    ],
)
def test_a_list_is_read_out_of_a_fence_or_a_sentence(text):
    assert read_spans(text) == [("Rome", "place")]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no JSON list"),
        ("There are none.", "holds no JSON list"),
        ('{"text": "Rome", "type": "place"}', "is an object, not a list"),
        ('"Rome"', "is a string, not a list"),
        ('["Rome"]', "an item 1 that is no object"),
        ('[{"text": "Rome", "type": 1}]', "an item 1"),
        ('[{"text": "Rome", "type": "place"}, {"text": "Oslo"}]', "an item 2"),
        ('[{"text": "Rome", "text": "Oslo", "type": "place"}]', "twice"),
        ('[{"text": "Rome", "ty', "is not JSON"),
        ("[" * 5000, "nested"),
    ],
)
def test_an_answer_that_is_no_list_of_entities_is_unreadable_and_finds_nothing(text, why):
    found = score("span_f1", text, row())
    assert (found.value, found.answer) == (0.0, None) and why in found.why
    assert found.counts == {"firm": Tally(missed=1), "person": Tally(missed=3), "place": Tally(missed=1)}
    assert "cut off" in score("span_f1", Completion(text, stopped="length"), row()).why


# redaction


@pytest.mark.parametrize(
    ("text", "exact", "by_type", "recall", "kept"),
    [
        (REDACTED, 1, 1, 1, 1),
        (REDACTED.upper().replace("[PERSON]", "[person]").replace("[FIRM]", "[firm]").replace("[PLACE]", "[place]"),
         1, 1, 1, 1),
        (TEXT, 0, 0, 0, 1),  # nothing redacted
        (REDACTED.replace("[place]", "Rome"), 2 * 4 / 9, 2 * 4 / 9, 0.8, 1),
        (REDACTED.replace("[place]", "Oslo"), 2 * 4 / 9, 2 * 4 / 9, 1, 1),  # gone, and no placeholder there
        (REDACTED.replace("[place]", "[firm]"), 0.8, 0.8, 1, 1),
        (REDACTED.replace("[person] of", "Ann [person] of"), 0.8, 1, 1, 1),  # a part is left
        (REDACTED.replace("[person] of", "[person]"), 0.6, 1, 1, 0.8),  # "of" went with one of the two
        (REDACTED.replace("left", "[firm]"), 2 * 5 / 11, 2 * 5 / 11, 1, 0.8),
        (f"Here it is: {REDACTED}", 1, 1, 1, 1),
    ],
)  # fmt: skip
def test_placeholders_are_set_against_the_entities_and_the_rest_should_stay(text, exact, by_type, recall, kept):
    example = row(target=REDACTED)
    got = [score(name, text, example).value for name in REDACTIONS]
    assert got == pytest.approx([exact, by_type, recall, kept])


def test_what_leaked_is_named_once_for_each_time():
    example = row(target=REDACTED)
    both = score("redaction_f1", REDACTED.replace("[person]", "ANN  LEE"), example)
    assert both.why.startswith("leaked: person 'Ann Lee', person 'Ann Lee'")
    recall = score("redaction_recall", REDACTED.replace("[person]", "Ann Lee", 1), example)
    assert recall.counts == {"firm": Tally(1), "person": Tally(2, 0, 1), "place": Tally(1)}
    assert recall.why == "leaked: person 'Ann Lee'"


def test_a_name_that_is_a_common_word_elsewhere_or_part_of_a_longer_name_is_no_leak_there():
    here = row("Here is the man from Here, they say.", [], "Here is the man from [firm], they say.")
    here = replace(here, meta={**here.meta, "entities": [{"text": "Here", "type": "firm"}]})
    assert score("redaction_recall", str(here.target), here).value == 1.0
    assert score("redaction_recall", here.messages[0].content, here).value == 0.0
    nested = row("Ann Lee and Ann saw it all again", (("Ann Lee", "a"), ("Ann", "b")), "[a] and [b] saw it all again")
    leaky = score("redaction_recall", "Ann Lee and [b] saw it all again", nested)
    assert leaky.value == 0.5 and leaky.counts["b"] == Tally(1)
    assert score("redaction_recall", "[a] and Anna saw it all again", nested).value == 1.0


@pytest.mark.parametrize("text", ["", " \n", "I cannot help with that.", "[person]", "[firm] " * 9, "of met"])
def test_what_is_no_rewriting_of_the_text_is_unreadable_though_it_leaks_nothing(text):
    for name in REDACTIONS:
        found = score(name, text, row(target=REDACTED))
        assert (found.value, found.answer) == (0.0, None) and found.why
    assert score("redaction_recall", text, row(target=REDACTED)).counts["person"] == Tally(missed=3)


def test_a_text_of_entities_alone_and_one_without_any_can_be_perfect():
    alone, none = row("Ann Lee", ENTITIES[:1], "[person]"), row("As [1] says.", (), "As [1] says.")
    for name in REDACTIONS:
        assert score(name, "[person]", alone).value == 1.0 and score(name, "As [1] says.", none).value == 1.0
    assert score("redaction_f1", "As [1] [firm].", none).value == 0.0  # and [1] is text


def test_a_row_of_another_kind_is_no_row_for_these():
    for name in (*SPANS, *REDACTIONS):
        with pytest.raises(TypeError, match="example 7 has no entities"):
            score(name, "x", Example("7", (Message("user", "x"),), "x"))


# as others have it


def spans_of(document, side):
    words = document["words"]
    return [(" ".join(words[start:end]), kind) for start, end, kind in document[side]]


def redacted(document, side):
    words = list(document["words"])
    for start, end, kind in sorted(document[side], reverse=True):
        words[start:end] = [f"[{kind}]"]
    return " ".join(words)


def summed(scores):
    total: dict[str, Tally] = {}
    for found in scores:
        for kind, tally in found.counts.items():
            old = total.get(kind, Tally())
            total[kind] = Tally(old.found + tally.found, old.made_up + tally.made_up, old.missed + tally.missed)
    return total


def measured(counts):
    found, made_up, missed = (sum(getattr(one, side) for one in counts) for side in ("found", "made_up", "missed"))
    return {
        "precision": found / (found + made_up) if found + made_up else 0.0,
        "recall": found / (found + missed) if found + missed else 0.0,
        "f1": 2 * found / (2 * found + made_up + missed),
    }


@pytest.mark.parametrize("judged", AGREEMENT["spans"], ids=range(len(AGREEMENT["spans"])))
@pytest.mark.parametrize("kind", ["entities", "redaction"])
def test_counts_and_f1_are_those_of_seqeval_and_nervaluate(judged, kind):
    rows, answers = [], []
    for document in judged["documents"]:
        target = redacted(document, "gold") if kind == "redaction" else ""
        rows.append(row(" ".join(document["words"]), spans_of(document, "gold"), target))
        answers.append(redacted(document, "said") if target else said(*spans_of(document, "said")))
    names = SPANS if kind == "entities" else REDACTIONS[:2]
    exact, loose = ([score(name, *one) for one in zip(answers, rows, strict=True)] for name in names)
    theirs, counts = judged["seqeval"], summed(exact)
    for name in counts:
        assert measured([counts[name]]) == pytest.approx(seqeval(theirs[name]), abs=1e-9)
        assert counts[name].found + counts[name].missed == theirs[name]["support"]
    assert measured(counts.values()) == pytest.approx(seqeval(theirs["micro avg"]), abs=1e-9)
    assert measured(counts.values()) == pytest.approx(judged["nervaluate"]["strict"], abs=1e-9)
    macro = sum(measured([counts[name]])["f1"] for name in counts) / len(counts)
    assert macro == pytest.approx(theirs["macro avg"]["f1-score"], abs=1e-9)
    assert [one.value for one in exact] == pytest.approx(judged["seqeval_f1_of_each"], abs=1e-9)
    assert measured(summed(loose).values()) == pytest.approx(judged["nervaluate"]["ent_type"], abs=1e-9)
    for name, tally in summed(loose).items():
        assert measured([tally]) == pytest.approx(judged["nervaluate_ent_type"][name], abs=1e-9)


def seqeval(report):
    return {"precision": report["precision"], "recall": report["recall"], "f1": report["f1-score"]}


def slow_lcs(words, others):
    table = [[0] * (len(others) + 1) for _ in range(len(words) + 1)]
    for i, word in enumerate(words):
        for j, other in enumerate(others):
            table[i + 1][j + 1] = table[i][j] + 1 if word == other else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcde"), max_size=12))
def test_the_longest_common_subsequence_is_the_one_of_the_plain_table(words, others):
    pairs = lcs_pairs(words, others)
    assert lcs_length(words, others) == len(pairs) == slow_lcs(words, others)
    assert list(pairs) == sorted(pairs) and list(pairs.values()) == sorted(set(pairs.values()))
    assert all(words[place] == others[other] for place, other in pairs.items())


# whatever comes

PIECES = st.sampled_from([*TEXT.split(), *REDACTED.split(), '{"text":', '"type":', "[", "]", "{", "}", '"', ",", "```"])
ANSWERS = st.one_of(
    st.text(),
    st.lists(PIECES).map(" ".join),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["text", "type", "start"]), inner),
    ).map(json.dumps),
    st.lists(st.fixed_dictionaries({"text": st.sampled_from(["Ann", "Ann Lee", "Lee of Acme", "", "x"]),
                                    "type": st.sampled_from(["person", "firm", "", "x"])})).map(json.dumps),
)  # fmt: skip


def holds(text, stopped):
    for name in (*SPANS, *REDACTIONS):
        example = row(target=REDACTED if name not in SPANS else "")
        began = time.process_time()
        found = get_scorer(name)(Completion(text, stopped=stopped), example)
        assert time.process_time() - began < 1
        assert 0.0 <= found.value <= 1.0 and (found.answer is not None or (found.value == 0.0 and found.why))
        if name.endswith("_f1"):
            assert found.value == f1(found.counts)
        if get_scorer(name).measures:
            assert sum(tally.found + tally.missed for tally in found.counts.values()) == len(ENTITIES)


@settings(max_examples=200, deadline=None)
@given(ANSWERS, st.sampled_from(["stop", "length"]))
def test_any_answer_gets_a_score_in_no_time(text, stopped):
    holds(text, stopped)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(ANSWERS, st.sampled_from(["stop", "length"]))
def test_any_of_ten_thousand_answers_gets_a_score_in_no_time(text, stopped):
    holds(text, stopped)


HUGE = (
    "x ", "[", "]", "[person] ", "Ann Lee ", "of met in ", '{"text": "Ann", "type": "person"},', '"', "\\", "[{",
    "\ud800", "```[", "[a[b", "9", "\n",
)  # fmt: skip


@pytest.mark.parametrize("piece", HUGE)
def test_a_megabyte_of_anything_takes_less_than_a_second(piece):
    holds("[" + (piece * (1_000_000 // len(piece))).rstrip(",") + "]", "stop")


@pytest.mark.slow
@pytest.mark.parametrize("piece", HUGE)
@pytest.mark.parametrize("head", ["", "[", f"{REDACTED} "])
def test_a_megabyte_that_is_cut_off_or_follows_an_answer_does_too(piece, head):
    holds(head + piece * (1_000_000 // len(piece)), "length")


# a whole test set


def made(answers, rows):
    task = Task("t", "T", "ner", "", "span_f1", (), tuple(rows), ("span_type_f1", "exact_match"))
    generate = lambda asked, _: enumerate(map(Completion, answers))  # noqa: E731
    return evaluate(task, task.test, generate, name="base", label="a list")


def test_an_evaluation_sums_what_its_rows_counted_keeps_it_and_shows_it(tmp_path, capsys):
    rows = [replace(row(), id=str(number), group=str(number // 2)) for number in range(40)]
    answers = ["nothing" if n % 5 == 0 else said(*ENTITIES[: 1 + n % 5], ("Oslo", "place")).text for n in range(40)]
    whole = made(answers, rows)
    counts = summed(score("span_f1", *one) for one in zip(answers, rows, strict=True))
    block = whole.summary()["aggregate"]["span_f1"]
    assert block["micro_f1"]["value"] == pytest.approx(measured(counts.values())["f1"]) != whole.score.value
    assert block["macro_f1"]["value"] == pytest.approx(sum(measured([one])["f1"] for one in counts.values()) / 3)
    assert block["per_type"]["person"]["support"] == 120 and block["micro_f1"]["groups"] == 20
    assert set(whole.summary()["aggregate"]) == {"span_f1", "span_type_f1"}
    write_evaluation(tmp_path / "base", whole)
    assert read_evaluation(tmp_path / "base") == whole
    show_evaluation(Console(width=200), whole, tmp_path)
    shown = capsys.readouterr().out
    assert "20% unparseable, 0% cut off, 0 unjudged" in shown and "span_type_f1, macro F1 0." in shown


def test_an_evaluation_that_an_older_version_wrote_reads_without_counts(tmp_path):
    whole = made(["[]"] * 4, [replace(row(), id=str(number)) for number in range(4)])
    write_evaluation(tmp_path / "base", whole)
    rows = pandas.read_parquet(tmp_path / "base" / "examples.parquet").drop(columns=["counts", "part"])
    rows.to_parquet(tmp_path / "base" / "examples.parquet", index=False)
    old = read_evaluation(tmp_path / "base")
    assert old.score == whole.score and old.summary()["aggregate"] == {} == old.summary()["parts"]


# real rows


@pytest.mark.parametrize(("task", "bars"), [("wnut17_ner", SPANS), ("pii_redaction", REDACTIONS)])
def test_the_gold_answers_of_real_rows_are_perfect_and_ten_thousand_take_two_seconds(task, bars):
    if not (DATA / task).is_dir():
        pytest.skip(f"no task data at {DATA}: set SLIMTUNE_DATA to a folder of task folders")
    read = get_task(task, data_dir=DATA)
    rows = (*read.train, *read.test)
    assert {read.scorer, *read.also} == {*bars, "exact_match"}
    answers = [(gold_completion(example), example) for example in rows]
    near = [(gold_completion(other), example) for (_, example), other in zip(answers, rows[1:], strict=False)]
    close = [(replace(gold, text=gold.text.replace("PERSON", "GPE").replace(" the ", " ")), of) for gold, of in answers]
    for name in bars:
        scorer = get_scorer(name)
        assert [example.id for gold, example in answers if scorer(gold, example).value != 1.0] == []
        began = time.process_time()
        for completion, example in islice(cycle([*answers, *near, *close]), 10_000):
            scorer(completion, example)
        seconds = time.process_time() - began
        print(f"{name}: 10,000 scorings in {seconds:.2f} s of processor time")
        assert seconds < 2
