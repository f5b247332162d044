"""A base model on its device, and a record of what was really loaded."""

import unsloth  # noqa: I001  first: it patches what the others import
import gc
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from slimtune.engine.render import Renderer, load_tokenizer, make_renderer
from slimtune.engine.source import Source
from slimtune.errors import UserError
from slimtune.gpus import GpuSpec
from slimtune.models import ModelSpec

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "bitsandbytes",
    "datasets",
    "unsloth",
    "unsloth_zoo",
    "xformers",
    "triton",
)


@dataclass
class Loaded:
    """A model ready to answer, with what it was loaded from and how."""

    model: Any
    renderer: Renderer
    spec: ModelSpec
    source: Source
    precision: str
    quantisation: str

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_model(
    spec: ModelSpec, source: Source, *, precision: str, quantisation: str, context: int, thinking: str
) -> Loaded:
    """Load a base model for LoRA. `context` must not exceed the native one: Unsloth would stretch it linearly."""
    if context > spec.native_context:
        raise UserError(
            f"A context of {context} is more than the {spec.native_context} tokens {spec.label} was made for."
        )
    tokenizer = load_tokenizer(source.folder, spec)
    model, _ = unsloth.FastLanguageModel.from_pretrained(
        str(source.folder),
        max_seq_length=context,
        dtype=_DTYPES[precision],
        load_in_4bit=quantisation == "4bit",
        use_exact_model_name=True,
        local_files_only=True,
    )
    eos = model.generation_config.eos_token_id
    eos = eos if isinstance(eos, list) else [eos]
    renderer = make_renderer(tokenizer, spec, thinking=thinking, generation_eos=eos)
    return Loaded(model, renderer, spec, source, precision, quantisation)


def cap_memory(gpu: GpuSpec) -> float:
    """Let this process use no more of the card than `gpu` would leave it, in GiB: its memory less the CUDA context."""
    free_gib, total_gib = (value / 2**30 for value in torch.cuda.mem_get_info())
    torch.zeros(1, device="cuda")
    context_gib = free_gib - torch.cuda.mem_get_info()[0] / 2**30
    usable_gib = gpu.total_gib - max(context_gib, gpu.context_gib)
    torch.cuda.set_per_process_memory_fraction(usable_gib / total_gib)
    return usable_gib


def describe(loaded: Loaded) -> dict[str, Any]:
    """What really runs: versions, device, precision, attention, template."""
    cuda = loaded.device.type == "cuda"
    return {
        "device": loaded.device.type,
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "precision": loaded.precision,
        "quantisation": loaded.quantisation,
        "attention": _attention(loaded.model) if cuda else "PyTorch SDPA",
        "template_sha256": loaded.renderer.template_sha256,
        "platform": platform.platform(),
        "cpu_threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "versions": package_versions(),
        "model": {
            "key": loaded.spec.key,
            "label": loaded.spec.label,
            "note": loaded.spec.note,
            "source": loaded.source.repository,
            "revision": loaded.source.revision,
            "digest": loaded.source.digest,
        },
    }


def package_versions() -> dict[str, str]:
    """Installed versions of what a score depends on."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def free_model(loaded: Loaded) -> None:
    """Give the memory of a model back."""
    loaded.model = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _attention(model: Any) -> str:
    flags: Mapping[str, Any] = vars(unsloth.models._utils) if hasattr(unsloth, "models") else {}
    if flags.get("HAS_FLASH_ATTENTION"):
        return "FlashAttention 2"
    return (
        "xformers" if flags.get("HAS_XFORMERS") else f"PyTorch {getattr(model.config, '_attn_implementation', 'sdpa')}"
    )
