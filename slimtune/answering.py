"""A loaded model answers a task: with progress, with a journal that a kill does not lose, never twice."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from slimtune.data import Example
from slimtune.errors import Interrupted
from slimtune.evaluate import Evaluation, evaluate
from slimtune.files import digest_json
from slimtune.tasks import Task


class Listener(Protocol):
    """Hears what happens; the command line draws it, a test collects it."""

    def say(self, text: str) -> None: ...

    def progress(self, stage: str, done: int, total: int, detail: str = "") -> None: ...


def answer(
    loaded: Any,
    task: Task,
    examples: Sequence[Example],
    *,
    name: str,
    label: str,
    few_shot_k: int,
    max_new_tokens: int | None,
    journal: Path,
    listener: Listener,
    should_stop: Callable[[], bool],
) -> Evaluation:
    """Let a loaded model answer, with progress; answers in the journal are not asked for again. Raises Interrupted."""
    from slimtune.engine.generate import generate
    from slimtune.engine.load import describe

    def on_progress(done: int, total: int) -> None:
        listener.progress(f"Score {label}", done, total)
        if should_stop():
            raise Interrupted(f"Stopped while scoring {label}; the answers so far are kept. Run the same command.")

    return evaluate(
        task,
        examples,
        lambda asked, limit: generate(loaded, asked, limit),
        name=name,
        label=label,
        few_shot_k=few_shot_k,
        tool_format=loaded.spec.tool_call_format,
        max_new_tokens=max_new_tokens,
        journal=journal,
        answerer=digest_json([describe(loaded), label, max_new_tokens]),
        on_progress=on_progress,
    )
