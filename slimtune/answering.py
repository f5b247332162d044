"""A loaded or a served model answers a task: with progress, with a journal that a kill does not lose, never twice."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from slimtune.data import Example
from slimtune.endpoint import Endpoint, asking
from slimtune.errors import Interrupted
from slimtune.evaluate import (
    Evaluation,
    choose_shots,
    evaluate,
    group_of,
    prompt_digest,
    target_text,
    with_shots,
    write_evaluation,
)
from slimtune.files import DISK_GONE, cache_folder, digest_json, writing
from slimtune.recipe import Recipe, Served
from slimtune.scorers.judge import PROMPT_SHA256, Judge, Rejected
from slimtune.status import Listener
from slimtune.tasks import Task

SCORES_SCHEMA = 5  # raise it when a change to slimtune changes what a score means
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9.]+")
_SCORE_FACTS = (
    "versions",
    "gpu",
    "device",
    "precision",
    "quantisation",
    "attention",
    "rope",
    "sampling",
    "template_sha256",
    "cpu_threads",
)


def asked_label(who: str, recipe: Recipe | None) -> str:
    """Who answers; and how, where the recipe speaks of thoughts."""
    return who + {"off": "", "on": ", thinking", "mixed": ", not thinking"}[recipe.thinking if recipe else "off"]


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
    judge: Judge | None = None,
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
        judge=judge,
        on_progress=on_progress,
    )


def answer_served(
    endpoint: Endpoint,
    task: Task,
    examples: Sequence[Example],
    *,
    name: str,
    label: str,
    few_shot_k: int,
    journal: Path,
    listener: Listener,
    should_stop: Callable[[], bool],
    max_new_tokens: int | None = None,
    judge: Judge | None = None,
) -> Evaluation:
    """Let a served model answer the same prompts, read and scored as any other's. What it takes stands in `served`.

    Raises UserError for a key, a model or a budget that must change first, ServiceAway, and Interrupted; the answers so
    far are in the journal, and the same call goes on with them.
    """
    with asking(endpoint, journal=journal, say=listener.say, should_stop=should_stop) as session:
        evaluation = evaluate(
            task,
            examples,
            session.generate,
            name=name,
            label=label,
            few_shot_k=few_shot_k,
            max_new_tokens=max_new_tokens,
            judge=judge,
            on_progress=lambda done, total: listener.progress(f"Score {label}", done, total),
        )
        return replace(evaluation, served=session.facts())


def score_served(
    endpoint: Endpoint,
    task: Task,
    *,
    few_shot: int,
    out: Path | None,
    listener: Listener,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Path, Evaluation]:
    """Score a served model on a task's test rows; its column is written to `out`, else to runs/MODEL-at-HOST-on-TASK.

    Its answers stay in a journal of the model and the task beside that: asked again, or for more rows, only what is not
    there is paid for. Raises what `answer_served` raises.
    """
    shots = choose_shots(task, few_shot, seed=0)
    who = f"{endpoint.model}-at-{endpoint.host}"
    stem = f"{_NOT_IN_A_NAME.sub('-', who.lower()).strip('-.')}-on-{task.name}"
    folder = out or Path("runs") / f"{stem}-{task.digest[:8]}-{few_shot}-shot"
    with writing(folder, only=DISK_GONE):
        evaluation = answer_served(
            endpoint,
            task,
            [with_shots(example, shots) for example in task.test],
            name=folder.name,
            label=f"{endpoint.model}, {len(shots) or 'zero'}-shot",
            few_shot_k=len(shots),
            journal=out.with_name(f"{out.name}.journal") if out else folder.with_name(f"{stem}.journal"),
            listener=listener,
            should_stop=should_stop,
        )
        write_evaluation(folder, evaluation)
    return folder, evaluation


@contextlib.contextmanager
def judging(
    judge: Served | None, *, journal: Path, listener: Listener, should_stop: Callable[[], bool]
) -> Iterator[Judge | None]:
    """The judge that a recipe asks for, for as long as the block lasts; None where it asks for none. What one has said
    that is rejected is forgotten: another may be served by that name the next time."""
    if judge is None:
        yield None
        return
    with asking(judge.endpoint, journal=journal, say=listener.say, should_stop=should_stop) as session:
        try:
            yield Judge(session.generate, label=judge.model, asked=session.facts)
        except Rejected:
            session.forget()
            raise


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
    facts: Mapping[str, Any],
    task: Task,
    examples: Sequence[Example],
    *,
    thinking: str,
    limit: int,
    judge: Served | None = None,
) -> Path:
    """Where the base's score on these prompts is kept: a name made of everything that can change it."""
    parts = {name: facts[name] for name in _SCORE_FACTS} | {
        "schema": SCORES_SCHEMA,
        "model": facts["model"]["digest"],
        "thinking": thinking,
        "limit": limit,
        "scorers": [task.scorer, *task.also],
        "asked": [prompt_digest(example) for example in examples],
        "expected": [[target_text(example), group_of(example), dict(example.meta)] for example in examples],
    }
    if judge is not None:
        parts["judge"] = [judge.asked, PROMPT_SHA256]
    return cache_folder() / "scores" / digest_json(parts)
