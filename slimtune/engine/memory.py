"""Running out of memory, recognised whatever library says it in."""

import gc

import torch

_TEXTS = (
    "out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "can't allocate memory",
    "failed to allocate",
)


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
