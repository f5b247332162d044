"""Who trains how fast: the contestants of a plan, who is refused a speed, and a real contest that is killed."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from samples import make_task

from slimtune.check import plan_of, ready
from slimtune.contest import Contest, Course, Entry, Outcome, as_markdown, entries_for
from slimtune.contest.ways import CHOICE, COLLATION, OURS, finalists, to_try
from slimtune.engine.contestant.job import OWN_CHOICE, PLAIN, SLIMTUNE, UNSLOTH, Pace, Way
from slimtune.errors import UserError
from slimtune.gpus import get_gpu
from slimtune.recipe import find_recipe, read_recipe

PACE = Pace(10.0, 400.0, 60_000, 2_000, 1.5, 0, 2.0, 1.0, 0.1)
WAY = Way(SLIMTUNE, "shared-prefix", "16bit", "bf16", False, 16, "adamw")


@pytest.fixture(scope="module")
def plans():
    prepared = ready(read_recipe(find_recipe("smollm2-banking77-demo")))
    return {name: plan_of(prepared, gpu=get_gpu(name) if name else None) for name in ("", "T4")}


def contest(*outcomes: Outcome) -> Contest:
    return Contest("A model on a task", ("one card",), (), outcomes)


def test_every_way_stands_once_and_slimtunes_choice_is_the_plans(plans):
    plan = plans["T4"]
    entries = entries_for(plan)
    assert len({entry.way for entry in entries}) == len({entry.way.slug for entry in entries}) == len(entries)
    first = entries[0]
    assert first.role == OURS and first.tables == (COLLATION, CHOICE)
    assert first.way == Way(
        SLIMTUNE,
        plan.collation,
        plan.quantisation,
        plan.precision,
        plan.checkpointing,
        plan.micro_batch,
        plan.optimizer,
    )


def test_layouts_are_compared_at_one_precision_and_defaults_are_what_documentation_says(plans):
    entries = entries_for(plans["T4"])
    collation = [entry.way for entry in entries if COLLATION in entry.tables]
    assert len({(way.quantisation, way.precision, way.checkpointing) for way in collation}) == 1
    assert {way.collation for way in collation if way.library == UNSLOTH} == {"padded", "padding-free", "packed"}
    defaults = {entry.way.library: entry.way for entry in entries if entry.role.endswith("defaults")}
    assert defaults.keys() == {UNSLOTH, PLAIN} and {way.micro_batch for way in defaults.values()} == {8}
    assert all((way.quantisation, way.checkpointing, way.collation) == ("4bit", True, OWN_CHOICE)
               for way in defaults.values())  # fmt: skip


def test_without_a_card_nobody_trains_in_4_bits_and_plain_trl_not_at_all(plans):
    ways = [entry.way for entry in entries_for(plans[""])]
    assert {way.quantisation for way in ways} == {"16bit"} and PLAIN not in {way.library for way in ways}
    assert ways[0].collation == "shared-prefix" and replace(ways[0], collation="padded") in ways


def test_a_word_chooses_contestants_and_one_that_is_in_no_name_is_told_the_names(plans):
    assert {entry.way.library for entry in entries_for(plans["T4"], only=["slimtune", "packed"])} == {SLIMTUNE, UNSLOTH}
    with pytest.raises(UserError, match=r"has pakced in it. There are: slimtune-"):
        entries_for(plans["T4"], only=["pakced"])


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        ({"last_loss": 2.0}, "the loss did not fall: 2.000 to 2.000"),
        ({"last_loss": float("nan")}, "the loss did not fall"),
        ({"least_grad_norm": 0.0}, "gradient of norm 0"),
        ({"least_grad_norm": float("nan")}, "gradient of norm nan"),
    ],
)
def test_what_did_not_learn_has_no_speed(seen, why):
    bad = Outcome(Entry(replace(WAY, library=UNSLOTH), (CHOICE,)), replace(PACE, **seen))
    assert why in bad.refusal
    with pytest.raises(ValueError, match=r"gradient|loss"):
        bad.examples_per_s  # noqa: B018
    held = contest(Outcome(Entry(WAY, (COLLATION, CHOICE), OURS), PACE), bad)
    assert f"no speed: {bad.refusal}" in as_markdown(held) and held.verdicts == []


def test_ratios_are_of_one_table_and_the_best_of_the_others_is_named():
    ours = Outcome(Entry(WAY, (COLLATION, CHOICE), OURS), PACE)
    padded = Outcome(Entry(replace(WAY, collation="padded"), (COLLATION,)), replace(PACE, seconds=40.0))
    packed = Outcome(Entry(replace(WAY, library=UNSLOTH, collation="packed"), (COLLATION, CHOICE)),
                     replace(PACE, seconds=20.0))  # fmt: skip
    slow = Outcome(Entry(replace(WAY, library=UNSLOTH, checkpointing=True), (CHOICE,), "Unsloth's defaults"),
                   replace(PACE, seconds=100.0))  # fmt: skip
    away = Outcome(Entry(replace(WAY, library=PLAIN), (CHOICE,), "plain TRL's defaults"), None, "out of memory")
    held = contest(ours, padded, packed, slow, away)
    said = held.verdicts
    assert [line.split(" (")[0] for line in said] == [
        "2.0 times as fast as the best other layout",
        "2.0 times as fast as Unsloth at its best",
        "10.0 times as fast as Unsloth's defaults",
    ]
    assert "packed" in said[0] and "packed" in said[1]
    assert [line.figures[0] if line.figures else line.refusal for line in held.lines(COLLATION)] == [
        "4.0",
        "1.0",
        "2.0",
    ]
    assert [line.figures[:2] for line in held.lines(CHOICE)] == [
        ("10.0", "40.00"),
        ("5.0", "20.00"),
        ("1.0", "4.00"),
        (),
    ]
    kept = json.loads(json.dumps(held.as_json()))
    assert [one["refusal"] for one in kept["outcomes"]] == ["", "", "", "", "out of memory"]


def test_the_fastest_of_a_trial_and_who_is_close_go_the_whole_course_table_by_table():
    def entry(collation: str, *tables: str) -> Entry:
        return Entry(replace(WAY, library=UNSLOTH, collation=collation), tables)

    fast, close, slow, other, broken = (
        entry("packed", COLLATION, CHOICE), entry("padded", COLLATION), entry("padding-free", COLLATION),
        entry("a", CHOICE), entry("b", CHOICE),
    )  # fmt: skip
    chosen = finalists({fast: 100.0, close: 90.0, slow: 80.0, other: 84.0, broken: 0.0})
    assert chosen == (fast, close)
    assert finalists({broken: 0.0}) == ()
    assert finalists({slow: 80.0, other: 84.0}) == (slow, other)


def test_who_may_be_the_best_is_tried_but_not_who_is_alone_or_asked_for_by_the_whole_name(plans):
    entries = entries_for(plans["T4"])
    searched = to_try(entries, only=())
    assert len(searched) > 5 and not any(entry.role for entry in searched)
    assert to_try(searched[:1], only=()) == ()
    assert to_try(entries, only=("slimtune", searched[0].way.slug)) == searched[1:]


def test_training_steps_are_passes_and_optimizer_steps_are_whole():
    course = Course(50, 100)
    assert course.optimizer_steps(replace(WAY, micro_batch=16), 16) == (50, 100)
    assert course.optimizer_steps(replace(WAY, micro_batch=8), 64) == (7, 13)


def test_who_was_only_tried_stands_in_the_table_and_is_compared_with_nobody():
    ours = Outcome(Entry(WAY, (COLLATION, CHOICE), OURS), PACE)
    packed = Outcome(
        Entry(replace(WAY, library=UNSLOTH, collation="packed"), (COLLATION,)), replace(PACE, seconds=20.0)
    )
    tried = Outcome(
        Entry(replace(WAY, library=UNSLOTH, collation="padded"), (COLLATION,)), replace(PACE, seconds=15.0), tried=True
    )
    held = contest(ours, packed, tried)
    assert len(held.verdicts) == 1 and "2.0 times" in held.verdicts[0] and "packed" in held.verdicts[0]
    assert [line.how.endswith(", tried") for line in held.lines(COLLATION)] == [False, False, True]
    assert held.as_json()["outcomes"][2]["tried"] is True


@pytest.mark.slow
def test_a_contest_that_is_killed_goes_on_and_both_of_our_layouts_see_the_same_losses(tiny_model: Path, tmp_path: Path):
    (tmp_path / "tiny.yaml").write_text(
        f"model: {tiny_model}\ntask: {make_task(tmp_path / 'actions')}\nlora: {{r: 8, alpha: 8}}\n"
        "train: {lr: 1e-2, batch: 8}\nevaluate: {few_shot: 0}\ncontext: 512\n"
    )
    out = tmp_path / "speed"
    command = [sys.executable, "-m", "slimtune.cli", "bench", "speed", str(tmp_path / "tiny.yaml"), "--out", str(out),
               "--warm", "3", "--steps", "12", "--way", "slimtune-shared", "--way", "padded-",
               "--way", OWN_CHOICE]  # fmt: skip
    victim = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 300
    while not list(out.glob("*/told.json")):
        assert victim.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    victim.send_signal(signal.SIGTERM)
    assert victim.wait() == 75
    first = next(out.glob("*/told.json"))
    made = first.stat().st_mtime_ns
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert first.stat().st_mtime_ns == made, "who was done trained again"
    held = json.loads((out / "speed.json").read_text())
    paces = {(one["way"]["library"], one["way"]["collation"], one["tried"]): one["pace"] for one in held["outcomes"]}
    shared, theirs = paces[SLIMTUNE, "shared-prefix", False], paces[UNSLOTH, OWN_CHOICE, False]
    assert shared["examples"] == 12 * 8 and theirs["examples"] == pytest.approx(12 * 8, rel=0.1)
    if padded := paces.get((SLIMTUNE, "padded", False)):
        for name in ("first_loss", "last_loss", "least_grad_norm"):
            assert shared[name] == pytest.approx(padded[name], rel=1e-4)
    folders = {path.parent.name for path in out.glob("*/told.json")}
    trials = {name.removesuffix("-tried") for name in folders if name.endswith("-tried")}
    assert len(trials) == 3, "slimtune's padded rows, Unsloth's by eight and by two"
    assert trials & folders, "nobody went on"
    assert "times as fast as Unsloth's defaults" in done.stdout and (out / "speed.md").read_text().startswith("# ")
