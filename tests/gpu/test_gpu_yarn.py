"""YaRN on a real card: Unsloth's fast path and its generic one turn at transformers' own frequencies, Unsloth's silent
linear scaling is caught, and rows of 131,072 tokens train."""

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NATIVE, STRETCHED, THETA, HEAD = 512, 2048, 300_000.0, 64


@pytest.fixture(scope="module")
def folders(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two random layers of each architecture, all written before Unsloth patches any. Their configs name a larger
    window than the models are said to be trained in, as Qwen3's does."""
    import unsloth  # noqa: F401, I001  first: it patches what the others import
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2)
    found = {}
    for name in ("Llama", "Qwen3", "Granite"):
        config = getattr(transformers, f"{name}Config")(
            vocab_size=len(tokenizer),
            hidden_size=4 * HEAD,
            intermediate_size=512,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=640,
            rope_theta=THETA,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=1,
            pad_token_id=0,
            **({"head_dim": HEAD} if name == "Qwen3" else {}),
        )
        found[name] = tmp_path_factory.mktemp("tiny") / name
        getattr(transformers, f"{name}ForCausalLM")(config).save_pretrained(found[name])
        tokenizer.save_pretrained(found[name])
    return found


def load(folder: Path, length: int, *, method: str):
    """The engine's own way, through the recipe's words."""
    from slimtune.engine.load import load_model, load_renderer
    from slimtune.engine.source import resolve_source
    from slimtune.models import Extension, get_model
    from slimtune.plan import yarn_for
    from slimtune.recipe import Context

    spec = replace(get_model(str(folder)), native_context=NATIVE, extension=Extension(NATIVE, STRETCHED))
    where = resolve_source(spec, quantisation="16bit", revision=None)
    renderer, yarn = load_renderer(spec, where, thinking="off"), yarn_for(spec, Context(length=length, method=method))
    return load_model(spec, where, renderer, precision="bf16", quantisation="16bit", window=length, yarn=yarn)


def rotary(model):
    (module,) = {module for name, module in model.named_modules() if name.endswith("rotary_emb")}
    return module


def transformers_own(folder: Path, parameters: dict):
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = AutoConfig.from_pretrained(folder)
    config.rope_parameters = parameters
    return ROPE_INIT_FUNCTIONS["yarn"](config, "cpu")


def off(here, wanted) -> float:
    return (here.double().cpu() / wanted.double().cpu() - 1).abs().max().item()


@pytest.mark.parametrize("architecture", ["Llama", "Qwen3", "Granite"])
def test_the_model_on_the_card_turns_by_transformers_own_yarn(folders, architecture: str) -> None:
    own_yarn = {"rope_type": "yarn", "rope_theta": THETA, "factor": 4.0, "original_max_position_embeddings": NATIVE}
    frequencies, scaling = transformers_own(folders[architecture], own_yarn)
    loaded = load(folders[architecture], STRETCHED, method="yarn")
    module = rotary(loaded.model)
    print(architecture, type(module).__module__, type(module).__name__, off(module.inv_freq, frequencies))
    assert off(module.inv_freq, frequencies) < 1e-6
    assert module.attention_scaling == pytest.approx(scaling, abs=1e-6)
    assert scaling == pytest.approx(0.1 * math.log(4) + 1)
    assert loaded.rope["rope_parameters"] == own_yarn
    assert loaded.model.config.max_position_embeddings == STRETCHED
    is_fast = type(module).__module__.startswith("unsloth.models")
    assert is_fast == (architecture != "Granite"), "the path that is meant is the path that runs"


@pytest.mark.parametrize("architecture", ["Llama", "Qwen3"])
def test_the_tables_of_the_fast_path_are_made_of_these_frequencies(folders, architecture: str) -> None:
    import torch

    loaded = load(folders[architecture], STRETCHED, method="yarn")
    module = rotary(loaded.model)
    ids = torch.arange(100, 164, device="cuda")[None]
    with torch.no_grad():
        loaded.model(input_ids=ids)
    cos, sin = (table.double().cpu() for table in module.get_cached(STRETCHED, torch.cuda.current_device()))
    angle = torch.outer(
        torch.arange(STRETCHED).float(), module.inv_freq.cpu()
    ).double()  # in float32, as both compute it
    angle = torch.cat([angle, angle], dim=-1)
    assert cos.shape[0] >= STRETCHED
    assert (cos[:STRETCHED] - angle.cos() * module.attention_scaling).abs().max() < 0.02  # the tables are in bf16
    assert (sin[:STRETCHED] - angle.sin() * module.attention_scaling).abs().max() < 0.02


@pytest.mark.parametrize("architecture", ["Llama", "Qwen3", "Granite"])
def test_without_yarn_the_model_on_the_card_turns_as_it_was_made(folders, architecture: str) -> None:
    import torch

    loaded = load(folders[architecture], NATIVE, method="none")
    module = rotary(loaded.model)
    assert off(module.inv_freq, THETA ** (-torch.arange(0, HEAD, 2, dtype=torch.float64) / HEAD)) < 1e-6
    assert module.attention_scaling == 1.0 and loaded.rope["method"] == "none"


def test_unsloths_silent_linear_scaling_is_real_and_never_gets_past_the_engine(folders) -> None:
    from unsloth import FastLanguageModel

    from slimtune.engine.rope import asked_config, check_rope
    from slimtune.errors import SlimtuneError, UserError

    folder = folders["Llama"]
    model, _ = FastLanguageModel.from_pretrained(
        str(folder), max_seq_length=STRETCHED, load_in_4bit=False, use_exact_model_name=True, local_files_only=True
    )
    assert model.config.rope_parameters["rope_type"] == "linear", "the trap is gone: say so in rope.py"
    with pytest.raises(SlimtuneError, match="other positions than asked for"):
        check_rope(model, asked_config(folder, None))
    model.config.rope_parameters = {"rope_type": "default", "rope_theta": THETA}
    with pytest.raises(SlimtuneError, match="does not turn by"):
        check_rope(model, asked_config(folder, None))
    with pytest.raises(UserError):
        load(folder, NATIVE + 1, method="none")


def test_qwen3_8b_trains_three_steps_of_131072_tokens_in_4_bit(tmp_path: Path) -> None:
    """Planned first. The trainer of real runs, without its trial before the first step: attention alone is some
    5e15 floating-point operations forward, and a step computes it four and a half times over."""
    import torch
    from unsloth import FastLanguageModel

    from slimtune.engine.measure import load_hollow  # first: it imports Unsloth before what that patches
    from slimtune.engine.render import Encoded
    from slimtune.engine.schedule import Settings
    from slimtune.engine.trainer import RowTrainer
    from slimtune.gpus import detect_gpu
    from slimtune.models import get_model
    from slimtune.plan import make_plan, yarn_for
    from slimtune.recipe import Context

    class Steps(RowTrainer):
        def probe(self, *, step: bool) -> None:
            pass

        def _save_checkpoint(self, model, trial) -> None:
            pass

    tokens, spec, began = 131072, get_model("qwen3-8b"), time.monotonic()
    yarn = yarn_for(spec, Context(length=tokens, method="yarn"))
    plan = make_plan(
        spec, gpu=detect_gpu(), lora_r=16, context_tokens=tokens, batch=1, rows=3, epochs=1, quantisation="4bit"
    )
    loaded = load_hollow(spec, plan.setting, tmp_path / "model", window=tokens, yarn=yarn, skip=None)
    module = rotary(loaded.model)
    frequencies, scaling = transformers_own(tmp_path / "model", loaded.rope["rope_parameters"])
    assert off(module.inv_freq, frequencies) < 1e-6 and module.attention_scaling == pytest.approx(scaling, abs=1e-6)
    assert loaded.rope["rope_parameters"] == {
        "rope_type": "yarn",
        "rope_theta": 1_000_000,
        "factor": 4.0,
        "original_max_position_embeddings": 32768,
    }
    ids = torch.randint(1000, 40000, (3, tokens), generator=torch.Generator().manual_seed(17)).tolist()
    rows = [Encoded(f"random-{number}", tuple(row[:-512]), tuple(row[-512:])) for number, row in enumerate(ids)]
    settings = Settings(
        epochs=1, lr=2e-4, schedule="constant", warmup=0.0, batch=1, micro_batch=1, collation="padded",
        weight_decay=0.0, max_grad_norm=1.0, seed=17, checkpoint_minutes=1e6, checkpoint_steps=None, keep_checkpoints=2,
        optimizer="adamw_8bit",
    )  # fmt: skip
    reports = []
    trainer = Steps(loaded, rows, settings, tmp_path / "out", 3, reports.append, lambda: False, print)
    FastLanguageModel.for_training(loaded.model)
    ready = time.monotonic() - began
    trainer.train()
    peak = torch.cuda.max_memory_reserved() / 2**30
    print(
        f"ready after {ready:.0f} s, {reports[-1].seconds:.0f} s for 3 steps, peak {peak:.2f} GiB, plan {plan.peak_gib}"
    )
    assert [report.step for report in reports] == [1, 2, 3] and trainer.result.oom_splits == []
    assert all(math.isfinite(report.loss) and report.grad_norm > 0 for report in reports)
    assert peak <= plan.room_gib


def test_a_stretched_run_looks_for_needles_with_real_weights(smollm2: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        f"model: {smollm2}\ntask: banking77\ndata: {{train_rows: 64, test_rows: 32}}\nlora: {{r: 8, alpha: 16}}\n"
        "train: {epochs: 1, batch: 16}\nevaluate: {few_shot: 0}\n"
        "context: {length: 16384, method: yarn, needles: 10}\n"
    )
    command = [sys.executable, "-m", "slimtune.cli", "run", tmp_path / "recipe.yaml", "--out", tmp_path / "run"]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "SLIMTUNE_CACHE": str(tmp_path / "cache")})
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    needles = {one["name"]: one for one in report["needles"]}
    print({name: (one["score"], one["prompt_tokens"] / one["n"]) for name, one in needles.items()})
    assert report["environment"]["rope"]["rope_parameters"]["factor"] == 2.0
    assert all(one["n"] == 10 for one in needles.values()) and len(needles) == 4
    assert all(16000 < needles[f"needle-long-{who}"]["prompt_tokens"] / 10 <= 16352 for who in ("base", "tuned"))
    assert needles["needle-short-base"]["score"]["value"] > 0
