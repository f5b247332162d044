"""Optimizer steps over framed rows, and the next step's rows laid out while the device is busy with this one's."""

from collections.abc import Sequence
from typing import Any

import torch

from slimtune.engine.collate import IGNORE, check_asked, lengths_of, shared_prefix
from slimtune.engine.frame import Frame
from slimtune.engine.frames import capture_tokens
from slimtune.engine.load import Loaded
from slimtune.engine.render import Encoded
from slimtune.engine.replay import Replays
from slimtune.engine.row_layers import RowLayers


class RowSteps:
    """Of one model in training."""

    def __init__(self, replays: Replays, *, capture: float):
        self.replays, self._capture = replays, capture
        self._ahead: dict[tuple[int, ...], tuple[Frame, torch.Tensor]] = {}

    @classmethod
    def of(cls, trainer: Any, loaded: Loaded) -> "RowSteps":
        """Of a trainer on a GPU. A mixture's experts cannot be captured: how many tokens each gets is asked of the
        device."""
        spec = loaded.spec
        replays = Replays(
            loaded.model, layers=None if spec.fast_path else RowLayers(loaded.model), dtype=loaded.dtype,
            backward=trainer.accelerator.backward, say=trainer.say,
            capturing=not trainer.args.gradient_checkpointing and not spec.shapes.experts,
        )  # fmt: skip
        return cls(replays, capture=capture_tokens(spec.params_total))

    def step(self, parts: Sequence[Sequence[Encoded]], *, items: int) -> tuple[torch.Tensor, int]:
        """Forward and backward over all parts of a batch with so many supervised tokens: the loss, on its device, and
        how many tokens were computed."""
        self.replays.begin()
        tokens, losses = 0, []
        for part in parts:
            frame, filled = self._ahead.get(_key(part)) or self._filled(part)
            filled[-1] = items
            losses.append(self.replays.row(frame, filled))
            tokens += frame.tokens
        return torch.stack(losses).sum(), tokens

    def expect(self, parts: Sequence[Sequence[Encoded]], *, times: float) -> None:
        """Have frames chosen for a run, of which these parts of batches are one in `times`."""
        self.replays.expect([lengths_of(part) for part in parts], times=times, capture=self._capture)

    def look_ahead(self, parts: Sequence[Sequence[Encoded]]) -> None:
        """What the next step is going to ask for."""
        self._ahead = {_key(part): self._filled(part) for part in parts}

    def forget(self) -> None:
        """What was captured, and its memory."""
        self._ahead = {}
        self.replays.forget()

    def _filled(self, part: Sequence[Encoded]) -> tuple[Frame, torch.Tensor]:
        layout = shared_prefix(part)
        check_asked(layout.labels[layout.labels != IGNORE], part)
        frame = self.replays.frame_for(layout)
        return frame, frame.fill(layout)


def _key(part: Sequence[Encoded]) -> tuple[int, ...]:
    return tuple(map(id, part))
