"""Stops a run that has stopped learning: numbers that are not finite, too many skipped steps, a loss that exploded.

The spike rule is LLM Foundry's KillLossSpike made fit for fine-tuning: over a window of max(100, 5% of the steps), more
than four losses above twice the window's mean, or a whole half window above the first window's maximum, end the run. A
loss below where the run began is never a spike: on a learned task single batches are often several times the mean.
"""

import math
from collections import deque

from slimtune.errors import Diverged

_OUTLIER, _PATIENCE, _SKIPS_IN_A_ROW, _SKIPPED_SHARE = 2.0, 4, 10, 0.05


class Watch:
    """Fed once an optimizer step; raises Diverged."""

    def __init__(self, steps: int, *, scaler: bool):
        self._window: deque[float] = deque(maxlen=max(100, steps // 20))
        self._skips: deque[bool] = deque(maxlen=max(100, steps // 20))
        self._scaler = scaler  # fp16: the scaler skips steps whose gradients overflow, and that is normal at the start
        self._in_a_row = 0
        self._ceiling: float | None = None
        self._began: float | None = None
        self.skipped = 0

    def step(self, step: int, *, loss: float, grad_norm: float, skipped: bool) -> None:
        """`loss` per supervised token, `grad_norm` before clipping; `skipped` where the scaler left the step out."""
        if not math.isfinite(loss):
            raise Diverged(f"Step {step}: the loss is {loss}. {_advice(self._scaler)}")
        if not math.isfinite(grad_norm) and not self._scaler:
            raise Diverged(f"Step {step}: the gradient norm is {grad_norm}. {_advice(False)}")
        self._count_skip(step, skipped or not math.isfinite(grad_norm))
        self._spike(step, loss)

    def _count_skip(self, step: int, skipped: bool) -> None:
        self.skipped += skipped
        self._in_a_row = self._in_a_row + 1 if skipped else 0
        self._skips.append(skipped)
        many = len(self._skips) == self._skips.maxlen and sum(self._skips) > _SKIPPED_SHARE * len(self._skips)
        if self._in_a_row > _SKIPS_IN_A_ROW or many:
            raise Diverged(
                f"Step {step}: {sum(self._skips)} of the last {len(self._skips)} steps overflowed in fp16 and "
                f"were skipped. {_advice(True)}"
            )

    def _spike(self, step: int, loss: float) -> None:
        self._began = loss if self._began is None else self._began
        if len(self._window) == self._window.maxlen:
            mean = sum(self._window) / len(self._window)
            self._ceiling = self._ceiling or min(max(self._window), 10.0)
            recent = list(self._window)
            threshold = max(_OUTLIER * mean, self._began)
            if loss > threshold and sum(value > threshold for value in [*recent, loss]) > _PATIENCE:
                raise Diverged(
                    f"Step {step}: the loss jumped to {loss:.3g} from a mean of {mean:.3g}, "
                    f"for the {_PATIENCE + 1}th time. {_advice(self._scaler)}"
                )
            half = recent[len(recent) // 2 :]
            if min(half) > self._ceiling:
                raise Diverged(
                    f"Step {step}: the loss has stayed above its first {self._ceiling:.3g}. {_advice(self._scaler)}"
                )
        self._window.append(loss)


def _advice(scaler: bool) -> str:
    first = "Use a card with bfloat16, or a lower train.lr" if scaler else "Try a lower train.lr"
    return f"{first}; the last whole checkpoint is kept."
