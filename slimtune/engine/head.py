"""The loss at the head, of the tokens that are asked for: logits come a few rows at a time, and go again.

Cross entropy's gradient at the states is known as soon as the logits are, so it is taken there and then, and no logits
are kept (as in Hsu et al., "Liger Kernel", 2024). The head is frozen. Nothing waits for the device.
"""

from typing import Any

import torch

from slimtune.engine.collate import IGNORE
from slimtune.plan.memory import LOGITS_AT_A_TIME


def loss_at_head(states: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """Cross entropy of `states` [n, hidden] under `head` [words, hidden], summed over the `targets` [n] that are not
    IGNORE and divided by `items`: a scalar, fp32. Logits and softmax are fp32."""
    return _LossAtHead.apply(states, head, targets, items)


class _LossAtHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, items: torch.Tensor):
        asked = targets != IGNORE
        wanted, share = targets.where(asked, 0)[:, None], asked / items
        loss = states.new_zeros((), dtype=torch.float32)
        gradient = torch.empty(states.shape, dtype=torch.float32, device=states.device)
        step = max(1, LOGITS_AT_A_TIME // len(head))
        with torch.autocast(states.device.type, enabled=False):
            for some in (slice(start, start + step) for start in range(0, len(states), step)):
                logits = _product(states[some].to(head.dtype), head.T)
                sums = logits.logsumexp(-1, keepdim=True)
                loss += ((sums - logits.gather(-1, wanted[some]))[:, 0] * share[some]).sum()
                chances = logits.sub_(sums).exp_()
                chances.scatter_add_(-1, wanted[some], chances.new_full((1, 1), -1.0).expand(len(chances), 1))
                gradient[some] = _product(chances.to(head.dtype), head) * share[some, None]
        ctx.save_for_backward(gradient)
        ctx.dtype = states.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad).to(ctx.dtype), None, None, None


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """In fp32, and summed in it."""
    if a.is_cuda and a.dtype != torch.float32:
        return torch.mm(a, b, out_dtype=torch.float32)
    return (a @ b).float()
