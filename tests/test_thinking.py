"""A thought is taken off, counted and given room; answers that are drawn are the same every time; circles are ended."""

import json
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from families import write_model
from hypothesis import given, settings
from hypothesis import strategies as st
from test_evaluate import answering, rows, scored

from slimtune.check import read_rows
from slimtune.data import Completion, Example, Message
from slimtune.engine.circles import LEAST_TOKENS, Circles, circle_end
from slimtune.errors import UserError
from slimtune.evaluate import WITHOUT_OPENINGS, read_evaluation, write_evaluation
from slimtune.models import MODELS, get_model
from slimtune.models.spec import Sampling
from slimtune.models.thoughts import split_thought
from slimtune.recipe import Recipe
from slimtune.tasks import Task, get_task
from slimtune.tasks.mix import mix_thoughts, note_unused

ROW = Example("1", (Message("user", "Hi"),), "Hello")
ASKED = [replace(ROW, messages=(Message("user", f"What is {n} more than {n * n}?"),)) for n in range(4)]


def test_thoughts_and_circles_are_counted_and_read_back_and_old_records_stay_readable(tmp_path: Path) -> None:
    import pandas as pd

    task, examples = rows("banking77", 4)
    thought = Completion(f"<think>hm</think>\n{examples[0].target}", completion_tokens=9, thinking_tokens=5)
    said = [thought, Completion("a a a", "repetition"), Completion("<think>\n\n</think>\n\nx"), Completion("x")]
    made = scored(task, examples, answering(lambda example: said[examples.index(example)]))
    summary = made.summary()
    assert (summary["thinking"], summary["thinking_tokens"], summary["repeated"]) == (0.25, 5, 0.25)
    assert summary["truncated"] == 0.0 and made.records[0].score == 1.0
    write_evaluation(tmp_path / "new", made)
    assert read_evaluation(tmp_path / "new") == made
    table = pd.read_parquet(tmp_path / "new" / "examples.parquet").drop(columns=["thought", "thinking_tokens"])
    table.to_parquet(tmp_path / "new" / "examples.parquet", index=False)
    assert [record.thought for record in read_evaluation(tmp_path / "new").records] == [False] * 4


@pytest.mark.parametrize("name", ["banking77", "squad2_open_book", "voice_banking"])
def test_a_thought_without_an_end_is_no_answer_in_any_task_even_where_silence_is_right(name: str) -> None:
    task, examples = rows(name)
    made = scored(task, examples, answering(lambda example: Completion("<think>is it", "length")))
    assert all((one.score, one.answer, one.why) == (0.0, None, "its thought never ended") for one in made.records)
    assert {value for one in made.records for value in one.also.values()} <= {0.0, None}
    assert made.summary()["unparseable"] == made.summary()["truncated"] == made.summary()["thinking"] == 1.0


def test_an_item_that_cannot_be_judged_stays_so_whatever_the_thought() -> None:
    task, examples = rows("text2sql", 2)
    one_invalid = [replace(examples[0], target="SELECT no_such_column FROM nowhere"), examples[1]]
    made = scored(task, one_invalid, answering(lambda example: Completion("<think>is it", "length")))
    assert [record.score for record in made.records] == [None, 0.0] and made.summary()["unscored"] == 1


def test_an_evaluation_of_which_nothing_can_be_judged_is_a_sentence() -> None:
    task, examples = rows("text2sql", 2)
    invalid = [replace(example, target="SELECT no_such_column FROM nowhere") for example in examples]
    with pytest.raises(UserError, match=rf"No answer of .* could be judged: .*no such table.* \({examples[0].id}\)"):
        scored(task, invalid, answering(lambda example: Completion("SELECT 1")))


def test_a_score_beside_another_is_left_out_where_no_row_has_it(tmp_path: Path) -> None:
    voice = get_task("voice_banking")
    openings = [row for row in voice.test if voice.is_opening(row)][:2]
    made = scored(voice, openings, answering(lambda example: Completion("Hello, how can I help?")))
    assert f"{voice.scorer}{WITHOUT_OPENINGS}" not in made.summary()["also"] and made.summary()["n"] == 2
    write_evaluation(tmp_path / "base", made)
    assert read_evaluation(tmp_path / "base").summary() == made.summary()


def test_thoughts_that_a_server_counts_and_does_not_show_are_counted() -> None:
    task, examples = rows("banking77", 2)
    said = [Completion(examples[0].target, completion_tokens=40, thinking_tokens=30), Completion("x")]
    summary = scored(task, examples, answering(lambda example: said[examples.index(example)])).summary()
    assert (summary["thinking"], summary["thinking_tokens"], summary["score"]["value"]) == (0.5, 30, 0.5)


def test_reasoning_that_is_not_learnt_is_named_in_a_check(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello", "reasoning_content": "hm"}]
    lines = [json.dumps({"messages": [{**turns[0], "content": f"Hi {n}"}, turns[1]]}) for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    recipe = Recipe(model="qwen3-0.6b", data={"train": str(tmp_path / "rows.jsonl")})
    (note,) = [note for note in read_rows(recipe)[0].notes if "reasoning" in note]
    assert note.startswith("16 of 16 training rows carry reasoning, and `thinking: off` learns their answers alone.")
    thinking = read_rows(recipe.model_copy(update={"thinking": "on"}))[0]
    assert not [note for note in thinking.notes if "reasoning" in note]
    assert note_unused(banking77()) is banking77()


@pytest.mark.parametrize("name", ["banking77", "squad2_open_book", "voice_banking", "wnut17_ner", "pii_redaction"])
def test_an_answer_that_went_round_in_circles_is_called_cut_off_by_every_scorer(name: str) -> None:
    task, examples = rows(name, 2)
    made = scored(task, examples, answering(lambda example: Completion("a b " * 100, "repetition")))
    assert all(one.score == 0.0 or name == "squad2_open_book" for one in made.records)
    assert all("cut off" in one.why for one in made.records)


def test_a_thought_that_the_prompt_began_is_taken_off() -> None:
    task, examples = rows("banking77", 3)
    begun = scored(task, examples, answering(lambda e: Completion(f"hm</think>{e.target}", thought_begun=True)))
    assert begun.score.value == 1.0 and begun.summary()["thinking"] == 1.0
    assert split_thought("hm</think>so").answer == "hm</think>so"


@cache
def banking77() -> Task:
    return get_task("banking77")


def mixture(thinking: int, direct: int) -> Task:
    train = [replace(ROW, id=str(n), meta={"reasoning": "r"} if n < thinking else {}) for n in range(thinking + direct)]
    return replace(banking77(), train=tuple(train))


@settings(max_examples=50, deadline=None)
@given(thinking=st.integers(1, 60), direct=st.integers(1, 60), seed=st.integers(0, 9))
def test_three_rows_think_for_one_that_does_not_and_none_is_doubled(thinking: int, direct: int, seed: int) -> None:
    whole = mixture(thinking, direct)
    mixed = mix_thoughts(whole, seed=seed)
    with_thought = sum("reasoning" in row.meta for row in mixed.train)
    assert len({row.id for row in mixed.train}) == len(mixed.train) and all(row in whole.train for row in mixed.train)
    assert sorted(mixed.train, key=lambda row: int(row.id)) == list(mixed.train)
    if thinking >= 3:
        assert with_thought == 3 * (len(mixed.train) - with_thought)
        assert len(mixed.train) == 4 * min(thinking // 3, direct), "no more is left out than must be"
    assert f"{with_thought:,} training rows carry reasoning" in mixed.notes[-1]
    assert mix_thoughts(whole, seed=seed) == mixed


@pytest.mark.parametrize(("thinking", "direct", "mode"), [(0, 4, "off"), (4, 0, "on")])
def test_mixed_with_rows_of_one_kind_is_refused_with_the_mode_that_fits(thinking, direct, mode) -> None:
    with pytest.raises(UserError, match=f"thinking: {mode}"):
        mix_thoughts(mixture(thinking, direct), seed=1)


def test_only_thinking_gets_room_and_is_drawn() -> None:
    qwen, other = MODELS["qwen3-0.6b"], MODELS["smollm2-135m-instruct"]
    recipes = {mode: Recipe(model="qwen3-0.6b", task="banking77", thinking=mode) for mode in ("off", "on", "mixed")}
    assert {mode: recipe.thinking_room for mode, recipe in recipes.items()} == {"off": 0, "on": 4096, "mixed": 0}
    assert qwen.sampling("on") == Sampling(temperature=0.6, top_p=0.95, top_k=20, min_p=0.0)
    assert qwen.sampling("off") is qwen.sampling("mixed") is other.sampling("on") is None


def words(text: str) -> list[int]:
    return [hash(word) % 10**9 for word in text.split()]


def test_a_circle_is_ended_once_it_is_certain() -> None:
    head = list(range(1000, 1100))
    for period in (1, 2, 31, 32, 33, 128):
        cycle = list(range(period))
        assert circle_end(head + cycle * 600) == 100 + max(LEAST_TOKENS, 8 * period)
        assert circle_end(head + cycle * 7) is None
    assert circle_end(head + list(range(129)) * 40) is None, "a longer cycle is not looked for"
    assert circle_end([1] * 255) is None and circle_end([1] * 255 + [2] + [1] * 255) is None


def test_long_tables_and_lists_are_no_circles() -> None:
    table = " ".join(f"| row | {n} | yes | 0.0 | 0.0 |" for n in range(400))
    numbered = " ".join(f"{n} . the same item again and again and again" for n in range(400))
    nested = " ".join(["{ 'a' : 0 , 'b' : [ 0 , 0 , 0 ] } ,"] * 15)
    task = " ".join(example.messages[-1].content for example in get_task("banking77").test[:400])
    assert all(circle_end(words(text)) is None for text in (table, numbered, nested, task))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 1), min_size=300, max_size=300), min_size=1, max_size=4))
def test_a_row_is_judged_alike_alone_and_beside_others(answers: list[list[int]]) -> None:
    watch, ends = Circles(len(answers)), [None] * len(answers)
    for count in range(300):
        for row, ended in enumerate(watch.add([answer[count] for answer in answers])):
            if ended and ends[row] is None:
                ends[row] = count + 1
    assert ends == [circle_end(answer) for answer in answers]


def qwen3(folder: Path, tokenizer: Path, thinking: str):
    from slimtune.engine import load, source

    if not folder.exists():
        write_model(MODELS["qwen3-0.6b"], folder, tokenizer)
    spec = replace(get_model(str(folder)), traits=MODELS["qwen3-0.6b"].traits)
    where = source.resolve_source(spec, quantisation="16bit", revision=None)
    renderer = load.load_renderer(spec, where, thinking=thinking)
    return load.load_model(spec, where, renderer, precision="fp32", quantisation="16bit", window=1024, seed=17)


def test_a_drawn_answer_depends_on_seed_and_prompt_alone(tmp_path: Path, embedded: Path) -> None:
    pytest.importorskip("torch")
    from slimtune.engine.decode import packed as pack
    from slimtune.engine.decode import padded as pad
    from slimtune.engine.generate import generate
    from slimtune.engine.load import describe
    from slimtune.engine.sampling import Draws

    loaded = qwen3(tmp_path / "model", embedded, "on")
    together = {index: one.text for index, one in generate(loaded, ASKED, 12)}
    alone = [next(generate(loaded, [example], 12))[1].text for example in ASKED]
    assert [together[index] for index in range(4)] == alone
    prompts = [loaded.renderer.prompt_ids(example) for example in ASKED]
    draws = Draws(loaded.sampling, prompts, tokens=12, seed=17)
    packed, padded = pack(loaded, prompts, 12, draws=draws), pad(loaded, prompts, 12, draws=draws)
    assert padded == [(answer, True) for answer in packed]
    assert packed != pack(loaded, prompts, 12), "greedy answers are others"
    assert describe(loaded)["sampling"] == {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.0, "seed": 17}
    loaded.seed = 18
    assert {index: one.text for index, one in generate(loaded, ASKED, 12)} != together


def test_drawn_answers_that_go_on_in_other_batches_may_run_to_the_last_token(tmp_path, embedded, monkeypatch) -> None:
    from slimtune.engine import decode
    from slimtune.engine.sampling import Draws

    loaded = qwen3(tmp_path / "model", embedded, "on")
    prompts = [loaded.renderer.prompt_ids(example) for example in ASKED[:2]]
    draws = Draws(loaded.sampling, prompts, tokens=12, seed=17)
    whole = [tokens for tokens, _ in decode.padded(loaded, prompts, 12, draws=draws)]
    said = [whole[0][:9], whole[1][:2]]
    rest = [tokens for tokens, _ in decode.padded(loaded, prompts, 12, draws=draws, said=said)]
    assert [[*before, *after] for before, after in zip(said, rest, strict=True)] == whole


def test_words_are_drawn_as_often_as_they_should_be_and_never_outside_of_what_may_be() -> None:
    torch = pytest.importorskip("torch")
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    from slimtune.engine.sampling import Draws, likely

    sampling = MODELS["qwen3-0.6b"].sampling("on")
    logits = torch.randn(1, 300, generator=torch.Generator().manual_seed(3))
    theirs = LogitsProcessorList([TemperatureLogitsWarper(0.6), TopKLogitsWarper(20), TopPLogitsWarper(0.95)])
    expected = theirs(None, logits).softmax(-1)[0]
    shares, words = likely(logits, sampling)
    ours = torch.zeros(300).scatter(0, words[0], shares[0] / shares.sum())
    assert torch.allclose(ours, expected, atol=1e-6)
    draws = Draws(sampling, [(1, 2)], tokens=4000, seed=5)
    drawn = torch.cat([draws.choose(logits, [0], step) for step in range(4000)])
    assert torch.allclose(torch.bincount(drawn, minlength=300) / 4000, expected, atol=0.03)
    assert set(drawn.tolist()) <= set(expected.nonzero()[:, 0].tolist())


def test_an_answer_in_circles_is_ended_alike_packed_and_padded_and_says_so(tmp_path: Path, embedded: Path) -> None:
    torch = pytest.importorskip("torch")
    from slimtune.engine.decode import packed, padded
    from slimtune.engine.generate import generate

    loaded = qwen3(tmp_path / "model", embedded, "off")
    head = loaded.model.get_output_embeddings()
    with torch.no_grad():
        head.weight.zero_()  # every word is as likely: the first is said for ever
    loaded.model.tie_weights()
    prompts = [loaded.renderer.prompt_ids(example) for example in ASKED[:2]]
    with torch.inference_mode():
        answers = [*packed(loaded, prompts, 300), *(tokens for tokens, _ in padded(loaded, prompts, 300))]
    assert {len(answer) for answer in answers} == {LEAST_TOKENS}
    (_, one), *_ = generate(loaded, ASKED[:2], 300)
    assert (one.stopped, one.completion_tokens) == ("repetition", LEAST_TOKENS)
    (_, short), *_ = generate(loaded, ASKED[:2], 200)
    assert short.stopped == "length"


def test_the_tokens_of_a_thought_are_counted(embedded: Path) -> None:
    pytest.importorskip("torch")
    from types import SimpleNamespace

    from slimtune.engine.generate import _completion, _Row
    from slimtune.engine.render import load_tokenizer, make_renderer

    spec = get_model("smollm2-135m-embedded")
    renderer = make_renderer(load_tokenizer(embedded, spec), spec, thinking="off")
    loaded = SimpleNamespace(renderer=renderer)
    thought, answer = renderer.ids("<think>\nIs it?</think>"), renderer.ids("\n\nYes.<|im_end|>")

    def complete(prompt: str, said: list[int]):
        return _completion(loaded, _Row(0, renderer.ids(prompt), said))

    one = complete("<|im_start|>assistant\n", [*thought, *answer])
    assert len(thought) <= one.thinking_tokens < len(thought) + len(answer) - 1 and one.stopped == "stop"
    begun = complete("<|im_start|>assistant\n<think>\n", list(answer))
    assert begun.thought_begun and begun.thinking_tokens == begun.completion_tokens - 1
    assert complete("Hi", list(answer)).thinking_tokens == 0


def test_nothing_but_closed_thoughts_is_read_in_linear_time() -> None:
    began = time.monotonic()
    assert split_thought("<think>a</think>" * 100_000).closed
    assert time.monotonic() - began < 1
