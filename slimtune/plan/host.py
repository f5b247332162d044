"""What a job takes beside the card: disk for everything it writes, host memory while it loads and trains."""

from slimtune.models import ModelSpec
from slimtune.plan.memory import GIB, NF4_BYTES, Setting, resident_gib

_GGUF_Q4_BYTES = 0.6  # a weight in Q4_K_M: 4.8 bits
_PROCESS_GIB = 4.0  # Python with torch on CUDA, transformers and Unsloth imported
_SHARD_GIB = 5.0  # the largest weights file of a repository, mapped while it is read


def disk_gib(spec: ModelSpec, setting: Setting, *, keep_checkpoints: int) -> dict[str, float]:
    """Disk in GiB, part by part. Merged weights and GGUF are written only when a model is exported."""
    lora = spec.lora_params(setting.lora_r)
    fetched = 0.0 if spec.repo is None or spec.folder is not None else _fetched_bytes(spec, setting.quantisation)
    moments = 2 if setting.cuda else 8
    return {
        "download": fetched / GIB,
        "checkpoints": (keep_checkpoints + 1) * lora * (4 + moments) / GIB,  # one more while the next is written
        "adapter": 4 * lora / GIB,
        "merged 16-bit (export)": 2 * spec.params_total / GIB,
        "GGUF Q4_K_M (export)": _GGUF_Q4_BYTES * spec.params_total / GIB,
    }


def ram_gib(spec: ModelSpec, setting: Setting) -> float:
    """Host memory in GiB while training on a GPU: libraries, the weights file being read, the layer inputs that
    checkpointing keeps there, an offloaded embedding."""
    shapes = spec.shapes
    inputs = shapes.layers * setting.tokens * shapes.hidden * 2 / GIB if setting.checkpointing else 0.0
    embedding = shapes.vocab * shapes.hidden * 2 / GIB if setting.offload_embedding else 0.0
    weights = sum(resident_gib(spec, setting).values())
    return _PROCESS_GIB + max(min(_SHARD_GIB, weights), inputs) + embedding


def _fetched_bytes(spec: ModelSpec, quantisation: str) -> float:
    if quantisation == "4bit" and (spec.dynamic_4bit or spec.plain_4bit):
        return spec.linear_params * NF4_BYTES * (1.1 if spec.dynamic_4bit else 1.0) + 2 * (
            spec.params_total - spec.linear_params
        )
    return 2 * spec.params_total
