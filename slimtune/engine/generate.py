"""Greedy answers in batches: rows sorted by length, the model's own stop tokens, the batch halved when it does not fit.

On the CPU the prefix that all prompts of a batch share is computed once and every row continues from its keys and
values; the answers are those of the padded batch.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import DynamicCache
from unsloth import FastLanguageModel

from slimtune.data import Completion, Example
from slimtune.engine.collate import prefix_length
from slimtune.engine.load import Loaded
from slimtune.engine.memory import is_out_of_memory, release
from slimtune.errors import UserError

_BATCH = {"cpu": 32, "cuda": 128}


def generate(loaded: Loaded, examples: Sequence[Example], max_new_tokens: int) -> Iterator[tuple[int, Completion]]:
    """Answer every example greedily; yields (index, completion) as batches finish, longest prompts first."""
    prompts = [loaded.renderer.prompt_ids(example) for example in examples]
    waiting = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
    batch = _BATCH[loaded.device.type]
    FastLanguageModel.for_inference(loaded.model)
    while waiting:
        part = waiting[:batch]
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
        waiting = waiting[len(part):]


def _answer(loaded: Loaded, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[Completion]:
    began = time.monotonic()
    stops = sorted(loaded.renderer.stop_ids)
    pad = loaded.renderer.tokenizer.pad_token_id
    inputs = _prefilled(loaded, prompts, pad) if loaded.device.type == "cpu" else _left_padded(loaded, prompts, pad)
    with torch.inference_mode():
        output = loaded.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=stops,
                                       pad_token_id=pad, temperature=None, top_p=None, top_k=None)
    seconds = (time.monotonic() - began) / len(prompts)
    width = inputs["input_ids"].shape[1]
    return [_completion(loaded, prompt, row[width:].tolist(), seconds)
            for prompt, row in zip(prompts, output, strict=True)]


def _completion(loaded: Loaded, prompt: Sequence[int], tokens: list[int], seconds: float) -> Completion:
    stop = next((index for index, token in enumerate(tokens) if token in loaded.renderer.stop_ids), None)
    spoken = tokens if stop is None else tokens[:stop]
    text = loaded.renderer.tokenizer.decode(spoken, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return Completion(text, "length" if stop is None else "stop", None, len(prompt),
                      len(spoken) + (stop is not None), seconds)


def _left_padded(loaded: Loaded, prompts: Sequence[Sequence[int]], pad: int) -> dict[str, Any]:
    """input_ids and attention_mask of shape [rows, longest], padded on the left."""
    width = max(map(len, prompts))
    ids = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {"input_ids": torch.tensor(ids, device=loaded.device),
            "attention_mask": torch.tensor(mask, device=loaded.device)}


def _prefilled(loaded: Loaded, prompts: Sequence[Sequence[int]], pad: int) -> dict[str, Any]:
    """As `_left_padded`, with the shared prefix first and its keys and values already computed, once for all rows."""
    shared = prefix_length(prompts)
    if shared == 0:
        return _left_padded(loaded, prompts, pad)
    cache = DynamicCache(config=loaded.model.config)
    prefix = torch.tensor([prompts[0][:shared]], device=loaded.device)
    with torch.inference_mode():
        cache = loaded.model(input_ids=prefix, past_key_values=cache, use_cache=True).past_key_values
    cache.batch_repeat_interleave(len(prompts))
    rest = _left_padded(loaded, [prompt[shared:] for prompt in prompts], pad)
    repeated = prefix.expand(len(prompts), -1)
    return {"input_ids": torch.cat([repeated, rest["input_ids"]], dim=1),
            "attention_mask": torch.cat([torch.ones_like(repeated), rest["attention_mask"]], dim=1),
            "past_key_values": cache}
