"""How many examples are answered at a time: as many as the card has memory for, their prefix once."""

from slimtune.models.shapes import Shapes

AT_ONCE, KEPT_AT_ONCE = 128, 512  # at most, on a card; and where what prompts share is kept
_SAFE = 0.7  # of what is free: prompts may share less, group by group, than all of them do
_MOST_TOKENS = 131072  # that are computed at once


def rows_at_a_time(
    shapes: Shapes, *, shared_tokens: int, own_tokens: int, new_tokens: int, free_bytes: int, word_bytes: int
) -> int:
    """Examples of `own_tokens` each behind a prefix, with room for `new_tokens`; at least one. Keys and values stay;
    what a layer computes of the prompts, and the logits of one token each, are there for a moment."""
    width = shapes.heads * shapes.head_dim
    kept = 2 * shapes.layers * shapes.kv_heads * shapes.head_dim * word_bytes
    passing = 4 * word_bytes * (shapes.hidden + shapes.intermediate) + 24 * width
    prefix = shared_tokens * (kept + passing)
    each = (own_tokens + new_tokens) * kept + own_tokens * passing + 10 * shapes.vocab
    by_memory = int(_SAFE * free_bytes - prefix) // each
    return max(1, min(by_memory, (_MOST_TOKENS - shared_tokens) // own_tokens))
