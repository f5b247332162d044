"""Forward and backward over framed rows, by Unsloth's own layers: captured once a frame as a CUDA graph, then replayed.

A step of a small model is thousands of kernels of a few microseconds each, and Python takes ten times as long to start
them as the card to run them. A graph starts them all at once. What differs from row to row is a buffer of numbers.
"""

from unsloth import FastLanguageModel  # noqa: F401, I001  first: it patches what the others import
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from slimtune.engine.attention import over_segments
from slimtune.engine.collate import Lengths
from slimtune.engine.frame import Frame, FrameView
from slimtune.engine.frames import MOST, frames_for
from slimtune.engine.head import loss_at_head
from slimtune.engine.memory import is_out_of_memory, release
from slimtune.engine.row_layers import RowLayers


def loss_of_row(model: Any, view: FrameView) -> torch.Tensor:
    """The loss of a framed row under `model`, an adapted one of Unsloth's fast path, divided by its items."""
    whole = model.get_base_model()
    found = whole.model(input_ids=view.ids, position_ids=view.positions, prefix_seg_info=view.row)
    states = found.last_hidden_state[0].index_select(0, view.places)
    return loss_at_head(states, whole.lm_head.weight, view.targets, view.items)


def tell_unsloth() -> None:
    """Have Unsloth's layers take rows: by a hook that they have for GRPO's shared prompts. And they would look for
    packed rows by their positions, for which the host waits for the card: not where they are told of segments."""
    from unsloth.models import llama
    from unsloth.utils import attention_dispatch

    attention_dispatch._flex_shared_prefix_attention = over_segments
    theirs = llama.get_packed_info_from_kwargs
    if getattr(theirs, "asks_first", False):
        return

    def info(given: dict[str, Any], *rest: Any) -> Any:
        return None if given.get("prefix_seg_info") is not None else theirs(given, *rest)

    info.asks_first = True
    llama.get_packed_info_from_kwargs = info


def position_tables(model: Any) -> list[torch.Tensor | None]:
    """Unsloth's tables of positions. It makes new ones when a row is longer than they are: a graph reads those of its
    time, which must stay."""
    names = ("multi_gpu_cos_cached", "multi_gpu_sin_cached")
    return [table for module in model.modules() for name in names for table in getattr(module, name, ())]


@dataclass
class _Captured:
    graph: torch.cuda.CUDAGraph
    buffer: torch.Tensor
    loss: torch.Tensor
    tables: list[torch.Tensor | None]


class Replays:
    """Of one model in training. `layers`: transformers' layers, where they are not Unsloth's own. `capturing` False:
    every step is started by Python, as it must be where layers are computed twice and their inputs wait in host
    memory."""

    def __init__(
        self,
        model: Any,
        *,
        layers: RowLayers | None,
        dtype: torch.dtype,
        backward: Callable[[torch.Tensor], None],
        capturing: bool,
        say: Callable[[str], None],
    ):
        self.model, self.dtype, self.backward, self.capturing, self.say = model, dtype, backward, capturing, say
        self.layers, self.captured, self.rows = layers, 0, 0
        if layers is None:
            tell_unsloth()
        self._known: OrderedDict[Frame, _Captured] = OrderedDict()
        self._expected: tuple[Frame, ...] = ()
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._gradients: list[torch.Tensor] = []
        self._stream = torch.cuda.Stream() if capturing else None
        self._pool = None

    def begin(self) -> None:
        """Before the first row of a step: gradients are zero, and where graphs add to them."""
        if not self._gradients:
            self._gradients = [torch.zeros_like(weight) for weight in self._weights]
        torch._foreach_zero_(self._gradients)
        for weight, gradient in zip(self._weights, self._gradients, strict=True):
            weight.grad = gradient

    def forget(self) -> None:
        """Every graph, the gradients that they add to, and the memory of both."""
        self._known.clear()
        self._expected, self._pool = (), None
        for weight in self._weights:
            weight.grad = None
        self._gradients.clear()
        release()

    def expect(self, rows: Sequence[Lengths], *, times: float, capture: float) -> None:
        """Choose frames for rows that will come, each of which stands for `times` as many; a capture takes the time of
        so many tokens."""
        if self.capturing:
            self._expected = frames_for([Frame.least(row) for row in rows], times=times, capture=capture)

    def frame_for(self, row: Lengths) -> Frame:
        """One that was chosen for such rows, or was captured and holds the row without much waste; else a new one."""
        needs = Frame.least(row)
        fitting = [frame for frame in self._expected if frame.fits(needs)]
        fitting += [frame for frame in self._known if frame.holds(needs)]
        return min(fitting, key=lambda frame: frame.tokens) if fitting else needs.roomy()

    def row(self, frame: Frame, filled: torch.Tensor) -> torch.Tensor:
        """Forward and backward over one row; gradients are added to. The loss, on its device."""
        filled, self.rows = filled.pin_memory(), self.rows + 1
        known = self._known.get(frame) or (self._capture(frame, filled) if self._pays() else None)
        if known is None:
            return self._both(frame, filled.to("cuda", non_blocking=True))
        self._known.move_to_end(frame)
        known.buffer.copy_(filled, non_blocking=True)
        known.graph.replay()
        return known.loss.clone()

    def _pays(self) -> bool:
        """A capture takes as long as a step by Python. Where hardly two rows fit one frame, steps are not captured."""
        if self.capturing and self.captured > MOST and 2 * self.captured > self.rows:
            self._stop_capturing(f"their lengths hardly come again ({self.captured} kinds in {self.rows} rows)")
        return self.capturing

    def _stop_capturing(self, why: str) -> None:
        """No memory is given back: after a capture that failed, the allocator may believe that it still goes on."""
        self.capturing = False
        self._known.clear()
        self._expected, self._pool = (), None
        self.say(f"Steps are started one kernel at a time: {why}.")

    def _grow_rope(self, frame: Frame, buffer: torch.Tensor) -> None:
        """Unsloth makes its tables of positions longer when a row has more tokens than they have, on the CPU: before a
        capture, not in it."""
        for module in self.model.modules():
            if grow := getattr(module, "extend_rope_embedding", None):
                grow(buffer.to(self.dtype), seq_len=frame.tokens)

    def _both(self, frame: Frame, buffer: torch.Tensor) -> torch.Tensor:
        view = FrameView.of(frame, buffer)
        with self.layers.told(view) if self.layers else nullcontext():
            with torch.autocast("cuda", dtype=self.dtype, enabled=self.dtype != torch.float32):
                loss = self.layers.loss(view) if self.layers else loss_of_row(self.model, view)
            self.backward(loss)
        return loss.detach()

    def _capture(self, frame: Frame, filled: torch.Tensor) -> _Captured | None:
        """None where it cannot be, which is said once: the run goes on without."""
        buffer = filled.to("cuda", non_blocking=True)
        try:
            if self._pool is None:
                self._warm(frame, buffer)
                self._pool = torch.cuda.graph_pool_handle()
            while len(self._known) >= MOST:
                self._known.popitem(last=False)
            graph = torch.cuda.CUDAGraph()
            self._grow_rope(frame, buffer)
            capture = torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local")
            with torch.cuda.stream(torch.cuda.current_stream()), capture:  # back to it, should the capture fail
                loss = self._both(frame, buffer)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._stop_capturing(f"they cannot be captured as a CUDA graph ({first})")
            return None
        self.captured += 1
        self._known[frame] = _Captured(graph, buffer, loss, position_tables(self.model))
        return self._known[frame]

    def _warm(self, frame: Frame, buffer: torch.Tensor) -> None:
        """Once by Python, on the stream of the graphs: what is compiled, and what libraries set up, is there then. It
        is a run's first row, or the first since memory ran out: no gradient is lost."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._both(frame, buffer)
        torch.cuda.current_stream().wait_stream(self._stream)
        torch._foreach_zero_(self._gradients)
        torch.cuda.synchronize()
        release()
