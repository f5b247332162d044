"""A loaded model answers a task: with progress, with a journal that a kill does not lose, never twice."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from slimtune.data import Example
from slimtune.errors import Interrupted
from slimtune.evaluate import Evaluation, evaluate, prompt_digest, target_text, with_shots
from slimtune.files import cache_folder, digest_json
from slimtune.status import Listener
from slimtune.tasks import Task

SCORES_SCHEMA = 3  # raise it when a change to slimtune changes what a score means
_SCORE_FACTS = (
    "versions",
    "gpu",
    "device",
    "precision",
    "quantisation",
    "attention",
    "rope",
    "template_sha256",
    "cpu_threads",
)


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
    adapter_sha256: str | None = None,
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
        answerer=digest_json([describe(loaded), adapter_sha256, label, max_new_tokens, loaded.renderer.thinking]),
        on_progress=on_progress,
    )


def fitting_shots(
    renderer: Any, task: Task, shots: Sequence[Example], *, room_tokens: int
) -> tuple[tuple[Example, ...], int]:
    """As many shots as leave every test prompt within `room_tokens`, and the longest prompt with them, in tokens."""
    shots = tuple(shots)
    while True:
        longest = max(len(renderer.prompt_ids(with_shots(example, shots))) for example in task.test)
        if longest <= room_tokens or not shots:
            return shots, longest
        shots = shots[:-1]


def score_cache(
    facts: Mapping[str, Any], task: Task, examples: Sequence[Example], *, thinking: str, limit: int
) -> Path:
    """Where the base's score on these prompts is kept: a name made of everything that can change it."""
    parts = {name: facts[name] for name in _SCORE_FACTS} | {
        "schema": SCORES_SCHEMA,
        "model": facts["model"]["digest"],
        "thinking": thinking,
        "limit": limit,
        "scorers": [task.scorer, *task.also],
        "asked": [prompt_digest(example) for example in examples],
        "expected": [[target_text(example), example.cluster, dict(example.meta)] for example in examples],
    }
    return cache_folder() / "scores" / digest_json(parts)
