"""Decoding on a GPU that computes what prompts share once: all prompts are filled in as one row, as in training, and
every example goes on from what was kept of it, token by token, in a step that is captured as a CUDA graph.

Both are Unsloth's own layers as they train, so an adapter and 4-bit weights are applied by the same kernels. A batch
says no more than NEW_TOKENS to each: who has more to say goes on in a later batch, its tokens so far in its prompt.
"""

from unsloth import FastLanguageModel  # noqa: F401, I001  first: it patches what the others import
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from slimtune.engine.attention import Attends
from slimtune.engine.cache import Cache, Filling, Next, Room
from slimtune.engine.collate import Layout, shared_prefix
from slimtune.engine.decode import Ends
from slimtune.engine.load import Loaded
from slimtune.engine.memory import is_out_of_memory
from slimtune.engine.render import Encoded
from slimtune.engine.replay import position_tables, tell_unsloth
from slimtune.engine.sampling import Draws
from slimtune.plan import rows_at_a_time

NEW_TOKENS = 512  # that a batch says to each at most: so much room is kept for every row

States = Callable[[torch.Tensor, torch.Tensor, Attends], torch.Tensor]


class Continued:
    """Of one model. `states` gives the last hidden states [1, T, hidden] of tokens and positions [1, T]."""

    def __init__(self, loaded: Loaded, *, states: States | None = None):
        self._loaded, self._states, model = loaded, states or self._by_unsloth, loaded.model
        self._whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.capturing = _is_capturable(self._whole)
        self.forget()
        if states is None:
            tell_unsloth()

    def forget(self) -> None:
        """What is kept, and the graph with its memory."""
        self._cache: Cache | None = None
        self._buffer = self._graph = self._logits = None
        self._tables: list[torch.Tensor | None] = []
        self._warm = False

    def most_rows(self, shared_tokens: int, own_tokens: int, new_tokens: int) -> int:
        """How many prompts like these there is memory for; what is kept of a batch before goes for it."""
        free, _ = torch.cuda.mem_get_info()
        free += torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        if self._cache is not None:
            free += self._cache.bytes
        return rows_at_a_time(
            self._loaded.spec.shapes, shared_tokens=shared_tokens, own_tokens=own_tokens,
            new_tokens=min(new_tokens, NEW_TOKENS), free_bytes=free, word_bytes=self._loaded.dtype.itemsize,
        )  # fmt: skip

    def say(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        draws: Draws | None = None,
        *,
        said: Sequence[Sequence[int]],
        few: int = 0,
    ) -> list[tuple[list[int], bool]]:
        """As decode.py's `padded`; but it may be over for all when some still go on."""
        asked = [Encoded("", (*prompt, *before), ()) for prompt, before in zip(prompts, said, strict=True)]
        layout = shared_prefix(asked)
        order, before = np.array(layout.order), np.array([len(said[row]) for row in layout.order])
        ends = Ends(self._loaded.renderer.stop_ids, [said[row] for row in layout.order], max_new_tokens, few=few)
        new = min(NEW_TOKENS, max_new_tokens - int(before.min()))
        answers: list[list[int]] = []
        logits = self._begin(layout, new)
        while True:
            steps = np.minimum(before + len(answers), max_new_tokens - 1)  # who has ended is asked too
            chosen = draws.choose(logits, order, steps) if draws else logits.argmax(dim=-1)
            answers.append(chosen.tolist())
            if ends.add(answers[-1]).all() or len(answers) == new:
                break
            logits = self._next(chosen)[: len(order)]
        tokens, found = np.array(answers), [([], False)] * len(order)
        for place, row in enumerate(order.tolist()):
            found[row] = (tokens[: ends.counts[place], place].tolist(), bool(ends.over[place]))
        return found

    def _begin(self, layout: Layout, new_tokens: int) -> torch.Tensor:
        """Fill the row in, and make ready for the steps; the logits [examples, words] after each."""
        least = Room.least(layout, new_tokens)
        if self._cache is None or not self._cache.room.holds(least):
            self.forget()
            self._cache = Cache(least.roomy())
        device, room = self._loaded.device, self._cache.room
        filling = Filling(self._cache, layout, device)
        with self._precision():
            states = self._states(layout.ids[None].to(device), layout.positions[None].to(device), filling)
            last = torch.tensor(layout.suffixes).cumsum(0) + layout.ahead - 1
            logits = self._whole.lm_head(states[0, last.to(device)])
        assert filling.layers == len(self._whole.model.layers) == len(self._cache.layers), "a layer did not attend"
        fresh = self._fresh(layout, room).to(device)
        self._buffer = fresh if self._buffer is None else self._buffer.copy_(fresh)
        return logits

    @staticmethod
    def _fresh(layout: Layout, room: Room) -> torch.Tensor:
        """What a step reads and moves on, int64: the token and position of each row, how many own tokens it has, and
        where the rows and the prefix tokens of each group begin. Rows that are no example are the last group's."""
        tokens, positions, said = (np.zeros(room.rows, dtype=np.int64) for _ in range(3))
        count = len(layout.suffixes)
        said[:count] = layout.suffixes
        positions[:count] = layout.suffixes + np.repeat(layout.prefixes, layout.members)
        members, prefixes = (np.zeros(room.groups + 1, dtype=np.int64) for _ in range(2))
        for into, lengths in ((members, layout.members), (prefixes, layout.prefixes)):
            into[1 : len(lengths) + 1] = np.cumsum(lengths)
            into[len(lengths) + 1 :] = into[len(lengths)]
        members[len(layout.members) :] = room.rows
        return torch.from_numpy(np.concatenate([tokens, positions, said, members, prefixes]))

    def _next(self, chosen: torch.Tensor) -> torch.Tensor:
        """The logits [rows, words] after these tokens."""
        self._buffer[: len(chosen)] = chosen
        if self._graph is None and self._warm and self.capturing:
            self._capture()
        if self._graph is None:
            self._warm = True
            return self._step()
        self._graph.replay()
        return self._logits

    def _step(self) -> torch.Tensor:
        room = self._cache.room
        parts = self._buffer.split([room.rows] * 3 + [room.groups + 1] * 2)
        tokens, positions, said = parts[:3]
        following = Next(self._cache, *(x.int() for x in parts[2:]))
        with self._precision():
            logits = self._whole.lm_head(self._states(tokens[None], positions[None], following)[0])
        positions += 1
        said += 1
        return logits

    def _capture(self) -> None:
        """A step as a graph. Where it cannot be one, steps are started by Python, here and later."""
        graph = torch.cuda.CUDAGraph()
        capture = torch.cuda.graph(graph, capture_error_mode="thread_local")
        try:
            with torch.cuda.stream(torch.cuda.current_stream()), capture:  # back to it, should the capture fail
                self._logits = self._step()
            self._graph, self._tables = graph, position_tables(self._whole)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self.capturing, self._logits = False, None
            warnings.warn(f"Answers come one kernel at a time: no CUDA graph of a step ({error}).", stacklevel=2)

    def _precision(self) -> Any:
        dtype = self._loaded.dtype
        half = self._loaded.device.type == "cuda" and dtype != torch.float32
        return torch.autocast("cuda", dtype=dtype) if half else nullcontext()

    def _by_unsloth(self, ids: torch.Tensor, positions: torch.Tensor, attends: Attends) -> torch.Tensor:
        found = self._whole.model(input_ids=ids, position_ids=positions, prefix_seg_info=attends, use_cache=False)
        return found.last_hidden_state


def _is_capturable(model: Any) -> bool:
    """Whether all is on the card, and no MLP comes in tiles, how many of which the host finds out."""
    tiled = any(hasattr(module, "_unsloth_forward") for module in model.modules())
    return not tiled and model.get_input_embeddings().weight.is_cuda
