"""A context is what its recipe says: never longer in silence, stretched by YaRN only where a model is meant for it, and
read back from the model that runs."""

import functools
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import make_task

from slimtune.check import plan_of, ready
from slimtune.errors import Problems, SlimtuneError, UserError
from slimtune.files import publish_folder
from slimtune.gpus import get_gpu
from slimtune.models import MODELS, Extension, get_model
from slimtune.plan.context import (
    Yarn,
    context_problem,
    learned_context,
    llama_cpp_flags,
    rope_parameters,
    setting,
    usable_tokens,
    vllm_flags,
    yarn_for,
)
from slimtune.recipe import Context, load_recipe, read_recipe

pytestmark = pytest.mark.xdist_group("context")  # in one process: they share what takes long to make

QWEN3_OWN = {"rope_type": "default", "rope_theta": 1_000_000}


def recipe_file(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(f"model: m\ntask: t\n{text}\n")
    return path


def context_in(folder: Path, text: str, *overrides: str) -> tuple[int, str]:
    context = load_recipe(recipe_file(folder, text), overrides).context
    return context.length, context.method


def line_to_add(text: str) -> Context:
    """What the one line of recipe between backticks in a refusal says."""
    (line,) = re.findall(r"`context: (.+?)`", text)
    found = re.fullmatch(r"(\d+)|\{length: (\d+), method: (\w+)\}", line)
    return Context(length=int(found[1] or found[2]), method=found[3] or "none")


# what the recipe says


def test_what_can_be_trained_and_not_asked_is_refused_with_the_length_that_can(tmp_path: Path) -> None:
    text = "model: qwen3-8b\ntask: banking77\ncontext: {length: 131072, method: yarn}\n"
    (tmp_path / "long.yaml").write_text(text)
    prepared = ready(read_recipe(tmp_path / "long.yaml"))
    with pytest.raises(UserError, match="keys and values") as caught:
        plan_of(prepared, gpu=get_gpu("t4"))
    assert "context:" not in str(caught.value), "nothing beyond the native window can be asked there"
    with pytest.raises(UserError, match="keys and values") as caught:
        plan_of(prepared, gpu=get_gpu("l4"))
    most = line_to_add(str(caught.value))
    assert 32768 < most.length < 131072 and most.method == "yarn"
    (tmp_path / "long.yaml").write_text(text.replace("131072", str(most.length)))
    assert plan_of(ready(read_recipe(tmp_path / "long.yaml")), gpu=get_gpu("l4")).fits
    assert plan_of(prepared, gpu=get_gpu("h100")).fits


def test_weights_are_in_4_bits_where_16_leave_no_room_for_what_will_be_asked(tmp_path: Path) -> None:
    text = "model: qwen3-8b\ntask: banking77\ntrain: {{batch: 16}}\ncontext: {{length: {}, method: yarn}}\n"
    plans = {}
    for length in (40960, 131072):
        (tmp_path / "long.yaml").write_text(text.format(length))
        prepared = ready(read_recipe(tmp_path / "long.yaml"))
        before = plan_of(prepared, gpu=get_gpu("a100-40gb"))
        plans[length] = plan_of(prepared, gpu=get_gpu("a100-40gb"), quantisation=before.quantisation)  # as a run does
        assert plans[length].notes == before.notes
    with pytest.raises(UserError, match="keys and values"):  # a run that began with 16-bit weights does not change them
        plan_of(prepared, gpu=get_gpu("a100-40gb"), quantisation="16bit")
    assert [plan.quantisation for plan in plans.values()] == ["16bit", "4bit"]
    told = [[note for note in plan.notes if "beside 16-bit ones" in note] for plan in plans.values()]
    assert [len(notes) for notes in told] == [0, 1] and plans[131072].fits


def test_a_number_is_short_for_a_length(tmp_path: Path) -> None:
    assert context_in(tmp_path, "") == (2048, "none")
    assert context_in(tmp_path, "context: 4096") == (4096, "none")
    assert context_in(tmp_path, "context: {length: 131072, method: yarn}") == (131072, "yarn")


def test_set_reaches_the_whole_and_its_parts(tmp_path: Path) -> None:
    assert context_in(tmp_path, "context: 4096", "context=512") == (512, "none")
    assert context_in(tmp_path, "context: 4096", "context.length=512") == (512, "none")
    assert context_in(tmp_path, "context: 40960", "context.method=yarn") == (40960, "yarn")
    assert context_in(tmp_path, "", "context.length=65536", "context.method=yarn") == (65536, "yarn")
    assert context_in(tmp_path, "context: {length: 65536, method: yarn}", "context=512") == (512, "none")


def test_both_ways_to_write_it_are_the_same_run(tmp_path: Path) -> None:
    short = load_recipe(recipe_file(tmp_path, "context: 4096"))
    long = load_recipe(recipe_file(tmp_path, "context: {length: 4096}"))
    other = load_recipe(recipe_file(tmp_path, "context: {length: 4096, method: yarn}"))
    assert short.digest == long.digest != other.digest
    assert short.as_json()["context"] == 4096 and other.model_validate(other.as_json()) == other


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("context: 0", "recipe.yaml:3 context.length: has to be at least 64, not 0."),
        ("context: -1", "at least 64, not -1."),
        (
            "context: long",
            "recipe.yaml:3 context: is a number of tokens, or {length: 131072, method: yarn}, not 'long'",
        ),
        ("context: [1, 2]", "is a number of tokens"),
        ("context: null", "is a number of tokens"),
        ("context: 99.5", "context.length: "),
        ("context: {method: linear}", "context.method: cannot be 'linear'. Known: none, yarn."),
        ("context: {lenght: 64}", "context.lenght: is not a key of a recipe. Did you mean 'length'?"),
        ("context: {length: 64, needles: 5}", "gives needles, which only `method: yarn` asks"),
    ],
)
def test_nonsense_gets_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    assert said in "\n".join(map(str, read_recipe(recipe_file(tmp_path, text)).problems))


# what a model may be given


def test_the_refusal_stands_at_its_line_with_the_line_that_helps(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: qwen3-8b\ntask: {make_task(tmp_path / 'actions')}\ncontext: 131072\n")
    with pytest.raises(Problems) as refused:
        ready(read_recipe(path))
    (problem,) = refused.value.problems
    assert problem.where.endswith("recipe.yaml:3 context") and "32,768 tokens Qwen3-8B was made for" in problem.what
    assert "`context: {length: 131072, method: yarn}`" in problem.fix
    assert ready(read_recipe(path, ["context.method=yarn"])).recipe.context.length == 131072


@pytest.mark.parametrize("key", MODELS)
@pytest.mark.parametrize("method", ["none", "yarn"])
def test_every_refusal_names_what_the_model_can_do(key: str, method: str) -> None:
    spec = MODELS[key]
    native = spec.native_context
    longest = spec.extension.longest_tokens if spec.extension else native
    assert context_problem(spec, Context(length=native)) is None
    for length in (native, native + 1, longest, longest + 1, 10_000_000):
        problem = context_problem(spec, Context(length=length, method=method))
        if problem is None:
            assert (method == "yarn" and spec.extension and length <= longest) or length == spec.native_context
            continue
        allowed = line_to_add(str(problem))
        assert context_problem(spec, allowed) is None
        assert allowed.length == min(length, longest), "the line asks for no less than the model can do"


@pytest.mark.parametrize(
    ("key", "context", "said"),
    [
        ("qwen3-8b", Context(length=131073, method="yarn"), "131,073 is more than Qwen3-8B takes: 32,768 tokens, or"),
        (
            "llama-3.1-8b-instruct",
            Context(length=131073),
            "131,072 tokens Llama-3.1-8B-Instruct was made for, and it can",
        ),
        ("llama-3.1-8b-instruct", Context(length=9000, method="yarn"), "is not meant for YaRN: its 131,072 tokens are"),
        ("smollm2-1.7b-instruct", Context(length=16384), "an experiment: its makers vouch for 8,192 only"),
    ],
)
def test_a_refusal_has_its_numbers(key: str, context: Context, said: str) -> None:
    assert said in str(context_problem(get_model(key), context))
    with pytest.raises(UserError):
        yarn_for(get_model(key), context)


# what YaRN sets


@pytest.mark.parametrize(
    ("length", "factor"), [(131072, 4.0), (65536, 2.0), (65537, 2.1), (100_000, 3.1), (32768, 1.0), (2048, 1.0)]
)
def test_the_factor_is_qwens_rule(length: int, factor: float) -> None:
    assert Yarn(length, 32768).factor == factor


@given(original=st.integers(512, 300_000), length=st.integers(64, 2_000_000))
def test_the_factor_is_the_smallest_tenth_that_reaches(original: int, length: int) -> None:
    yarn = Yarn(length, original)
    tenths = round(10 * yarn.factor)
    assert yarn.factor == tenths / 10 >= 1
    assert tenths == 10 or (tenths - 1) * original < 10 * length
    assert yarn.window_tokens == tenths * original // 10 >= length


def test_the_window_starts_from_what_the_model_was_trained_in_and_not_from_its_config() -> None:
    yarn = yarn_for(get_model("qwen3-8b"), Context(length=131072, method="yarn"))
    assert get_model("qwen3-8b").config()["max_position_embeddings"] == 40960
    assert rope_parameters(yarn, QWEN3_OWN) == {
        "rope_type": "yarn",
        "rope_theta": 1_000_000,
        "factor": 4.0,
        "original_max_position_embeddings": 32768,
    }
    assert yarn.window_tokens == usable_tokens(get_model("qwen3-8b"), yarn) == 131072 and not yarn.experimental


def test_the_base_and_the_layout_are_the_models_own() -> None:
    own = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True}
    set_ = rope_parameters(Yarn(500_000, 262144), own)
    assert set_ == {**own, "rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 262144}


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}, "scaled already"),
        ({"rope_type": "default"}, "no rope_"),
    ],
)
def test_yarn_does_not_go_on_top_of_what_it_does_not_know(own: dict, said: str) -> None:
    with pytest.raises(SlimtuneError, match=said):
        rope_parameters(Yarn(16384, 8192), own)


def test_beyond_what_a_vendor_vouches_for_is_an_experiment() -> None:
    spec = get_model("smollm2-135m-embedded")
    assert yarn_for(spec, Context(length=16384, method="yarn")).experimental
    assert not yarn_for(spec, Context(length=4096, method="yarn")).experimental
    assert yarn_for(spec, Context(length=4096)) is None


@pytest.mark.parametrize(("length", "doubted"), [(16384, True), (4096, False)])
def test_the_plan_says_that_positions_are_stretched(tmp_path: Path, length: int, doubted: bool) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: smollm2-135m-embedded\ntask: {make_task(tmp_path / 'actions')}\n")
    overrides = [f"context.length={length}", "context.method=yarn"]
    (note,) = [note for note in plan_of(ready(read_recipe(path, overrides)), gpu=None).notes if "YaRN" in note]
    assert f"factor {2.0 if length > 8192 else 1.0} over 8,192 tokens" in note and ("experiment" in note) == doubted
    assert "YaRN" not in str(plan_of(ready(read_recipe(path)), gpu=None).notes)


def test_servers_get_flags_that_say_the_same() -> None:
    yarn = Yarn(100_000, 32768)
    parameters = rope_parameters(yarn, QWEN3_OWN)
    vllm = shlex.split(vllm_flags(yarn, parameters))
    assert vllm[::2] == ["--hf-overrides", "--max-model-len"] and vllm[3] == "100000"
    assert json.loads(vllm[1]) == {"rope_parameters": parameters}
    words = shlex.split(llama_cpp_flags(yarn))
    assert dict(zip(words[::2], words[1::2], strict=True)) == {
        "-c": "100000",
        "--rope-scaling": "yarn",
        "--rope-scale": "3.1",
        "--yarn-orig-ctx": "32768",
    }


def test_an_adapter_answers_in_the_context_it_learned_in(tmp_path: Path) -> None:
    yarn = Yarn(16384, 8192, True)
    (tmp_path / "slimtune.json").write_text(json.dumps({"rope": setting(yarn, rope_parameters(yarn, QWEN3_OWN))}))
    assert learned_context(tmp_path, Context(length=512)) == Context(length=16384, method="yarn")
    (tmp_path / "slimtune.json").write_text(json.dumps({"rope": setting(None, QWEN3_OWN)}))
    assert learned_context(tmp_path, Context(length=512)) == Context(length=512)
    assert learned_context(tmp_path / "nowhere", Context(length=512)) == Context(length=512)


# what the model computes with


ARCHITECTURES = ("Llama", "Qwen3", "Granite")  # on a GPU: Unsloth's fast path twice, its generic path
NATIVE, STRETCHED = 512, 2048


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request, embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of two layers. The config names a larger window than the model was trained in, as Qwen3's does."""
    pytest.importorskip("unsloth")  # before transformers, which it patches
    import transformers

    path = tmp_path_factory.mktemp("models") / request.param
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded)
    config = getattr(transformers, f"{request.param}Config")(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=640,
        rope_theta=300_000.0,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=1,
        pad_token_id=0,
        **({"head_dim": 16} if request.param == "Qwen3" else {}),
    )
    getattr(transformers, f"{request.param}ForCausalLM")(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def spec(folder: Path):
    return replace(get_model(str(folder)), native_context=NATIVE, extension=Extension(NATIVE, STRETCHED))


@functools.cache
def files(spec):
    from slimtune.engine import load, source

    where = source.resolve_source(spec, quantisation="16bit", revision=None)
    return where, load.load_renderer(spec, where, thinking="off")


def load(spec, context: Context, window: int | None = None):
    from slimtune.engine.load import load_model

    yarn, window = yarn_for(spec, context), window or context.length
    return load_model(spec, *files(spec), precision="fp32", quantisation="16bit", window=window, yarn=yarn)


def rotary(model):
    (module,) = {module for name, module in model.named_modules() if name.endswith("rotary_emb")}
    return module


def yarn_by_the_paper(theta: float, dims: int, factor: float, original: int):
    """Peng et al. 2023, section 3.2: dimensions that turn more than 32 times within the original window stay, those
    that turn less than once are interpolated, a ramp between; and the temperature of section 3.4."""
    import math

    import torch

    index = torch.arange(0, dims, 2, dtype=torch.float64)
    own = theta ** (-index / dims)
    low, high = (dims * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta)) for turns in (32, 1))
    low, high = max(math.floor(low), 0), min(math.ceil(high), dims - 1)
    ramp = ((torch.arange(dims // 2, dtype=torch.float64) - low) / max(high - low, 0.001)).clamp(0, 1)
    return own / factor * ramp + own * (1 - ramp), 0.1 * math.log(factor) + 1


@pytest.mark.parametrize("length", [STRETCHED, 700])
def test_the_model_turns_by_yarn_to_a_millionth(spec, length: int) -> None:
    loaded = load(spec, Context(length=length, method="yarn"))
    module, factor = rotary(loaded.model), 4.0 if length == STRETCHED else 1.4
    frequencies, scaling = yarn_by_the_paper(300_000.0, 16, factor, NATIVE)
    assert (module.inv_freq.double() / frequencies - 1).abs().max() < 1e-6
    assert module.attention_scaling == pytest.approx(scaling, abs=1e-6)
    assert loaded.rope["rope_parameters"] == {
        "rope_type": "yarn",
        "rope_theta": 300_000.0,
        "factor": factor,
        "original_max_position_embeddings": NATIVE,
    }
    assert loaded.model.config.max_position_embeddings == int(factor * NATIVE) >= length


def test_without_yarn_the_model_turns_as_it_was_made(spec) -> None:
    import torch

    loaded = load(spec, Context(length=NATIVE))
    module = rotary(loaded.model)
    assert torch.allclose(module.inv_freq, 300_000.0 ** (-torch.arange(0, 16, 2) / 16), rtol=1e-6)
    assert module.attention_scaling == 1.0 and loaded.rope["method"] == "none"


def test_more_tokens_than_the_window_are_never_reached_in_silence(spec) -> None:
    """At 640 the config alone would let Unsloth by; above it, Unsloth would stretch positions linearly."""
    for window in (NATIVE + 1, 640, 641, STRETCHED):
        with pytest.raises(UserError, match="was made for"):
            load(spec, Context(length=NATIVE), window=window)
    with pytest.raises(UserError, match="was made for"):
        load(spec, Context(length=STRETCHED, method="yarn"), window=STRETCHED + 1)


def stretched_linearly(folder: Path):
    """The model as Unsloth's fast path loads it for more tokens than its config names (`_extended_rope_scaling`)."""
    import unsloth
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    config.rope_parameters = {"type": "linear", "rope_type": "linear", "factor": 3.2, "rope_theta": 300_000.0}
    config.max_position_embeddings = STRETCHED
    model, _ = unsloth.FastLanguageModel.from_pretrained(
        str(folder), max_seq_length=STRETCHED, load_in_4bit=False, local_files_only=True, config=config
    )
    return model


def test_positions_that_were_stretched_linearly_stop_the_run(folder: Path) -> None:
    from slimtune.engine.rope import asked_config, check_rope

    model = stretched_linearly(folder)
    for yarn in (None, Yarn(STRETCHED, NATIVE)):
        asked = asked_config(folder, yarn)
        with pytest.raises(SlimtuneError, match="other positions than asked for"):
            check_rope(model, asked)
        model.config.rope_parameters = dict(asked.rope_parameters)  # a config that says what the model does not do
        with pytest.raises(SlimtuneError, match="does not turn by"):
            check_rope(model, asked)
        model.config.rope_parameters = {"rope_type": "linear", "factor": 3.2, "rope_theta": 300_000.0}


def test_a_single_frequency_or_the_scaling_alone_is_noticed(spec, folder: Path) -> None:
    from slimtune.engine.rope import asked_config, check_rope, expected

    yarn = Yarn(STRETCHED, NATIVE)
    loaded, asked = load(spec, Context(length=STRETCHED, method="yarn")), asked_config(folder, yarn)
    module = rotary(loaded.model)
    check_rope(loaded.model, asked)
    module.inv_freq[-1] *= 1 + 3e-6
    with pytest.raises(SlimtuneError, match="does not turn by"):
        check_rope(loaded.model, asked)
    module.inv_freq[-1] = float("nan")
    with pytest.raises(SlimtuneError, match="does not turn by"):
        check_rope(loaded.model, asked)
    module.inv_freq[-1] = expected(asked)[0][-1]
    module.attention_scaling = 1.0
    with pytest.raises(SlimtuneError, match="scales attention by 1"):
        check_rope(loaded.model, asked)


def with_adapter(spec, context: Context):
    from slimtune.engine.lora import attach_lora

    loaded = load(spec, context)
    loaded.model = attach_lora(
        loaded.model, spec, r=2, alpha=2, dropout=0.0, seed=1, checkpointing=False, window=context.length
    )
    return loaded


def test_an_adapter_is_refused_by_a_model_with_other_positions(spec, tmp_path: Path) -> None:
    from slimtune.engine.lora import load_adapter

    native = with_adapter(spec, Context(length=NATIVE))
    stretched = with_adapter(spec, Context(length=STRETCHED, method="yarn"))

    def fill(loaded, out: Path) -> None:
        loaded.model.save_pretrained(out)
        (out / "slimtune.json").write_text(json.dumps({"rope": loaded.rope}))

    for learned, other in ((native, stretched), (stretched, native)):
        folder = tmp_path / learned.rope["method"]
        publish_folder(folder, functools.partial(fill, learned))
        load_adapter(learned.model, folder)
        with pytest.raises(UserError, match="was trained with the positions"):
            load_adapter(other.model, folder)
