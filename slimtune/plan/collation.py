"""How training rows are laid out: the fastest way that is proven for the model's family and the machine."""

from slimtune.errors import UserError
from slimtune.models import ModelSpec

SHARED_PREFIX_TYPES = frozenset(
    {"gemma3", "gemma3_text", "granite", "lfm2", "llama", "mistral", "qwen2", "qwen3", "qwen3_moe"}
)
"""Model types (as a config.json names them) whose gradients are proven equal to the padded batch's in the tests."""

KEPT_PREFIX_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Those whose answers from a kept prefix are proven, on a card, to be plain ones."""


def keeps_prefixes(spec: ModelSpec, *, precision: str, cuda: bool) -> bool:
    """Whether answers go on from what their prompts share, computed once (engine/continued.py): on a GPU, by layers of
    Unsloth's own, which know no window in rows."""
    ours = spec.traits.model_type in KEPT_PREFIX_TYPES and spec.fast_path and spec.shapes.sliding_window is None
    return cuda and precision != "fp32" and ours


def is_framed(collation: str, gpu: object) -> bool:
    """Whether rows are filled up to lengths that come again (engine/frame.py): shared ones on a GPU are."""
    return collation == "shared-prefix" and gpu is not None


def possible_layouts(spec: ModelSpec, *, asked: str, precision: str, cuda: bool) -> tuple[str, ...]:
    """Of "shared-prefix" and "padded". Raises UserError where the recipe asks for what would train something else."""
    proven = spec.traits.model_type in SHARED_PREFIX_TYPES
    if cuda and spec.fast_path:  # Unsloth's own layers know no window in a row
        proven &= spec.shapes.sliding_window is None
    elif cuda:  # in fp32, Unsloth's other layers for families that overflow in fp16 would be passed by
        proven &= precision == "bf16"
    if asked == "auto":
        return ("shared-prefix", "padded") if proven else ("padded",)
    if asked == "shared-prefix" and not proven:
        why = f"it is not proven for {spec.label}{f' on a GPU in {precision}' if cuda else ''}"
        raise UserError(f"train.collation: shared-prefix is not available here: {why}. Use auto or padded.")
    return (asked,)
