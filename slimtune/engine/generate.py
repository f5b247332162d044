"""Answers in batches, greedy or drawn: rows sorted by length, the model's own stop tokens, the batch halved when it
does not fit.

A batch is over when most of its answers are, and what is left of it goes on in a later one, its tokens so far behind
its prompt: a few long answers hold no others up. Nothing depends on who shares a batch.
"""

from unsloth import FastLanguageModel  # noqa: I001  first: it patches what the others import
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from slimtune.data import Completion, Example
from slimtune.engine.circles import circle_end
from slimtune.engine.continued import Continued
from slimtune.engine.decode import is_packed, packed, padded
from slimtune.engine.groups import prefix_length
from slimtune.engine.load import Loaded
from slimtune.engine.memory import is_out_of_memory, release
from slimtune.engine.sampling import Draws
from slimtune.errors import UserError
from slimtune.models.thoughts import opens_thought, split_thought
from slimtune.plan.collation import keeps_prefixes
from slimtune.plan.rows import AT_ONCE, KEPT_AT_ONCE

_BATCH = {"cpu": 64, "cuda": AT_ONCE}
_TOKENS = {"cpu": 4096, "cuda": 131072}  # of prompts at a time; a packed row's mask takes their square
_FEW = 4  # a batch is over when no more than a fourth of it goes on


@dataclass
class _Row:
    """An example on its way: what it was asked, and what has been said so far."""

    index: int
    prompt: Sequence[int]
    said: list[int] = field(default_factory=list)
    over: bool = False
    seconds: float = 0.0

    def __len__(self) -> int:
        return len(self.prompt) + len(self.said)


def generate(loaded: Loaded, examples: Sequence[Example], max_new_tokens: int) -> Iterator[tuple[int, Completion]]:
    """Answer every example; yields (index, completion) as answers end, about the longest prompts' first."""
    rows = [_Row(index, loaded.renderer.prompt_ids(example)) for index, example in enumerate(examples)]
    if rows and (longest := max(map(len, rows)) + max_new_tokens) > loaded.window:
        raise UserError(
            f"The longest prompt and its answer take {longest} tokens, and the model was loaded for {loaded.window}. "
            "Ask with fewer examples (few-shot), or a smaller max_new_tokens."
        )
    device = loaded.device.type
    FastLanguageModel.for_inference(loaded.model)
    kept = keeps_prefixes(loaded.spec, precision=loaded.precision, cuda=device == "cuda")
    continued = Continued(loaded) if kept else None
    batch = KEPT_AT_ONCE if continued else _BATCH[device]
    shared = prefix_length([row.prompt for row in rows]) if rows and (continued or is_packed(loaded)) else 0
    waiting, begun = sorted(rows, key=len, reverse=True), []
    while waiting or begun:
        queue = begun if len(begun) >= batch or not waiting else waiting
        queue.sort(key=len, reverse=True)
        own = len(queue[0]) - shared
        most = continued.most_rows(shared, own, max_new_tokens) if continued else _TOKENS[device] // own
        part = queue[: max(1, min(batch, most))]
        few = len(part) // _FEW if len(waiting) + len(begun) > len(part) else 0
        if not _answered(loaded, part, max_new_tokens, continued, few=few):
            if batch == 1:
                raise UserError(f"A prompt of {len(part[0].prompt)} tokens does not fit the memory.")
            batch = max(1, min(batch, len(part)) // 2)
            continue
        del queue[: len(part)]
        begun += [row for row in part if not row.over]
        yield from ((row.index, _completion(loaded, row)) for row in part if row.over)


def answer_aloud(
    loaded: Loaded, prompt: Sequence[int], max_new_tokens: int, heard: Callable[[int], bool]
) -> Completion:
    """What `generate` answers to one prompt, each token told to `heard` as it is chosen; where that returns True, the
    answer ends."""
    FastLanguageModel.for_inference(loaded.model)
    row = _Row(0, prompt)
    _answer(loaded, [row], max_new_tokens, heard)
    return _completion(loaded, row)


def _answered(
    loaded: Loaded, rows: Sequence[_Row], max_new_tokens: int, continued: Continued | None, *, few: int
) -> bool:
    """Whether there was memory for it; if not, nothing was said."""
    try:
        _answer(loaded, rows, max_new_tokens, continued=continued, few=few)
        return True
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    if continued:
        continued.forget()
    release()
    return False


def _answer(
    loaded: Loaded,
    rows: Sequence[_Row],
    max_new_tokens: int,
    heard: Callable[[int], bool] | None = None,
    *,
    continued: Continued | None = None,
    few: int = 0,
) -> None:
    """Say more to every row, to its end where the batch is not over before."""
    began, draws, prompts = time.monotonic(), None, [row.prompt for row in rows]
    if sampling := loaded.sampling:
        draws = Draws(sampling, prompts, tokens=max_new_tokens, seed=loaded.seed)
    with torch.inference_mode():
        said = [row.said for row in rows]
        if continued:
            found = continued.say(prompts, max_new_tokens, draws, said=said, few=few)
        elif is_packed(loaded):
            found = [(tokens, True) for tokens in packed(loaded, prompts, max_new_tokens, heard, draws)]
        else:
            found = padded(loaded, prompts, max_new_tokens, heard, draws, said=said, few=few)
    for row, (tokens, over) in zip(rows, found, strict=True):
        row.said, row.over = [*row.said, *tokens], over
        row.seconds += (time.monotonic() - began) / len(rows)


def _completion(loaded: Loaded, row: _Row) -> Completion:
    tokens = row.said
    stop = next((index for index, token in enumerate(tokens) if token in loaded.renderer.stop_ids), None)
    spoken = tokens if stop is None else tokens[:stop]
    ended = "length" if stop is None else "stop"
    if (circle := circle_end(spoken)) is not None:
        spoken, stop, ended = spoken[:circle], None, "repetition"

    def decode(tokens: Sequence[int]) -> str:
        return loaded.renderer.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    text, begun = decode(spoken), opens_thought(decode(row.prompt[-4:]))
    split = split_thought(text, begun=begun)
    thought = 0
    if split.thought is not None:
        said = len(text) - len(split.answer)
        thought = bisect_left(range(len(spoken)), said, key=lambda count: len(decode(spoken[:count])))
    tokens = len(spoken) + (stop is not None)
    return Completion(
        text, ended, None, len(row.prompt), tokens, row.seconds, thought_begun=begun, thinking_tokens=thought
    )
