"""One answer, piece by piece: from the tuned model, or from the base below it. One loaded model is both.

The answer is made as evaluation makes it (`generate.answer_aloud`), in a thread that hands over each token as it is
chosen. PEFT's switch turns the adapter off for the base.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from slimtune.data import Completion, Example, Message
from slimtune.engine.generate import answer_aloud
from slimtune.engine.load import Loaded
from slimtune.engine.render import Renderer
from slimtune.errors import UserError
from slimtune.models.toolcalls import json_text, pythonic

_SPOKEN = (  # special tokens of some models that are part of what is said all the same
    *(json_text.HERMES_OPEN, json_text.HERMES_CLOSE, json_text.GRANITE_OPEN, json_text.PYTHON_TAG),
    *(pythonic.OPEN, pythonic.CLOSE, "<think>", "</think>"),
)
_BROKEN = "\ufffd"  # what a tokenizer makes of half a character


def stream(
    loaded: Loaded,
    asked: Example | Sequence[Message],
    *,
    tuned: bool,
    max_new_tokens: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[str, None, Completion]:
    """The greedy answer to a chat in pieces of text, and what `generate` would return for it as the generator's value.

    Where the prompt leaves less room than `max_new_tokens`, the answer may fill it. Raises UserError for a prompt that
    leaves none, and for the tuned side of a model without an adapter; RowError where the template refuses the chat.
    """
    example = asked if isinstance(asked, Example) else Example("prompt", tuple(asked), "")
    prompt = loaded.renderer.prompt_ids(example)
    if (room := loaded.window - len(prompt)) < 1:
        raise UserError(f"The prompt has {len(prompt):,} tokens; with its answer it may have {loaded.window:,}.")
    tokens, speech = _heard(loaded, prompt, min(max_new_tokens, room), should_stop), Speech(loaded.renderer)
    with _adapter(loaded, on=tuned), contextlib.closing(tokens):
        for item in tokens:
            if isinstance(item, Completion):
                break
            if piece := speech.add(item):
                yield piece
    if piece := speech.rest():
        yield piece
    return item


class Speech:
    """Token ids in, text out. Special tokens are not shown, and no piece ends in the middle of a character."""

    def __init__(self, renderer: Renderer):
        self._tokenizer, self._hidden = renderer.tokenizer, renderer.stop_ids | _silent(renderer.tokenizer)
        self._before: list[int] = []  # tokens of the last piece: how a token is written may depend on them
        self._waiting: list[int] = []

    def add(self, token: int) -> str:
        """What can be said now, with this token: nothing while a character is not whole."""
        if token in self._hidden:
            return ""
        self._waiting.append(token)
        return "" if (text := self._text()).endswith(_BROKEN) else self._say(text)

    def rest(self) -> str:
        """What was held back, at the end of the answer."""
        return self._say(self._text())

    def _text(self) -> str:
        return self._decode(self._before + self._waiting)[len(self._decode(self._before)) :]

    def _say(self, text: str) -> str:
        if text:
            self._before, self._waiting = self._waiting, []
        return text

    def _decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _silent(tokenizer: Any) -> frozenset[int]:
    added = tokenizer.added_tokens_decoder.items()
    return frozenset(index for index, token in added if token.special and token.content not in _SPOKEN)


def _adapter(loaded: Loaded, *, on: bool) -> contextlib.AbstractContextManager:
    """The model with its adapter switched on or off. UserError where there is none to switch on."""
    adapted = hasattr(loaded.model, "disable_adapter")  # PEFT's
    if on and not adapted:
        raise UserError(f"{loaded.spec.label} was loaded without an adapter: only the base can be asked.")
    return loaded.model.disable_adapter() if adapted and not on else contextlib.nullcontext()


def _heard(
    loaded: Loaded, prompt: Sequence[int], limit: int, should_stop: Callable[[], bool]
) -> Iterator[int | Completion]:
    """The tokens of an answer as they are chosen, and the whole of it at the end. Nobody listens any more? It stops."""
    said: queue.SimpleQueue[int | Completion | Exception] = queue.SimpleQueue()
    gone = threading.Event()

    def heard(token: int) -> bool:
        said.put(token)
        return gone.is_set() or should_stop()

    def work() -> None:
        try:
            said.put(answer_aloud(loaded, prompt, limit, heard))
        except Exception as error:  # it is raised again where it is listened to
            said.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while not isinstance(item := said.get(), Completion):
            if isinstance(item, Exception):
                raise item
            yield item
        yield item
    finally:
        gone.set()
        thread.join()
