"""How much torch has compiled so far."""

import torch


def graphs_compiled() -> int:
    """Of this process."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
