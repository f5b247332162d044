"""Two ways to decode a batch of prompts: the model's own, over rows padded on the left; and on a CPU one packed row,
whose answers are those of the padded batch.
"""

from unsloth import FastLanguageModel  # noqa: F401, I001  first: it patches what the others import
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import DynamicCache, LogitsProcessorList, StoppingCriteriaList

from slimtune.engine.circles import LEAST_TOKENS, Circles
from slimtune.engine.groups import prefix_length
from slimtune.engine.load import Loaded
from slimtune.engine.sampling import Draws

_PACKED_TYPES = {"llama", "qwen3"}  # full attention everywhere, and proven to answer alike in the tests


def is_packed(loaded: Loaded) -> bool:
    """Whether `packed` is the way."""
    return loaded.device.type == "cpu" and loaded.spec.traits.model_type in _PACKED_TYPES


def padded(
    loaded: Loaded,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    heard: Callable[[int], bool] | None = None,
    draws: Draws | None = None,
    *,
    said: Sequence[Sequence[int]] | None = None,
    few: int = 0,
) -> list[tuple[list[int], bool]]:
    """The model's own generate on [rows, longest] tokens, padded on the left. Of each row what it says now, and whether
    that is all; it is not where no more than `few` rows went on. `said`: what each has said before, which counts.
    `heard` is for one row."""
    pad, said = loaded.renderer.tokenizer.pad_token_id, said or [[] for _ in prompts]
    asked = [[*prompt, *before] for prompt, before in zip(prompts, said, strict=True)]
    width, everyone = max(map(len, asked)), np.arange(len(asked))
    ends = Ends(loaded.renderer.stop_ids, said, max_new_tokens, few=few)
    before = np.array([len(tokens) for tokens in said])

    def ended(tokens: torch.Tensor, scores: object) -> torch.Tensor:
        over = ends.add(tokens[:, -1].tolist())
        if heard and heard(int(tokens[0, -1])):
            over[:] = True
        return torch.tensor(over, device=tokens.device)

    def drawn(tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        steps = np.minimum(before + tokens.shape[1] - width, max_new_tokens - 1)  # who has ended is asked too
        chosen = draws.choose(scores, everyone, steps)
        return torch.zeros_like(scores).scatter(-1, chosen[:, None], 1.0)  # the drawn word is the likeliest now

    ids = [[pad] * (width - len(tokens)) + tokens for tokens in asked]
    mask = [[0] * (width - len(tokens)) + [1] * len(tokens) for tokens in asked]
    output = loaded.model.generate(
        input_ids=torch.tensor(ids, device=loaded.device),
        attention_mask=torch.tensor(mask, device=loaded.device),
        max_new_tokens=max_new_tokens - int(before.min()),
        do_sample=False,
        eos_token_id=sorted(loaded.renderer.stop_ids),
        pad_token_id=pad,
        stopping_criteria=StoppingCriteriaList([ended]),
        logits_processor=LogitsProcessorList([drawn] if draws else []),
        temperature=None,
        top_p=None,
        top_k=None,
        repetition_penalty=1.0,  # some models' generation_config.json asks for more, which is no greedy answer
        no_repeat_ngram_size=0,
    )
    new = (row[width:].tolist() for row in output)
    return [(tokens[:count], bool(over)) for tokens, count, over in zip(new, ends.counts, ends.over, strict=True)]


class Ends:
    """Who has ended: by a stop token, in circles, or with as many tokens as there may be."""

    def __init__(self, stops: frozenset[int], said: Sequence[Sequence[int]], max_new_tokens: int, *, few: int):
        self._stops, self._few, self._max = stops, few, max_new_tokens
        self._circles = Circles(len(said)) if max_new_tokens >= LEAST_TOKENS else None
        self._before = np.array([len(tokens) for tokens in said])
        self.over, self.counts = np.zeros(len(said), dtype=bool), np.zeros(len(said), dtype=int)
        for row, tokens in enumerate(said):
            for token in tokens if self._circles else ():
                self._circles.add([token], [row])

    def add(self, tokens: Sequence[int]) -> np.ndarray:
        """Every row's next token: for whom it is the last in this batch, [rows]."""
        self.counts += ~self.over
        self.over |= np.array([token in self._stops for token in tokens])
        self.over |= self._before + self.counts >= self._max
        if self._circles:
            self.over |= self._circles.add(tokens)
        return self.over | (len(tokens) - self.over.sum() <= self._few)


def packed(
    loaded: Loaded,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    heard: Callable[[int], bool] | None = None,
    draws: Draws | None = None,
) -> list[list[int]]:
    """Decoding of all prompts in one row: what they share is computed and kept once, and who has ended is not computed
    any more. `owner` names, for every key in the cache, the example it belongs to; -1 is the shared prefix. `heard` is
    for one prompt."""
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
