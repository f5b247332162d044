"""Adapters where they should be: LoRA by one regex a family, then every module that got one is counted.

PEFT is content when one name matches; Unsloth's list-to-regex conversion drops LFM2's convolutions in silence. So the
count of adapted modules per leaf name is compared with the model's own shapes, and a shortfall stops the run.
"""

import inspect
import re
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from unsloth import FastLanguageModel  # before peft, which it patches

from slimtune.engine.rope import check_learned
from slimtune.errors import SlimtuneError, UserError
from slimtune.files import damage
from slimtune.models import ModelSpec


def attach_lora(
    model: Any, spec: ModelSpec, *, r: int, alpha: int, dropout: float, seed: int, checkpointing: bool, window: int
) -> Any:
    """The model with fresh adapters on every linear layer of the family's regex. SlimtuneError on a shortfall."""
    torch.manual_seed(seed)
    model = FastLanguageModel.get_peft_model(
        model,
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=spec.lora_regex,
        random_state=seed,
        use_gradient_checkpointing="unsloth" if checkpointing else False,
        max_seq_length=window,
    )
    check_coverage(model, spec)
    _leave_tiles_alone(model)
    return model


def _leave_tiles_alone(model: Any) -> None:
    """Unsloth's fused MLP writes its input's gradient over the input. A tiled MLP hands it views, which must not be
    written over, says autograd; so there it is told to leave them."""
    for module in model.modules():
        fused = getattr(getattr(module, "_unsloth_forward", None), "__func__", None)
        if fused is not None and "inplace" in inspect.signature(fused).parameters:
            module._unsloth_forward = types.MethodType(_not_in_place(fused), module)


def _not_in_place(fused: Callable) -> Callable:
    def forward(module: Any, x: torch.Tensor) -> torch.Tensor:
        return fused(module, x, inplace=False)

    return forward


def adapter_modules(model: Any) -> dict[str, int]:
    """How many modules of each leaf name carry an adapter."""
    found = re.compile(r".*\.([^.]+)\.lora_A\.[^.]+\.weight")
    return dict(
        sorted(Counter(match[1] for name, _ in model.named_parameters() if (match := found.fullmatch(name))).items())
    )


def load_adapter(model: Any, folder: Path) -> None:
    """Put the saved weights of an adapter into the model's own. UserError where they are damaged, or learned at other
    positions than the model has."""
    if wrong := damage(folder, alone=False):
        raise UserError(f"The adapter in {folder} is damaged: {wrong}. Train it again under another --out.")
    check_learned(model, folder)
    weights = load_file(folder / "adapter_model.safetensors")
    loaded = set_peft_model_state_dict(model, weights)
    strangers = [*loaded.unexpected_keys, *(key for key in loaded.missing_keys if "lora_" in key)]
    if strangers:
        raise SlimtuneError(f"{folder} is not an adapter of this model: {', '.join(strangers[:3])} do not match.")


def check_coverage(model: Any, spec: ModelSpec) -> None:
    """Raises SlimtuneError unless exactly the expected number of modules of each leaf name carries an adapter, and
    everything else is frozen: a mixture's routers above all."""
    loose = [name for name, weight in model.named_parameters() if weight.requires_grad and ".lora_" not in name]
    if loose:
        raise SlimtuneError(f"{spec.label}: {', '.join(loose[:3])} would be trained beside the adapters.")
    expected, found = spec.expected_adapters(), adapter_modules(model)
    if found != expected:
        wrong = {
            leaf: f"{found.get(leaf, 0)} of {expected.get(leaf, 0)}"
            for leaf in sorted({*found, *expected})
            if found.get(leaf, 0) != expected.get(leaf, 0)
        }
        raise SlimtuneError(
            f"{spec.label}: adapters are missing or too many ({wrong}). The run would train another "
            "model than the one asked for."
        )


def trainable_parameters(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
