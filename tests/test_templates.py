"""Chat templates with the tokenizers they belong to: what is learnt is what is asked for, and nothing else.

Real tokenizers of Qwen3, Llama 3.1 and Gemma 3 come from tests/fetch_tokenizers.sh, SmolLM2's from its package. The
templates of Llama, and of models whose tokenizer is not here, are the copies that TRL brings.
"""

import importlib.util
import os
import re
import shutil
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import pytest

from slimtune.data import Example, Message, ToolCall
from slimtune.engine.render import RowError, dress_tokenizer, encode_rows, load_tokenizer, make_renderer
from slimtune.errors import Problems, UserError
from slimtune.models import get_model
from slimtune.models.other import other_family
from slimtune.models.toolcalls import format_in, parse_tool_calls
from slimtune.tasks import get_task

transformers = pytest.importorskip("transformers")

TOKENIZERS = Path(os.environ.get("SLIMTUNE_TOKENIZERS", "~/.cache/slimtune-tokenizers")).expanduser()
PAY = ToolCall(
    "transfer_money", {"amount": 10.5, "to": 'Ann\'s "savings"\n{é} \\n', "when": None, "tags": ["a", {"b": True}]}
)
ASK = ToolCall("check_balance", {})
TOOLS = tuple(
    {"type": "function", "function": {"name": name, "description": "…", "parameters": {"properties": properties}}}
    for name, properties in (
        ("transfer_money", {"amount": {"type": "number"}, "to": {"type": "string"}, "when": {"type": "null"}}),
        ("check_balance", {}),
    )
)
SYSTEM, HELLO = Message("system", "You are a bank."), Message("user", "Hello, it's me.")
PLAIN = Example("plain", (SYSTEM, HELLO), "Good morning\n\nto <you>.")
TURNS = Example("turns", (HELLO, Message("assistant", "Yes?"), Message("user", "My balance?")), "No idea.")
CALL = Example("call", (SYSTEM, HELLO), (PAY,), TOOLS)
NONE_DUE = Example("none due", (HELLO,), (), TOOLS)
RESULT = Example(
    "result", (SYSTEM, HELLO, Message("assistant", "", (ASK,)), Message("tool", '{"euros": 12}')), "12 euros.", TOOLS
)
CALL_AGAIN = replace(RESULT, id="call again", target=(PAY,))
ROWS = {row.id: row for row in (PLAIN, TURNS, CALL, NONE_DUE, RESULT, CALL_AGAIN)}
TWO_CALLS = replace(CALL, id="two calls", target=(ASK, PAY))
THOUGHT = replace(TURNS, id="thought", meta={"reasoning": "I do not know."})


def trl_template(name: str) -> str:
    """A chat template as its vendor ships it, from TRL's collection."""
    spec = importlib.util.find_spec("trl")
    path = Path(spec.origin).parent / "chat_templates" / f"{name}.jinja" if spec else None
    if path is None or not path.is_file():
        pytest.skip(f"This version of TRL brings no chat template {name}.")
    return path.read_text(encoding="utf-8")


def real(name: str) -> Path:
    if not (TOKENIZERS / name / "tokenizer.json").is_file():
        pytest.skip(f"There is no {name} tokenizer in {TOKENIZERS}: tests/fetch_tokenizers.sh fetches it.")
    return TOKENIZERS / name


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory) -> Path:
    """Llama 3.1's tokenizer. The package has Llama 3's: the same words, four of its reserved tokens not named yet, and
    a template that knows no tools."""
    template, folder = trl_template("llama3_1"), tmp_path_factory.mktemp("tokenizers") / "llama3_1"
    shutil.copytree(real("llama3_1"), folder)
    words = (folder / "tokenizer.json").read_text(encoding="utf-8")
    for number, name in ((2, "finetune_right_pad_id"), (3, "step_id"), (4, "eom_id"), (5, "python_tag")):
        words = words.replace(f'"<|reserved_special_token_{number}|>"', f'"<|{name}|>"')
    (folder / "tokenizer.json").write_text(words, encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


@cache
def own(folder: Path):
    """A tokenizer as it is, with its own template."""
    return transformers.AutoTokenizer.from_pretrained(folder)


@cache
def dressed(folder: Path, key: str):
    return load_tokenizer(folder, get_model(key))


@pytest.fixture
def renderer_of(embedded, llama_folder_or_skip):
    """A function: the name of a model, how it thinks -> its Renderer."""
    models = {
        "qwen3": ("qwen3-0.6b", lambda: real("qwen3")),
        "llama3": ("llama-3.1-8b-instruct", llama_folder_or_skip),
        "gemma3": ("gemma-3-1b-it", lambda: real("gemma3")),
        "smollm2": ("smollm2-135m-embedded", lambda: embedded),
    }

    def make(name: str, *, thinking: str = "off", template: str | None = None):
        key, folder = models[name]
        tokenizer = dressed(folder(), key)
        if template is not None:
            tokenizer = deepcopy(tokenizer)
            tokenizer.chat_template = template
        return make_renderer(tokenizer, get_model(key), thinking=thinking)

    return make


@pytest.fixture
def llama_folder_or_skip(request):
    return lambda: request.getfixturevalue("llama_folder")


MODELS = ("qwen3", "llama3", "gemma3", "smollm2")
STOPS = {"qwen3": "<|im_end|>", "llama3": "<|eot_id|>", "gemma3": "<end_of_turn>", "smollm2": "<|im_end|>"}
BEGINS = {"qwen3": None, "llama3": "<|begin_of_text|>", "gemma3": "<bos>", "smollm2": None}


def decoded(renderer, tokens) -> str:
    return renderer.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize(("model", "name"), list(product(MODELS, ROWS)))
def test_a_row_is_the_prompt_that_is_asked_and_the_answer_up_to_its_stop_token(renderer_of, model, name):
    renderer, example = renderer_of(model), ROWS[name]
    row = renderer.encode(example)
    assert row.prompt == renderer.prompt_ids(example)
    stop = renderer.tokenizer.convert_tokens_to_ids(STOPS[model])
    assert row.answer[-1] == stop and not renderer.stop_ids.intersection(row.answer[:-1])
    text = decoded(renderer, row.answer[:-1])
    if isinstance(example.target, str):
        assert text == example.target
    else:
        assert parse_tool_calls(text, renderer.spec.tool_call_format, example.tools).calls == example.target


@pytest.mark.parametrize(("model", "name"), list(product(MODELS, ROWS)))
def test_a_chat_has_one_begin_token_and_is_cut_into_tokens_as_a_whole(renderer_of, model, name):
    renderer = renderer_of(model)
    row = renderer.encode(ROWS[name])
    if BEGINS[model] is not None:
        begin = renderer.tokenizer.convert_tokens_to_ids(BEGINS[model])
        assert row.prompt[0] == begin and begin not in (*row.prompt[1:], *row.answer)
    assert renderer.ids(decoded(renderer, row.prompt + row.answer)) == row.prompt + row.answer


@pytest.mark.parametrize("model", MODELS)
def test_tools_calls_and_results_stand_in_the_prompt(renderer_of, model):
    prompt = renderer_of(model).prompt(CALL_AGAIN)
    order = [prompt.index(text) for text in ("transfer_money", HELLO.content, "12}")]
    assert order == sorted(order) and prompt.count("check_balance") == 2 and "You are a bank." in prompt


@pytest.mark.parametrize("model", MODELS)
def test_the_padding_token_ends_nothing(renderer_of, model):
    tokenizer = renderer_of(model).tokenizer
    assert tokenizer.pad_token is not None and tokenizer.pad_token not in (STOPS[model], tokenizer.eos_token)
    assert tokenizer.pad_token == get_model(renderer_of(model).spec.key).pad_token


@pytest.mark.parametrize("model", ["qwen3", "gemma3", "smollm2"])
def test_several_calls_in_a_turn_are_learnt_and_read_back(renderer_of, model):
    renderer = renderer_of(model)
    text = decoded(renderer, renderer.encode(TWO_CALLS).answer[:-1])
    assert parse_tool_calls(text, renderer.spec.tool_call_format).calls == (ASK, PAY)


def test_llama_takes_one_call_a_turn_and_the_rows_with_more_are_named(renderer_of):
    renderer = renderer_of("llama3")
    with pytest.raises(RowError, match=r"^Row two calls: .* refuses the answer: .*single tool-calls"):
        renderer.encode(TWO_CALLS)
    earlier = replace(RESULT, id="earlier", messages=(HELLO, Message("assistant", "", (ASK, ASK)), RESULT.messages[-1]))
    with pytest.raises(RowError, match=r"^Row earlier: .* refuses the chat: .*single tool-calls"):
        renderer.prompt_ids(earlier)
    with pytest.raises(Problems, match=r"(?s)^3 of the training rows.*row two calls and 1 more: .*row earlier: "):
        encode_rows(renderer, [PLAIN, TWO_CALLS, earlier, replace(TWO_CALLS, id="three")])
    with pytest.raises(Problems, match=r"`data\.skip_bad: true` trains without such rows"):
        encode_rows(renderer, [PLAIN, TWO_CALLS])
    kept = encode_rows(renderer, [PLAIN, TWO_CALLS, earlier, CALL], skip_bad=True)
    assert [row.id for row in kept] == [PLAIN.id, CALL.id]
    with pytest.raises(Problems, match="2 of the training rows"):  # none is left
        encode_rows(renderer, [TWO_CALLS, earlier], skip_bad=True)


def test_bfcls_rows_with_several_calls_are_refused_by_llama_by_name_or_left_out_and_counted(renderer_of):
    renderer, rows = renderer_of("llama3"), get_task("bfcl_single_turn").train
    several = [row for row in rows if len(row.target) > 1]
    with pytest.raises(Problems, match=rf"(?s)^{len(several)} of the training rows.*row {several[0].id} "):
        encode_rows(renderer, rows)
    assert len(encode_rows(renderer, rows, skip_bad=True)) == len(rows) - len(several) > 0 < len(several)
    assert all(renderer.prompt_ids(row) for row in get_task("bfcl_single_turn").test)  # all can be asked


@pytest.mark.parametrize("version", ["llama3_1", "llama3_2"])
def test_llamas_date_is_the_same_every_day(renderer_of, version):
    renderer = renderer_of("llama3", template=trl_template(version))
    assert "Today Date: 26 Jul 2024\n" in renderer.prompt(PLAIN)


def test_tools_that_a_template_leaves_out_are_found_before_anything_is_asked(renderer_of):
    """The package's own template of Llama 3 writes neither tools nor calls, without a word."""
    renderer = renderer_of("llama3", template=own(real("llama3_1")).chat_template)
    assert renderer.encode(PLAIN)
    with pytest.raises(RowError, match="leaves out 'transfer_money', 'check_balance'"):
        renderer.prompt_ids(CALL)
    with pytest.raises(RowError, match="leaves out 'check_balance'"):
        renderer.prompt_ids(replace(RESULT, tools=()))


def test_qwen3_does_not_think_where_thinking_is_off(renderer_of):
    renderer = renderer_of("qwen3")
    row = renderer.encode(THOUGHT)
    assert decoded(renderer, row.prompt).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert decoded(renderer, row.answer) == "No idea.<|im_end|>"
    assert row.prompt == renderer.prompt_ids(THOUGHT) == renderer.prompt_ids(replace(THOUGHT, meta={}))


def test_qwen3_learns_its_thought_where_thinking_is_on(renderer_of):
    renderer = renderer_of("qwen3", thinking="on")
    row = renderer.encode(THOUGHT)
    assert row.prompt == renderer.prompt_ids(THOUGHT)
    assert decoded(renderer, row.prompt).endswith("<|im_start|>assistant\n")
    assert decoded(renderer, row.answer) == "<think>\nI do not know.\n</think>\n\nNo idea.<|im_end|>"
    with pytest.raises(RowError, match="Row turns: it carries no reasoning"):
        renderer.encode(TURNS)


def test_qwen3_thinks_where_the_row_does_when_thinking_is_mixed(renderer_of):
    mixed, on, off = (renderer_of("qwen3", thinking=thinking) for thinking in ("mixed", "on", "off"))
    assert mixed.encode(THOUGHT) == on.encode(THOUGHT)
    assert mixed.encode(TURNS) == off.encode(TURNS)
    assert mixed.prompt(THOUGHT) == off.prompt(THOUGHT), "a model that learned both is asked without a thought"
    assert on.prompt(THOUGHT) != off.prompt(THOUGHT)


def test_qwen3_calls_tools_after_a_thought(renderer_of):
    renderer = renderer_of("qwen3", thinking="on")
    text = decoded(renderer, renderer.encode(replace(CALL_AGAIN, meta={"reasoning": "Pay <tool_call>?"})).answer[:-1])
    assert text.startswith("<think>\nPay") and parse_tool_calls(text, "hermes").calls == (PAY,)


@pytest.mark.parametrize("thinking", ["on", "off", "mixed"])
def test_qwen3s_earlier_turns_stand_without_their_thoughts(renderer_of, thinking):
    before = Message("assistant", "<think>\nHm.\n</think>\n\nYes?")
    row = replace(THOUGHT, messages=(HELLO, before, Message("user", "My balance?")))
    prompt = renderer_of("qwen3", thinking=thinking).prompt(row)
    assert "Hm." not in prompt and "<|im_start|>assistant\nYes?<|im_end|>" in prompt


def test_an_answer_that_speaks_of_thoughts_is_learnt_as_it_is(renderer_of):
    renderer = renderer_of("qwen3")
    row = renderer.encode(replace(PLAIN, target="Close it with </think>, then answer."))
    assert decoded(renderer, row.answer[:-1]) == "Close it with </think>, then answer."


@pytest.mark.parametrize("model", ["llama3", "gemma3", "smollm2"])
def test_thinking_is_refused_where_a_model_has_no_switch(renderer_of, model):
    for thinking in ("on", "mixed"):
        with pytest.raises(UserError, match="no thinking mode"):
            renderer_of(model, thinking=thinking)


PLAIN_CHATS = (
    [{"role": "user", "content": " Hi\n"}],
    [{"role": "system", "content": " Be short.\n"}, {"role": "user", "content": "{{ ü }}"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<b>\n"}, {"role": "user", "content": ""}],
    [{"role": "user", "content": [{"type": "text", "text": "Look: "}, {"type": "image"}]}],
    [{"role": "system", "content": [{"type": "text", "text": "s"}]}, {"role": "user", "content": "a"}],
)


@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("chat", PLAIN_CHATS)
def test_gemmas_plain_chats_are_those_of_its_own_template(renderer_of, chat, prompt):
    ours, its = renderer_of("gemma3").tokenizer, own(real("gemma3"))
    assert ours.chat_template != its.chat_template
    made = [each.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt) for each in (ours, its)]
    assert made[0] == made[1]


def test_gemmas_turns_must_alternate_as_in_its_own_template(renderer_of):
    with pytest.raises(RowError, match=r"Row turns: .* refuses the chat: Conversation roles must alternate"):
        renderer_of("gemma3").prompt(replace(TURNS, messages=(HELLO, HELLO)))


def test_gemmas_tools_stand_in_the_first_user_turn_and_results_are_a_users_turn(renderer_of):
    results = (
        *RESULT.messages[:2],
        Message("assistant", "Wait.", (ASK, ASK)),
        Message("tool", "1"),
        Message("tool", "2"),
    )
    prompt = renderer_of("gemma3").prompt(replace(RESULT, messages=results, tools=TOOLS[1:]))
    assert prompt == (
        "<bos><start_of_turn>user\nYou are a bank.\n\n"
        "You can call these functions. Each line is one, as JSON:\n<tools>\n"
        '{"type": "function", "function": {"name": "check_balance", "description": "…", "parameters": '
        '{"properties": {}}}}\n</tools>\n'
        "To call one, answer with its name and arguments in this form, once for each call:\n<tool_call>\n"
        '{"name": "the function", "arguments": {"an argument": "its value"}}\n</tool_call>\n\n'
        "Hello, it's me.<end_of_turn>\n<start_of_turn>model\nWait.\n"
        '<tool_call>\n{"name": "check_balance", "arguments": {}}\n</tool_call>\n'
        '<tool_call>\n{"name": "check_balance", "arguments": {}}\n</tool_call><end_of_turn>\n'
        "<start_of_turn>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><end_of_turn>\n"
        "<start_of_turn>model\n"
    )


def test_tools_as_text_takes_content_in_parts_as_servers_send_it(renderer_of):
    parts = [{"type": "text", "text": "You are "}, {"type": "text", "text": "a bank."}]
    calls = [{"function": {"name": "check_balance", "arguments": {}}}]
    chats = [
        [
            {"role": "system", "content": system},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": nothing, "tool_calls": calls},
            {"role": "tool", "content": result},
        ]
        for system, nothing, result in (("You are a bank.", "", "12"), (parts, None, [{"type": "text", "text": "12"}]))
    ]
    made = [
        renderer_of("gemma3").tokenizer.apply_chat_template(
            chat, tools=list(TOOLS), tokenize=False, add_generation_prompt=True
        )
        for chat in chats
    ]
    assert made[0] == made[1] and "You are a bank.\n\nYou can call" in made[0]


def borrowed(tokenizer, key: str, template: str):
    """A renderer of a model whose own tokenizer is not here, with another one that has its stop token."""
    tokenizer, spec = deepcopy(tokenizer), get_model(key)
    tokenizer.chat_template = template
    if spec.stop_token not in tokenizer.get_vocab():
        tokenizer.add_special_tokens({"eos_token": spec.stop_token})
    dress_tokenizer(tokenizer, spec)
    return make_renderer(tokenizer, spec, thinking="off")


GRANITE = (  # in the manner of Granite 3: tools have a turn of their own, calls are left out
    "{%- if tools %}{{- '<|start_of_role|>available_tools<|end_of_role|>' + tools | tojson(indent=4) }}{% endif %}"
    "{%- for message in messages %}"
    "{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
)
BORROWED = {
    "lfm2": ("lfm2-350m", "<|tool_call_start|>["),
    "lfm2_v2": ("lfm2-1.2b", "<|tool_call_start|>["),
    "lfm2_2_5_v2": ("lfm2.5-1.2b-instruct", "<|tool_call_start|>["),
    "granite": ("granite-3.3-2b-instruct", "<|tool_call|>["),
}


@pytest.mark.parametrize("name", BORROWED)
def test_calls_that_a_template_drops_or_garbles_are_written_by_ours(embedded, name):
    key, opening = BORROWED[name]
    template = GRANITE if name == "granite" else trl_template(name)
    renderer = borrowed(dressed(embedded, "smollm2-135m-embedded"), key, template)
    for row in (PLAIN, TURNS, CALL, NONE_DUE, RESULT, CALL_AGAIN, TWO_CALLS):
        text = decoded(renderer, renderer.encode(row).answer[:-1])
        if isinstance(row.target, str):
            assert text == row.target
        else:
            assert parse_tool_calls(text, renderer.spec.tool_call_format).calls == row.target
            assert text.startswith(opening) or not row.target
    assert renderer.prompt(RESULT).count("check_balance") == 2
    ours, its = renderer.tokenizer, deepcopy(renderer.tokenizer)
    its.chat_template = template
    for chat in PLAIN_CHATS[:3]:
        made = [each.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for each in (ours, its)]
        assert made[0] == made[1]


def test_lfm2s_calls_are_those_of_its_own_template_where_that_one_writes_them(embedded):
    template = trl_template("lfm2_v2")
    renderer = borrowed(dressed(embedded, "smollm2-135m-embedded"), "lfm2-1.2b", template)
    ours = renderer.prompt(CALL), decoded(renderer, renderer.encode(CALL).answer)
    renderer.tokenizer.chat_template = template
    assert ours == (renderer.prompt(CALL), decoded(renderer, renderer.encode(CALL).answer))


VENDORS = {
    "hermes": ("qwen2_5", "qwen3", "qwen3_instruct_2507", "qwen3_vl"),
    "json": ("llama3_1", "llama3_2"),
    "pythonic": ("lfm2_v2", "lfm2_v2_training"),
    "qwen_xml": ("qwen3_5_nothink", "qwen3_5_think"),
    "gemma": ("gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4", "gemma4_v5"),
}


@pytest.mark.parametrize(("format", "version"), [(name, version) for name in VENDORS for version in VENDORS[name]])
def test_a_call_as_its_vendors_template_writes_it_is_read_unchanged(embedded, format, version):
    """Quotes, braces, a backslash, a line's end, null, a list and an object: all of it comes back."""
    tokenizer = deepcopy(own(embedded))
    tokenizer.chat_template = trl_template(version)
    call = {"type": "function", "id": "call00001", "function": {"name": PAY.name, "arguments": dict(PAY.arguments)}}
    asked = [{"role": "user", "content": "Pay."}]
    chat = [*asked, {"role": "assistant", "content": "", "tool_calls": [call]}]
    text = tokenizer.apply_chat_template(chat, tools=list(TOOLS), tokenize=False)
    prompt = tokenizer.apply_chat_template(asked, tools=list(TOOLS), tokenize=False)
    answer = re.split(r"<\|im_end\|>|<\|eot_id\|>|<\|eom_id\|>|<turn\|>", text.removeprefix(prompt))[0]
    call_at = re.search(r'<tool_call>|<\|tool_call|{"name"', answer).start()
    assert text.startswith(prompt)
    assert parse_tool_calls(answer[call_at:], format, TOOLS).calls == (PAY,)


@pytest.mark.parametrize("version", ["qwen3_5_nothink", "qwen3_5_think"])
def test_qwen3_5s_calls_in_tags_are_read_with_the_types_of_the_schema(renderer_of, version):
    renderer = renderer_of("qwen3", template=trl_template(version))
    renderer = replace(
        renderer, spec=replace(renderer.spec, traits=replace(renderer.spec.traits, tool_call_format="qwen_xml"))
    )
    text = decoded(renderer, renderer.encode(CALL_AGAIN).answer[:-1])
    assert text.startswith("<tool_call>\n<function=transfer_money>\n<parameter=amount>\n10.5\n</parameter>")
    assert parse_tool_calls(text, "qwen_xml", TOOLS).calls == (PAY,)
    assert re.search(r"<think>\n\n</think>\n\n\Z", renderer.prompt(CALL_AGAIN))


@pytest.mark.parametrize(
    ("version", "format"),
    [
        ("qwen3", "hermes"),
        ("qwen3_5_think", "qwen_xml"),
        ("llama3_2", "json"),
        ("lfm2_v2", "pythonic"),
        ("lfm2", None),
        ("gemma3", None),
    ],
)
def test_a_model_never_seen_before_calls_tools_as_its_template_does_or_as_text(version, format):
    template = trl_template(version)
    assert format_in(template) == format
    family = other_family(None, "mistral", stop_token="</s>", template=template)
    assert family.tool_call_format == (format or "hermes")
    assert (family.chat_template is None) == (format is not None)
