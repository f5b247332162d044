"""One family's life, in a process of its own: a two-layer model of the real architecture is made, adapted, trained,
stopped, resumed, saved, loaded again and asked.

`python families.py FOLDER TOKENIZER KEY ...` imports the engine once, forks for each key (Unsloth keeps state, so one
model a process) and prints one JSON object a line: what was seen.
"""

import json
import os
import re
import shutil
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from samples import make_task

from slimtune.errors import SlimtuneError
from slimtune.models import MODELS, get_model
from slimtune.models.other import other_family
from slimtune.models.spec import ModelSpec

KEYS = (
    "smollm2-135m-instruct",
    "llama-3.2-1b-instruct",
    "qwen3-0.6b",
    "qwen3-30b-a3b",
    "gemma-3-270m-it",
    "gemma-3-4b-it",
    "lfm2-350m",
    "granite-3.3-2b-instruct",
    "mistral",
    "qwen2",
)
WORDS = 1024
SMOLLM2_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")  # what opens a turn, ends it, and pads
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "block_ff_dim": 96,
    "block_dim": 64,
    "conv_dim": 64,
    "block_multiple_of": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "sliding_window": 24,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "query_pre_attn_scalar": 16,
    "max_window_layers": 2,
    "torch_dtype": "float32",
}
SMALL_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
}


def original(key: str) -> ModelSpec:
    """The model of that key; or, by its model type, one that no family file covers."""
    if key in MODELS:
        return MODELS[key]
    traits = other_family(None, key, stop_token="</s>", template=None)
    return replace(MODELS["smollm2-135m-instruct"], key=key, traits=traits)


def small_config(spec: ModelSpec, words: int) -> dict[str, Any]:
    """The model's own config with two layers, one of each kind where there are two, and everything narrow."""
    config = spec.config()
    config["model_type"] = spec.traits.model_type
    text = config.get("text_config", config)
    text |= {name: value for name, value in SMALL.items() if text.get(name) is not None}
    text |= {"vocab_size": words, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if "layer_types" in text:
        text["layer_types"] = sorted(set(text["layer_types"]), key=text["layer_types"].index)
    if "full_attn_idxs" in text:
        text["full_attn_idxs"] = [1]
    if "vision_config" in config:
        config["vision_config"] |= SMALL_VISION
        config |= {"image_token_index": 3, "boi_token_index": 4, "eoi_token_index": 5, "mm_tokens_per_image": 4}
    return config


def write_tokenizer(spec: ModelSpec, folder: Path, tokenizer: Path) -> int:
    """SmolLM2's tokenizer, its special tokens named as the family names them, cut to its first words; how many."""
    ours = ("<|im_start|>", spec.stop_token, spec.pad_token or "<pad>")
    names = dict(zip(SMOLLM2_TOKENS, ours, strict=True))
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        text = (tokenizer / file).read_text(encoding="utf-8")
        (folder / file).write_text(re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], text))
    whole = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = {word: number for word, number in whole["model"]["vocab"].items() if number < WORDS}
    merges = [pair for pair in whole["model"]["merges"] if "".join(pair) in vocabulary]
    whole["model"] |= {"vocab": vocabulary, "merges": merges}
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    return len(vocabulary)


def write_model(spec: ModelSpec, folder: Path, tokenizer: Path) -> None:
    """Random weights in that shape, with a tokenizer and a template."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(small_config(spec, write_tokenizer(spec, folder, tokenizer))))
    config = AutoConfig.from_pretrained(folder)
    torch.manual_seed(1)
    auto = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    auto.from_config(config, dtype=torch.float32).save_pretrained(folder)


def loaded_from(folder: Path, *, adapter: Path | None = None, precision: str = "fp32") -> Any:
    """The model through the real engine, with a fresh adapter or a saved one."""
    from slimtune.engine import load, lora, source

    spec = get_model(str(folder))
    where = source.resolve_source(spec, quantisation="16bit", revision=None)
    renderer = load.load_renderer(spec, where, thinking="off")
    loaded = load.load_model(spec, where, renderer, precision=precision, quantisation="16bit", window=512)
    loaded.model = lora.attach_lora(
        loaded.model, spec, r=8, alpha=16, dropout=0.0, seed=3, checkpointing=False, window=512
    )
    if adapter is not None:
        lora.load_adapter(loaded.model, adapter)
    return loaded


def train(loaded: Any, task: Any, folder: Path, *, steps: int = 10, slice: int = 3) -> tuple[list[Any], int | None]:
    """Steps of eight rows, in slices: (reports, the step that was resumed at)."""
    from slimtune.engine import sft

    settings = sft.Settings(
        epochs=steps, lr=1e-2, schedule="constant", warmup=0.0, batch=8, micro_batch=slice, collation="padded",
        weight_decay=0.0, max_grad_norm=1.0, seed=3, checkpoint_minutes=60.0, checkpoint_steps=5, keep_checkpoints=2,
        optimizer="adamw",
    )  # fmt: skip
    reports: list[Any] = []
    rows = [loaded.renderer.encode(example) for example in task.train]
    result = sft.train(
        loaded, rows, settings, folder, on_step=reports.append, should_stop=lambda: False, say=lambda _: None
    )
    return reports, result.resumed_at


def live(key: str, folder: Path, tokenizer: Path) -> dict[str, Any]:
    """Everything that the tests want to know of one architecture."""
    import torch

    from slimtune.engine import lora
    from slimtune.engine.generate import generate
    from slimtune.files import publish_folder
    from slimtune.tasks import get_task

    known = original(key)
    write_model(known, folder / "model", tokenizer)
    task = get_task(str(make_task(folder / "task", train=8, test=3)))
    loaded = loaded_from(folder / "model")
    spec = loaded.spec
    frozen = {name: weight.clone() for name, weight in loaded.model.named_parameters() if not weight.requires_grad}
    reports, _ = train(loaded, task, folder / "whole")
    moved = [name for name, weight in loaded.model.named_parameters() if ".lora_B." in name and weight.abs().sum() > 0]
    still = all(torch.equal(weight, frozen[name]) for name, weight in loaded.model.named_parameters() if name in frozen)
    resumed = loaded_from(folder / "model")
    shutil.copytree(folder / "whole" / "step-00000005", folder / "resumed" / "step-00000005")
    _, resumed_at = train(resumed, task, folder / "resumed")
    (unsliced,), _ = train(loaded_from(folder / "model"), task, folder / "unsliced", steps=1, slice=8)
    publish_folder(folder / "adapter", loaded.model.save_pretrained)
    again = loaded_from(folder / "model", adapter=folder / "adapter")
    answers = [[completion.text for _, completion in sorted(generate(one, task.test, 4))] for one in (loaded, again)]
    return {
        "key": key,
        "family": spec.family,
        "traits_kept": spec.traits == known.traits,
        "counted": sum(weight.numel() for name, weight in loaded.model.named_parameters() if ".lora_" not in name),
        "expected_count": spec.params_total,
        "adapters": lora.adapter_modules(loaded.model),
        "expected": spec.expected_adapters(),
        "trainable": lora.trainable_parameters(loaded.model),
        "expected_trainable": spec.lora_params(8),
        "losses": [report.loss for report in reports],
        "grad_norms": [report.grad_norm for report in reports],
        "unsliced": [unsliced.loss, unsliced.grad_norm],
        "on_answers": on_answers(resumed, task),
        "shared_prefix": shared_prefixes(resumed),
        "adapters_that_learned": len(moved),
        "base_unchanged": still,
        "routers": [name for name in frozen if name.endswith(".mlp.gate.weight")],
        "refusal": refusal(loaded),
        "resumed_at": resumed_at,
        "resumed_alike": same_adapter(loaded, resumed),
        "answers": answers,
    }


PREFIXES = {
    "none": [(0, 6)],
    "one token": [(1, 6)],
    "long": [(300, 8)],
    "longer than the window in all": [(200, 50)],
    "two": [(60, 4), (90, 3)],
    "one row": [(40, 1)],
    "the same row": [(40, 5)],
}


def rows_of(groups: list[tuple[int, int]], *, alike: bool, seed: int = 5) -> list[Any]:
    """Rows of random words: for each group (prefix length, rows), with suffixes and answers of unequal length."""
    import numpy as np

    from slimtune.engine.render import Encoded

    rng = np.random.default_rng(seed)

    def words(count: int) -> tuple[int, ...]:
        return tuple(rng.integers(5, 400, count).tolist())

    rows = []
    for prefix, many in groups:
        start, own = words(prefix), (words(4), words(3))
        for _ in range(many):
            ask, answer = own if alike else (words(int(rng.integers(2, 12))), words(int(rng.integers(1, 6))))
            rows.append(Encoded(str(len(rows)), (*start, *ask), answer))
    return rows


def shared_prefixes(loaded: Any) -> dict[str, dict[str, float]]:
    """Of rows with prefixes of many kinds: loss and gradients a row at a time, when nothing of another can leak in, and
    as one row that shares them; and how many tokens each way computes."""
    from slimtune.engine.collate import padded, shared_prefix
    from slimtune.engine.prefix import as_batch

    rows = {name: rows_of(groups, alike=name == "the same row") for name, groups in PREFIXES.items()}
    plain = {name: over(loaded, [padded([row], pad_id=0) for row in found]) for name, found in rows.items()}
    framed = {name: by_frame(loaded, found) for name, found in rows.items()}
    shared = {name: over(loaded, [as_batch(shared_prefix(found), loaded.model)]) for name, found in rows.items()}
    return {
        name: {
            "losses": [way[name]["loss"] for way in (plain, shared, framed)],
            "tokens": [way[name]["tokens"] for way in (plain, shared)],
            "norm": plain[name]["gradient"].norm().item(),
            "apart": (shared[name]["gradient"] - plain[name]["gradient"]).norm().item(),
            "framed_apart": (framed[name]["gradient"] - plain[name]["gradient"]).norm().item(),
        }
        for name in rows
    }


def by_frame(loaded: Any, rows: list[Any]) -> dict[str, Any]:
    """Loss and gradient of one step by the row in its frame, as transformers' layers compute it on a GPU."""
    import torch

    from slimtune.engine.collate import shared_prefix
    from slimtune.engine.frame import Frame, FrameView
    from slimtune.engine.row_layers import RowLayers

    layout, layers = shared_prefix(rows), RowLayers(loaded.model)
    frame = Frame.least(layout).roomy()
    filled = frame.fill(layout)
    filled[-1] = sum(len(row.answer) for row in rows)
    view = FrameView.of(frame, filled)
    loaded.model.train()
    loaded.model.zero_grad()
    with layers.told(view):
        loss = layers.loss(view)
        loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in loaded.model.parameters() if p.grad is not None])
    return {"loss": loss.item(), "gradient": gradient}


def over(loaded: Any, batches: list[dict[str, Any]]) -> dict[str, Any]:
    """Loss and gradient of one step over these batches."""
    import torch

    from slimtune.engine.answers import loss_on_answers

    loaded.model.train()
    loaded.model.zero_grad()
    items, loss = torch.tensor(sum(len(batch["targets"]) for batch in batches)), 0.0
    for batch in batches:
        if loaded.spec.traits.model_type == "gemma3":
            batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
        part = loss_on_answers(loaded.model, batch, items=items)
        part.backward()
        loss += part.item()
    gradient = torch.cat([p.grad.flatten() for p in loaded.model.parameters() if p.grad is not None])
    return {"loss": loss, "gradient": gradient, "tokens": sum(batch["input_ids"].numel() for batch in batches)}


def on_answers(loaded: Any, task: Any) -> dict[str, float]:
    """Of rows of different lengths: loss and gradient norm by `loss_on_answers`, by the model's own way with a mask
    and all logits, and how far the gradients are apart."""
    import torch

    from slimtune.engine.answers import loss_on_answers
    from slimtune.engine.collate import IGNORE, padded

    rows = [loaded.renderer.encode(example) for example in task.train[:3]]
    batch = padded(rows, pad_id=0)
    if loaded.spec.traits.model_type == "gemma3":
        batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
    mask = torch.tensor([[1] * len(row) + [0] * (batch["input_ids"].shape[1] - len(row)) for row in rows])
    assert not mask.all(), "no row is padded"
    items = torch.tensor(len(batch["targets"]))
    labels = torch.full_like(batch["input_ids"], IGNORE)
    labels.view(-1)[batch["places"] + 1] = batch["targets"]
    whole = {name: value for name, value in batch.items() if name not in ("places", "targets")}
    ways = {
        "ours": lambda: loss_on_answers(loaded.model, batch, items=items),
        "all": lambda: loaded.model(**whole, labels=labels, attention_mask=mask, num_items_in_batch=items).loss,
    }
    found, gradients = {}, {}
    for name, loss_of in ways.items():
        loaded.model.zero_grad()
        loss = loss_of()
        loss.backward()
        gradients[name] = torch.cat([p.grad.flatten() for p in loaded.model.parameters() if p.grad is not None])
        found |= {f"{name}_loss": loss.item(), f"{name}_norm": gradients[name].norm().item()}
    return found | {"apart": (gradients["ours"] - gradients["all"]).norm().item()}


def refusal(loaded: Any) -> str:
    """What is said of a weight that is no adapter and would be trained; the router's, where there is one."""
    from slimtune.engine.lora import check_coverage

    names = [name for name, weight in loaded.model.named_parameters() if not weight.requires_grad]
    loose = next((name for name in names if name.endswith(".mlp.gate.weight")), names[0])
    loaded.model.get_parameter(loose).requires_grad_(True)
    try:
        check_coverage(loaded.model, loaded.spec)
    except SlimtuneError as error:
        return str(error)
    return ""


def same_adapter(one: Any, other: Any) -> bool:
    import torch

    weights = [
        [p.detach() for name, p in loaded.model.named_parameters() if ".lora_" in name] for loaded in (one, other)
    ]
    return all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def _child(key: str, folder: Path, tokenizer: Path, answers: Any) -> None:
    try:
        seen = live(key, folder / key, tokenizer)
    except BaseException:
        seen = {"key": key, "error": traceback.format_exc()[-3000:]}  # a line of a pipe is whole up to 4096 bytes
    answers.write(json.dumps(seen) + "\n")
    answers.flush()
    os._exit(0)


def _main(folder: Path, tokenizer: Path, keys: list[str]) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the libraries print
    import slimtune.engine.generate
    import slimtune.engine.sft  # noqa: F401

    for number, key in enumerate(keys):
        if os.fork() == 0:
            _child(key, folder, tokenizer, answers)
        if number % 2:  # two at a time
            os.wait()
            os.wait()
    if len(keys) % 2:
        os.wait()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
