"""Drawing the next token where greedy answers are not what a model was made for, as a thinking Qwen3.

Every example has its own random numbers, one for each token, from the recipe's seed and its prompt: an answer depends
neither on its neighbours in the batch nor on the device.
"""

from collections.abc import Sequence

import numpy as np
import torch

from slimtune.files import digest_json
from slimtune.models.spec import Sampling


class Draws:
    """Chooses tokens for the prompts of one batch."""

    def __init__(self, sampling: Sampling, prompts: Sequence[Sequence[int]], *, tokens: int, seed: int):
        self._sampling = sampling
        seeds = [int(digest_json([seed, list(prompt)]), 16) for prompt in prompts]
        self._numbers = np.stack([np.random.default_rng(one).random(tokens) for one in seeds])

    def choose(self, logits: torch.Tensor, rows: Sequence[int], step: int | np.ndarray) -> torch.Tensor:
        """The token after `step` earlier ones, of all or [rows], for these rows; logits are [rows, words], the tokens
        [rows]."""
        shares, words = likely(logits, self._sampling)
        numbers = torch.tensor(self._numbers[rows, step], device=logits.device)
        sums = shares.double().cumsum(dim=-1)
        place = (sums < numbers[:, None] * sums[:, -1:]).sum(dim=-1, keepdim=True)
        return words.gather(-1, place)[:, 0]


def likely(logits: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """The words that may be drawn, likeliest first, and their shares (0 for those that may not): both [rows, words].
    Temperature, top-k, top-p and min-p in transformers' order."""
    scores, words = (logits.float() / sampling.temperature).topk(min(sampling.top_k, logits.shape[-1]), dim=-1)
    shares = scores.softmax(dim=-1)
    before = shares.cumsum(dim=-1) - shares
    kept = (before < sampling.top_p) & (shares >= sampling.min_p * shares[:, :1])
    return shares * kept, words
