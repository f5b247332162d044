"""Answers in batches, greedy or drawn: rows sorted by length, the model's own stop tokens, the batch halved when it
does not fit. An answer that goes round in circles is ended.

On the CPU a batch is one packed row: the prefix that all prompts share is computed and kept once, every example sees it
and itself only, and an example that has ended is not computed any more. The answers are those of the padded batch.
"""

from unsloth import FastLanguageModel  # noqa: I001  first: it patches what the others import
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

import torch
from transformers import DynamicCache, LogitsProcessorList, StoppingCriteriaList

from slimtune.data import Completion, Example
from slimtune.engine.circles import LEAST_TOKENS, Circles, circle_end
from slimtune.engine.collate import prefix_length
from slimtune.engine.load import Loaded
from slimtune.engine.memory import is_out_of_memory, release
from slimtune.engine.sampling import Draws
from slimtune.errors import UserError
from slimtune.models.thoughts import opens_thought, split_thought

_PACKED_TYPES = {"llama", "qwen3"}  # full attention everywhere, and proven to answer alike in the tests
_BATCH = {"cpu": 64, "cuda": 128}
_TOKENS = {"cpu": 4096, "cuda": 131072}  # of prompts at a time; a packed row's mask takes their square


def generate(loaded: Loaded, examples: Sequence[Example], max_new_tokens: int) -> Iterator[tuple[int, Completion]]:
    """Answer every example; yields (index, completion) as batches finish, longest prompts first."""
    prompts = [loaded.renderer.prompt_ids(example) for example in examples]
    if prompts and (longest := max(map(len, prompts)) + max_new_tokens) > loaded.window:
        raise UserError(
            f"The longest prompt and its answer take {longest} tokens, and the model was loaded for {loaded.window}. "
            "Ask with fewer examples (few-shot), or a smaller max_new_tokens."
        )
    waiting = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
    batch = _BATCH[loaded.device.type]
    shared = prefix_length(prompts) if prompts and _is_packed(loaded) else 0
    FastLanguageModel.for_inference(loaded.model)
    while waiting:
        own = len(prompts[waiting[0]]) - shared
        part = waiting[: max(1, min(batch, _TOKENS[loaded.device.type] // own))]
        try:
            answers = _answer(loaded, [prompts[index] for index in part], max_new_tokens)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            answers = None
        if answers is None:
            release()
            if batch == 1:
                raise UserError(f"A prompt of {len(prompts[part[0]])} tokens does not fit the memory.")
            batch = max(1, min(batch, len(part)) // 2)
            continue
        yield from zip(part, answers, strict=True)
        waiting = waiting[len(part) :]


def answer_aloud(
    loaded: Loaded, prompt: Sequence[int], max_new_tokens: int, heard: Callable[[int], bool]
) -> Completion:
    """What `generate` answers to one prompt, each token told to `heard` as it is chosen; where that returns True, the
    answer ends."""
    FastLanguageModel.for_inference(loaded.model)
    return _answer(loaded, [prompt], max_new_tokens, heard)[0]


def _answer(
    loaded: Loaded, prompts: Sequence[Sequence[int]], max_new_tokens: int, heard: Callable[[int], bool] | None = None
) -> list[Completion]:
    began, draws = time.monotonic(), None
    if sampling := loaded.sampling:
        draws = Draws(sampling, prompts, tokens=max_new_tokens, seed=loaded.seed)
    with torch.inference_mode():
        answers = (_packed if _is_packed(loaded) else _padded)(loaded, prompts, max_new_tokens, heard, draws)
    seconds = (time.monotonic() - began) / len(prompts)
    return [_completion(loaded, prompt, tokens, seconds) for prompt, tokens in zip(prompts, answers, strict=True)]


def _is_packed(loaded: Loaded) -> bool:
    return loaded.device.type == "cpu" and loaded.spec.traits.model_type in _PACKED_TYPES


def _completion(loaded: Loaded, prompt: Sequence[int], tokens: list[int], seconds: float) -> Completion:
    stop = next((index for index, token in enumerate(tokens) if token in loaded.renderer.stop_ids), None)
    spoken = tokens if stop is None else tokens[:stop]
    ended = "length" if stop is None else "stop"
    if (circle := circle_end(spoken)) is not None:
        spoken, stop, ended = spoken[:circle], None, "repetition"

    def decode(tokens: Sequence[int]) -> str:
        return loaded.renderer.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    text, begun = decode(spoken), opens_thought(decode(prompt[-4:]))
    split = split_thought(text, begun=begun)
    thought = 0
    if split.thought is not None:
        said = len(text) - len(split.answer)
        thought = bisect_left(range(len(spoken)), said, key=lambda count: len(decode(spoken[:count])))
    tokens = len(spoken) + (stop is not None)
    return Completion(text, ended, None, len(prompt), tokens, seconds, thought_begun=begun, thinking_tokens=thought)


def _padded(
    loaded: Loaded,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    heard: Callable[[int], bool] | None = None,
    draws: Draws | None = None,
) -> list[list[int]]:
    """The model's own generate on [rows, longest] tokens, padded on the left. `heard` is for one row."""
    pad, width = loaded.renderer.tokenizer.pad_token_id, max(map(len, prompts))
    circles = Circles(len(prompts))

    def told(tokens: torch.Tensor, scores: object) -> torch.Tensor:
        return torch.tensor([heard(int(tokens[0, -1]))], device=tokens.device)

    def circled(tokens: torch.Tensor, scores: object) -> torch.Tensor:
        return torch.tensor(circles.add(tokens[:, -1].tolist()), device=tokens.device)

    def drawn(tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        chosen = draws.choose(scores, slice(None), tokens.shape[1] - width)
        return torch.zeros_like(scores).scatter(-1, chosen[:, None], 1.0)  # the drawn word is the likeliest now

    criteria = ([told] if heard else []) + ([circled] if max_new_tokens >= LEAST_TOKENS else [])
    ids = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    output = loaded.model.generate(
        input_ids=torch.tensor(ids, device=loaded.device),
        attention_mask=torch.tensor(mask, device=loaded.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=sorted(loaded.renderer.stop_ids),
        pad_token_id=pad,
        stopping_criteria=StoppingCriteriaList(criteria),
        logits_processor=LogitsProcessorList([drawn] if draws else []),
        temperature=None,
        top_p=None,
        top_k=None,
        repetition_penalty=1.0,  # some models' generation_config.json asks for more, which is no greedy answer
        no_repeat_ngram_size=0,
    )
    return [row[width:].tolist() for row in output]


def _packed(
    loaded: Loaded,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    heard: Callable[[int], bool] | None = None,
    draws: Draws | None = None,
) -> list[list[int]]:
    """Decoding of all prompts in one row. `owner` names, for every key in the cache, the example it belongs to;
    -1 is the shared prefix. `heard` is for one prompt."""
    shared = prefix_length(prompts)
    cache = DynamicCache(config=loaded.model.config)
    if shared:
        prefix = torch.tensor([prompts[0][:shared]])
        loaded.model(input_ids=prefix, past_key_values=cache, use_cache=True, logits_to_keep=1)
    owner = torch.full((shared,), -1)
    suffixes = [prompt[shared:] for prompt in prompts]
    rows = torch.repeat_interleave(torch.arange(len(prompts)), torch.tensor([len(suffix) for suffix in suffixes]))
    places = torch.cat([torch.arange(shared, len(prompt)) for prompt in prompts])
    tokens = torch.tensor([token for suffix in suffixes for token in suffix])
    last = torch.tensor([len(suffix) for suffix in suffixes]).cumsum(0) - 1
    answers, circles = [[] for _ in prompts], Circles(len(prompts))
    alive, lengths = torch.arange(len(prompts)), torch.tensor([len(prompt) for prompt in prompts])
    for step in range(max_new_tokens):
        owner = torch.cat([owner, rows])
        logits = _next_logits(loaded, cache, tokens, places, rows, owner, last)
        said = draws.choose(logits, alive.tolist(), step) if draws else logits.argmax(dim=-1)
        for row, token in zip(alive.tolist(), said.tolist(), strict=True):
            answers[row].append(token)
        circled = torch.from_numpy(circles.add(said.tolist(), alive.tolist()))
        going = torch.tensor([token not in loaded.renderer.stop_ids for token in said.tolist()]) & ~circled
        alive, tokens = alive[going], said[going]
        if (heard and heard(int(said[0]))) or not len(alive):
            break
        rows, places, last = alive, lengths[alive], torch.arange(len(alive))
        lengths[alive] += 1
    return answers


def _next_logits(
    loaded: Loaded,
    cache: DynamicCache,
    tokens: torch.Tensor,
    places: torch.Tensor,
    rows: torch.Tensor,
    owner: torch.Tensor,
    last: torch.Tensor,
) -> torch.Tensor:
    """The logits [last, words] after each query in `last`. tokens, places (positions) and rows are [queries]; owner is
    [keys], the queries' own among them, in order."""
    mine = (owner[None, :] == -1) | (owner[None, :] == rows[:, None])
    before = torch.arange(len(owner))[None, :] <= torch.arange(len(owner) - len(rows), len(owner))[:, None]
    logits = loaded.model(
        input_ids=tokens[None],
        position_ids=places[None],
        attention_mask=(mine & before)[None, None],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=last,
    ).logits
    return logits[0]
