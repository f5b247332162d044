"""A contestant's steps, timed and counted in the same way whoever makes them."""

import math
import time
from collections.abc import Callable

import torch

from slimtune.engine.compiled import graphs_compiled
from slimtune.engine.contestant.job import Job, Pace
from slimtune.errors import UserError


class Clock:
    """Runs from the end of the last warm step to the end of the last one. The device is waited for at these two moments
    only. `answer_tokens`: of an answer on average, which makes examples of supervised tokens: packed rows hold whole
    examples, now more, now fewer."""

    def __init__(self, job: Job, *, answer_tokens: float):
        self.job, self.answer_tokens, self.cuda = job, answer_tokens, torch.cuda.is_available()
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.tokens = self.supervised = self.graphs = 0
        self.began = self.seconds = 0.0
        self.timed = False
        self.captures: Callable[[], int] = lambda: 0  # of CUDA graphs, so far: whoever makes any says how many

    def start(self) -> None:
        """Before the first step: what loading took is not to be told."""
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def saw(self, *, tokens: int, supervised: int) -> None:
        """Tokens that are no padding, and those the loss is on, of a batch that is about to be computed."""
        if self.timed:
            self.tokens, self.supervised = self.tokens + tokens, self.supervised + supervised

    def ended(self, step: int, *, loss: float, grad_norm: float, skipped: bool) -> None:
        """`skipped`: fp16 overflowed, as it does at first, and the scaler left the step out: its norm says nothing."""
        self.losses.append(loss)
        if not skipped:
            self.norms.append(grad_norm)
        if step == self.job.warm:
            self._wait()
            self.began, self.graphs, self.timed = time.monotonic(), self._made(), True
        elif step == self.job.last_step:
            self._wait()
            self.seconds = time.monotonic() - self.began
            self.graphs, self.timed = self._made() - self.graphs, False

    def pace(self) -> Pace:
        """What was seen. UserError where fp16 overflowed in every step."""
        if not self.norms:
            raise UserError(f"fp16 overflowed in each of {len(self.losses)} steps: nothing was learned")
        tenth = max(1, len(self.losses) // 10)
        return Pace(
            self.seconds,
            self.supervised / self.answer_tokens,
            self.tokens,
            self.supervised,
            torch.cuda.max_memory_reserved() / 2**30 if self.cuda else None,
            self.graphs,
            sum(self.losses[:tenth]) / tenth,
            sum(self.losses[-tenth:]) / tenth,
            next((norm for norm in self.norms if not math.isfinite(norm)), min(self.norms)),
        )

    def _made(self) -> int:
        """Graphs that were compiled or captured so far."""
        return graphs_compiled() + self.captures()

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()
