"""The worker: loads once, then answers what is asked, on the base and on the tuned side of one model."""

import json
import os
import threading
import traceback
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from slimtune.data import Completion
from slimtune.engine import require_training
from slimtune.engine.render import RowError
from slimtune.errors import SlimtuneError, UserError
from slimtune.models.thoughts import Thoughts, opens_thought, split_thought
from slimtune.models.toolcalls import attempts_tool_call, parse_tool_calls
from slimtune.pipeline import find_target, loaded_target, open_target
from slimtune.tryout.asks import SIDES, Ask, Inbox, Put

_WINDOW_TOKENS = 8192  # of prompt and answer, where the model can do more than it was trained for
_BUG = "slimtune hit a bug of its own ({kind}). Please report the lines above with what `slimtune doctor` prints."


def work(target: str, *, parent: int) -> int:
    """Answer until stdin or `parent` ends; returns an exit code only where there is nothing to answer with."""
    put = _events()
    inbox = Inbox(put, parent=parent)
    put({"event": "loading", "text": "Starting."})
    try:
        model = _load(target, put)
    except SlimtuneError as error:
        put({"event": "failed", "text": str(error)})
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        put({"event": "failed", "text": _BUG.format(kind=type(error).__name__)})
        return SlimtuneError.exit_code
    put({"event": "ready", **model.facts})
    while True:
        ask = inbox.next()
        for event in model.answer(ask):
            put(event)
        inbox.done(ask)


def _events() -> Put:
    """Writes events to what is stdout now. From here on the process's own stdout is its stderr: libraries print."""
    out, lock = os.fdopen(os.dup(1), "wb"), threading.Lock()
    os.dup2(2, 1)

    def put(event: Mapping[str, Any]) -> None:
        try:
            with lock:
                out.write(json.dumps(event).encode() + b"\n")
                out.flush()
        except BrokenPipeError:  # nobody listens any more
            os._exit(0)

    return put


def _load(name: str, put: Put) -> "Model":
    target = find_target(name)
    require_training()
    put({"event": "loading", "text": f"Loading {target.spec.label}{', tuned' if target.run else ''}."})
    from slimtune.engine.memory import is_out_of_memory

    try:
        opened = open_target(target)
        loaded = loaded_target(opened, window=min(opened.usable_tokens, _WINDOW_TOKENS))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"{target.spec.label} does not fit the memory that is free. Is something training here? Wait for its end."
        ) from error
    return Model(loaded, SIDES if target.run else SIDES[:1])


@dataclass(frozen=True)
class Model:
    """A loaded model and the sides it can be asked on."""

    loaded: Any
    sides: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Any]:
        spec = self.loaded.spec
        tools = spec.tool_call_format != "none"
        return {"label": spec.label, "sides": self.sides, "tools": tools, "window": self.loaded.window}

    def answer(self, ask: Ask) -> Iterator[dict[str, Any]]:
        """The events of an ask, up to its last. What is wrong with it is one of them, and nothing is raised."""
        from slimtune.engine.memory import is_out_of_memory, release

        try:
            for side in self._asked(ask.side):
                yield from self._say(ask, side)
            return
        except RowError as error:
            wrong = error.what[0].upper() + error.what[1:]
        except SlimtuneError as error:
            wrong = str(error)
        except Exception as error:
            traceback.print_exc()
            short = is_out_of_memory(error)
            wrong = "The prompt does not fit the memory." if short else _BUG.format(kind=type(error).__name__)
        release()
        yield {"event": "error", "ask": ask.id, "text": wrong}

    def _asked(self, side: str) -> tuple[str, ...]:
        if side in self.sides:
            return (side,)
        if side == "both":
            return self.sides
        raise UserError(f"{self.loaded.spec.label} was loaded without an adapter: only the base can be asked.")

    def _say(self, ask: Ask, side: str) -> Iterator[dict[str, Any]]:
        if ask.stopped.is_set():
            yield _end(ask, side, Completion("", "length"), None)
            return
        from slimtune.engine.stream import stream

        thoughts = Thoughts(begun=opens_thought(self.loaded.renderer.prompt(ask.example)))
        said = _Said(
            stream(
                self.loaded,
                ask.example,
                tuned=side == "tuned",
                max_new_tokens=ask.max_new_tokens,
                should_stop=ask.stopped.is_set,
            )
        )
        for piece in said:
            yield from _pieces(ask, side, thoughts.add(piece))
        yield from _pieces(ask, side, thoughts.rest())
        yield _end(ask, side, said.completion, thoughts.text) | self._calls(ask, said.completion)

    def _calls(self, ask: Ask, completion: Completion) -> dict[str, Any]:
        """The calls in an answer, read as evaluation reads them. Prose where a call was possible is no failure."""
        tools = ask.example.tools
        if not tools or not self.facts["tools"] or ask.stopped.is_set():
            return {}
        answer = split_thought(completion.text, begun=completion.thought_begun).answer
        reading = parse_tool_calls(answer, self.loaded.spec.tool_call_format, tools)
        if reading.calls is None:
            return {"unread": reading.why if attempts_tool_call(answer) else ""}
        return {"tool_calls": [call.as_json() for call in reading.calls]}


class _Said:
    """A stream's pieces; after them, the completion that it returns."""

    def __init__(self, stream: Generator[str, None, Completion]):
        self._stream = stream
        self.completion = Completion("")

    def __iter__(self) -> Iterator[str]:
        self.completion = yield from self._stream


def _pieces(ask: Ask, side: str, parts: list[tuple[str, bool]]) -> Iterator[dict[str, Any]]:
    for text, thinking in parts:
        yield {"event": "piece", "ask": ask.id, "side": side, "text": text} | ({"thinking": True} if thinking else {})


def _end(ask: Ask, side: str, completion: Completion, thinking: str | None) -> dict[str, Any]:
    cut = completion.stopped == "length" and ask.stopped.is_set()
    return {
        "event": "end",
        "ask": ask.id,
        "side": side,
        "stopped": "cancelled" if cut else completion.stopped,
        "prompt_tokens": completion.prompt_tokens,
        "tokens": completion.completion_tokens,
        "seconds": round(completion.seconds, 3),
        "tool_calls": None,
        "unread": "",
        "thinking": thinking,
    }
