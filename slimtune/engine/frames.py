"""Few frames for all rows of a run, chosen before the first of them.

Every frame is captured once, in the time of thousands of tokens; and whatever fills a row up in a frame is computed for
nothing. Where prompts share a long beginning all rows are about as long, and one frame serves a run. Where passages
come in random order hardly two are, and a frame for each would be captured all the time.
"""

import math
from collections.abc import Sequence

from slimtune.engine.frame import Frame

MOST = 20  # graphs that are kept: each takes some of the card outside of what torch reserves
_FILLING = (17 / 16, 9 / 8, 5 / 4, 3 / 2, 2, 4)  # times as many tokens, in a frame, as its shortest row has


def capture_tokens(params: float) -> int:
    """How many tokens a model of so many weights computes in the time of a capture, on an H200: about 8,000
    of Qwen3-4B and 40,000 of SmolLM2-135M, by two contests of each with few captures and with many (BENCHMARKS.md)."""
    return round(8000 * math.sqrt(4e9 / params))


def frames_for(needs: Sequence[Frame], *, times: float, capture: float) -> tuple[Frame, ...]:
    """Frames that hold `needs`, the least frames of rows that stand for `times` as many each: those for which least is
    computed in all, a capture being so many tokens. None is larger than the largest of their own frames, so that memory
    is what it was."""
    choices = [_covering(needs, filling) for filling in _FILLING]
    few = [frames for frames in choices if len(frames) <= MOST] or [min(choices, key=len)[:MOST]]

    def tokens(frames: Sequence[Frame]) -> float:
        fitting = (min((frame.tokens for frame in frames if frame.fits(need)), default=0) for need in needs)
        return capture * len(frames) + times * sum(fitting)

    return tuple(min(few, key=tokens))


def _covering(needs: Sequence[Frame], filling: float) -> list[Frame]:
    """From the largest on, each with all that may share its frame."""
    most = max((need.roomy().tokens for need in needs), default=0)
    left, frames = sorted(set(needs), key=lambda need: (-need.tokens, repr(need))), []
    while left:
        high = low = left[0]
        others = []
        for need in left[1:]:
            wider, narrower = high.most(need), low.least_of(need)
            frame = wider.room_for(narrower)
            alike = bool(need.ahead) == bool(high.ahead) and frame.tokens <= most
            if alike and frame.is_near(need, filling):
                high, low = wider, narrower
            else:
                others.append(need)
        frames.append(high.room_for(low))
        left = others
    return frames
