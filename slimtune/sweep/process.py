"""The asking end of a worker: starts the process, hands it a cell, hears what came of it, also where it died."""

import json
import os
import select
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.sweep.store import KILLED

_TICK_S = 0.5
_END_S = 20.0  # for a worker without work to end


@dataclass(frozen=True)
class Reply:
    """What came of one cell."""

    exit_code: int
    why: str


class Worker:
    """One worker process. `command` starts it; what it prints beside its replies goes to `log`."""

    def __init__(self, command: Sequence[str], log: Path):
        with log.open("ab") as file:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file)
        self._heard = b""

    def ask(self, request: dict[str, Any], tick: Callable[[], bool]) -> Reply:
        """Have one cell done. `tick` is called twice a second; once it returns True the worker is asked to stop at its
        next whole step."""
        told = False
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return self._died()
        while (line := self._line()) is None:
            if tick() and not told:
                told = True
                self.process.send_signal(signal.SIGTERM)
        return Reply(**json.loads(line)) if line else self._died()

    def close(self) -> None:
        """Let it end; one that does not is killed."""
        self.process.stdin.close()
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def _line(self) -> bytes | None:
        """The next reply; None where there is none yet, empty where there will be none."""
        if b"\n" not in self._heard:
            ready, _, _ = select.select([self.process.stdout], [], [], _TICK_S)
            if not ready:
                return None
            part = os.read(self.process.stdout.fileno(), 1 << 16)
            if not part:
                return b""
            self._heard += part
        line, newline, rest = self._heard.partition(b"\n")
        if not newline:
            return None
        self._heard = rest
        return line

    def _died(self) -> Reply:
        code = self.process.wait()
        if code >= 0:
            return Reply(
                70, f"Its process ended with exit code {code} and said nothing more; the log has its last words."
            )
        name = signal.Signals(-code).name
        guess = " Likely the machine ran out of memory." if code == -signal.SIGKILL else ""
        return Reply(KILLED, f"Its process was killed ({name}).{guess}")
