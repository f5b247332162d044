"""What a job takes beside the card: disk for everything it writes, host memory while it loads and trains."""

import shutil
from pathlib import Path

from slimtune.errors import CannotWrite
from slimtune.models import ModelSpec
from slimtune.plan.memory import GIB, NF4_BYTES, Setting, resident_gib

_GGUF_Q4_BYTES = 0.6  # a weight in Q4_K_M: 4.8 bits
_PROCESS_GIB = 4.0  # Python with torch on CUDA, transformers and Unsloth imported
_SHARD_GIB = 5.0  # the largest weights file of a repository, mapped while it is read


def refuse_full_disk(
    spec: ModelSpec, setting: Setting, *, keep_checkpoints: int, run: Path, download: Path | None
) -> None:
    """Raises CannotWrite where the disks of `run` and of `download` (None: the model is here already) have no room for
    what a run writes there."""
    needs = disk_gib(spec, setting, keep_checkpoints=keep_checkpoints)
    written = sum(file.stat().st_size for file in run.rglob("*") if file.is_file()) / GIB  # of a run that goes on
    due = [(run, max(0.0, needs["checkpoints"] + needs["adapter"] - written))]
    due += [(download, needs["download"])] if download is not None else []
    disks: dict[int, list[tuple[Path, float]]] = {}
    for folder, gib in due:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        disks.setdefault(there.stat().st_dev, []).append((there, gib))
    for parts in disks.values():
        needed, free = sum(gib for _, gib in parts), shutil.disk_usage(parts[0][0]).free / GIB
        if free < needed:
            folders = " and ".join(str(folder) for folder, _ in parts)
            raise CannotWrite(
                f"Cannot write all of it: {spec.label} needs {needed:.2f} GiB of space in {folders}, and {free:.2f} "
                "are free. Make room and run the same command, or choose another disk: --out for the run, HF_HOME for "
                "the download."
            )


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
