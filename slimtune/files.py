"""The only place that knows about fsync and rename: a file or folder is whole, or it is not there.

write_text / write_bytes / write_json   temp file, fsync, rename, fsync of the folder
append_line                             one line of a log; one torn by a kill or a full disk is cut off first
publish_folder                          fill a temp folder, write a digest manifest last, rename
remove_folder                           rename first, so that no half of it is ever seen under its name
damage                                  what is wrong with a published folder, or None
writing                                 the system's refusals to write, as CannotWrite
own_name, write_all, sync               what these are made of, for a file that several want to make (sweep/created.py)
"""

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from slimtune.errors import CannotWrite

MANIFEST = "manifest.json"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
DISK_GONE = frozenset({*_FULL, errno.EROFS, errno.EIO, errno.ENOTCONN, errno.ESTALE, errno.ENODEV, errno.ENXIO})
"""Errors of a disk that is full or away: whoever meets one, it is not our bug."""
_REFUSED = DISK_GONE | {
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG)
}
_WRAPPED = re.compile(r"\(os error (\d+)\)|code: (\d+)")  # how safetensors words an error of the system
_PROBE = bytes(1 << 16)


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
    temporary = own_name(path)
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb", buffering=0) as file:
                write_all(file, data)
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync(path.parent)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def write_text(path: Path, text: str) -> None:
    """`write_bytes` in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of indented JSON. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in a file that slimtune wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def append_line(path: Path, line: str, *, synced: bool = False) -> None:
    """Add one line to a log with a single write; `synced`, it is on the disk before this returns. What a kill or a full
    disk tore off a last line is cut away first; readers drop it too. Raises CannotWrite."""
    with writing(path), path.open("a+b", buffering=0) as file:
        _cut_torn_line(file)
        write_all(file, line.encode("utf-8") + b"\n")
        if synced:
            os.fsync(file.fileno())


def read_log(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a log, one a line. What is not one was torn, by a kill or by power that failed: dropped."""
    found = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return [value for value in found if isinstance(value, dict)]


def _cut_torn_line(file: BinaryIO) -> None:
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def write_all(file: BinaryIO, data: bytes) -> None:
    """One write where the system takes it all; a disk that is nearly full takes a part, and says so at the next."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def publish_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Make the folder `path` appear whole: `fill` writes into a temporary folder beside it, every file is synced, a
    manifest of digests is written last, then one rename. Raises CannotWrite; `path` is then as it was."""
    temporary = own_name(path)
    with writing(path):
        try:
            _drop_orphans(path)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            _fill(temporary, fill)
            _seal(temporary)
            _put(temporary, path)
            sync(path.parent)
        except Exception:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _fill(temporary: Path, fill: Callable[[Path], None]) -> None:
    """Libraries put their own error in front of the system's: find the number in it, or ask the disk."""
    try:
        fill(temporary)
    except OSError:
        raise
    except Exception as error:
        if found := _WRAPPED.search(str(error)):
            number = int(found[1] or found[2])
            raise OSError(number, os.strerror(number)) from error
        with (temporary / ".probe").open("wb", buffering=0) as file:
            write_all(file, _PROBE)
            os.fsync(file.fileno())
        raise


def _seal(folder: Path) -> None:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for file in files:
        sync(file)
    for inner in {file.parent for file in files} - {folder}:
        sync(inner)
    write_json(folder / MANIFEST, {str(file.relative_to(folder)): digest_file(file) for file in files})


def _put(temporary: Path, path: Path) -> None:
    """Rename a folder into place. One that is there is moved away whole first, and back where that was for nothing."""
    aside = own_name(path, "-old")
    while True:
        try:
            os.rename(temporary, path)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                with contextlib.suppress(OSError):
                    os.rename(aside, path)
                raise
        shutil.rmtree(aside, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):  # another process may have moved it away meanwhile
            os.rename(path, aside)
    shutil.rmtree(aside, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Make a folder disappear whole. What a full or failing disk leaves of it is swept later. Raises CannotWrite."""
    away = own_name(path, "-old")
    with writing(path):
        shutil.rmtree(away, ignore_errors=True)
        os.rename(path, away)
    shutil.rmtree(away, ignore_errors=True)


def damage(path: Path, *, alone: bool = True) -> str | None:
    """What is wrong with a published folder, or None when it holds the files of its manifest and no others, each with
    its digest. Hidden files are other programs' and do not count; where not `alone`, no other file does."""
    try:
        return _damage(path, alone)
    except OSError as error:  # a disk that cannot give a file back has lost it
        return f"{error.filename or path} cannot be read: {error.strerror}"


def _damage(path: Path, alone: bool) -> str | None:
    if not (path / MANIFEST).is_file():
        return f"{MANIFEST} is missing"
    try:
        manifest = dict(read_json(path / MANIFEST))
    except (ValueError, TypeError):
        return f"{MANIFEST} is damaged itself"
    for name, digest in manifest.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if digest_file(path / name) != digest:
            return f"{name} has changed since it was written"
    if not alone:
        return None
    names = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and file.name[0] != "."}
    unknown = sorted(names - {*manifest, MANIFEST})
    return f"{unknown[0]} is not in {MANIFEST}" if unknown else None


def sweep(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder` or below."""
    for leftover in list(folder.rglob(".*.tmp")):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path, *, only: frozenset[int] = frozenset(_REFUSED)) -> Iterator[None]:
    """What the system refuses in this block, as CannotWrite; other errors pass as they are."""
    try:
        yield
    except OSError as error:
        nowhere = error.errno == errno.ENOENT and errno.EACCES in only and _on_the_way(path, error)
        if error.errno not in only and not nowhere:
            raise
        raise CannotWrite(f"Cannot write {path}: {os.strerror(error.errno)}. {_advice(path, error)}") from error


def _on_the_way(path: Path, error: OSError) -> bool:
    """Whether what could not be found is `path` itself, which cannot be made, or what leads there; not a file that was
    to be read or renamed meanwhile."""
    if not path.parent.is_dir():
        return True
    named = Path(str(error.filename))
    return error.filename2 is None and (named in (path, *path.parents) or named.name.startswith(f".{path.name}."))


def _advice(path: Path, error: OSError) -> str:
    elsewhere = "set SLIMTUNE_CACHE to another folder." if cache_folder() in path.parents else "choose another --out."
    if error.errno not in _FULL or not path.parent.exists():
        return elsewhere[0].upper() + elsewhere[1:]
    free_gib = shutil.disk_usage(path.parent).free / 2**30
    return f"{free_gib:.2f} GiB are free there. Free some space, or {elsewhere}"


def own_name(path: Path, what: str = "") -> Path:
    """A hidden name beside `path` that is this process's own, on whatever machine: caches are shared."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}{what}.tmp")


def _drop_orphans(path: Path) -> None:
    """Remove what killed processes of this machine left of `path`: nobody sweeps the cache."""
    prefix = f".{path.name}.{socket.gethostname()}-"
    for leftover in path.parent.glob(f"{glob.escape(prefix)}*.tmp"):
        pid = re.match(r"\d+", leftover.name.removeprefix(prefix))
        if pid and not psutil.pid_exists(int(pid[0])):
            shutil.rmtree(leftover, ignore_errors=True)


def sync(path: Path) -> None:
    """Put a file, or which files a folder has, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
