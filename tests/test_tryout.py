"""Base and tuned side by side: what is streamed is what evaluation says, and the worker behind it neither leaks nor
lingers. Real workers on a tiny model that was really trained."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from children import until
from samples import make_task

from slimtune.check import ready
from slimtune.data import Completion, Example, Message
from slimtune.engine.decode import packed, padded
from slimtune.engine.generate import generate
from slimtune.engine.stream import Speech, _adapter, _heard, stream
from slimtune.errors import UserError
from slimtune.models.thoughts import Thoughts
from slimtune.pipeline import find_target, loaded_target, open_target, run_recipe
from slimtune.recipe import read_recipe
from slimtune.status import Silent
from slimtune.tasks import Selection, get_task
from slimtune.tryout import Tryout, sample_prompt
from slimtune.tryout.asks import Ask, read_ask
from slimtune.tryout.worker import Model, _Said

torch = pytest.importorskip("torch")
from transformers import AutoTokenizer, PreTrainedTokenizerFast  # noqa: E402

pytestmark = pytest.mark.xdist_group("tryout")  # one run and one worker for all of it
WORDS = "Ein Satz, naïve café, 日本語のテキスト, العربية, 👩‍👩‍👧 🇨🇭 and 🀄𐍈𒀀.\n\n\tif x:  y"
WORKER = [sys.executable, "-P", "-m", "slimtune.tryout"]
TOOLS = [{"type": "function", "function": {"name": "pay", "parameters": {"type": "object", "properties": {}}}}]


def trained(folder: Path, model: object, task: object, *, more: str = "", lr: str = "5e-2") -> Path:
    """A finished run."""
    (folder / "tiny.yaml").write_text(f"""model: {model}
task: {task}
lora: {{r: 8, alpha: 16}}
train: {{epochs: 2, lr: {lr}, batch: 8}}
evaluate: {{few_shot: 0, max_new_tokens: 8}}
context: 512
{more}""")
    prepared = ready(read_recipe(folder / "tiny.yaml"))
    return run_recipe(prepared, name="tiny", out=folder / "run", listener=Silent()).folder


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tryout")
    return trained(folder, tiny_model, make_task(folder / "actions"))


@pytest.fixture(scope="module")
def rows(run: Path) -> tuple[Example, ...]:
    return get_task(str(run.parent / "actions")).test


def load(target: object, window: int = 512) -> Any:
    return loaded_target(open_target(find_target(str(target))), window=window)


@pytest.fixture(scope="module")
def adapted(run: Path) -> Any:
    return load(run)


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> Any:
    """The same model, which never had an adapter."""
    return load(tiny_model)


def heard(loaded: Any, example: Example, *, tuned: bool, limit: int = 8, stop_after: int = 10**6) -> Any:
    """(pieces, completion) of a stream."""
    pieces: list[str] = []
    said = _Said(
        stream(loaded, example, tuned=tuned, max_new_tokens=limit, should_stop=lambda: len(pieces) >= stop_after)
    )
    for piece in said:
        pieces.append(piece)
    return pieces, said.completion


def tokens(loaded: Any, example: Example, *, tuned: bool) -> list[int]:
    with _adapter(loaded, on=tuned):
        *found, _ = _heard(loaded, loaded.renderer.prompt_ids(example), 8, lambda: False)
    return found


def test_the_tuned_side_says_what_evaluation_says_token_for_token(adapted: Any, rows: Any) -> None:
    evaluated = dict(generate(adapted, rows, 8))
    for index, example in enumerate(rows):
        pieces, completion = heard(adapted, example, tuned=True)
        assert replace(completion, seconds=0) == replace(evaluated[index], seconds=0)
        assert "".join(pieces) == completion.text
    prompt = adapted.renderer.prompt_ids(rows[0])
    with torch.inference_mode():
        ways = packed(adapted, [prompt], 8)[0], padded(adapted, [prompt], 8)[0]
    assert (tokens(adapted, rows[0], tuned=True), True) == (ways[0], True) == ways[1]


def test_the_base_side_is_the_model_without_an_adapter_bit_for_bit(adapted: Any, plain: Any, rows: Any) -> None:
    sides = [[tokens(adapted, row, tuned=tuned) for row in rows] for tuned in (True, False, True)]
    assert sides[1] == [tokens(plain, row, tuned=False) for row in rows]
    assert sides[0] == sides[2] != sides[1], "the switch goes both ways"
    prompt = torch.tensor([adapted.renderer.prompt_ids(rows[0])])
    with torch.inference_mode(), adapted.model.disable_adapter():
        base = adapted.model(input_ids=prompt).logits
    with torch.inference_mode():
        assert torch.equal(base, plain.model(input_ids=prompt).logits)
        assert not torch.equal(base, adapted.model(input_ids=prompt).logits)


def test_the_models_own_generate_hands_over_the_same_tokens(adapted: Any, rows: Any) -> None:
    prompt, told = adapted.renderer.prompt_ids(rows[0]), []
    for way in (packed, padded):
        found: list[int] = []
        with torch.inference_mode():
            way(adapted, [prompt], 8, lambda token, found=found: bool(found.append(token)))
            cut = way(adapted, [prompt], 8, lambda token: True)
        told.append(found)
        assert (cut if way is packed else [tokens for tokens, _ in cut]) == [found[:1]]
    assert told[0] == told[1] == tokens(adapted, rows[0], tuned=True)


def test_a_stream_stops_when_asked_and_when_nobody_listens(adapted: Any, rows: Any) -> None:
    whole, _ = heard(adapted, rows[0], tuned=False, limit=60)
    pieces, completion = heard(adapted, rows[0], tuned=False, limit=60, stop_after=3)
    assert completion.stopped == "length" and completion.completion_tokens < 60 and pieces == whole[: len(pieces)]
    before = threading.active_count()
    left = stream(adapted, rows[0], tuned=False, max_new_tokens=400)
    next(left)
    left.close()
    assert threading.active_count() == before
    assert heard(adapted, rows[0], tuned=True)[0] != whole, "the adapter is on again"


def test_a_prompt_beyond_the_window_is_refused_and_an_answer_ends_with_it(adapted: Any, rows: Any) -> None:
    long = [Message("user", "word " * 600)]
    with pytest.raises(UserError, match=r"has 6\d\d tokens.* 512"):
        heard(adapted, long, tuned=True)
    _, completion = heard(adapted, [Message("user", "word " * 350)], tuned=False, limit=10_000)
    assert completion.stopped == "length"
    assert completion.completion_tokens == adapted.window - completion.prompt_tokens


def test_a_base_model_has_no_tuned_side(plain: Any, rows: Any) -> None:
    with pytest.raises(UserError, match="without an adapter"):
        heard(plain, rows[0], tuned=True)
    events = list(Model(plain, ("base",)).answer(Ask(1, rows[0], "tuned")))
    assert [event["event"] for event in events] == ["error"] and "without an adapter" in events[0]["text"]
    assert [event["side"] for event in Model(plain, ("base",)).answer(Ask(1, rows[0]))][-1] == "base"


def gemma_tokenizer() -> list[Any]:
    """One that falls back to bytes, where it was fetched: SmolLM2's writes everything in bytes."""
    home = os.environ.get("SLIMTUNE_TOKENIZERS") or Path.home() / ".cache" / "slimtune-tokenizers"
    file = Path(home) / "gemma3" / "tokenizer.json"
    return [PreTrainedTokenizerFast(tokenizer_file=str(file))] if file.is_file() else []


def test_a_piece_never_ends_inside_a_character(adapted: Any) -> None:
    for tokenizer in [adapted.renderer.tokenizer, *gemma_tokenizer()]:
        speech = Speech(replace(adapted.renderer, tokenizer=tokenizer, stop_ids=frozenset()))
        ids = tokenizer(WORDS, add_special_tokens=False)["input_ids"]
        pieces = [speech.add(token) for token in ids]
        assert not any("\ufffd" in piece for piece in pieces) and speech.rest() == ""
        assert "".join(pieces) == tokenizer.decode(ids) and pieces.count("") < len(ids) / 2


def test_a_character_that_never_becomes_whole_is_said_at_the_end(adapted: Any) -> None:
    tokenizer, speech = adapted.renderer.tokenizer, Speech(adapted.renderer)
    ids = tokenizer("ab 🇨")["input_ids"]
    said = "".join(speech.add(token) for token in ids[:-1])
    assert said.strip() == "ab" and said + speech.rest() == tokenizer.decode(ids[:-1])


def test_special_tokens_are_not_shown_but_those_of_a_call_are(adapted: Any, embedded: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool_call_start|>", "<|tool_call_end|>", "<odd>"]})
    speech = Speech(replace(adapted.renderer, tokenizer=tokenizer))
    ids = tokenizer("<|tool_call_start|>[pay(a=1)]<|tool_call_end|><odd><|im_start|> so<|im_end|>")["input_ids"]
    assert "".join(map(speech.add, ids)) == "<|tool_call_start|>[pay(a=1)]<|tool_call_end|> so"


@pytest.mark.parametrize(
    ("text", "begun", "thinking", "answer"),
    [
        ("<think>\nmy thought\n</think>\n\nThe answer <think>", False, "my thought", "The answer <think>"),
        ("half a thought</think> yes", True, "half a thought", "yes"),
        ("no thought </think> at all", False, None, "no thought </think> at all"),
        ("<think></think>\n<think>two</think>so", False, "two", "so"),
        (" <tool_call>{}</tool_call>", False, None, " <tool_call>{}</tool_call>"),
        ("<think>never ended </thi", False, "never ended </thi", ""),
        ("<thin", False, None, "<thin"),
    ],
)
def test_a_thought_is_told_from_the_answer_however_it_is_cut(text, begun, thinking, answer) -> None:
    for length in range(1, len(text) + 1):
        thoughts, parts = Thoughts(begun=begun), []
        for start in range(0, len(text), length):
            parts += thoughts.add(text[start : start + length])
        parts += thoughts.rest()
        assert "".join(part for part, thought in parts if not thought) == answer
        assert thoughts.text == thinking and all(part for part, _ in parts)


def test_a_thought_that_the_prompt_begins_is_marked(adapted: Any, rows: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(adapted.source.folder)
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant\n", "assistant\n<think>\n")
    thinks = replace(adapted, renderer=replace(adapted.renderer, tokenizer=tokenizer))
    *pieces, end = Model(thinks, ("base",)).answer(Ask(1, rows[0], max_new_tokens=5))
    assert pieces and all(piece["thinking"] for piece in pieces)
    assert end["thinking"] == ("".join(piece["text"] for piece in pieces).strip() or None)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('<tool_call>\n{"name": "pay", "arguments": {"a": 1}}\n</tool_call>', {"tool_calls": [{"name": "pay"}]}),
        ("<tool_call>\n{oops}\n</tool_call>", {"unread": "is not JSON"}),
        ("Hello there.", {"unread": ""}),
    ],
)
def test_calls_are_read_as_evaluation_reads_them(plain: Any, rows: Any, text: str, found: dict) -> None:
    spec = replace(plain.spec, traits=replace(plain.spec.traits, tool_call_format="hermes"))
    asked = Ask(1, replace(rows[0], tools=tuple(TOOLS)))
    read = Model(replace(plain, spec=spec), ("base",))._calls(asked, Completion(text))
    if "tool_calls" in found:
        assert read == {"tool_calls": [{"name": "pay", "arguments": {"a": 1}}]}
    else:
        assert found["unread"] in read["unread"] and bool(found["unread"]) == bool(read["unread"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"side": "tunde"}, "Did you mean 'tuned'?"),
        ({"max_new_tokens": 0}, "from 1 on, not 0"),
        ({"message": []}, "Did you mean 'messages'?"),
        ({"messages": [{"role": "usr", "content": "x"}]}, "Did you mean 'user'?"),
        ({"messages": []}, "holds no turns"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "nothing to answer"),
        ({"tools": [{"parameters": {}}]}, "a tool without a name"),
    ],
)
def test_an_ask_that_is_wrong_is_refused_with_the_reason(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        read_ask({"ask": 1, "messages": [{"role": "user", "content": "x"}], **change})


# from here on, workers: each takes some seconds to start, so one serves every test that leaves it alive
@pytest.fixture(scope="module")
def workers() -> Iterator[list[Tryout]]:
    started: list[Tryout] = []
    yield started
    for worker in started:
        worker.close()


@pytest.fixture
def worker(workers: list[Tryout], run: Path) -> Tryout:
    if not workers or workers[-1].state != "ready":
        workers.append(Tryout(run))
    workers[-1].wait()
    return workers[-1]


def turns(example: Example) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in example.messages]


def said(events: list[dict[str, Any]], side: str) -> str:
    return "".join(event["text"] for event in events if event["event"] == "piece" and event["side"] == side)


def test_both_sides_answer_one_prompt_as_evaluation_has_it(worker: Tryout, adapted: Any, plain: Any, rows: Any) -> None:
    assert worker.sides == ("base", "tuned") and worker.label == adapted.spec.label and worker.window == 1024
    events = list(worker.ask(turns(rows[0]), max_new_tokens=8))
    ends = [event for event in events if event["event"] == "end"]
    assert [end["side"] for end in ends] == ["base", "tuned"] and events[-1] == ends[1]
    for end, loaded in zip(ends, (plain, adapted), strict=True):
        pieces, completion = heard(loaded, rows[0], tuned=end["side"] == "tuned")
        assert said(events, end["side"]) == "".join(pieces)
        assert (end["stopped"], end["tokens"]) == (completion.stopped, completion.completion_tokens)
        assert end["prompt_tokens"] == completion.prompt_tokens and end["seconds"] > 0
        assert (end["tool_calls"], end["unread"], end["thinking"]) == (None, "", None)
    assert {event["side"] for event in worker.ask(turns(rows[0]), side="tuned", max_new_tokens=2)} == {"tuned"}


def test_the_first_prompt_of_the_runs_task_can_be_asked(worker: Tryout, run: Path, rows: Any) -> None:
    messages, tools = sample_prompt(run)
    assert messages == turns(rows[0]) and tools == []
    assert list(worker.ask(messages, tools, max_new_tokens=2))[-1]["event"] == "end"
    with pytest.raises(UserError, match="holds no run"):
        sample_prompt(run.parent)


def test_a_cancelled_answer_ends_and_says_so(worker: Tryout, rows: Any) -> None:
    events = []
    for event in worker.ask(turns(rows[0]), max_new_tokens=900):
        events.append(event)
        if len(events) == 2:
            worker.cancel()
    ends = [event for event in events if event["event"] == "end"]
    assert [(end["side"], end["stopped"]) for end in ends] == [("base", "cancelled"), ("tuned", "cancelled")]
    assert 2 <= ends[0]["tokens"] < 900 and ends[1]["tokens"] == 0
    assert list(worker.ask(turns(rows[0]), max_new_tokens=2))[-1]["stopped"] != "cancelled"


def test_an_answer_that_is_left_does_not_speak_in_the_next_one(worker: Tryout, rows: Any) -> None:
    first = list(worker.ask(turns(rows[0]), max_new_tokens=4))
    for _ in worker.ask(turns(rows[1]), max_new_tokens=900):
        break
    again = list(worker.ask(turns(rows[0]), max_new_tokens=4))
    assert [said(events, "base") for events in (first, again)] == [said(first, "base")] * 2
    assert len({event["ask"] for event in again}) == 1


def test_one_ask_at_a_time(worker: Tryout, rows: Any) -> None:
    under_way = worker.ask(turns(rows[0]), max_new_tokens=900)
    next(under_way)
    with pytest.raises(UserError, match="One question at a time"):
        next(worker.ask(turns(rows[0])))
    under_way.close()
    assert list(worker.ask(turns(rows[0]), max_new_tokens=2))


def test_what_cannot_be_asked_is_an_error_and_the_worker_lives_on(worker: Tryout, rows: Any) -> None:
    long = list(worker.ask([{"role": "user", "content": "word " * 2000}]))
    assert [event["event"] for event in long] == ["error"] and "1,024" in long[0]["text"]
    (wrong,) = worker.ask([{"role": "assistant", "content": "x"}])
    assert wrong["text"] == "The prompt: turn 1 is an assistant turn after nothing."
    (half,) = worker.ask([{"role": "user", "content": "\ud800"}])
    assert "surrogate" in half["text"]
    with pytest.raises(UserError, match="as JSON"):
        next(worker.ask([{"role": "user", "content": object()}]))
    assert list(worker.ask(turns(rows[0]), max_new_tokens=2))[-1]["event"] == "end"


def test_a_worker_that_is_killed_is_a_sentence_with_its_log(worker: Tryout, rows: Any) -> None:
    with pytest.raises(UserError, match=r"killed by SIGKILL, .*memory") as caught:
        for _ in worker.ask(turns(rows[0]), max_new_tokens=900):
            os.kill(worker.pid, signal.SIGKILL)
    assert str(worker.log) in str(caught.value) and worker.log.is_file() and worker.state == "ended"
    with pytest.raises(UserError, match="SIGKILL"):
        next(worker.ask(turns(rows[0])))
    worker.close()


def test_bad_lines_are_answered_while_it_loads_and_the_end_of_stdin_ends_it(run: Path) -> None:
    with subprocess.Popen(
        [*WORKER, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as raw:
        raw.stdin.write(b'{nope\n[1]\n{"ask": [1]}\n\xff\n{"ask": "a", "messages": 3}\n{"stop": "never asked"}\n')
        raw.stdin.flush()
        events: list[dict[str, Any]] = []
        while len(events) < 5:
            if (event := json.loads(raw.stdout.readline()))["event"] == "error":
                events.append(event)
        raw.stdin.close()
        assert raw.wait(10) == 0
    assert [event["ask"] for event in events] == [None, None, None, None, "a"]
    assert "is not JSON" in events[0]["text"] and "no object" in events[1]["text"] and "id" in events[2]["text"]
    assert "UTF-8" in events[3]["text"] and "a number where a list" in events[4]["text"]


def test_what_libraries_print_stays_out_of_the_protocol() -> None:
    code = (
        "import os; from slimtune.tryout.worker import _events; put = _events()\n"
        "print('a print'); os.system('echo a child'); os.write(1, b'C code\\n'); put({'event': 'x'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == '{"event": "x"}\n'
    assert all(words in done.stderr for words in ("a print", "a child", "C code"))


def test_what_cannot_be_loaded_fails_with_a_sentence_and_no_torch_comes_in(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom slimtune.errors import UserError\nfrom slimtune.tryout import Tryout\n"
        f"with Tryout('qwen3-0.6', log=__import__('pathlib').Path({str(tmp_path / 'log')!r})) as model:\n"
        "    try:\n        list(model.ask([{'role': 'user', 'content': 'x'}]))\n"
        "    except UserError as error:\n        print(model.state, error)\n"
        "    assert model._process.wait() == 2\n"
        "assert not {'torch', 'transformers', 'unsloth'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("failed There is no model named 'qwen3-0.6'. Did you mean 'qwen3-0.6b'?")


def test_a_run_that_is_not_trained_yet_is_not_tried_out(run: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text((run / "recipe.json").read_text())
    with pytest.raises(UserError, match="not trained yet"):
        find_target(str(tmp_path))


def test_it_can_be_cancelled_and_closed_while_it_loads(run: Path, rows: Any) -> None:
    with Tryout(run) as model:
        asked = model.ask(turns(rows[0]))
        assert next(asked) == {"event": "loading", "text": "Starting."} and not model.wait(0)
        model.cancel()
        assert list(asked) == []
    assert model.state == "ended" and not psutil.pid_exists(model.pid)
    with pytest.raises(UserError, match="was closed"):
        next(model.ask(turns(rows[0])))


def test_a_worker_ends_with_its_parent_even_where_its_stdin_stays_open(run: Path) -> None:
    """The parent's other child holds the writing end: there is no end of file."""
    code = (
        "import os, time\nfrom slimtune.tryout import Tryout\n"
        f"model = Tryout({str(run)!r})\n"
        "child = os.fork()\n"
        "if child:\n    print(model.pid, child, flush=True)\n"
        "time.sleep(120)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        worker, sleeper = map(int, parent.stdout.readline().split())
        time.sleep(1)
        assert alive(worker)
        parent.kill()
        try:
            until(lambda: not alive(worker), seconds=20, every=0.1)
        finally:
            os.kill(sleeper, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_real_weights_say_on_both_sides_what_evaluation_says(tmp_path: Path) -> None:
    labels = ("age_limit", "atm_support", "change_pin")
    data = f"data: {{train_rows: 24, test_rows: 3, labels: [{', '.join(labels)}]}}"
    run = trained(tmp_path, "smollm2-135m-embedded", "banking77", more=data, lr="2e-3")
    adapted, plain = load(run), load("smollm2-135m-embedded")
    asked = [
        *get_task("banking77", selection=Selection(labels=labels, test_rows=3)).test,
        Example("chat", (Message("user", "Name 3 emoji and say hello in 日本語."),), ""),
    ]
    evaluated = [dict(generate(loaded, asked, 24)) for loaded in (plain, adapted)]
    for index, example in enumerate(asked):
        for tuned in (False, True):
            pieces, completion = heard(adapted, example, tuned=tuned, limit=24)
            assert "".join(pieces) == completion.text == evaluated[tuned][index].text
            assert (completion.stopped, completion.completion_tokens) == (
                evaluated[tuned][index].stopped,
                evaluated[tuned][index].completion_tokens,
            )
        with torch.inference_mode():
            ((base, _),) = padded(plain, [plain.renderer.prompt_ids(example)], 8)
        assert tokens(adapted, example, tuned=False) == base[: len(tokens(adapted, example, tuned=False))]
    assert evaluated[0][0].text != evaluated[1][0].text


@pytest.mark.slow
@pytest.mark.parametrize(
    "key", ["qwen3-30b-a3b", "gemma-3-270m-it", "gemma-3-4b-it", "lfm2-350m", "granite-3.3-2b-instruct", "qwen2"]
)
def test_the_switch_works_in_every_kind_of_layer(key: str, tmp_path: Path, embedded: Path) -> None:
    """Experts, sliding windows, a vision tower, short convolutions, and models that generate in their own way."""
    script = Path(__file__).with_name("two_sides.py")
    command = [sys.executable, script, key, "16bit", tmp_path, embedded]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["base"] == seen["alone"] and seen["apart"] == 0
    assert seen["tuned"] == seen["again"] == seen["evaluated"] != seen["base"]
