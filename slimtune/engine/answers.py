"""The loss of a batch, with logits for answers only; and what a model has to be told of its loss.

Most tokens of a row are its prompt, and nothing is asked of them. Unsloth and transformers compute their logits all the
same: for Gemma 3's 262,144 words 6 bytes each, 12 GiB for 8,192 tokens. So between the decoder and the head, only the
states from which a supervised token is predicted go on. Loss and gradients are unchanged, whatever loss the model uses.
"""

from typing import Any

import torch

from slimtune.engine.collate import IGNORE, Batch


def loss_on_answers(model: Any, batch: Batch, *, items: torch.Tensor) -> torch.Tensor:
    """The loss of `batch` (collate.py), as the model divides it by `items`: a scalar. Nothing waits for the device."""
    places, targets = batch["places"], batch["targets"]

    def keep_predicting(module: Any, args: Any, output: Any) -> Any:
        states = output.last_hidden_state.flatten(0, 1)[places]
        output.last_hidden_state = torch.cat([states, states[-1:]])[None]  # the last one predicts nothing: labels shift
        return output

    labels = torch.nn.functional.pad(targets, (1, 0), value=IGNORE)[None]
    asked = {name: value for name, value in batch.items() if name not in ("places", "targets")}
    decoder = model.get_base_model().base_model
    hook = decoder.register_forward_hook(keep_predicting)
    try:
        return model(**asked, labels=labels, num_items_in_batch=items).loss
    finally:
        hook.remove()


def freeze_routing(model: Any) -> None:
    """Leave a mixture's balancing loss out: TRL adds it by default, and the routers that it would balance are frozen.
    It also fails when the model answers, on a mask that covers more than the newest token (transformers 5.17)."""
    config = model.config.get_text_config()
    if hasattr(config, "output_router_logits"):
        config.output_router_logits = False


def attach_scaler(trainer: Any, model: Any) -> None:
    """Tell Unsloth's fused loss the fp16 scale. It saves gradients in fp16 in the forward pass, where they would
    underflow without; Unsloth does this in `compute_loss`, which whole batches pass by."""
    from unsloth.models._utils import _unsloth_attach_accelerator_scaler

    _unsloth_attach_accelerator_scaler(trainer, model)
