"""The plan: its arithmetic against measured peaks, its choices, its refusals."""

import dataclasses
import json
import math
import re
from typing import Any

import pytest

from slimtune.check import plan_of, ready
from slimtune.data import Example, Message
from slimtune.engine.schedule import count_steps, row_order
from slimtune.errors import CannotWrite, UserError
from slimtune.gpus import DetectedGpu, get_gpu
from slimtune.lengths import count_tokens, guess_tokens
from slimtune.models import get_model
from slimtune.plan import (
    Setting,
    Together,
    high_gib,
    make_plan,
    pacing,
    parts_gib,
    possible_layouts,
    refuse_full_disk,
)
from slimtune.plan.calibration import CONSTANTS, errors_held_out, fit, read_table
from slimtune.plan.fastest import candidates
from slimtune.plan.planner import powers_of_two_dividing
from slimtune.plan.speed import is_replayed, paces_here
from slimtune.recipe import check_recipe
from slimtune.strict_yaml import Document
from slimtune.tasks import list_tasks

QWEN3_4B = get_model("qwen3-4b")
# SmolLM2-135M, fp32, two cores: checkpointing, rows, their tokens, those of the answer, peak of resident memory in GiB
CPU_MEASURED = [
    *((True, 2, 128, 8, 1.46), (True, 8, 128, 16, 2.11), (True, 8, 128, 128, 2.50), (True, 4, 512, 16, 3.38)),
    *((True, 4, 512, 512, 4.22), (False, 2, 128, 8, 1.68), (False, 8, 128, 16, 3.34), (False, 8, 128, 128, 3.89)),
    *((False, 4, 512, 16, 5.60), (False, 4, 512, 512, 6.62)),
]


def on_gpu(weights, precision, checkpointing, micro, row, r) -> Setting:
    return Setting(weights, precision, checkpointing, micro, row, r, cuda=True)


def test_the_constants_are_those_the_table_gives():
    fitted = dataclasses.asdict(fit(read_table())) | {"held_out": errors_held_out(read_table())}
    written = json.loads(CONSTANTS.read_text())
    assert written["held_out"] == fitted["held_out"] and written["scale"] == fitted["scale"]
    assert list(fitted["recomputed"]) == pytest.approx(written["recomputed"], abs=0.01)


def test_peaks_that_were_not_used_in_fitting_are_predicted():
    rows = [row for row in read_table() if row.use == "test"]
    assert len(rows) >= 35 and len({row.spec.family for row in rows}) >= 6
    assert {f"{row.spec.key} {row.setting}": row.error for row in rows if abs(row.error) > 0.05} == {}


def test_no_measured_peak_is_above_the_band():
    above = [row for row in read_table() if high_gib(row.spec, row.setting) < row.reserved_gib]
    assert above == []


def test_the_paces_are_those_the_table_gives():
    timed = pacing.read_timed()
    fitted, used = pacing.fit(timed), paces_here()
    for row in timed:
        assert row.predicted_s(fitted) == pytest.approx(row.predicted_s(used), rel=0.02)


def test_steps_that_were_not_used_in_fitting_are_predicted():
    shares = pacing.errors_held_out(pacing.read_timed())
    assert len(shares) >= 14 and all(0.7 < share < 1.35 for share in shares)
    contests = [row for row in pacing.read_timed() if row.use == "test" and row.setting.row_tokens == 631]
    assert len(contests) >= 10 and all(abs(row.predicted_s() / row.step_s - 1) < 0.1 for row in contests)


@pytest.mark.parametrize("gpu", ["T4", "RTX 4090", "H200"])
@pytest.mark.parametrize("model", ["smollm2-135m-instruct", "qwen3-4b"])
def test_nothing_that_fits_is_predicted_to_be_much_faster_than_what_is_chosen(model, gpu):
    plan = plan_for(model, gpu, batch=64, longest_row_tokens=700, row_tokens_mean=630, prefix_tokens=600, lora_r=64)
    assert plan.collation == "shared-prefix" and plan.alternatives
    assert all(other.share <= 1 / 0.97 for other in plan.alternatives if other.fits)
    assert all(other.high_gib <= plan.room_gib for other in plan.alternatives if other.fits)
    padded = next(other for other in plan.alternatives if other.how == "padded rows")
    assert all(other.how not in other.along for other in plan.alternatives)
    assert padded.share < 0.5


def test_one_row_at_a_time_is_no_rows():
    plan = plan_for("qwen3-4b", "H200", batch=2, collation="padded")
    assert plan.micro_batch == 2 and "1 row at a time" in {other.how for other in plan.alternatives}


def test_room_is_kept_for_captured_steps():
    """They take 84 MiB and more beside what torch reserves (BENCHMARKS.md)."""
    smallest = dataclasses.replace(on_gpu("16bit", "bf16", False, 1, 640, 64), prefix_tokens=600)
    found = candidates(
        get_model("qwen3-1.7b"), smallest, get_gpu("L4"), layouts=["shared-prefix", "padded"], weights=["16bit"],
        sizes=[8], together=None, row_tokens=630.0, batch=8, room_gib=22.0,
    )  # fmt: skip
    replayed = [one for one in found if is_replayed(get_model("qwen3-1.7b"), one.setting)]
    assert len(found) > 4 and len(replayed) == 1
    for one in found:
        assert one.fits(one.high_gib + 0.2) and one.fits(one.high_gib + 0.05) == (one not in replayed)


def test_rows_that_are_known_are_planned_by_what_is_computed_together_and_not_all_by_the_longest():
    shared = {"prefix_tokens": 600, "longest_row_tokens": 1000, "batch": 64, "collation": "shared-prefix"}
    longest = plan_for("smollm2-135m-instruct", "H200", **shared)
    together = Together((600, 400 + 63 * 20), (600, 64 * 22))
    known = plan_for("smollm2-135m-instruct", "H200", together=lambda size: together, **shared)
    assert known.together.largest == (600, 1660) and known.micro_batch == 64
    assert known.setting.tokens < longest.setting.tokens / 4
    assert known.peak_gib["expected"] < longest.peak_gib["expected"]


@pytest.mark.parametrize(("again", "micro", "row", "answer", "measured"), CPU_MEASURED)
def test_the_peak_on_a_cpu_is_near_the_measured_one(again, micro, row, answer, measured):
    setting = Setting("16bit", "fp32", again, micro, row, 16, cuda=False, answer_tokens=answer)
    assert sum(parts_gib(get_model("smollm2-135m-instruct"), setting).values()) == pytest.approx(measured, rel=0.07)


@pytest.mark.parametrize(("micro", "row", "prefix", "measured"), [(32, 192, 132, 6.13), (8, 600, 560, 3.26)])
def test_a_prefix_that_is_computed_once_takes_its_tokens_once(micro, row, prefix, measured):
    shared = Setting("16bit", "fp32", False, micro, row, 16, cuda=False, answer_tokens=8, prefix_tokens=prefix)
    assert shared.tokens == prefix + micro * (row - prefix)
    spec = get_model("smollm2-135m-instruct")
    assert sum(parts_gib(spec, shared).values()) == pytest.approx(measured, rel=0.07)
    assert sum(parts_gib(spec, dataclasses.replace(shared, prefix_tokens=0)).values()) > 1.9 * measured


def test_only_answers_have_logits():
    gemma = get_model("gemma-3-1b-it")
    long = Setting("16bit", "bf16", True, 2, 4096, 16, cuda=True)
    every, some = (parts_gib(gemma, dataclasses.replace(long, answer_tokens=count)) for count in (None, 64))
    assert every["loss"] > 10 and "loss" not in some
    assert some | {"loss": 0.0} == every | {"loss": 0.0}


def test_the_experts_of_a_mixture_count_in_4_bit_where_they_are_quantised():
    mixture, setting = get_model("qwen3-30b-a3b"), Setting("4bit", "bf16", True, 1, 1024, 16, cuda=True)
    whole, quantised = (
        parts_gib(mixture, one)["experts"] for one in (dataclasses.replace(setting, quantisation="16bit"), setting)
    )
    assert quantised == pytest.approx(28.99e9 * 0.516 / 2**30, rel=0.01) and whole == pytest.approx(54, abs=0.1)


def test_what_ran_out_of_memory_is_predicted_not_to_fit():
    longer = on_gpu("4bit", "fp16", True, 1, 40960, 32)
    assert sum(parts_gib(get_model("llama-3.1-8b-instruct"), longer).values()) > 14.56


def test_what_a_dynamic_repository_leaves_in_16_bit_is_counted():
    quantised = on_gpu("4bit", "fp16", True, 1, 512, 8)
    some = dataclasses.replace(quantised, unquantised=1_000_000_000)
    none = dataclasses.replace(quantised, unquantised=0)
    weights = [parts_gib(QWEN3_4B, setting)["weights"] for setting in (none, quantised, some)]
    assert weights[0] < weights[1] < weights[2]
    assert (weights[2] - weights[0]) * 2**30 == pytest.approx(1e9 * (2 - 0.5 - 1 / 64 - 1 / 4096), rel=1e-6)


def plan_for(model, gpu, **changes):
    asked = {"lora_r": 16, "context_tokens": 2048, "batch": 16, "rows": 1000, "epochs": 1} | changes
    return make_plan(get_model(model), gpu=gpu and get_gpu(gpu), ram_gib=16.0, **asked)


def test_a_small_model_is_spared_the_settings_of_a_big_one():
    plan = plan_for("smollm2-135m-instruct", "H100")
    assert (plan.quantisation, plan.checkpointing, plan.micro_batch, plan.precision) == ("16bit", False, 16, "bf16")


def test_a_big_model_on_a_t4_gets_4_bit_checkpointing_and_fp16():
    plan = plan_for("llama-3.1-8b-instruct", "T4")
    assert (plan.quantisation, plan.checkpointing, plan.precision) == ("4bit", True, "fp16")
    assert plan.peak_gib["high"] <= plan.room_gib == 14.16
    notes = " ".join(plan.notes)
    assert "no bf16" in notes and "16-bit weights do not fit" in notes and "Gradient checkpointing" in notes


def test_rows_in_frames_are_planned_as_such_with_or_without_a_prefix():
    shared = {"collation": "shared-prefix", "longest_row_tokens": 631, "batch": 64}
    alike, apart = (plan_for("smollm2-135m-instruct", "H200", prefix_tokens=tokens, **shared) for tokens in (600, 0))
    assert alike.setting.framed and apart.setting.framed
    assert alike.setting.tokens == 640 + 2048 and apart.setting.tokens >= apart.micro_batch * 631 > 0
    padded = plan_for("smollm2-135m-instruct", "H200", longest_row_tokens=631, batch=64, collation="padded")
    assert not padded.setting.framed
    # measured: 2.81 GiB reserved, the 64 longest of 2,000 rows of Banking77, rank 64
    near = Setting("16bit", "bf16", False, 64, 689, 64, cuda=True, answer_tokens=12, prefix_tokens=604,
                   together=Together((604, 3917), (604, 1900)), framed=True, optimizer="adamw")  # fmt: skip
    assert sum(parts_gib(get_model("smollm2-135m-instruct"), near).values()) == pytest.approx(2.81, rel=0.05)


def test_on_a_card_without_flash_attention_frames_take_the_room_of_another_kernel():
    """Its gradients of queries have room for the longest in every sequence: one long row of 64 makes it large."""
    spec, even = get_model("smollm2-135m-instruct"), on_gpu("16bit", "bf16", False, 64, 640, 64)
    even = dataclasses.replace(even, prefix_tokens=600, together=Together((600, 64 * 40), (600, 64 * 40)), framed=True)
    uneven = dataclasses.replace(even, row_tokens=2600)

    def more(setting):
        parts = [
            parts_gib(spec, dataclasses.replace(setting, precision=one))["activations"] for one in ("fp16", "bf16")
        ]
        return (parts[0] - parts[1]) * 2**30 / (4 * 9 * 64)  # bytes of a number, heads, width

    assert more(even) == pytest.approx(65 * 128 + 2560) and more(uneven) == pytest.approx(65 * 2048 + 2560)
    assert more(dataclasses.replace(even, framed=False)) == 0
    alone = dataclasses.replace(even, micro_batch=1, together=None)
    assert more(alone) == pytest.approx(2 * 640 + 128)


def test_a_window_keeps_rows_padded_on_a_card(tmp_path):
    config = json.loads(get_model("llama-3.2-1b-instruct").config_file.read_text())
    for name, window in (("plain", None), ("windowed", 512)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "mistral", "sliding_window": window}))
        found = possible_layouts(get_model(str(folder)), asked="auto", precision="bf16", cuda=True)
        assert found == (("padded",) if window else ("shared-prefix", "padded"))


@pytest.mark.parametrize("key", ["gemma-3-270m-it", "gemma-3-4b-it", "granite-3.3-2b-instruct", "lfm2-350m"])
def test_families_without_layers_of_unsloths_own_share_prefixes_on_cards_with_bf16(key: str) -> None:
    rows = {"prefix_tokens": 570, "longest_row_tokens": 600}
    rich, poor = (plan_for(key, card, **rows) for card in ("H200", "T4"))
    assert rich.precision == "bf16" and rich.setting.framed and rich.setting.prefix_tokens == 570
    assert (poor.collation, poor.setting.framed) == ("padded", False)
    with pytest.raises(UserError, match=r"not proven for .* on a GPU in fp"):
        plan_for(key, "T4", collation="shared-prefix", **rows)


def test_a_mixture_shares_prefixes_but_its_steps_are_started_by_python():
    spec, rows = get_model("qwen3-30b-a3b"), {"prefix_tokens": 570, "longest_row_tokens": 600}
    setting = plan_for("qwen3-30b-a3b", "H200", **rows).setting
    assert setting.framed and not is_replayed(spec, dataclasses.replace(setting, checkpointing=False))


def test_adam_keeps_its_moments_in_8_bits_only_where_32_do_not_fit():
    rich = plan_for("qwen3-14b", "H100", lora_r=64)
    poor = plan_for("qwen3-14b", "T4", lora_r=96, batch=1)
    assert (rich.optimizer, poor.optimizer) == ("adamw", "adamw_8bit")
    assert rich.parts_gib["optimizer"] == pytest.approx(2 * rich.parts_gib["LoRA weights"], abs=0.002)
    assert poor.parts_gib["optimizer"] == pytest.approx(poor.parts_gib["LoRA weights"] / 2, abs=0.002)
    whole = sum(poor.parts_gib.values()) + 3 * poor.parts_gib["optimizer"]
    assert 1.1 * whole > poor.room_gib >= poor.peak_gib["high"]
    assert any("8-bit Adam" in note for note in poor.notes) and not any("8-bit Adam" in note for note in rich.notes)
    assert poor.setting.optimizer == "adamw_8bit"


def test_on_the_cpu_everything_is_fp32_and_nothing_is_quantised():
    plan = plan_for("smollm2-135m-embedded", None, context_tokens=512, quantisation="4bit")
    assert (plan.gpu, plan.precision, plan.quantisation, plan.optimizer) == (None, "fp32", "16bit", "adamw")
    assert not plan.checkpointing
    assert any("4-bit weights are for GPUs" in note for note in plan.notes)
    assert any("4-bit GGUF" in note for note in plan.notes)


def test_a_family_that_overflows_in_fp16_trains_in_fp32_where_there_is_no_bf16():
    spec = get_model("qwen3-0.6b")
    fragile = dataclasses.replace(spec, traits=dataclasses.replace(spec.traits, fp16_ok=False))
    asked = {"lora_r": 8, "context_tokens": 512, "batch": 4, "rows": 10, "epochs": 1}
    assert make_plan(fragile, gpu=get_gpu("T4"), **asked).precision == "fp32"
    assert make_plan(fragile, gpu=get_gpu("L4"), **asked).precision == "bf16"
    asked |= {"gpu": get_gpu("T4"), "micro_batch": 4, "quantisation": "4bit"}
    half, single = make_plan(spec, **asked), make_plan(fragile, **asked)
    assert 1.2 < single.parts_gib["activations"] / half.parts_gib["activations"] < 2


def test_what_the_recipe_pins_is_kept():
    plan = plan_for("smollm2-135m-instruct", "H100", micro_batch=2, quantisation="4bit")
    assert (plan.micro_batch, plan.accumulation, plan.quantisation) == (2, 8, "4bit")


def test_a_micro_batch_that_does_not_divide_the_batch_is_refused():
    with pytest.raises(UserError, match=r"micro_batch is 3.*batch \(16\)"):
        plan_for("qwen3-4b", "T4", micro_batch=3)


def test_the_effective_batch_is_kept_whatever_fits():
    for model in ("smollm2-135m-instruct", "qwen3-8b"):
        for gpu in ("T4", "RTX 4090", "H100"):
            for batch in (1, 6, 32):
                plan = plan_for(model, gpu, batch=batch)
                assert plan.micro_batch * plan.accumulation == batch
                assert plan.steps == -(-1000 // batch)


def test_short_rows_count_as_what_they_are_and_not_as_the_whole_context():
    whole = plan_for("qwen3-8b", "T4", context_tokens=8192, micro_batch=1)
    lengths = {"longest_row_tokens": 300, "row_tokens_mean": 200.0}
    short = plan_for("qwen3-8b", "T4", context_tokens=8192, micro_batch=1, **lengths)
    assert whole.checkpointing and not short.checkpointing
    assert short.train_tokens == 200_000 and whole.train_tokens is None


def test_rows_longer_than_the_context_are_cut_to_it():
    assert plan_for("qwen3-4b", "T4", context_tokens=1024, longest_row_tokens=9000).longest_row_tokens == 1024


def test_a_busy_card_is_planned_by_what_is_free():
    idle = DetectedGpu("Tesla T4", 14.56, free_gib=14.56, capability=(7, 5), driver="580.1")
    busy = dataclasses.replace(idle, free_gib=7.0)
    asked = {"lora_r": 16, "context_tokens": 1024, "batch": 8, "rows": 100, "epochs": 1}
    assert make_plan(get_model("qwen3-4b"), gpu=idle, **asked).quantisation == "16bit"
    assert make_plan(get_model("qwen3-4b"), gpu=busy, **asked).quantisation == "4bit"


def refused(key: str, gpu: str | None, **asked: Any) -> str:
    with pytest.raises(UserError) as refusal:
        plan_for(key, gpu, **asked)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("key", "gpu", "asked"),
    [
        ("qwen3-8b", "RTX 4070", {"context_tokens": 32768, "lora_r": 64, "quantisation": "16bit"}),
        ("qwen3-8b", "T4", {"context_tokens": 46080, "lora_r": 64, "batch": 64}),
        ("gemma-3-4b-it", "T4", {"context_tokens": 47104, "lora_r": 64, "longest_answer_tokens": 5888}),
        ("qwen3-4b", "T4", {"context_tokens": 65536, "lora_r": 64, "quantisation": "16bit", "collation": "padded"}),
        ("qwen3-4b", "T4", {"context_tokens": 32768, "micro_batch": 64, "batch": 64}),
    ],
)
def test_what_cannot_fit_is_refused_with_what_it_needs_and_with_what_makes_it_fit(key, gpu, asked):
    message = refused(key, gpu, **asked)
    assert re.search(rf"does not fit: it needs up to [\d.]+ GiB.*, and {gpu} has [\d.]+ GiB to fill", message)
    room, *helps = re.findall(r"[\d.]+(?= GiB(?: to fill|[;.]))", message)
    knobs = message.partition("What would help: ")[2].split("; ")[:-1]
    assert len(helps) == len(knobs) > 0
    for knob, needs in zip(knobs, helps, strict=True):
        assert float(needs) <= float(room)
        changed = {_KNOBS[name]: value for name, value in re.findall(r"([\w.]+) (\w+)(?= and|:)", knob)}
        changed = {name: int(value) if value.isdigit() else value for name, value in changed.items()}
        if "context_tokens" in changed and (answer := asked.get("longest_answer_tokens")):
            changed["longest_answer_tokens"] = answer * changed["context_tokens"] // asked["context_tokens"]
        assert plan_for(key, gpu, **(asked | changed)).fits, knob


_KNOBS = {
    "context": "context_tokens",
    "lora.r": "lora_r",
    "train.quantisation": "quantisation",
    "train.micro_batch": "micro_batch",
}


def test_rows_that_are_known_are_refused_with_what_makes_them_fit_too():
    pinned = {"batch": 256, "micro_batch": 256, "quantisation": "4bit"}
    asked = prepared("qwen3-8b", task="mental_health", data={"skip_bad": True}, context=4096, train=pinned)
    with pytest.raises(UserError, match=r"train\.micro_batch 1: [\d.]+ GiB") as refusal:
        plan_of(asked, gpu=get_gpu("RTX 4070"))
    context = int(re.search(r"help: context (\d+): ", str(refusal.value))[1])
    for changes in ({"context": context}, {"train": pinned | {"batch": 1, "micro_batch": 1}}):
        said = {"train": pinned, "context": 4096, "data": {"skip_bad": True, "long_rows": "drop"}} | changes
        assert plan_of(prepared("qwen3-8b", task="mental_health", **said), gpu=get_gpu("RTX 4070")).fits, changes


def test_where_no_knob_makes_it_fit_none_is_offered():
    assert "What would help: a smaller model or a larger card." in refused("qwen3-32b", "T4")


def test_what_else_could_be_chosen_says_what_changes_along_with_it():
    plan = plan_for("qwen3-8b", "RTX 4090", longest_answer_tokens=256, lora_r=64, batch=64)
    (tight,) = [other for other in plan.alternatives if other.how == "checkpointing"]
    assert plan.quantisation == "4bit" and tight.high_gib > plan.peak_gib["high"] and "16-bit weights" in tight.along
    pinned = plan_for(
        "qwen3-8b", "RTX 4090", lora_r=64, batch=64, quantisation="4bit", collation="padded", micro_batch=1
    )
    (tight,) = [other for other in pinned.alternatives if other.how == "checkpointing"]
    assert tight.along == "" and tight.high_gib < pinned.peak_gib["high"]


def test_a_refusal_on_the_cpu_does_not_offer_4_bit():
    with pytest.raises(UserError) as refusal:
        plan_for("qwen3-8b", None)
    assert "4bit" not in str(refusal.value) and "16.0 GiB" in str(refusal.value)


def test_what_a_plan_promises_adds_up_and_survives_json():
    plan = plan_for("qwen3-4b", "RTX 4090", together=lambda size: Together((10, 500 * size), (10, 400 * size)))
    assert sum(plan.parts_gib.values()) == pytest.approx(plan.peak_gib["expected"], abs=0.01)
    assert plan.peak_gib["low"] < plan.peak_gib["expected"] < plan.peak_gib["high"] <= plan.room_gib
    assert json.loads(json.dumps(plan.as_json(), allow_nan=False)) == plan.as_json()


def test_more_context_rank_or_rows_never_take_less_memory():
    base = on_gpu("4bit", "bf16", True, 2, 1024, 16)
    for bigger in ({"row_tokens": 2048}, {"lora_r": 64}, {"micro_batch": 4}, {"checkpointing": False},
                   {"quantisation": "16bit"}):  # fmt: skip
        larger = dataclasses.replace(base, **bigger)
        sizes = [sum(parts_gib(QWEN3_4B, setting).values()) for setting in (base, larger)]
        assert sizes[1] > sizes[0], bigger


def test_micro_batches_are_powers_of_two_that_divide_the_batch():
    assert powers_of_two_dividing(12) == [4, 2, 1]
    assert powers_of_two_dividing(32) == [32, 16, 8, 4, 2, 1]
    assert powers_of_two_dividing(1) == [1]


def test_a_folder_in_4_bit_is_planned_by_its_own_list_of_what_is_not(tmp_path):
    skip = ["lm_head", "model.layers.3.mlp", "model.layers.5.self_attn.o_proj", "vision_tower.layers.1.mlp.fc1"]
    config = get_model("qwen3-4b").config()
    config["quantization_config"] = {"load_in_4bit": True, "llm_int8_skip_modules": skip}
    (tmp_path / "config.json").write_text(json.dumps(config))
    asked = {"lora_r": 8, "context_tokens": 512, "batch": 4, "rows": 10, "epochs": 1, "gpu": get_gpu("H100")}
    plan = make_plan(get_model(str(tmp_path)), **asked)
    assert plan.quantisation == "4bit"
    assert plan.unquantised == plan.setting.unquantised == 3 * 2560 * 9728 + 4096 * 2560
    with pytest.raises(UserError, match="comes in 4-bit"):
        make_plan(get_model(str(tmp_path)), quantisation="16bit", **asked)


def test_a_job_that_the_disk_has_no_room_for_is_refused_before_it_begins(tmp_path):
    setting = on_gpu("16bit", "bf16", True, 1, 1024, 64)
    refuse_full_disk(QWEN3_4B, setting, keep_checkpoints=2, run=tmp_path / "not" / "there", download=None)
    with pytest.raises(CannotWrite, match=r"needs [\d,.]+ GiB of space .* HF_HOME"):  # more than any disk holds
        refuse_full_disk(QWEN3_4B, setting, keep_checkpoints=10**7, run=tmp_path / "run", download=tmp_path)


@pytest.mark.parametrize(
    ("train", "gpu", "said"),
    [
        ({"micro_batch": 2}, "T4", "micro_batch is pinned to 2:"),
        ({"collation": "padded"}, "T4", "collation is pinned to padded: shared-prefix batches train faster"),
        ({"collation": "padded"}, None, "collation is pinned to padded: shared-prefix batches train faster"),
        ({"quantisation": "4bit"}, "T4", "quantisation is pinned to 4bit: 16-bit weights fit"),
        ({"batch": 4}, "T4", "batch is pinned to 4: 8 rows a step, the default here"),
        ({"batch": 4}, None, None),
        ({"collation": "shared-prefix", "quantisation": "16bit"}, "T4", None),
        ({}, "T4", None),
    ],
)
def test_a_plan_says_what_is_pinned_to_something_slower(train, gpu, said):
    notes = slower_notes("smollm2-135m-embedded", gpu, train=train, data={"train_rows": 200})
    assert len(notes) == (said is not None) and (said is None or said in notes[0])


SLOWER = ("and train faster.", "default here, train faster.", "train faster here.")


def prepared(model, **sections):
    """A checked recipe of Banking77, or what else is said."""
    return ready(check_recipe(Document({"model": model, "task": "banking77", **sections}), "r.yaml"))


def slower_notes(model, gpu, **sections):
    plan = plan_of(prepared(model, **sections), gpu=gpu and get_gpu(gpu))
    return [note for note in plan.notes if note.endswith(SLOWER)]


def test_a_smaller_batch_is_called_slower_only_where_it_is():
    """Gemma 3 has rows padded in a T4's memory: 16 a step are no slower than 64."""
    assert slower_notes("gemma-3-1b-it", "T4", train={"batch": 16}) == []
    (note,) = slower_notes("gemma-3-1b-it", "H100", train={"batch": 16})
    assert "64 rows a step" in note


def test_rows_share_no_prefix_where_entries_are_dropped_unless_that_is_asked_for():
    """They would share what is dropped: other gradients than those of rows by themselves."""

    def plan(**train):
        return plan_of(prepared("smollm2-135m-embedded", lora={"dropout": 0.1}, train=train), gpu=get_gpu("H100"))

    assert plan().collation == "padded" and "lora.dropout is above 0" in " ".join(plan().notes)
    assert plan(collation="shared-prefix").collation == "shared-prefix"


def test_rows_that_share_in_groups_are_planned_by_what_groups_share():
    """Questions about few databases, each behind its schema: of all rows that is little, of a batch's it is most."""

    def plan(task):
        pinned = {"batch": 16, "quantisation": "16bit"}
        return plan_of(prepared("qwen3-4b", task=task, train=pinned, data={"skip_bad": True}), gpu=get_gpu("H200"))

    grouped, alike = plan("text2sql"), plan("smart_home")
    rows = grouped.micro_batch * (grouped.longest_row_tokens - grouped.prefix_tokens)
    (ahead, own), usual = grouped.together.largest, grouped.together.usual
    assert grouped.micro_batch == 16 and ahead > grouped.prefix_tokens and sum(usual) < ahead + own < rows / 3
    (ahead, own), usual = alike.together.largest, alike.together.usual
    assert ahead == usual[0] == alike.prefix_tokens and usual[1] < own
    assert own <= 16 * (alike.longest_row_tokens - alike.prefix_tokens)
    ungrouped = dataclasses.replace(grouped.setting, together=None)
    assert sum(parts_gib(get_model("qwen3-4b"), ungrouped).values()) > 2 * grouped.peak_gib["expected"]


@pytest.mark.parametrize("task", [job.name for job in list_tasks() if job.name not in ("trec", "needle")])
def test_lengths_that_are_guessed_are_near_those_that_are_counted(task):
    """By the tokenizer of the model that comes along, whose vocabulary is small."""
    asked = prepared("smollm2-135m-embedded", task=task, data={"skip_bad": True, "train_rows": None})
    guess = guess_tokens(asked.task.train, asked.spec)
    counted = count_tokens(asked.spec, asked.task, asked.recipe, say=print)
    for name in ("lengths", "answers"):
        ratio = sum(getattr(guess, name)) / sum(getattr(counted, name))
        assert 0.85 < ratio < 1.15 or (name == "answers" and 0.6 < ratio < 1.5), (name, ratio)
    assert 0.8 < max(guess.lengths) / max(counted.lengths) < 1.2


@pytest.mark.parametrize("lead", ["", "P", "Q: ", "Answer from the passage, in as few words as you can. " * 20])
def test_passages_that_some_rows_share_are_guessed_as_any_other_text(lead):
    passages = [" ".join(f"word{(n * 7 + at * 13) % 97}" for at in range(150)) for n in range(20)]
    rows = tuple(
        Example(f"r{n}", (Message("user", f"{lead}{passages[n % 20]} Which one is it, {n}?"),), "the first of them")
        for n in range(400)
    )
    asked = prepared("qwen3-4b", task="squad2_open_book", context=4096)
    guess = guess_tokens(rows, asked.spec)
    ahead, own = guess.together(asked.recipe)(64, 64).largest
    alone = guess_tokens([Example("p", (Message("user", lead + passages[0]),), "x")], asked.spec).lengths[0]
    assert 0.6 * 20 * alone < ahead < 1.4 * 20 * alone and own < 64 * 60


@pytest.mark.parametrize(("task", "context"), [("voice_banking", 1280), ("banking77", 128), ("text2sql", 768)])
def test_rows_cut_at_the_context_are_never_planned_as_less_than_nothing(task, context):
    """Their beginning may be guessed to be longer than that."""
    cut = prepared("qwen3-4b", task=task, data={"skip_bad": True}, context=context)
    of = guess_tokens(cut.task.train, cut.spec).together(cut.recipe)
    for size in (1, 4, 16):
        found = of(16, size)
        assert min(found.largest) >= 0 and found.largest[1] > 0 and max(found.usual) <= sum(found.largest)
        assert sum(found.largest) <= size * context + 2


def test_what_is_pinned_is_held_against_plans_that_know_the_rows_too():
    """Questions about few databases: by what groups share, 16 rows at a time fit."""
    pinned = {"batch": 16, "micro_batch": 4}
    notes = slower_notes("qwen3-8b", "L4", task="text2sql", data={"skip_bad": True}, train=pinned)
    (note,) = [note for note in notes if "micro_batch is pinned" in note]
    assert "16 rows" in note


def test_less_than_a_row_of_an_epoch_is_a_row():
    plan = plan_of(prepared("qwen3-4b", task="text2sql", train={"epochs": 0.001, "batch": 8}), gpu=get_gpu("T4"))
    assert plan.steps == 1 and sum(plan.together.largest) > 0
    for rows, epochs, batch in ((67, 0.3, 20), (152, 0.37, 8), (10, 0.01, 4), (480, 1, 32)):
        taken = math.ceil(len(row_order(rows, epochs=epochs, seed=1)) / batch)
        planned = plan_for("qwen3-4b", "T4", rows=rows, epochs=epochs, batch=batch).steps
        assert planned == count_steps(rows, epochs=epochs, batch=batch) == taken


def test_rows_that_will_be_dropped_are_not_planned_for():
    whole = prepared("qwen3-4b", task="voice_banking", data={"skip_bad": True})
    lengths = guess_tokens(whole.task.train, whole.spec).lengths
    context = sorted(lengths)[len(lengths) // 2]
    dropping = {"skip_bad": True, "long_rows": "drop"}
    some = prepared("qwen3-4b", task="voice_banking", data=dropping, context=context)
    found = guess_tokens(some.task.train, some.spec).together(some.recipe)(1, 1).largest
    assert sum(found) <= context + 1 and sum(found) >= 0.98 * max(n for n in lengths if n <= context)
