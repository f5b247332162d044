"""The other end of `child.py`: one process of SQLite a program, begun at the first query, begun anew when it ends."""

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WALL_SECONDS = 1.8  # the child's own limits are tighter; this one is for a child that answers nothing at all
_CHILD = Path(__file__).with_name("child.py")
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", "SYSTEMROOT")  # what a Python may need to start; keys and tokens stay here


class SqlProcess:
    """A child process that answers one request at a time, from any thread. What it has built is gone when it ends."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def ask(self, request: Mapping[str, Any], *, wall_seconds: float = WALL_SECONDS) -> dict[str, Any]:
        """The child's reply; {"error": "ended" or "late"} where it gave none, and then the next request finds a new
        one."""
        line = json.dumps(request).encode() + b"\n"
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._end()  # somebody ended it between two requests: no answer's fault
            process = self._process or self._begin()
            deadline = time.monotonic() + wall_seconds
            try:
                _write(process.stdin.fileno(), line)
                reply = _read_line(process.stdout.fileno(), deadline)
            except BrokenPipeError:
                reply = b""
            except BaseException:  # such as Ctrl-C: a reply that nobody reads would be taken for the next one's
                self._end()
                raise
            if reply is None or not reply.endswith(b"\n"):
                self._end()
                return {"error": "late" if reply is None else "ended", "text": ""}
        return json.loads(reply)

    def close(self) -> None:
        """End the child. The next request begins another."""
        with self._lock:
            self._end()

    def forget(self) -> None:
        """After a fork: the child belongs to the process that began it."""
        self._process, self._lock = None, threading.Lock()

    def _begin(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            start_new_session=True,  # Ctrl-C is for the program; the child ends with its input
        )
        return self._process

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._process = None


def _write(descriptor: int, line: bytes) -> None:
    while line:
        line = line[os.write(descriptor, line) :]


def _read_line(descriptor: int, deadline: float) -> bytes | None:
    """Bytes up to a line's end, or to the end of all; None when the deadline comes first."""
    parts: list[bytes] = []
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    while not parts or not parts[-1].endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not waiting.poll(left * 1000):
            return None
        part = os.read(descriptor, 1 << 16)
        parts.append(part)
        if not part:
            break
    return b"".join(parts)


SQL_PROCESS = SqlProcess()
atexit.register(SQL_PROCESS.close)
os.register_at_fork(after_in_child=SQL_PROCESS.forget)
