"""Whether a batch of TRL's is laid out as it was asked for: Unsloth may leave packing or padding-free out silently."""

from collections.abc import Mapping, Sequence
from typing import Any

from slimtune.engine.contestant.job import OWN_CHOICE, Way
from slimtune.wording import counted


def misfit(way: Way, rows: Sequence[Mapping[str, Any]], batch: Mapping[str, Any], *, examples: int) -> str:
    """What is wrong with the first batch, in a sentence; empty where it is as asked, or nothing was. `rows` are what
    the collator was given, `batch` what it made of them, `examples` how many there are to train on."""
    if way.collation == OWN_CHOICE:
        return ""
    long, held = len(batch["input_ids"]), _held(batch)
    whole = min(way.micro_batch, examples)
    right = {
        "padded": long == whole,
        "padding-free": long == 1 and held == whole,
        "packed": long == 1 and held == sum(len(row.get("seq_lengths", ())) for row in rows),
    }[way.collation]
    if right:
        return ""
    return f"{way.who} was asked for {way.collation} rows, and its first batch is {counted(long, 'row')} of " + (
        f"{counted(held, 'example')}: it left the layout out"
    )


def _held(batch: Mapping[str, Any]) -> int:
    """Examples in a batch. Where they lie one after the other in a row, Unsloth says their lengths, and TRL begins the
    positions of each anew."""
    if "packed_seq_lengths" in batch:
        return len(batch["packed_seq_lengths"])
    rows = len(batch["input_ids"])
    return int((batch["position_ids"] == 0).sum()) if rows == 1 and "position_ids" in batch else rows
