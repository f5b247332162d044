"""The longest row that trains in so much memory."""

from bisect import bisect_left
from collections.abc import Callable

from slimtune.models import ModelSpec
from slimtune.plan.memory import Setting, answering_gib, high_gib


def longest_row(
    spec: ModelSpec, setting: Callable[[int], Setting], room_gib: float, *, most: int, step: int = 1024
) -> int:
    """In tokens, in whole `step`s up to `most`; 0: not even one. `setting` is what rows of a length would train in.
    Beyond the model's native context a row must also be one that can be asked, as the long-context check does."""

    def too_long(steps: int) -> bool:
        tokens, chosen = steps * step, setting(steps * step)
        asked = answering_gib(spec, chosen, tokens) if tokens > spec.native_context else 0.0
        return max(high_gib(spec, chosen), asked) > room_gib

    return step * bisect_left(range(1, most // step + 1), True, key=too_long)
