"""Optimizer steps over framed rows, and the next step's rows laid out while the device is busy with this one's."""

from collections.abc import Sequence

import torch

from slimtune.engine.collate import IGNORE, check_asked, shared_prefix
from slimtune.engine.frame import Frame
from slimtune.engine.render import Encoded
from slimtune.engine.replay import Replays


class RowSteps:
    """Of one model in training."""

    def __init__(self, replays: Replays):
        self.replays = replays
        self._ahead: dict[tuple[int, ...], tuple[Frame, torch.Tensor]] = {}

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
