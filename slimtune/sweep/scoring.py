"""How long a cell's scoring takes on a card: a roofline over what it reads and answers, low to high, not measured.

Each side answers every test row: as many at once as the engine takes, one token after the other. Where it keeps what
prompts share, only what is a row's own is computed for it. The fast end has answers as long as those that are right; at
the slow end a model that is not trained goes on to its limit, and one that is to the longest right answer. A token's
kernels need time to start, however little they have to do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slimtune.check import Ready
from slimtune.gpus import GpuSpec
from slimtune.lengths import guess_tokens
from slimtune.models import ModelSpec
from slimtune.plan.collation import keeps_prefixes
from slimtune.plan.cost import Request, answers_at_once, seconds_a_request
from slimtune.plan.memory import GIB, Setting, resident_gib
from slimtune.plan.rows import AT_ONCE, KEPT_AT_ONCE
from slimtune.plan.speed import HOST, paces_here

_FORWARD = 1 / 3  # of a training step's kernels: backward has twice as many
_WEIGHTS = ("weights", "experts", "embeddings and head")


@dataclass(frozen=True)
class Side:
    """What one side is asked: so many rows of so many tokens on average, `shared_tokens` of which all begin with.
    `answers`: their length, slow end and fast."""

    rows: int
    prompt_tokens: float
    shared_tokens: float
    answers: tuple[float, float]


def sides_of(prepared: Ready) -> dict[str, Side]:
    """Of a cell's base, few-shot and tuned side, by name; few_shot only where the recipe asks for it."""
    recipe, task = prepared.recipe, prepared.task
    counted = guess_tokens(task.test, prepared.spec)
    right, longest = _mean(counted.answers), max(counted.answers)
    limit = recipe.answer_limit(task.max_new_tokens)
    prompt, rambles = _mean(counted.lengths) - right, (limit, min(right, limit))
    found = {
        "base": Side(len(task.test), prompt, counted.prefix, rambles),
        "tuned": Side(len(task.test), prompt, counted.prefix, (min(longest, limit), min(right, limit))),
    }
    if shots := recipe.evaluate.few_shot:
        shown = min(
            prompt + shots * _mean(guess_tokens(task.train, prepared.spec).lengths), prepared.spec.native_context
        )
        found["few_shot"] = Side(len(task.test), shown, shown - prompt + counted.prefix, rambles)
    return found


def scoring_s(side: Side, spec: ModelSpec, setting: Setting, card: GpuSpec) -> tuple[float, float]:
    """Slow and fast, with the weights as they are trained on."""
    resident = resident_gib(spec, setting)
    weights = GIB * sum(resident.get(name, 0.0) for name in _WEIGHTS)
    slow, fast = (_seconds(side, spec, setting, card, weights, end) for end in (0, 1))
    return slow, fast


def _seconds(side: Side, spec: ModelSpec, setting: Setting, card: GpuSpec, weights: float, end: int) -> float:
    kept = keeps_prefixes(spec, precision=setting.precision, cuda=True)
    answer, most = side.answers[end], KEPT_AT_ONCE if kept else AT_ONCE
    prompt = side.prompt_tokens - side.shared_tokens if kept else side.prompt_tokens
    fitting = answers_at_once(spec, card, prompt + answer, weights_bytes=weights, most=min(most, side.rows))
    at_once = max(1, fitting)
    request = Request(prompt, answer)
    each = seconds_a_request(spec, card, request, at_once=at_once, weights_bytes=weights)[end]
    launch = spec.shapes.layers * paces_here().launch_s[setting.quantisation] * HOST[end] * _FORWARD
    return max(side.rows * each, math.ceil(side.rows / at_once) * answer * launch)


def _mean(numbers: Sequence[int]) -> float:
    return sum(numbers) / len(numbers)
