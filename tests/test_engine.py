"""The engine on tiny real models: what is trained is what was asked, whatever the memory, and nothing is hidden."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from slimtune.engine import decode, load, lora, sft, source
from slimtune.engine.checkpoint import checkpoints, newest_whole
from slimtune.engine.collate import padded, shared_prefix
from slimtune.engine.generate import generate
from slimtune.engine.groups import prefix_length
from slimtune.engine.memory import is_out_of_memory
from slimtune.engine.render import make_renderer
from slimtune.engine.watch import Watch
from slimtune.errors import Diverged, Interrupted, SlimtuneError, UserError
from slimtune.models import get_model
from slimtune.tasks import get_task

torch = pytest.importorskip("torch")


def loaded_from(folder: Path):
    spec = get_model(str(folder))
    where = source.resolve_source(spec, quantisation="16bit", revision=None)
    renderer = load.load_renderer(spec, where, thinking="off")
    window = min(1024, spec.native_context)
    return load.load_model(spec, where, renderer, precision="fp32", quantisation="16bit", window=window)


@pytest.fixture
def loaded(tiny_model: Path):
    return loaded_from(tiny_model)


@pytest.fixture
def adapted(loaded):
    loaded.model = lora.attach_lora(
        loaded.model, loaded.spec, r=4, alpha=8, dropout=0.0, seed=3, checkpointing=False, window=512
    )
    return loaded


@pytest.fixture
def rows(loaded, task: Path):
    return [loaded.renderer.encode(example) for example in get_task(str(task)).train]


def settings(**changes: object) -> sft.Settings:
    values = {
        "epochs": 2,
        "lr": 5e-3,
        "schedule": "linear",
        "warmup": 0.05,
        "batch": 8,
        "micro_batch": 8,
        "collation": "padded",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "seed": 3,
        "checkpoint_minutes": 60.0,
        "checkpoint_steps": None,
        "keep_checkpoints": 2,
        "optimizer": "adamw",
    }
    return sft.Settings(**{**values, **changes})


def trained(adapted, rows, folder: Path, *, stop_at: int | None = None, **changes: object):
    """(result, losses, weights, sentences) of a training run."""
    steps, said = [], []
    result = sft.train(
        adapted,
        rows,
        settings(**changes),
        folder,
        on_step=steps.append,
        say=said.append,
        should_stop=lambda: stop_at is not None and len(steps) >= stop_at - 1,
    )
    return result, [step.loss for step in steps], weights(adapted), said


def weights(adapted) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in adapted.model.parameters() if p.requires_grad]).clone()


def family(config_name: str, folder: Path, tokenizer: Path) -> Path:
    """Random weights of another architecture, two layers, with the tokenizer at hand."""
    import transformers

    made = transformers.AutoTokenizer.from_pretrained(tokenizer)
    torch.manual_seed(1)
    config = getattr(transformers, f"{config_name}Config")(
        vocab_size=len(made),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        eos_token_id=made.eos_token_id,
        bos_token_id=1,
        pad_token_id=0,
    )
    getattr(transformers, f"{config_name}ForCausalLM")(config).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def test_the_loss_is_on_the_answer_alone_and_ends_with_the_stop_token(loaded, rows) -> None:
    decode = loaded.renderer.tokenizer.decode
    assert decode(rows[0].answer) == "pay<|im_end|>" and decode(rows[0].prompt).endswith("<|im_start|>assistant\n")
    batch = padded(rows[:3], pad_id=0)
    assert batch["targets"].tolist() == [token for row in rows[:3] for token in row.answer]
    assert torch.equal(batch["input_ids"].flatten()[batch["places"] + 1], batch["targets"])
    assert all(row.answer.count(loaded.renderer.tokenizer.eos_token_id) == 1 for row in rows)


def test_a_template_that_does_not_close_the_answer_stops_the_run(loaded, task: Path) -> None:
    tokenizer = loaded.renderer.tokenizer
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    with pytest.raises(UserError, match="stop token"):
        make_renderer(tokenizer, loaded.spec, thinking="off").encode(get_task(str(task)).train[0])


def test_a_template_that_drops_the_answer_stops_the_run(loaded, task: Path) -> None:
    tokenizer = loaded.renderer.tokenizer
    tokenizer.chat_template = (
        "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}"
    )
    with pytest.raises(UserError, match="template"):
        make_renderer(tokenizer, loaded.spec, thinking="off").encode(get_task(str(task)).train[0])


def test_a_template_with_a_clock_renders_the_same_every_day(loaded, task: Path) -> None:
    tokenizer = loaded.renderer.tokenizer
    tokenizer.chat_template = "{{ strftime_now('%Y-%m-%d') }}" + tokenizer.chat_template
    assert (
        make_renderer(tokenizer, loaded.spec, thinking="off")
        .prompt(get_task(str(task)).train[0])
        .startswith("2024-07-26")
    )


def test_thinking_is_refused_where_the_model_cannot(loaded) -> None:
    with pytest.raises(UserError, match="no thinking mode"):
        make_renderer(loaded.renderer.tokenizer, loaded.spec, thinking="on")


def test_tool_calls_are_rendered_as_the_parser_reads_them(loaded) -> None:
    from slimtune.models.toolcalls import parse_tool_calls

    for example in get_task("voice_banking").train[:20]:
        row = loaded.renderer.encode(example)
        text = loaded.renderer.tokenizer.decode(row.answer[:-1])
        assert parse_tool_calls(text, loaded.spec.tool_call_format).calls == tuple(example.target)


def test_every_expected_layer_gets_an_adapter(adapted) -> None:
    assert lora.adapter_modules(adapted.model) == dict.fromkeys(
        sorted(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]), 2
    )


def test_a_layer_without_its_adapter_stops_the_run(adapted, tmp_path: Path, embedded: Path) -> None:
    deeper = get_model(str(embedded))
    with pytest.raises(SlimtuneError, match="2 of 30"):
        lora.check_coverage(adapted.model, deeper)


def test_the_shared_prefix_is_most_of_the_tokens(rows) -> None:
    shared = prefix_length([row.prompt for row in rows[:8]])
    assert shared > 20 and len(shared_prefix(rows[:8]).ids) < padded(rows[:8], pad_id=0)["input_ids"].numel() / 2


def test_fifty_steps_take_the_same_losses_with_shared_prefixes_as_without(tiny_model, task, tmp_path: Path) -> None:
    found = []
    for collation in ("padded", "shared-prefix"):
        loaded = loaded_from(tiny_model)
        rows = [loaded.renderer.encode(example) for example in get_task(str(task)).train]
        loaded.model = lora.attach_lora(
            loaded.model, loaded.spec, r=4, alpha=8, dropout=0.0, seed=3, checkpointing=False, window=512
        )
        epochs = 50 * 8 / len(rows)
        found.append(trained(loaded, rows, tmp_path / collation, collation=collation, epochs=epochs))
    padded_losses, shared_losses = found[0][1], found[1][1]
    assert len(padded_losses) == 50 and padded_losses[-1] < padded_losses[0] - 0.5
    assert shared_losses == pytest.approx(padded_losses, rel=1e-4)


@pytest.mark.parametrize("again", [False, True])
def test_a_layer_is_computed_twice_where_checkpointing_is_on_and_only_there(loaded, rows, tmp_path, again) -> None:
    loaded.model = lora.attach_lora(
        loaded.model, loaded.spec, r=4, alpha=8, dropout=0.0, seed=3, checkpointing=again, window=512
    )
    layer, forward, back = loaded.model.get_submodule("base_model.model.model.layers.0.mlp"), [], []
    layer.register_forward_pre_hook(lambda *_: forward.append(1))  # computed again, it may stop before its end
    layer.register_full_backward_hook(lambda *_: back.append(1))
    trained(loaded, rows, tmp_path, epochs=1)
    assert len(back) > 2 and len(forward) == len(back) * (2 if again else 1)


@pytest.mark.parametrize("architecture", ["Llama", "Qwen3"])
def test_packed_decoding_says_what_padded_decoding_says(
    architecture: str, tmp_path: Path, embedded: Path, task: Path
) -> None:
    loaded = loaded_from(family(architecture, tmp_path / "model", embedded))
    prompts = [loaded.renderer.prompt_ids(example) for example in get_task(str(task)).test]
    with torch.inference_mode():
        packed, plain = decode.packed(loaded, prompts, 8), decode.padded(loaded, prompts, 8)
    assert plain == [(answer, True) for answer in packed] and len(packed[0]) == 8


def test_a_few_long_answers_hold_no_others_up_and_nobody_answers_otherwise(tiny_model, monkeypatch) -> None:
    """Drawn answers: a tiny model's greedy ones go round in circles, all to the last token there may be."""
    loaded = loaded_from(tiny_model)
    monkeypatch.setattr(decode, "_PACKED_TYPES", frozenset())
    monkeypatch.setattr("slimtune.engine.generate._TOKENS", {"cpu": 10**6})
    sampling, words = get_model("qwen3-0.6b").sampling("on"), loaded.model.config.vocab_size
    loaded.spec = replace(loaded.spec, traits=replace(loaded.spec.traits, thinking_sampling=sampling))
    loaded.renderer = replace(loaded.renderer, thinking="on", stop_ids=frozenset(range(0, words, 5)))
    examples, steps = get_task("banking77").test[:24], []
    loaded.model.register_forward_hook(lambda *_: steps.append(1))
    together = dict(generate(loaded, examples, 40))
    lengths = [one.completion_tokens for one in together.values()]
    assert len(set(lengths)) > 5 and len(steps) == max(lengths)
    steps.clear()
    monkeypatch.setattr("slimtune.engine.generate._BATCH", {"cpu": 8})
    few = dict(generate(loaded, examples, 40))
    in_turn = len(steps)
    assert {index: one.text for index, one in few.items()} == {index: one.text for index, one in together.items()}
    assert [few[index].completion_tokens for index in together] == lengths
    steps.clear()
    monkeypatch.setattr("slimtune.engine.generate._FEW", 10**6)  # each batch to its end
    dict(generate(loaded, examples, 40))
    assert max(lengths) < in_turn < 0.9 * len(steps)


def test_real_weights_answer_alike_packed_and_padded_and_stop(embedded: Path) -> None:
    loaded = loaded_from(embedded)
    examples = get_task("banking77").test[:6]
    completions = dict(generate(loaded, examples, 12))
    assert sorted(completions) == list(range(6)) and all(one.text for one in completions.values())
    prompts = [loaded.renderer.prompt_ids(example) for example in examples]
    loaded.model.generation_config.repetition_penalty = 1.8  # as some models ask: greedy all the same
    with torch.inference_mode():
        plain = decode.padded(loaded, prompts, 12)
    for index, (tokens, _) in enumerate(plain):
        assert loaded.renderer.tokenizer.decode(tokens).startswith(completions[index].text)


def test_rows_come_in_a_permutation_an_epoch() -> None:
    order = sft.row_order(10, epochs=2.5, seed=1).tolist()
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10)) and len(set(order[20:])) == 5
    assert order[:10] != order[10:20] and order == sft.row_order(10, epochs=2.5, seed=1).tolist()


@pytest.mark.parametrize("collation", ["padded", "shared-prefix"])
def test_training_learns_and_the_batch_is_the_same_however_it_is_sliced(
    collation: str, tiny_model: Path, task: Path, tmp_path: Path
) -> None:
    found = []
    for micro in (8, 2):
        loaded = loaded_from(tiny_model)
        rows = [loaded.renderer.encode(example) for example in get_task(str(task)).train]
        loaded.model = lora.attach_lora(
            loaded.model, loaded.spec, r=4, alpha=8, dropout=0.0, seed=3, checkpointing=False, window=512
        )
        found.append(trained(loaded, rows, tmp_path / str(micro), micro_batch=micro, collation=collation, epochs=6))
    assert found[0][1][-1] < found[0][1][0] - 0.5
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-4)
    assert torch.allclose(found[0][2], found[1][2], atol=1e-4)


def out_of_memory_over(model, *, tokens: int, times: float = math.inf):
    """Make a model's forward run out of memory above so many tokens, as a card would."""
    left = [times]

    def check(module, args, kwargs):
        if kwargs["input_ids"].numel() > tokens and left[0] > 0:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")

    return model.register_forward_pre_hook(check, with_kwargs=True)


def test_out_of_memory_halves_the_part_keeps_the_batch_and_says_so(tiny_model, task, tmp_path: Path) -> None:
    found = []
    for budget in (10_000, 300):
        loaded = loaded_from(tiny_model)
        rows = [loaded.renderer.encode(example) for example in get_task(str(task)).train]
        loaded.model = lora.attach_lora(
            loaded.model, loaded.spec, r=4, alpha=8, dropout=0.0, seed=3, checkpointing=False, window=512
        )
        hook = out_of_memory_over(loaded.model, tokens=budget)
        found.append(trained(loaded, rows, tmp_path / str(budget)))
        hook.remove()
    (plain, losses, weights_, _), (split, split_losses, split_weights, said) = found
    assert plain.oom_splits == [] and split.oom_splits[0] == {"step": 1, "micro_batch": 4}
    assert "parts of 4 rows" in said[0] and split.steps == plain.steps
    assert split_losses == pytest.approx(losses, rel=1e-4) and torch.allclose(weights_, split_weights, atol=1e-4)


def test_out_of_memory_in_mid_run_replays_the_batch(adapted, rows, tmp_path: Path) -> None:
    hooks = []
    steps = []

    def on_step(step):
        steps.append(step)
        if step.step == 3:
            hooks.append(out_of_memory_over(adapted.model, tokens=200, times=1))

    result = sft.train(
        adapted, rows, settings(), tmp_path, on_step=on_step, say=lambda _: None, should_stop=lambda: False
    )
    assert result.oom_splits == [{"step": 4, "micro_batch": 4}] and [step.step for step in steps] == list(range(1, 7))


def test_one_row_that_does_not_fit_is_refused_with_what_helps(adapted, rows, tmp_path: Path) -> None:
    out_of_memory_over(adapted.model, tokens=10)
    with pytest.raises(UserError, match=r"context.*lora\.r.*4bit"):
        trained(adapted, rows, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: out of memory\nCompile with...",
        "CUDA driver error: out of memory",
        "Triton Error [CUDA]: out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED when calling",
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_out_of_memory_is_recognised_whoever_says_it(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text)) and not is_out_of_memory(ValueError(text))


def test_nan_ends_the_run_with_the_last_finite_checkpoint_kept(adapted, rows, tmp_path: Path) -> None:
    def poison(step):
        if step.step == 3:
            next(p for p in adapted.model.parameters() if p.requires_grad).data.fill_(float("nan"))

    with pytest.raises(Diverged) as caught:
        sft.train(
            adapted,
            rows,
            settings(checkpoint_steps=1),
            tmp_path,
            on_step=poison,
            say=lambda _: None,
            should_stop=lambda: False,
        )
    assert caught.value.exit_code == 71
    kept, _ = newest_whole(tmp_path)
    from safetensors.torch import load_file

    assert kept is not None and kept.name <= "step-00000003"
    assert all(torch.isfinite(tensor).all() for tensor in load_file(kept / "adapter_model.safetensors").values())


def test_a_stopped_run_saves_and_goes_on_to_the_same_weights(tiny_model: Path, task: Path, tmp_path: Path) -> None:
    def fresh():
        loaded = loaded_from(tiny_model)
        loaded.model = lora.attach_lora(
            loaded.model, loaded.spec, r=4, alpha=8, dropout=0.1, seed=3, checkpointing=False, window=512
        )
        return loaded, [loaded.renderer.encode(example) for example in get_task(str(task)).train]

    whole = trained(*fresh(), tmp_path / "whole")
    with pytest.raises(Interrupted, match="after step 3 of 6"):
        trained(*fresh(), tmp_path / "broken", stop_at=3)
    result, losses, weights_, said = trained(*fresh(), tmp_path / "broken")
    assert result.resumed_at == 3 and losses == whole[1][3:] and "Going on from step 3 of 6." in said
    assert torch.equal(weights_, whole[2])


def test_fp16_skips_are_counted_and_too_many_end_the_run() -> None:
    watch = Watch(1000, scaler=True)
    for step in range(1, 4):  # the scaler settles
        watch.step(step, loss=2.0, grad_norm=math.inf, skipped=True)
    assert watch.skipped == 3
    with pytest.raises(Diverged, match="overflowed in fp16"):
        for step in range(4, 20):
            watch.step(step, loss=2.0, grad_norm=math.nan, skipped=True)


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan)])
def test_a_number_that_is_not_finite_ends_the_run(loss: float, norm: float) -> None:
    with pytest.raises(Diverged):
        Watch(100, scaler=False).step(1, loss=loss, grad_norm=norm, skipped=False)


def test_an_exploded_loss_ends_the_run_and_a_noisy_learned_one_does_not() -> None:
    noisy = Watch(100, scaler=False)
    for step in range(1, 400):
        noisy.step(step, loss=2.0 if step < 20 else (0.3 if step % 7 == 0 else 0.01), grad_norm=1.0, skipped=False)
    exploding = Watch(100, scaler=False)
    with pytest.raises(Diverged, match="jumped"):
        for step in range(1, 200):
            exploding.step(step, loss=2.0 if step < 120 else 9.0, grad_norm=1.0, skipped=False)


def test_pickled_weights_and_code_in_a_model_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    import json
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(UserError, match="code of its own"):
        source.resolve_source(get_model(str(folder)), quantisation="16bit", revision=None)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="Pickled"):
        source.resolve_source(get_model(str(folder)), quantisation="16bit", revision=None)


def test_a_context_beyond_the_models_own_is_refused(tiny_model: Path) -> None:
    spec = get_model(str(tiny_model))
    where = source.resolve_source(spec, quantisation="16bit", revision=None)
    renderer = load.load_renderer(spec, where, thinking="off")
    with pytest.raises(UserError, match="was made for"):
        load.load_model(spec, where, renderer, precision="fp32", quantisation="16bit", window=100_000)


def test_a_run_goes_on_with_the_optimizer_whose_moments_it_has(adapted, rows, tmp_path: Path) -> None:
    """Another card may have another plan."""
    trained(adapted, rows, tmp_path, epochs=1, checkpoint_steps=1)
    newest, _ = newest_whole(tmp_path)
    assert sft._saved_optimizer(newest, "adamw_8bit") == "adamw"
    file = newest / "optimizer.pt"
    saved = torch.load(file, weights_only=True)
    for moments in saved["state"].values():
        moments["state1"], moments["state2"] = moments.pop("exp_avg"), moments.pop("exp_avg_sq")
    torch.save(saved, file)
    assert sft._saved_optimizer(newest, "adamw") == "adamw_8bit"
    torch.save(saved | {"state": {}}, file)
    assert sft._saved_optimizer(newest, "adamw_8bit") == "adamw_8bit"


def test_checkpoints_rotate_by_step_and_not_by_the_clock(adapted, rows, tmp_path: Path) -> None:
    import os
    import time

    def date_ahead(step):
        for path in checkpoints(tmp_path):
            os.utime(path, (time.time() + 86_400 * (10 - step.step),) * 2)

    sft.train(
        adapted,
        rows,
        settings(checkpoint_steps=1),
        tmp_path,
        on_step=date_ahead,
        say=lambda _: None,
        should_stop=lambda: False,
    )
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000005", "step-00000006"]


def test_a_prompt_that_would_be_cut_is_refused(loaded, task: Path) -> None:
    loaded.window = 50
    with pytest.raises(UserError, match="loaded for 50"):
        next(generate(loaded, get_task(str(task)).test, 16))
