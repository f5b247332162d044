"""How rows become tensors: padded, or one row in which all examples share their prefix.

Shared prefix: the examples of a task begin alike (instructions, labels, tools). `[prefix, suffix 1, ..., suffix n]` is
one row in which every suffix continues the prefix's positions and sees the prefix and itself only. Loss and gradients
are those of the padded batch; the prefix is computed once instead of n times.
"""

from collections.abc import Sequence

import torch

from slimtune.engine.render import Encoded

IGNORE = -100
Batch = dict[str, torch.Tensor]


def padded(rows: Sequence[Encoded], *, pad_id: int, multiple: int = 1) -> Batch:
    """input_ids and labels of shape [rows, longest], padded on the right to a multiple. No mask: a causal model's
    tokens see nothing to their right, and without one attention takes its fastest way."""
    width = -(-max(map(len, rows)) // multiple) * multiple
    batch = {"input_ids": [], "labels": []}
    for row in rows:
        space = width - len(row)
        batch["input_ids"].append([*row.prompt, *row.answer, *[pad_id] * space])
        batch["labels"].append([*[IGNORE] * len(row.prompt), *row.answer, *[IGNORE] * space])
    return {name: torch.tensor(value) for name, value in batch.items()}


def shared_prefix(rows: Sequence[Encoded]) -> Batch:
    """input_ids, labels and position_ids of shape [1, T], and a boolean mask [1, 1, T, T] (True: may attend)."""
    shared = prefix_length([row.prompt for row in rows])
    ids, labels = [*rows[0].prompt[:shared]], [IGNORE] * shared
    positions, segments = list(range(shared)), [0] * shared
    for number, row in enumerate(rows, start=1):
        suffix = [*row.prompt[shared:], *row.answer]
        ids += suffix
        labels += [IGNORE] * (len(row.prompt) - shared) + list(row.answer)
        positions += range(shared, shared + len(suffix))
        segments += [number] * len(suffix)
    segment, place = torch.tensor(segments), torch.arange(len(ids))
    own_or_prefix = (segment[None, :] == 0) | (segment[None, :] == segment[:, None])
    mask = own_or_prefix & (place[None, :] <= place[:, None])
    return {
        "input_ids": torch.tensor([ids]),
        "labels": torch.tensor([labels]),
        "position_ids": torch.tensor([positions]),
        "attention_mask": mask[None, None],
    }


def prefix_length(prompts: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all prompts share, leaving each at least one token of its own: the first answer token is
    predicted from it."""
    shortest = min(map(len, prompts)) - 1
    first = prompts[0]
    for index in range(shortest):
        if any(prompt[index] != first[index] for prompt in prompts):
            return index
    return max(shortest, 0)
