"""How much of a card this process may take, and running out of it, recognised whatever library says it in."""

import gc

import torch

from slimtune.errors import UserError
from slimtune.gpus import GpuSpec, detect_gpu

_TEXTS = (
    "out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "can't allocate memory",
    "failed to allocate",
)
_rehearsed: GpuSpec | None = None


def is_out_of_memory(error: BaseException) -> bool:
    """By type, and by the texts of CUDA, its driver, Triton, cuBLAS and PyTorch's CPU allocator."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _TEXTS)


def release() -> None:
    """Give back what the failed attempt held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def rehearsed() -> tuple[int, int] | None:
    """The compute capability of the smaller card that this process stands for, if it does."""
    return _rehearsed and _rehearsed.capability


def cap_memory(gpu: GpuSpec, *, context_gib: float | None = None) -> None:
    """Let this process use no more of the card than `gpu` would leave it: its memory less the CUDA context; and have
    attention of framed rows computed by the kernel that `gpu` has. Libraries that ask how much is free hear what that
    card would answer. `context_gib` None: as measured here, which another process that starts at the same time would
    disturb.

    Raises UserError without a card, or with one that is smaller.
    """
    here = detect_gpu()
    if here is None or not torch.cuda.is_available():
        raise UserError(f"--as-gpu rehearses for {gpu.name} on a larger card, and there is no GPU here.")
    torch.zeros(1, device="cuda")
    left, total = torch.cuda.mem_get_info()
    if context_gib is None:
        context_gib = max(here.free_gib - left / 2**30, gpu.context_gib)
    if gpu.total_gib > total / 2**30:
        raise UserError(f"{gpu.name} is larger than this {here.name}: it cannot be rehearsed here.")
    global _rehearsed
    _rehearsed = gpu
    room = int((gpu.total_gib - context_gib) * 2**30)
    torch.cuda.set_per_process_memory_fraction(room / total)

    def mem_get_info(device: object = None) -> tuple[int, int]:
        return max(room - torch.cuda.memory_reserved(), 0), int(gpu.total_gib * 2**30)

    torch.cuda.mem_get_info = mem_get_info
