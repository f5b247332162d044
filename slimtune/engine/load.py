"""A base model on its device, and a record of what was really loaded."""

import unsloth  # noqa: I001  first: it patches what the others import
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from slimtune.engine import rope
from slimtune.engine.render import Renderer, load_tokenizer, make_renderer
from slimtune.engine.source import Source
from slimtune.errors import UserError
from slimtune.files import read_json
from slimtune.models import ModelSpec
from slimtune.models.spec import Sampling
from slimtune.plan import Yarn, usable_tokens
from slimtune.plan.context import setting

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
    window: int  # tokens of prompt and answer it was loaded for
    rope: Mapping[str, Any]  # its positions, as read back from it (plan/context.py: `setting`)
    seed: int = 0  # of answers that are drawn

    @property
    def sampling(self) -> Sampling | None:
        """How answers are drawn; None: greedily."""
        return self.spec.sampling(self.renderer.thinking)

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return _DTYPES[self.precision]

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_renderer(spec: ModelSpec, source: Source, *, thinking: str) -> Renderer:
    """The tokenizer of a model with its template and every token that ends an answer. Needs no weights."""
    path = source.folder / "generation_config.json"
    eos = read_json(path).get("eos_token_id") if path.is_file() else None
    ends = eos if isinstance(eos, list) else [] if eos is None else [eos]
    return make_renderer(load_tokenizer(source.folder, spec), spec, thinking=thinking, generation_eos=ends)


def load_model(
    spec: ModelSpec,
    source: Source,
    renderer: Renderer,
    *,
    precision: str,
    quantisation: str,
    window: int,
    yarn: Yarn | None = None,
    tiled_mlp: bool = False,
    offload_embedding: bool = False,
    seed: int = 0,
) -> Loaded:
    """Load a base model for rows and prompts of up to `window` tokens, answers included: Unsloth cuts what is longer
    without a word, and stretches positions linearly beyond the native context, so that is refused. `yarn` stretches
    them as it says; either way the positions are read back from the model, and SlimtuneError is raised on a difference.

    `tiled_mlp` computes each MLP in tiles, `offload_embedding` keeps the input embedding in host memory: both save
    memory for long rows. They are said here, not left to Unsloth's own reading of the card, so that a plan holds.
    """
    if window > (most := usable_tokens(spec, yarn)):
        raise UserError(f"A context of {window} is more than the {most} tokens {spec.label} was made for.")
    config = rope.asked_config(source.folder, yarn)
    model, _ = unsloth.FastLanguageModel.from_pretrained(
        str(source.folder),
        max_seq_length=window,
        dtype=_weights_dtype(precision),
        load_in_4bit=quantisation == "4bit",
        use_exact_model_name=True,
        local_files_only=True,
        unsloth_tiled_mlp=tiled_mlp,
        offload_embedding=offload_embedding,
        **({"config": config} if yarn else {}),
    )
    positions = setting(yarn, rope.check_rope(model, config))
    return Loaded(model, renderer, spec, source, precision, quantisation, window, positions, seed)


def _weights_dtype(precision: str) -> torch.dtype:
    """On a GPU, fp32 means what Unsloth makes of fp16 for a family that overflows in it: weights in 16 bits, arithmetic
    in 32. Asked for fp32 it would hold the weights in 32 bits too."""
    return torch.float16 if precision == "fp32" and torch.cuda.is_available() else _DTYPES[precision]


def describe(loaded: Loaded) -> dict[str, Any]:
    """What really runs: versions, device, precision, attention, template."""
    cuda = loaded.device.type == "cuda"
    return {
        "device": loaded.device.type,
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "precision": loaded.precision,
        "quantisation": loaded.quantisation,
        "attention": _attention(loaded.model) if cuda else "PyTorch SDPA",
        "rope": loaded.rope,
        "thinking": loaded.renderer.thinking,
        "sampling": asdict(loaded.sampling) | {"seed": loaded.seed} if loaded.sampling else "greedy",
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


def _attention(model: Any) -> str:
    flags: Mapping[str, Any] = vars(unsloth.models._utils) if hasattr(unsloth, "models") else {}
    if flags.get("HAS_FLASH_ATTENTION"):
        return "FlashAttention 2"
    return (
        "xformers" if flags.get("HAS_XFORMERS") else f"PyTorch {getattr(model.config, '_attn_implementation', 'sdpa')}"
    )
