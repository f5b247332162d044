"""Which model to take: own cells before printed ranks, ties said to be ties, the plan always, and what is not known.
And what an answer costs."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
from study_store import Made, put_study

from slimtune.errors import UserError
from slimtune.gpus import GPUS
from slimtune.models import MODELS
from slimtune.plan.cost import (
    BreakEven,
    Request,
    Throughput,
    answers_at_once,
    break_even,
    estimate_throughput,
    serving_cost,
    usd_per_million,
)
from slimtune.sweep.advice import evidence, headline, memory, near, set_aside, unknown
from slimtune.sweep.costs import monthly, serving
from slimtune.sweep.recommend import Wish, read_params, recommend
from slimtune.tasks.kinds import KINDS

TASKS = ("banking77", "trec", "voice_banking")
OURS = Made(
    {"Qwen3-0.6B, r 64": 0.80, "SmolLM2-135M, r 64": 0.785, "SmolLM2-135M, r 8": 0.65},
    TASKS,
    rows=120,
    models={"Qwen3-0.6B, r 64": "qwen3-0.6b"},
    teacher=0.9,
)

SMALL = Made({"SmolLM2-135M, r 64": 0.8}, TASKS[:2], rows=60)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return put_study(tmp_path_factory.mktemp("sweeps") / "ours", OURS)


# cost


def test_the_published_serving_figure_comes_out_at_full_use_and_tenfold_at_a_tenth():
    assert usd_per_million(2.40, 222, utilisation=1) == pytest.approx(3.003, abs=0.001)
    assert usd_per_million(2.40, 222, utilisation=0.3) == pytest.approx(10.01, abs=0.005)
    assert usd_per_million(2.40, 222, utilisation=0.1) == pytest.approx(30.03, abs=0.005)
    for rate, used in ((0, 1), (222, 0), (222, 1.1)):
        with pytest.raises(ValueError):
            usd_per_million(2.40, rate, utilisation=used)


def test_a_slower_card_costs_more_at_both_ends_of_the_range():
    cost = serving_cost(2.40, Throughput(111, 222, "estimated", False), utilisation=1)
    assert (cost.low_usd, cost.high_usd) == (pytest.approx(3.003, abs=0.001), pytest.approx(6.006, abs=0.001))


def test_a_card_breaks_even_where_its_month_costs_what_the_service_asks():
    speed = Throughput(2, 20, "estimated", False)
    even = break_even(1.0, 0.001, speed, utilisation=0.5)
    assert even.requests == pytest.approx(730_000)
    assert even.capacity == (pytest.approx(2 * 0.5 * 730 * 3600), pytest.approx(20 * 0.5 * 730 * 3600))
    assert even.certain and even.possible
    dear = break_even(1.0, 0.0000001, speed, utilisation=0.5)
    assert not dear.certain and not dear.possible
    assert BreakEven(5e6, (1e6, 1e7)).possible and not BreakEven(5e6, (1e6, 1e7)).certain
    with pytest.raises(ValueError, match="no break-even"):
        break_even(1.0, 0, speed)


def test_an_estimate_is_a_range_that_larger_models_and_longer_answers_lower():
    h100, request = GPUS["H100"], Request(300, 50)
    small, large = (estimate_throughput(MODELS[key], h100, request) for key in ("qwen3-0.6b", "qwen3-8b"))
    longer = estimate_throughput(MODELS["qwen3-8b"], h100, Request(300, 400))
    assert small.low > large.low > longer.low and large.low < large.high and not large.measured
    assert "estimated for H100, 300 tokens in and 50 out" in large.how
    assert estimate_throughput(MODELS["qwen3-8b"], GPUS["T4"], request) is None
    assert answers_at_once(MODELS["qwen3-8b"], GPUS["T4"], 350) == 0


# which model


def names(found):
    return [one.name for one in found.ranked]


def test_without_own_cells_printed_ranks_lead_and_it_says_so():
    found = recommend(Wish(kind="classification", gpu="t4", max_params="2B", context="4k"))
    assert names(found)[:2] == ["Qwen3-1.7B", "Qwen3-0.6B"]
    assert headline(found).startswith(
        "Take Qwen3-1.7B for classification tasks on the T4; Qwen3-0.6B (49% of the price to serve, estimated) is "
        "not told apart from it by the printed intervals."
    )
    assert all(one.spec.params_total <= 2e9 and one.line.plan.longest_row_tokens == 4096 for one in found.ranked)
    said = " ".join(unknown(found))
    assert "No own cell" in said and "No hourly price of a T4" in said and "SmolLM2-1.7B-Instruct" in said
    assert "printed mean rank 4.67 \u00b11.79 (with Student's t \u00b12.11) of 15 models" in evidence(
        found.ranked[0], found
    )


def test_own_cells_on_the_very_task_come_first(store):
    found = recommend(Wish(task="banking77", gpu="rtx 4090", store=store))
    assert found.evidence.near == "asked" and found.evidence.tasks == ("banking77",)
    assert names(found)[:3] == ["Qwen3-0.6B, r 64", "SmolLM2-135M, r 64", "SmolLM2-135M, r 8"]
    assert found.ranked[3].printed and found.ranked[3].score is None
    assert not [one for one in found.ranked[3:] if one.tied], "printed ranks are not set against own cells"
    assert "this is ranked by" not in " ".join(unknown(found)) and "One seed a cell" in " ".join(unknown(found))


def test_a_tie_is_said_with_its_price_and_the_rows_that_would_part_it(store):
    found = recommend(Wish(task="banking77", gpu="rtx 4090", store=store))
    second, third = found.ranked[1:3]
    assert second.tied and second.difference.low < 0 < second.difference.high
    assert re.search(
        r"; SmolLM2-135M, r 64 \(\d+% of the price to serve, estimated\) is statistically tied with it", headline(found)
    )
    assert f"about {second.separation.more:,} more test rows would part them" in evidence(second, found)
    assert second.separation.more > 0 and not third.tied and evidence(third, found).endswith("to the first: behind")
    assert "a million requests at 30% utilisation (estimated for RTX 4090, 300 tokens in and 8 out)" in serving(second)


def test_own_cells_on_the_kind_are_next_and_other_kinds_are_last(store):
    kind = recommend(Wish(kind="classification", gpu="t4", store=store))
    assert (kind.evidence.near, kind.evidence.tasks) == ("asked", ("banking77", "trec"))
    assert kind.ranked[0].score.n == 2 * 119 and near(kind) == "own cells on banking77, trec, then by printed ranks"
    assert "this is ranked by" not in " ".join(unknown(kind)), "the kind is all that was asked for"
    other = recommend(Wish(kind="text2sql", gpu="t4", store=store))
    assert other.evidence.near == "other" and "which say less" in " ".join(unknown(other))
    own = [at for at, one in enumerate(other.ranked) if one.score]
    printed = [at for at, one in enumerate(other.ranked) if one.printed]
    assert len(own) == 3 and max(printed) < min(own), "what was measured on another kind does not outrank"
    assert headline(other).startswith("Take Qwen3-8B for text-to-SQL tasks on the T4")
    alone = recommend(Wish(kind="text2sql", gpu="t4", max_params="200M", store=store))
    assert alone.ranked[0].name == "SmolLM2-135M, r 64", "no printed rank is of one so small"
    unseen = recommend(Wish(task="ecommerce", gpu="t4", store=store))  # a classification that was not run
    assert unseen.evidence.near == "kind"
    assert (
        "No contestant that is ranked has a cell on ecommerce: this is ranked by own cells on other tasks of its kind "
        "(banking77, trec), then by printed ranks."
    ) in unknown(unseen)
    anything = recommend(Wish(gpu="t4", store=store))
    assert (anything.evidence.near, anything.about, anything.ranked[0].score.n) == ("asked", "any task", 3 * 119)


def test_who_learned_nothing_does_not_lead_and_the_reason_is_said(store, tmp_path):
    made = Made({"SmolLM2-135M, rank 2": 0.0, "SmolLM2-135M, rank 4": 0.0}, TASKS[:1], rows=9)
    found = recommend(Wish(task="banking77", gpu="t4", store=put_study(tmp_path / "idle", made)))
    assert headline(found).startswith(
        "No own contestant clearly beat its own base with 4 examples on banking77 (SmolLM2-135M, rank 2; rank 4). "
        "Take Qwen3-8B for banking77 on the T4"
    )
    last = found.ranked[-1]
    assert last.score.n == 8 and not last.learned and last.gain.low < 0 <= last.gain.high and not last.tied
    assert evidence(last, found).endswith("own base with 4 examples: no clear gain from tuning")
    assert set_aside(found) == ("Ranked last (no clear gain from tuning): SmolLM2-135M, rank 2; rank 4.",)
    small = recommend(Wish(task="banking77", gpu="t4", max_params="200M", store=tmp_path / "idle"))
    assert "Take" not in headline(small) and "Nothing speaks for another" in headline(small)
    some = replace(made, contestants={**made.contestants, "SmolLM2-135M, rank 8": 0.9}, rows=60)
    found = recommend(Wish(task="banking77", gpu="t4", store=put_study(tmp_path / "some", some)))
    assert headline(found).startswith("Take SmolLM2-135M, rank 8 for banking77")
    assert [one.learned for one in found.ranked if one.score] == [True, False, False] and found.ranked[1].printed


def one_task(contestants, **special):
    return Made(contestants, TASKS[:1], rows=120, **special)


def test_tuning_is_set_against_examples_in_the_prompt_where_they_do_better_than_none(tmp_path):
    made = one_task({"SmolLM2-135M, r 8": 0.3, "SmolLM2-135M, r 64": 0.31})
    found = recommend(Wish(task="banking77", gpu="t4", max_params="1B", store=put_study(tmp_path / "s", made)))
    own = [one for one in found.ranked if one.score]
    pools = [found.evidence.untuned[one.name].answers.value for one in own]
    assert [one.untuned for one in own] == 2 * ["its own base with 4 examples"]
    assert all(one.score.value > 0.25 and abs(one.gain.value) < 0.1 and not one.learned for one in own)
    assert pools == pytest.approx([0.3, 0.3], abs=0.05), "zero-shot has 0.1"
    assert "SmolLM2" not in headline(found).partition("Take ")[2] and names(found)[0] == "Qwen3-0.6B"


def test_a_prompt_is_open_to_every_contestant_of_its_model(tmp_path):
    made = one_task({"SmolLM2-135M, r 8": 1.0, "SmolLM2-135M, fifty rows": 0.42, "Qwen3-0.6B, fifty rows": 0.5})
    made = replace(made, models={"Qwen3-0.6B, fifty rows": "qwen3-0.6b"})
    found = recommend(Wish(task="banking77", gpu="t4", store=put_study(tmp_path / "s", made)))
    own = {one.name: one for one in found.ranked if one.score}
    few, other = own["SmolLM2-135M, fifty rows"], own["Qwen3-0.6B, fifty rows"]
    assert few.gain.high < 0 and evidence(few, found).endswith(
        "its own base with 4 examples: worse than without tuning"
    )
    assert other.gain.value > 0, "another model's prompt is not its own"


def test_where_no_example_helps_the_base_alone_is_what_is_to_be_beaten(tmp_path):
    where = put_study(tmp_path / "s", one_task({"SmolLM2-135M, r 8": 0.9}))
    for folder in where.glob("cells/*/attempts/*/few_shot"):
        write_scores(folder, 0.0)
    (own,) = (one for one in recommend(Wish(task="banking77", gpu="t4", store=where)).ranked if one.score)
    assert own.untuned == "its own base" and own.learned


def write_scores(folder, score):
    rows = pandas.read_parquet(folder / "examples.parquet")
    rows.assign(score=score).to_parquet(folder / "examples.parquet", index=False)


def test_every_reason_why_an_own_contestant_is_not_ranked_is_its_own(tmp_path):
    contestants = {"Gone, r 8": 0.8, "Qwen3-32B, r 8": 0.9, "Qwen3-1.7B, r 8": 0.85, "SmolLM2-135M, r 8": 0.7}
    models = {"Gone, r 8": "/somewhere/else", "Qwen3-32B, r 8": "qwen3-32b", "Qwen3-1.7B, r 8": "qwen3-1.7b"}
    lacking = {("Qwen3-1.7B, r 8", "trec", 0): "failed"}
    made = Made(contestants, TASKS[:2], rows=60, models=models, states=lacking)
    found = recommend(Wish(kind="classification", gpu="t4", store=put_study(tmp_path / "s", made)))
    assert set_aside(found) == (
        "Not ranked (the model is not listed, so whether it fits is not known): Gone, r 8.",
        "Not ranked (does not train as asked: needs 23 GiB): Qwen3-32B, r 8.",
        "Not ranked (no score on trec): Qwen3-1.7B, r 8.",
    )
    gone = replace(made, contestants={"Gone, r 8": 0.8})
    found = recommend(Wish(kind="classification", gpu="t4", store=put_study(tmp_path / "gone", gone)))
    assert "No own cell to go by: no own contestant can be ranked." in unknown(found)[0]
    assert len(set_aside(found)) == 1 and "lack" not in " ".join((*set_aside(found), *unknown(found)))


def test_models_that_were_not_tried_are_said_to_be_maybe_better(store, tmp_path):
    found = recommend(Wish(task="banking77", gpu="t4", max_params="2B", store=store))
    assert headline(found).endswith(
        " Not tried on this task, and maybe better: Qwen3-1.7B, the best placed of them by printed ranks, and 1 more "
        "that fit."
    )
    small = recommend(Wish(task="banking77", gpu="t4", max_params="1B", store=store))
    assert "Not tried" not in headline(small), "the one with a printed rank was tried"
    found = recommend(Wish(kind="classification", gpu="t4", max_params="1B", store=put_study(tmp_path / "s", SMALL)))
    assert headline(found).endswith(
        " Not tried on these tasks, and maybe better: Qwen3-0.6B, which fits and has a printed rank."
    )
    assert "Not tried" not in headline(recommend(Wish(kind="qa", gpu="t4"))), "nothing own leads"


def test_a_model_that_did_not_gain_here_is_not_taken_for_its_printed_rank(tmp_path):
    made = one_task({"Qwen3-8B, r 8": 0.2}, models={"Qwen3-8B, r 8": "qwen3-8b"})
    found = recommend(Wish(task="banking77", gpu="t4", store=put_study(tmp_path / "s", made)))
    assert headline(found).count("Qwen3-8B") == 1 and "Take Qwen3-4B-Instruct-2507" in headline(found)
    assert names(found)[-1] == "Qwen3-8B, r 8" and "Qwen3-8B" not in names(found)


def test_what_all_that_are_tied_begin_with_is_said_once(tmp_path):
    made = put_study(tmp_path / "s", one_task({"SmolLM2-135M, r 8": 0.9, "SmolLM2-135M, r 64": 0.91}))
    said = headline(recommend(Wish(task="banking77", gpu="l4", store=made)))
    assert re.match(r"Take SmolLM2-135M, r \d+ for banking77 on the L4; r \d+ \(as dear to serve\) is statistic", said)
    assert said.count("SmolLM2-135M") == 1


def test_what_was_measured_without_a_server_is_set_beside_no_estimate(store):
    priced = Wish(task="trec", gpu="t4", max_params="2B", store=store, usd_per_hour=0.5)
    found = recommend(priced)
    mixed = [one.speed.measured for one in found.ranked]
    assert set(mixed) == {True, False} and "two kinds, which do not compare" in " ".join(unknown(found))
    assert "in plain generation, not by a server" in monthly(found, 1000, None)[0]
    smol = [serving(one) for one in found.ranked if one.spec.key == "smollm2-135m-instruct" and one.score]
    assert len(smol) == 2 and len(set(smol)) == 1, "however it was trained, it is the same to serve"
    other = replace(found, ranked=tuple(replace(one, tied=one is not found.ranked[0]) for one in found.ranked))
    assert "to serve, measured without a server)" in headline(other)
    assert "Qwen3-1.7B and 1 more are" in headline(other), "an estimate is set beside nothing measured"


def test_a_service_for_nothing_is_a_price_too(store):
    found = recommend(Wish(task="banking77", gpu="rtx 4090", store=store))
    assert monthly(found, 5_000_000, 0.0)[1] == "A service that costs nothing: no card beats it."
    options = ("--task", "banking77", "--gpu", "rtx 4090", "--store", str(store), "--per-month", "5000000")
    command = [sys.executable, "-m", "slimtune.cli", "recommend", *options, "--api-usd-per-m", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"COLUMNS": "200"})
    assert "A service that costs nothing" in done.stdout, done.stderr


def test_kinds_of_task_have_words(store):
    abouts = [recommend(Wish(kind=kind, gpu="t4", max_params="150M")).about for kind in KINDS]
    assert "tool-calling tasks" in abouts and not [about for about in abouts if "_" in about or not about[0].islower()]


def test_a_model_that_is_refused_for_its_window_is_told_so_and_not_for_memory():
    far = recommend(Wish(kind="qa", gpu="t4", context="64k"))
    unfit = {one.name: one for one in far.unfit}
    assert "Qwen3-1.7B is made for rows of up to 32k tokens" in headline(far)
    assert memory(unfit["Qwen3-1.7B"], far) == (
        "made for rows of up to 32k tokens; stretched by YaRN, rows of up to 78k train on this card"
    )
    assert memory(unfit["LFM2-1.2B"], far) == "made for rows of up to 32k tokens; all of them train on this card"
    assert "no row trains" in memory(unfit["Qwen3-32B"], far)
    near_by = recommend(Wish(kind="qa", gpu="t4", context="40k"))
    assert "Qwen3-8B is made for rows of up to 32k tokens" in headline(near_by)
    for found in (far, near_by, recommend(Wish(kind="qa", gpu="t4", context="16k"))):
        for one in found.unfit:
            fits_alone = one.line.longest_context >= found.context_tokens
            assert not fits_alone or one.spec.native_context < found.context_tokens, one.name


def test_what_was_measured_on_the_card_is_used_and_what_was_not_is_estimated(store):
    ranked = recommend(Wish(task="trec", gpu="t4", store=store)).ranked
    (here,) = (one for one in ranked if one.name == "Qwen3-0.6B, r 64")
    assert here.speed.measured and here.speed.low == pytest.approx(1 / (0.02 + 0.1 * 0.8))
    assert "measured on T4 in plain generation, not by a server, which answers more" in serving(here)
    there = recommend(Wish(task="trec", gpu="l4", store=store)).ranked[0]
    assert not there.speed.measured and there.serving.low_usd < there.serving.high_usd


def test_what_does_not_fit_says_up_to_which_context_it_would():
    found = recommend(Wish(kind="qa", gpu="t4", context="64k"))
    unfit = {one.name: one for one in found.unfit}
    assert "Qwen3-8B" in unfit and "Qwen3-8B" not in names(found)
    assert "Llama-3.1-8B-Instruct fits only up to 43k tokens" in headline(found)
    assert memory(unfit["Llama-3.1-8B-Instruct"], found).endswith("alone, a row of up to 43k tokens trains")
    assert "longest row" in memory(found.ranked[0], found)


def test_rates_are_written_out():
    from slimtune.sweep.costs import _range

    assert [_range(310.4, 1900.2), _range(2.71, 16.4), _range(9.87, 9.87)] == ["310 to 1,900", "2.7 to 16", "9.9"]


def test_models_over_the_size_that_is_asked_for_are_not_named(store):
    found = recommend(Wish(task="trec", gpu="t4", max_params="200M", store=store))
    assert "Qwen3-0.6B, r 64" not in names(found) and names(found)[0] == "SmolLM2-135M, r 64"
    assert set_aside(found) == ("Not ranked (larger than what was asked for): Qwen3-0.6B, r 64.",)


def test_a_model_may_be_named_by_its_repository_and_one_that_is_not_listed_is_left_out(tmp_path):
    models = {"Qwen3-0.6B, r 64": "Qwen/Qwen3-0.6B", "SmolLM2-135M, r 8": "somebody/own-model"}
    made = put_study(tmp_path / "named", replace(OURS, tasks=TASKS[:1], models=models))
    found = recommend(Wish(task="banking77", gpu="t4", store=made))
    assert names(found)[:2] == ["Qwen3-0.6B, r 64", "SmolLM2-135M, r 64"] and found.ranked[0].spec.key == "qwen3-0.6b"
    assert set_aside(found) == (
        "Not ranked (the model is not listed, so whether it fits is not known): SmolLM2-135M, r 8.",
    )


def test_a_month_is_priced_and_set_against_what_the_teacher_cost(store):
    found = recommend(Wish(task="banking77", gpu="rtx 4090", store=store))
    assert found.usd_a_request == pytest.approx(0.0002)
    own, service = monthly(found, 5_000_000, found.usd_a_request)
    assert "1 card around the clock, $248.20 at $0.34 an hour" in own
    speed, busy = found.ranked[0].speed, re.search(r", each busy ([\d.]+) to ([\d.]+)% of the time\.", own)
    shares = [100 * 5_000_000 / (rate * 730 * 3600) for rate in (speed.high, speed.low)]
    assert [*map(float, busy.groups())] == pytest.approx(shares, rel=0.05)
    assert "A service at $200.00 a million: $1,000.00. One card beats it from 1,241,000 requests a month on" in service
    assert "no own cell tells what one costs" in monthly(found, 5_000_000, None)[1]


def test_lengths_of_requests_are_measured_or_guessed_from_the_tasks_own_rows_or_assumed(store):
    (own,) = [line for line in unknown(recommend(Wish(task="mental_health", gpu="l4"))) if "requests are" in line]
    found = re.search(r"are: (\d+) tokens in and (\d+) out are guessed from mental_health's test rows\.", own)
    assert 150 < int(found[1]) < 210 and 1 < int(found[2]) < 10
    (other,) = [line for line in unknown(recommend(Wish(kind="qa", gpu="l4"))) if "requests are" in line]
    assert "500 tokens in and 50 out are assumed." in other
    measured = recommend(Wish(task="banking77", gpu="l4", store=store))
    assert measured.request_from == "" and not [line for line in unknown(measured) if "requests are" in line]


def test_several_cards_are_each_busy_for_less_to_more_of_the_time(store):
    found = recommend(Wish(task="banking77", gpu="rtx 4090", store=store))
    for requests in (10**9, 10**10, 37 * 10**8):
        low, high = re.search(
            r"each busy ([\d.]+) to ([\d.]+)% of the time", monthly(found, requests, None)[0]
        ).groups()
        assert 0 < float(low) <= float(high) <= 31


def test_a_month_without_a_cost_says_what_is_lacking_and_a_price_can_be_given():
    (lacking,) = monthly(recommend(Wish(kind="qa", gpu="t4")), 1000, 0.001)
    assert "no hourly price of a T4 is known here (give --usd-per-hour) and Qwen3-8B has no throughput" in lacking
    priced = recommend(Wish(kind="qa", gpu="t4", usd_per_hour=0.5))
    assert (
        priced.ranked[0].speed is None and "month with Qwen3-4B-Instruct-2507, the first of" in monthly(priced, 9, 1)[0]
    )
    (lacking,) = monthly(replace(priced, ranked=priced.ranked[:1]), 1000, 0.001)
    assert "price" not in lacking and "16-bit weights leave no room to serve on a T4" in lacking
    small = Wish(kind="qa", gpu="t4", max_params="2B")
    (lacking,) = monthly(recommend(small), 1000, 0.001)
    assert lacking.endswith("not known: no hourly price of a T4 is known here (give --usd-per-hour).")
    given = recommend(replace(small, usd_per_hour=0.5))
    assert "at $0.50 an hour" in monthly(given, 1000, 0.001)[0] and "a million requests" in serving(given.ranked[0])
    assert "$0.50 an hour for the card is what was given." in unknown(given)
    for price in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="--usd-per-hour has to be"):
            recommend(replace(small, usd_per_hour=price))


def test_ties_are_said_once_and_who_can_be_served_where_the_first_cannot():
    assert headline(recommend(Wish(kind="qa", gpu="t4"))) == (
        "Take Qwen3-8B for question-answering tasks on the T4; its 16-bit weights leave no room to serve it there; "
        "Qwen3-4B-Instruct-2507 (which can be served there), Llama-3.2-3B-Instruct, Llama-3.1-8B-Instruct and 2 more "
        "are not told apart from it by the printed intervals."
    )


def test_the_same_question_has_the_same_answer(store):
    wish = Wish(task="banking77", gpu="rtx 4090", store=store)
    assert recommend(wish) == recommend(wish)


def test_seeds_are_told_and_widen_a_difference(tmp_path):
    made = put_study(tmp_path / "seeds", replace(OURS, tasks=TASKS[:1], seeds=(0, 1, 2)))
    found = recommend(Wish(task="banking77", gpu="t4", store=made))
    assert "3 seeds" in evidence(found.ranked[0], found)
    assert "seed noise added" in found.ranked[1].difference.method


# mistakes


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Wish(kind="clasification", gpu="t4"), "Did you mean 'classification'"),
        (Wish(task="banking7", gpu="t4"), "There is no task named"),
        (Wish(kind="qa", gpu="t44"), "There is no GPU named"),
        (Wish(kind="qa", task="trec", gpu="t4"), "not both"),
        (Wish(kind="qa", gpu="t4", max_params="big"), "is not a size of a model"),
        (Wish(kind="qa", gpu="t4", max_params="1M"), "No model that can be trained"),
        (Wish(kind="qa", gpu="t4", context="long"), "is not a number of tokens"),
    ],
)
def test_a_wish_that_cannot_be_met_is_a_sentence(wish, said):
    with pytest.raises(UserError, match=re.escape(said)):
        recommend(wish)


def test_sizes_are_read_as_people_write_them():
    assert [read_params(text) for text in ("2B", "1.7b", "500M", "1000")] == [2 * 10**9, 17 * 10**8, 5 * 10**8, 1000]


def test_the_verb_answers_in_the_terminal_without_torch(store):
    options = ("--task", "banking77", "--gpu", "rtx 4090", "--store", str(store), "--per-month", "5000000")
    code = (
        "import sys; from slimtune.cli import app; app(sys.argv[1:], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "recommend", *options],
        capture_output=True, text=True, timeout=120, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words in ("Take Qwen3-0.6B, r 64 for banking77", "Ranked by own cells on banking77", "A month", "Not known"):
        assert words in done.stdout


def test_what_the_readme_shows_of_it_is_what_it_prints():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"<!-- recommend -->\n```\n\$ slimtune (.*?)\n(.*?)```", readme, re.DOTALL)
    command = [sys.executable, "-m", "slimtune.cli", *shown[0].split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"COLUMNS": "100"})
    printed = [line.rstrip() for line in done.stdout.splitlines()]
    lines = [line for line in shown[1].splitlines() if line not in ("", "...")]
    left = iter(printed)  # each after the one before: the same words may stand at several models
    assert len(lines) > 10 and [line for line in lines if line not in left] == []
