"""What is in a model's folder: the files that loading reads, and a digest of them, which names what was trained."""

import functools
from pathlib import Path

from slimtune.files import digest_file, digest_json

READ = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model")  # all that slimtune fetches of a repository
_OLDER = ("vocab.txt", "merges.txt")  # read where a folder has no tokenizer.json


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of the files that loading this folder reads. A file is read once a process,
    and again when its size or its time of change is another."""
    files = sorted({file for pattern in (*READ, *_OLDER) for file in folder.glob(pattern) if file.is_file()})
    return digest_json({file.name: _digest(file.resolve(), *_stamp(file)) for file in files})


def _stamp(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


@functools.cache
def _digest(file: Path, size: int, mtime_ns: int) -> str:
    """`size` and `mtime_ns` are what makes it another file."""
    return digest_file(file)
