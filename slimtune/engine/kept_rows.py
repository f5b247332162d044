"""Training rows as tokens, kept for the next run that asks for the same: the cells of a study encode the same rows
again and again, at a millisecond or two each.

What tokens depend on names the file: the rows, the tokenizer with its template, the thinking mode, the stop tokens, the
model and the versions of what encodes. A file that cannot be read, or not be written, costs the time and nothing else.
"""

import contextlib
import hashlib
import importlib.metadata
import io
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from zipfile import BadZipFile

import numpy as np

from slimtune import __version__
from slimtune.data import Example
from slimtune.engine.render import Encoded, Renderer, encode_rows
from slimtune.errors import CannotWrite
from slimtune.files import cache_folder, digest_json, write_bytes

_LEAST = 256  # rows: fewer are encoded as soon as read
_SCHEMA = 1


def encode_kept(renderer: Renderer, examples: Sequence[Example], *, skip_bad: bool = False) -> list[Encoded]:
    """What `encode_rows` gives, and raises."""
    tokenizer = getattr(renderer.tokenizer, "backend_tokenizer", None)
    if len(examples) < _LEAST or tokenizer is None:
        return encode_rows(renderer, examples, skip_bad=skip_bad)
    file = cache_folder() / "tokens" / f"{_name(renderer, tokenizer, examples, skip_bad=skip_bad)}.npz"
    try:
        return _read(file.read_bytes())
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error):
        rows = encode_rows(renderer, examples, skip_bad=skip_bad)
    with contextlib.suppress(CannotWrite):
        write_bytes(file, _written(rows))
    return rows


def _name(renderer: Renderer, tokenizer: Any, examples: Sequence[Example], *, skip_bad: bool) -> str:
    asked = hashlib.sha256()
    for example in examples:
        asked.update(repr(example).encode())
    return digest_json(
        {
            "schema": _SCHEMA, "rows": asked.hexdigest(), "skip_bad": skip_bad, "model": renderer.spec.key,
            "tokenizer": hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
            "template": renderer.template_sha256, "thinking": renderer.thinking, "stops": sorted(renderer.stop_ids),
            "versions": [__version__, *(importlib.metadata.version(name) for name in ("transformers", "tokenizers"))],
        }
    )  # fmt: skip


def _written(rows: Sequence[Encoded]) -> bytes:
    """All tokens end to end, how many of each row's prompt and answer, and the rows' names."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        tokens=np.concatenate([np.array([*row.prompt, *row.answer], dtype=np.int32) for row in rows]),
        lengths=np.array([[len(row.prompt), len(row.answer)] for row in rows], dtype=np.int32),
        names=np.array([row.id for row in rows]),
    )
    return buffer.getvalue()


def _read(data: bytes) -> list[Encoded]:
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        tokens, lengths, names = found["tokens"].tolist(), found["lengths"], found["names"].tolist()
    ends = [0, *lengths.reshape(-1).cumsum().tolist()]
    parts = [tuple(tokens[start:end]) for start, end in pairwise(ends)]
    return [Encoded(name, *parts[2 * at : 2 * at + 2]) for at, name in enumerate(names)]
