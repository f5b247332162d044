"""What a renderer refuses: rows and templates with which a model would learn something else than it is asked."""

from copy import deepcopy
from dataclasses import replace

import pytest

from slimtune.data import Example, Message, ToolCall
from slimtune.engine.render import RowError, dress_tokenizer, encode_rows, load_tokenizer, make_renderer
from slimtune.errors import Problems, UserError
from slimtune.models import get_model

pytest.importorskip("transformers")

TEXT = Example("text", (Message("user", "Hi"),), "Hello.")
TOOLS = ({"type": "function", "function": {"name": "add", "parameters": {}}},)
CALL = Example("call", (Message("user", "1+1?"),), (ToolCall("add", {"numbers": "it's 1, 1"}),), TOOLS)
SPEC = get_model("smollm2-135m-embedded")


@pytest.fixture(scope="session")
def tokenizer_once(embedded):
    return load_tokenizer(embedded, SPEC)


@pytest.fixture
def tokenizer(tokenizer_once):
    return deepcopy(tokenizer_once)


def rendering(tokenizer, *, template: str | None = None, form: str = "hermes"):
    if template is not None:
        tokenizer.chat_template = template
    spec = replace(SPEC, traits=replace(SPEC.traits, tool_call_format=form))
    return make_renderer(tokenizer, spec, thinking="off")


def chatml(turn: str) -> str:
    """A template that writes each turn so; the functions it is offered come first."""
    return (
        "{{ tools | tojson if tools }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        + turn
        + "{{ '<|im_end|>\n' }}{% endfor %}{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
    )


def test_a_stop_token_inside_of_an_answer_is_refused_and_not_cut(tokenizer):
    with pytest.raises(RowError, match=r"^Row text: the answer holds <\|im_end\|> in its own text"):
        rendering(tokenizer).encode(replace(TEXT, target="Write <|im_end|> and stop."))


def test_a_call_that_a_template_garbles_is_refused(tokenizer):
    raw = "{% for c in m.tool_calls or [] %}[{{ c.function.name }}(numbers='{{ c.function.arguments.numbers }}')]"
    renderer = rendering(tokenizer, template=chatml("{{ m.content }}" + raw + "{% endfor %}"), form="pythonic")
    with pytest.raises(
        RowError, match=r"^Row call: its calls are not read back .* a comma or '\)' is due at column 18"
    ):
        renderer.encode(CALL)
    plain = replace(CALL, target=(ToolCall("add", {"numbers": "1"}),))
    assert renderer.tokenizer.decode(renderer.encode(plain).answer) == "[add(numbers='1')]<|im_end|>"


def test_a_call_that_a_template_drops_is_refused(tokenizer):
    with pytest.raises(RowError, match="Row call: the chat template dropped the answer"):
        rendering(tokenizer, template=chatml("{{ m.content }}")).encode(CALL)


def test_a_text_that_a_template_changes_is_refused(tokenizer):
    shouting = rendering(tokenizer, template=chatml("{{ m.content | upper }}"))
    with pytest.raises(RowError, match="Row text: the chat template changes the answer's text"):
        shouting.encode(TEXT)
    assert shouting.encode(replace(TEXT, target=" HELLO.\n"))


def test_calls_are_refused_where_the_model_has_no_format_for_them(tokenizer):
    renderer = rendering(tokenizer, form="none")
    assert renderer.encode(replace(CALL, target="2"))
    with pytest.raises(UserError, match=r"has no format for tool calls\. Choose another model"):
        renderer.encode(CALL)


@pytest.mark.parametrize("broken", ["{{ raise_exception('no ' + m.role) }}", "{{ 'a' + 1 }}", "{{ m.content.x.y }}"])
def test_a_template_that_fails_on_a_chat_names_the_row(tokenizer, broken):
    with pytest.raises(RowError, match=r"^Row text: the chat template of SmolLM2.* refuses the chat: "):
        rendering(tokenizer, template=chatml(broken)).prompt_ids(TEXT)


def test_all_rows_that_cannot_be_used_are_counted_each_kind_once(tokenizer):
    stop = replace(TEXT, target="or <|im_end|> not")
    rows = [replace(stop, id="a"), TEXT, replace(stop, id="b"), replace(CALL, id="c")]
    renderer = rendering(tokenizer, template=chatml("{{ m.content }}"))
    with pytest.raises(Problems) as caught:
        encode_rows(renderer, rows)
    assert [problem.where for problem in caught.value.problems] == ["row a and 1 more", "row c"]
    assert str(caught.value).startswith("3 of the training rows cannot be used:")
    assert encode_rows(renderer, [TEXT]) == [renderer.encode(TEXT)]


def test_a_template_of_ours_goes_before_the_tokenizers_own_once(tokenizer):
    gemma, own = get_model("gemma-3-1b-it"), chatml("{{ m.content }}")
    tokenizer.chat_template = "\n " + own
    dress_tokenizer(tokenizer, gemma)
    once = tokenizer.chat_template
    dress_tokenizer(tokenizer, gemma)
    assert tokenizer.chat_template == once and once.endswith("\n " + own)
    assert rendering(tokenizer).prompt(TEXT) == "\n <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert rendering(tokenizer).prompt(CALL).startswith("\n <|im_start|>system\nYou can call these functions.")
    assert "it's 1, 1" in rendering(tokenizer).tokenizer.decode(rendering(tokenizer).encode(CALL).answer)


def test_a_tokenizer_without_a_template_is_refused_where_ours_needs_one(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="gemma-3-1b-it has no chat template"):
        dress_tokenizer(tokenizer, get_model("gemma-3-1b-it"))


def test_a_model_that_ends_and_pads_with_one_token_gets_another_to_pad_with(tokenizer):
    """SmolLM2's own tokenizer does, and so does Granite's, whose begin token is the same one."""
    nameless = replace(SPEC, traits=replace(SPEC.traits, pad_token=None))
    tokenizer.pad_token = tokenizer.unk_token = tokenizer.bos_token = tokenizer.eos_token
    spare = [token for token in tokenizer.get_added_vocab() if "reserved" in token or "pad" in token]
    assert spare == []
    with pytest.raises(UserError, match="has no token to pad with"):
        dress_tokenizer(tokenizer, nameless)
    tokenizer.add_tokens(["<|reserved_1|>"], special_tokens=True)
    dress_tokenizer(tokenizer, nameless)
    assert tokenizer.pad_token == "<|reserved_1|>"
    dress_tokenizer(tokenizer, SPEC)
    assert tokenizer.pad_token == "<|endoftext|>" != tokenizer.eos_token


def test_a_stop_token_that_the_tokenizer_does_not_have_stops_nothing(tokenizer):
    renderer = make_renderer(
        tokenizer, replace(SPEC, traits=replace(SPEC.traits, stop_token="<|nowhere|>")), thinking="off"
    )
    assert renderer.stop_words() == ["<|im_end|>"]


def test_the_embedded_tokenizer_knows_words_and_gives_back_what_it_read(tokenizer) -> None:
    assert tokenizer.tokenize("I want to activate my card") == ["I", "Ġwant", "Ġto", "Ġactivate", "Ġmy", "Ġcard"]
    text = "a <|im_start|>user\n don't, 1234 é 中 😀"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == tokenizer.eos_token_id == 2
