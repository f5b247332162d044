"""The base model that was loaded last, for runs that follow each other in one process: loaded once, and as if new.

A run attaches adapters and Unsloth rebinds methods on the modules it finds, which `unload` does not take back. So each
run gets modules of its own over the same weights: what is done to them stays with it, and goes with it.
"""

import copy
import itertools
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

from slimtune.engine.load import Loaded
from slimtune.engine.memory import release


class Shelf:
    """Holds one model. Not for two runs at a time: the weights are shared."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._loaded: Loaded | None = None

    def take(self, key: Hashable, load: Callable[[], Loaded]) -> Loaded:
        """What `load` returns, from the shelf where it was loaded under an equal `key`: all that decides its weights
        and how they are computed with."""
        if self._loaded is None or key != self._key:
            self._loaded = None  # before the next is loaded: there may be no room for both
            release()
            self._loaded, self._key = load(), key
        release()
        return replace(self._loaded, model=own_modules(self._loaded.model))


def own_modules(model: Any) -> Any:
    """A copy of every module over the very same parameters and buffers."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in itertools.chain(model.parameters(), model.buffers())})
