"""The only place that knows about fsync and rename: a file or folder is whole, or it is not there.

write_text / write_bytes / write_json   temp file, fsync, rename, fsync of the folder
publish_folder                          fill a temp folder, write a digest manifest last, rename
verify_folder                           every file of the manifest is there with its digest, or says which is not
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slimtune.errors import CannotWrite

MANIFEST = "manifest.json"
_CHUNK = 1 << 20
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOTCONN, errno.EACCES, errno.EPERM}


def cache_folder() -> Path:
    """Where converted models, compiled kernels and base scores are kept: SLIMTUNE_CACHE, or ~/.cache/slimtune."""
    return Path(os.environ.get("SLIMTUNE_CACHE") or Path.home() / ".cache" / "slimtune")


def digest_bytes(data: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON: key order does not matter."""
    return digest_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False).encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Put `data` at `path`, whole or not at all, and on the disk before this returns. Raises CannotWrite."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error


def write_text(path: Path, text: str) -> None:
    """`write_bytes` in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of indented JSON. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in a file that slimtune wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def append_line(path: Path, line: str) -> None:
    """Add one line to a log with a single write. A kill can tear the last line only, and readers drop a torn one."""
    try:
        with path.open("ab", buffering=0) as file:
            file.write(line.encode("utf-8") + b"\n")
    except OSError as error:
        raise _cannot_write(path, error) from error


def publish_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Make the folder `path` appear whole: `fill` writes into a temporary folder beside it, every file is synced, a
    manifest of digests is written last, then one rename. Raises CannotWrite; `path` is then as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        fill(temporary)
        files = sorted(file for file in temporary.rglob("*") if file.is_file())
        for file in files:
            _sync(file)
        manifest = {str(file.relative_to(temporary)): digest_file(file) for file in files}
        write_json(temporary / MANIFEST, manifest)
        for folder in {file.parent for file in files}:
            _sync(folder)
        if path.exists():
            shutil.rmtree(path)
        os.rename(temporary, path)
        _sync(path.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _cannot_write(path, error) from error


def damage(path: Path) -> str | None:
    """What is wrong with a published folder, or None when every file has the digest its manifest gives."""
    if not (path / MANIFEST).is_file():
        return f"{MANIFEST} is missing"
    try:
        manifest = read_json(path / MANIFEST)
    except ValueError:
        return f"{MANIFEST} is not JSON"
    for name, digest in manifest.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if digest_file(file) != digest:
            return f"{name} has changed since it was written"
    return None


def sweep(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder`."""
    for leftover in folder.glob(".*.tmp"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(path: Path, error: OSError) -> Exception:
    if error.errno not in _DISK_ERRORS:
        return error
    free = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT) and path.parent.exists():
        free = f" {shutil.disk_usage(path.parent).free / 2**30:.2f} GiB are free there."
    return CannotWrite(
        f"Cannot write {path}: {os.strerror(error.errno)}.{free} Free some space or choose another --out."
    )
