"""Who trains how fast: the contestants of a plan, who is refused a speed, what is kept, and one that is killed."""

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
from slimtune.cli.benching import default_folder
from slimtune.contest import Contest, Course, Entry, Outcome, as_markdown, entries_for, hold
from slimtune.contest.hold import _where, trial_of
from slimtune.contest.told import ask, own_code
from slimtune.contest.ways import CHOICE, COLLATION, OURS, finalists, refuse_levers, to_try
from slimtune.engine.contestant.job import OUT_OF_MEMORY, OWN_CHOICE, PLAIN, SLIMTUNE, UNSLOTH, Job, Pace, Way
from slimtune.errors import UserError
from slimtune.gpus import get_gpu
from slimtune.recipe import find_recipe, read_recipe
from slimtune.status import Silent

PACE = Pace(10.0, 400.0, 60_000, 2_000, 1.5, 0, 2.0, 1.0, 0.1)
WAY = Way(SLIMTUNE, "shared-prefix", "16bit", "bf16", False, 16, "adamw")
THEIRS = replace(WAY, library=UNSLOTH)


@pytest.fixture(scope="module")
def plans():
    prepared = ready(read_recipe(find_recipe("smollm2-banking77-demo")))
    return {name: plan_of(prepared, gpu=get_gpu(name) if name else None) for name in ("", "T4")}


def contest(*outcomes: Outcome, left_out: tuple[Entry, ...] = ()) -> Contest:
    return Contest("A model on a task", ("one card",), (), outcomes, left_out)


def a_job(folder: Path, way: Way = THEIRS, *, model: str = "qwen3-4b", lengths: list[int], **asked) -> Job:
    """Rows of so many tokens, the last of them the answer."""
    file = folder / "rows.json"
    file.write_text(json.dumps([[[100 + n % 50] * (length - 1), [7]] for n, length in enumerate(lengths)]))
    given = dict.fromkeys(("revision", "shape", "as_gpu"))
    given |= {"where": "here", "window": 512, "batch": 16, "warm": 1, "steps": 4}
    return Job(way, model, rows=str(file), rows_sha256="", r=4, lr=1e-2, seed=3, **given | asked)


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


def test_where_memory_is_tight_4_bit_weights_without_checkpointing_are_tried_too_a_few_at_a_time(plans):
    def free(plan) -> set[tuple[str, int]]:
        ways = [entry.way for entry in entries_for(plan) if entry.searched(CHOICE)]
        free = [way for way in ways if way.quantisation == "4bit" and not way.checkpointing]
        return {(way.collation, way.micro_batch) for way in free}

    tight = replace(plans["T4"], quantisation="4bit", checkpointing=True)
    few = {(layout, size) for layout in ("padded", "padding-free", "packed") for size in (2, min(8, tight.batch))}
    assert free(tight) == few
    assert free(replace(tight, quantisation="16bit", checkpointing=False)) == set()
    assert free(replace(tight, gpu=None)) == set()


def test_a_packed_row_is_asked_for_no_more_examples_than_a_row_of_the_model_has_room_for(plans):
    plan = replace(plans["T4"], batch=64)
    for most, sizes in ((None, {64, 32, 16, 8}), (12, {12, 8}), (100, {64, 32, 16, 8})):
        ways = [entry.way for entry in entries_for(plan, most_packed=most) if entry.searched(COLLATION)]
        assert {way.micro_batch for way in ways if way.collation == "packed"} == sizes
        assert {way.micro_batch for way in ways if way.collation == "padding-free"} == {64, 32, 16, 8}


def test_without_a_card_nobody_trains_in_4_bits_and_plain_trl_not_at_all(plans):
    ways = [entry.way for entry in entries_for(plans[""])]
    assert {way.quantisation for way in ways} == {"16bit"} and PLAIN not in {way.library for way in ways}
    assert ways[0].collation == "shared-prefix" and replace(ways[0], collation="padded") in ways
    assert {way.collation for way in ways if way.library == UNSLOTH} == {"padded", OWN_CHOICE}


def test_a_word_chooses_contestants_and_one_that_is_in_no_name_is_told_the_names_also_beside_one_that_is(plans):
    assert {entry.way.library for entry in entries_for(plans["T4"], only=["slimtune", "packed"])} == {SLIMTUNE, UNSLOTH}
    with pytest.raises(UserError, match=r"has pakced in it. There are: slimtune-"):
        entries_for(plans["T4"], only=["slimtune", "pakced"])


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


def test_nobody_is_called_the_best_where_a_part_of_the_search_did_not_take_place():
    def entry(collation: str, role: str = "", **of) -> Entry:
        return Entry(replace(THEIRS, collation=collation, **of), (CHOICE,) if role else (COLLATION, CHOICE), role)

    ours = Outcome(Entry(WAY, (COLLATION, CHOICE), OURS), PACE)
    packed = Outcome(entry("packed"), replace(PACE, seconds=20.0))
    slow = Outcome(entry(OWN_CHOICE, "Unsloth's defaults"), replace(PACE, seconds=100.0))
    plain = Entry(replace(WAY, library=PLAIN), (CHOICE,), "plain TRL's defaults")

    def said(*others: Outcome, left_out: tuple[Entry, ...] = ()) -> list[str]:
        told = contest(ours, *others, left_out=left_out).verdicts
        return [line.split(" (")[0].split(" as fast as ")[1] for line in told]

    best = ["the best other layout", "Unsloth at its best", "Unsloth's defaults"]
    part = ["the fastest other layout that ran here", "the fastest of Unsloth's that ran here", "Unsloth's defaults"]
    assert said(packed, slow) == said(packed, slow, left_out=(plain,)) == best
    assert said(packed, Outcome(entry("padded"), None, OUT_OF_MEMORY), slow) == best
    assert said(packed, slow, left_out=(entry("padded"),)) == part
    assert said(packed, Outcome(entry("padded"), None, "it ended with 1"), slow) == part
    assert said(slow, left_out=(packed.entry,)) == ["Unsloth's defaults"]
    mine = Entry(replace(WAY, collation="padded"), (COLLATION,))
    assert said(packed, slow, left_out=(mine,)) == [part[0], *best[1:]]


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


def test_training_steps_are_passes_and_optimizer_steps_are_whole_and_a_trial_is_warm_before_it_is_timed():
    course = Course(50, 100)
    assert trial_of(Course(50, 100)) == Course(50, 20) and trial_of(Course(1, 4)) == Course(1, 4)
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
    slowest = replace(tried, entry=Entry(replace(THEIRS, collation="padding-free"), (COLLATION,)),
                      pace=replace(PACE, seconds=90.0))  # fmt: skip
    assert [line.figures[0] for line in contest(ours, packed, tried, slowest).lines(COLLATION)] == [
        "2.0",
        "1.0",
        "",
        "",
    ]
    held = contest(ours, packed, tried)
    assert len(held.verdicts) == 1 and "2.0 times" in held.verdicts[0] and "packed" in held.verdicts[0]
    assert [line.how.endswith(", tried") for line in held.lines(COLLATION)] == [False, False, True]
    assert held.as_json()["outcomes"][2]["tried"] is True


def test_what_only_slimtune_does_is_refused_before_anybody_trains(plans, tmp_path: Path):
    stretched = ready(read_recipe(find_recipe("qwen3-8b-128k-yarn")))
    with pytest.raises(UserError, match=r"no YaRN: .* Add `--set context=32768`, or less"):
        hold(stretched, tmp_path, shape=None, as_gpu=None, only=(), course=Course(1, 2), listener=Silent(),
             should_stop=lambda: False)  # fmt: skip
    assert not list(tmp_path.iterdir())
    refuse_levers(plans["T4"])
    for lever, name in (("tiled_mlp", "a tiled MLP"), ("offload_embedding", "an embedding in host memory")):
        with pytest.raises(UserError, match=rf"need {name} on .*--set context=TOKENS"):
            refuse_levers(replace(plans["T4"], **{lever: True}))


def test_contests_that_differ_are_kept_apart_under_names_that_say_which_they_are():
    def name(*changes: str, shape: str | None = None, card: str | None = None, data: Path | None = None) -> str:
        folder = default_folder("smollm2-banking77", shape=shape, card=card, changes=changes, data=data)
        assert folder.parent == Path("speed")
        return folder.name

    assert name() == "smollm2-banking77"
    assert name(shape="Qwen3-4B", card="RTX 3060") == "smollm2-banking77-qwen3-4b-rtx-3060"
    changed = [name("train.batch=64"), name("train.batch=32"), name("train.batch=64", "lora.r=8"), name(data=Path("d"))]
    assert len({*changed, name()}) == 5 and all(len(each) == len(name()) + 9 for each in changed)
    assert name("a.b=1", "c.d=2") == name("c.d=2", "a.b=1")


def test_norms_of_steps_that_the_scaler_left_out_do_not_count_and_one_that_is_no_number_always_does(tmp_path: Path):
    from slimtune.engine.contestant.__main__ import as_told
    from slimtune.engine.contestant.clock import Clock

    nan, inf = float("nan"), float("inf")
    job = a_job(tmp_path, lengths=[4])

    def pace(*steps: tuple[float, bool]) -> Pace:
        clock = Clock(job, answer_tokens=1.0)
        for number, (norm, skipped) in enumerate(steps, 1):
            clock.ended(number, loss=5.0 - number, grad_norm=norm, skipped=skipped)
        return clock.pace()

    fine = pace((inf, True), (0.5, False), (0.25, False), (nan, True))
    assert fine.least_grad_norm == 0.25 and not fine.refusal and "pace" in as_told(fine)
    for norms in ((nan, 1.0), (1.0, nan), (inf, 1.0), (1.0, inf)):
        seen = pace(*((norm, False) for norm in norms))
        assert "gradient of norm" in seen.refusal and as_told(seen) == {"failed": seen.refusal}
    with pytest.raises(UserError, match="overflowed in each of 2 steps"):
        pace((inf, True), (nan, True))


def test_what_was_told_holds_for_the_same_job_by_the_same_code_with_its_day_and_a_failure_is_asked_again(tmp_path):
    job, entry = a_job(tmp_path, lengths=[4], as_gpu="no such card"), Entry(THEIRS, (CHOICE,))
    told = tmp_path / "told.json"

    def seen(asked: Job, **kept) -> Outcome:
        (tmp_path / "job.json").write_text(json.dumps(job.as_json()))
        told.write_text(json.dumps({"measured": "2020-01-02", **kept}))
        return ask(entry, asked, tmp_path, lambda: False, today="2026-01-02")

    pace = vars(PACE)
    assert seen(job, pace=pace) == Outcome(entry, PACE, measured="2020-01-02")
    for again in (seen(job, failed=OUT_OF_MEMORY), seen(replace(job, where="other code"), pace=pace)):
        assert "no such card" in again.failed and again.pace is None and again.measured == "2026-01-02"


def test_a_contest_is_of_the_code_that_trains_in_it(tmp_path: Path):
    assert own_code() in _where(None) and own_code() == own_code(Path(__file__).parents[1] / "slimtune")
    (tmp_path / "deep").mkdir()
    seen = {own_code(tmp_path)}
    for name, text in (("a.py", "1"), ("a.py", "2"), ("deep/b.py", "2")):
        (tmp_path / name).write_text(text)
        seen.add(own_code(tmp_path))
    (tmp_path / "notes.md").write_text("no code")
    assert len(seen) == 4 and own_code(tmp_path) in seen


@pytest.mark.slow
def test_packed_rows_are_no_longer_than_the_model_takes_and_so_many_make_a_batch(tiny_model: Path, tmp_path: Path):
    from slimtune.engine.contestant import theirs

    lengths = [20 + 7 * n % 60 for n in range(96)]
    mean = sum(lengths) / len(lengths)

    def packed(micro_batch: int, **asked) -> Job:
        way = replace(THEIRS, collation="packed", precision="fp32", micro_batch=micro_batch)
        return a_job(tmp_path, way, model=str(tiny_model), lengths=lengths, **asked)

    long = packed(96, batch=96)
    assert theirs._row_tokens(long) == long.spec.native_context == 1024 < 96 * mean
    model, _ = theirs.load_unsloth(long, tmp_path)
    assert model.config.rope_parameters["rope_type"] == "default"
    assert model.max_seq_length == 1024
    assert theirs._row_tokens(packed(8)) == -(-8 * sum(lengths) // 96)
    assert theirs._row_tokens(packed(1)) == max(lengths)
    from datasets import Dataset
    from trl import pack_dataset

    data = Dataset.from_dict({"input_ids": [[5] * length for length in lengths]})
    for job in (long, packed(8), packed(1), packed(16)):
        rows = pack_dataset(data, theirs._row_tokens(job))
        assert sorted(length for row in rows["seq_lengths"] for length in row) == sorted(lengths), "examples were cut"
        assert theirs._passes(job, data) * len(lengths) / len(rows) == pytest.approx(job.batch, rel=0.1)


@pytest.mark.slow
def test_a_layout_that_unsloth_leaves_out_is_noticed_on_the_first_batch(tiny_model: Path, tmp_path: Path):
    """Without FlashAttention, as on a CPU, Unsloth packs nothing. TRL's own collator shows what would be right."""
    way = replace(THEIRS, collation="packed", precision="fp32", micro_batch=4)
    job = a_job(tmp_path, way, model=str(tiny_model), lengths=[20 + n % 9 for n in range(48)])
    seen = ask(Entry(way, (CHOICE,)), job, tmp_path, lambda: False, today="2026-01-02")
    assert seen.failed == (
        "Unsloth was asked for packed rows, and its first batch is 1 row of 1 example: it left the layout out"
    )
    import slimtune.engine.load  # noqa: F401, I001  Unsloth before TRL
    from datasets import Dataset
    from trl import pack_dataset
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from slimtune.engine.contestant.layout import misfit

    data = Dataset.from_dict({"input_ids": [[5] * (20 + n % 9) for n in range(48)]})
    flat, square = (DataCollatorForLanguageModeling(0, padding_free=free) for free in (True, False))
    four, packed = list(data)[:4], list(pack_dataset(data, 100))[:1]
    right = {("padding-free", "flat"): four, ("padded", "square"): four, ("packed", "flat"): packed}
    for collation in ("padding-free", "padded", "packed"):
        for name, collator in (("flat", flat), ("square", square)):
            for rows in (four, packed):
                wrong = misfit(replace(way, collation=collation), rows, collator(rows), examples=48)
                assert (wrong == "") == (right.get((collation, name)) is rows), (collation, name)
                assert misfit(replace(way, collation=OWN_CHOICE), rows, collator(rows), examples=48) == ""
    assert misfit(replace(way, collation="padded", micro_batch=64), list(data), square(list(data)), examples=48) == ""


@pytest.mark.slow
def test_a_contest_that_is_killed_goes_on_and_both_of_our_layouts_see_the_same_losses(tiny_model: Path, tmp_path: Path):
    (tmp_path / "tiny.yaml").write_text(
        f"model: {tiny_model}\ntask: {make_task(tmp_path / 'actions')}\nlora: {{r: 8, alpha: 8}}\n"
        "train: {lr: 1e-2, batch: 8}\nevaluate: {few_shot: 0}\ncontext: 512\n"
    )
    out = tmp_path / "speed"
    command = [sys.executable, "-m", "slimtune.cli", "bench", "speed", str(tmp_path / "tiny.yaml"), "--out", str(out),
               "--warm", "3", "--steps", "12", "--way", "slimtune-shared", "--way", "slimtune-padded-16bit-fp32-8",
               "--way", "unsloth-padded", "--way", OWN_CHOICE]  # fmt: skip
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
    padded = paces[SLIMTUNE, "padded", False]
    for name in ("first_loss", "last_loss", "least_grad_norm"):
        assert shared[name] == pytest.approx(padded[name], rel=1e-4)
    folders = {path.parent.name for path in out.glob("*/told.json")}
    trials = {name.removesuffix("-tried") for name in folders if name.endswith("-tried")}
    assert len(trials) == 3, "Unsloth's padded rows by eight, by four and by two"
    assert trials & folders, "nobody went on"
    kept = (out / "speed.md").read_text()
    assert "neither plain TRL" in kept and "16bit in fp32" not in kept
    assert "times as fast as Unsloth's defaults" in done.stdout and kept.startswith("# ")
    assert held["left_out"] == [] and "times as fast as the best other layout" in kept
    for told in out.glob("*/told.json"):
        told.write_text(json.dumps(json.loads(told.read_text()) | {"measured": "2020-01-02"}))
    subprocess.run(command, check=True, capture_output=True)
    assert "measured on 2020-01-02." in (out / "speed.md").read_text(), "a figure has the day it was measured"
