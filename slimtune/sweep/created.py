"""A file that several processes and machines may want to make: the first of them does, and it stays.

Where the disk has hard links, whole content is linked into place. Where it has none, the name is taken with O_EXCL and
filled with one write: whoever is killed between the two leaves a file that is no JSON, which counts as none.
"""

import errno
import os
import time
from pathlib import Path
from typing import Any

from slimtune.files import own_name, read_json, sync, write_all, write_json, writing

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_FILLED_S = 5.0  # by then one write is done, or its process is gone


def create_json(path: Path, value: Any) -> bool:
    """Put `value` at `path` whole if nothing is there, and say whether it was ours: of several that try, one wins.
    Raises CannotWrite."""
    whole = own_name(path)
    with writing(path):
        try:
            write_json(whole, value)
            return _take(path, whole) or _replace_torn(path, whole)
        finally:
            whole.unlink(missing_ok=True)


def read_created(path: Path) -> Any:
    """The value in such a file; None where there is none, or not all of it yet."""
    try:
        return read_json(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def _take(path: Path, whole: Path) -> bool:
    """Whether `path` was free, and is now what `whole` is."""
    try:
        os.link(whole, path)  # a link is refused where there is a file; a rename would replace it
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _fill(path, whole.read_bytes())
    sync(path.parent)
    return True


def _fill(path: Path, content: bytes) -> bool:
    try:
        with path.open("xb", buffering=0) as file:
            write_all(file, content)
    except FileExistsError:
        return False
    sync(path)
    sync(path.parent)
    return True


def _replace_torn(path: Path, whole: Path) -> bool:
    """Whether what stands at `path` was left unfilled by a process that is gone, and is now what `whole` is."""
    end = time.monotonic() + _FILLED_S
    while read_created(path) is None:
        if time.monotonic() > end:
            os.replace(whole, path)
            sync(path.parent)
            return True
        time.sleep(0.05)
    return False
