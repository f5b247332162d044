"""What `slimtune plan` answers: what fits, how far it reaches, in how long, for how much; and its refusals."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slimtune.errors import UserError
from slimtune.forecast import Asked, forecast_all, longest_context, plan_all, plan_one, read_tokens
from slimtune.gpus import get_gpu
from slimtune.models import MODELS, get_model
from slimtune.plan import high_gib, with_levers
from slimtune.wording import detectable_words

ROOT = Path(__file__).parents[1]
T4 = get_gpu("T4")


def slimtune(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "slimtune.cli", "plan", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80", **environment},
        timeout=120,
    )


def test_every_model_is_planned_in_two_seconds_without_torch_or_network(tmp_path: Path) -> None:
    trap = (
        "import sys, socket\nHEAVY = ('torch', 'transformers', 'unsloth')\nclass Trap:\n"
        "    def find_spec(self, name, *_):\n        if name.split('.')[0] in HEAVY:\n"
        "            raise SystemExit('imported ' + name)\n"
        "sys.meta_path.insert(0, Trap())\n"
        "def refuse(*_):\n    raise SystemExit('connected')\nsocket.socket.connect = refuse\n"
    )
    (tmp_path / "sitecustomize.py").write_text(trap)
    seconds = []
    for _ in range(2):  # the faster of two: the first may have bytecode to write
        began = time.monotonic()
        shown = slimtune("--all", "--gpu", "t4", PYTHONPATH=f"{tmp_path}:{ROOT}")
        seconds.append(time.monotonic() - began)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert min(seconds) < 2
    keys = [key for key, spec in MODELS.items() if spec.gguf_package is None]
    assert all(f"\n{key} " in shown.stdout for key in keys)
    assert max(map(len, shown.stdout.splitlines())) <= 80 and "…" not in shown.stdout
    assert "estimated, not measured on this card" in " ".join(shown.stdout.split())


def test_the_table_says_who_trains_and_who_does_not() -> None:
    lines = {line.spec.key: line for line in forecast_all(T4)}
    assert lines["qwen3-8b"].plan.quantisation == "4bit" and lines["smollm2-135m-instruct"].plan.quantisation == "16bit"
    assert lines["gemma-3-1b-it"].plan.precision == "fp32" and lines["qwen3-14b"].plan is not None
    assert lines["qwen3-32b"].plan is None and "GiB" in lines["qwen3-32b"].why
    assert lines["qwen3-vl-4b-instruct"].plan is None and lines["qwen3-vl-4b-instruct"].why == "planned only"
    assert {line.spec.key for line in forecast_all(get_gpu("H100")) if line.plan is None} <= {
        key for key, spec in MODELS.items() if not spec.trainable
    }


def test_a_model_reaches_as_far_as_it_fits_and_no_further() -> None:
    for key in ("llama-3.1-8b-instruct", "granite-3.3-8b-instruct", "qwen3-14b"):
        spec = get_model(key)
        reach = longest_context(spec, T4, rank=32)
        plan = plan_one(key, Asked(gpu="t4", context=str(reach), batch=1, rank=32)).plan
        assert plan.micro_batch == 1 and plan.peak_gib["high"] <= plan.room_gib
        with pytest.raises(UserError, match="does not fit"):
            plan_one(key, Asked(gpu="t4", context=str(reach + 1024), batch=1, rank=32))
    assert longest_context(get_model("qwen3-32b"), T4, rank=16) == 0
    stretched = longest_context(get_model("qwen3-8b"), T4, rank=64)  # its long-context check is what takes most
    assert plan_one("qwen3-8b", Asked(gpu="t4", context=str(stretched))).yarn
    with pytest.raises(UserError, match=f"cannot be asked as much.*length: {stretched},"):
        plan_one("qwen3-8b", Asked(gpu="t4", context=str(stretched + 1024)))


def test_a_model_without_rows_is_planned_for_those_of_the_table_of_all() -> None:
    line = next(line for line in forecast_all(T4) if line.spec.key == "qwen3-4b")
    alone = plan_one("qwen3-4b", Asked(gpu="t4"))
    assert (alone.plan.peak_gib, alone.speed) == (line.plan.peak_gib, line.speed)


def test_positions_are_stretched_as_far_as_yarn_was_tried() -> None:
    assert longest_context(get_model("smollm2-135m-instruct"), T4, rank=16) == 32768  # what YaRN is tried to


def test_llama_8b_reaches_past_40960_tokens_on_a_t4_with_every_lever() -> None:
    plan = plan_one("llama-3.1-8b-instruct", Asked(gpu="t4", context="40k", batch=1, rank=32)).plan
    assert plan.tiled_mlp and plan.offload_embedding and plan.checkpointing
    without = plan.setting.__class__(**{**vars(plan.setting), "tiled_mlp": False, "offload_embedding": False})
    assert high_gib(get_model("llama-3.1-8b-instruct"), without) > plan.room_gib
    assert with_levers(get_model("llama-3.1-8b-instruct"), without) == plan.setting


def test_a_recipe_is_planned_with_its_rows_and_says_what_they_could_show() -> None:
    forecast = plan_one("smollm2-banking77", Asked(gpu="RTX 4090"))
    assert forecast.plan.longest_row_tokens < 2048 and forecast.test_rows == 997
    assert 0.02 < forecast.detectable < 0.04
    low, high = forecast.speed.usd
    assert 0 < high < low < 1 and forecast.disk_gib["download"] == 0
    longer = plan_one("smollm2-banking77", Asked(gpu="RTX 4090", context="256", batch=32, rank=8))
    assert (longer.plan.context_tokens, longer.plan.batch, longer.plan.lora_r) == (256, 32, 8)


def test_a_bigger_job_takes_longer_and_costs_more() -> None:
    def hours(model: str, gpu: str, context: str) -> tuple[float, float]:
        return plan_one(model, Asked(gpu=gpu, context=context)).speed.hours

    for one, other in (
        (("qwen3-8b", "h100", "1k"), ("qwen3-8b", "h100", "4k")),
        (("qwen3-4b", "h100", "1k"), ("qwen3-8b", "h100", "1k")),
        (("qwen3-8b", "h100", "1k"), ("qwen3-8b", "t4", "1k")),
    ):
        assert all(small < big for small, big in zip(hours(*one), hours(*other), strict=True))


def test_a_download_is_what_the_precision_needs() -> None:
    quantised, whole = (plan_one("qwen3-8b", Asked(gpu=gpu)).disk_gib["download"] for gpu in ("t4", "h100"))
    assert 5 < quantised < 7 and whole == pytest.approx(8_190_735_360 * 2 / 2**30, rel=0.01)


@pytest.mark.parametrize(("text", "tokens"), [("8192", 8192), ("32k", 32768), ("1M", 1048576), (" 4K ", 4096)])
def test_tokens_are_read_as_people_write_them(text: str, tokens: int) -> None:
    assert read_tokens(text) == tokens


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("qwen3-8b", "--gpu", "t4", "--context", "0"), "'0' is not a number of tokens"),
        (("qwen3-8b", "--gpu", "t4", "--context", "-5"), "is not a number of tokens"),
        (("qwen3-8b", "--gpu", "t4", "--context", "10"), "--context is 10: it has to be at least 64"),
        (("qwen3-8b", "--gpu", "t4", "--batch", "0"), "--batch is 0"),
        (("qwen3-8b", "--gpu", "t4", "--rank", "99999"), "--rank is 99999"),
        (("qwen3-8b", "--gpu", "t44"), "There is no GPU named 't44'"),
        (("qwen3-8bb", "--gpu", "t4"), "qwen3-8b"),
        (("qwen3-8b", "--gpu", "t4", "--context", "999k"), "131,072 with YaRN"),
        (("qwen3-vl-4b-instruct", "--gpu", "t4"), "cannot be fine-tuned here"),
        (("qwen3-8b", "--gpu", "t4", "--set", "train.epochs=1"), "--set changes a recipe"),
        (("smollm2-135m-instruct", "--all", "--gpu", "t4"), "--all plans every model"),
        ((), "Say what to plan"),
    ],
)
def test_nonsense_gets_a_sentence_and_exit_2(arguments: tuple[str, ...], words: str) -> None:
    shown = slimtune(*arguments)
    assert shown.returncode == 2 and words in " ".join(shown.stderr.split()) and "Traceback" not in shown.stderr


def test_a_70b_on_a_t4_is_refused_with_what_it_would_need(tmp_path: Path) -> None:
    config = get_model("llama-3.1-8b-instruct").config() | {
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    shown = slimtune(tmp_path, "--gpu", "t4")
    assert shown.returncode == 2 and "does not fit" in shown.stderr and "14.2 GiB" in shown.stderr


def test_several_cards_get_a_plan_each_and_one_it_does_not_fit_says_so() -> None:
    shown = slimtune("qwen3-30b-a3b", "--gpu", "t4", "--gpu", "l4")
    assert shown.returncode == 0, shown.stderr
    assert "L4, bf16" in shown.stdout and "T4 has 14.2 GiB to fill" in shown.stdout
    both = slimtune("qwen3-0.6b", "--gpu", "t4", "--gpu", "l4").stdout
    assert both.index("T4, fp16") < both.index("L4, bf16")
    neither = slimtune("qwen3-32b", "--gpu", "t4", "--gpu", "rtx 4070")
    assert neither.returncode == 2 and neither.stdout.count("does not fit") == 2
    unknown = slimtune("qwen3-32bb", "--gpu", "t4", "--gpu", "l4")
    assert unknown.returncode == 2 and (unknown.stdout + unknown.stderr).count("Did you mean") == 1
    assert slimtune("qwen3-0.6b", "--gpu", "t4", "--gpu", "l4", "--measure").returncode == 2


def test_all_needs_a_card() -> None:
    with pytest.raises(UserError, match="no GPU here to plan for"):
        plan_all(None, Asked())


def test_a_model_without_a_recipe_says_what_it_is_planned_for() -> None:
    notes = plan_one("qwen3-4b", Asked(gpu="h100", context="64k")).plan.notes
    assert "10,000 rows of 65,536 tokens" in notes[0] and "LoRA rank 64, batch 64" in notes[0]
    assert "YaRN: factor 2.0" in notes[-2] and "`context: {length: 65536, method: yarn}`" in notes[-1]
    assert not any("YaRN" in note for note in plan_one("qwen3-4b", Asked(gpu="h100")).plan.notes)


def test_too_few_test_rows_are_called_so() -> None:
    assert "997 test rows find a difference of 0.028 or more" in detectable_words(997, 0.0281)
    assert detectable_words(5, 1.0) == "5 test rows are too few to find any difference."
    few = detectable_words(8, 0.801)
    assert "8 test rows find a difference of 0.801 or more" in few and "tenth" not in few, "a tenth bounds it by 0.1"
    assert detectable_words(1, 1.0) == "1 test row is too few to find any difference."
