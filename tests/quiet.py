"""Whether anything else is at work here: a bar on time holds where nothing is, and beside other work a looser one."""

import time
from pathlib import Path


def idle_share(seconds: float) -> float:
    """How much of all cores nobody uses."""

    def counted() -> list[int]:
        return [int(ticks) for ticks in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]

    before = counted()
    time.sleep(seconds)
    spent = [now - then for now, then in zip(counted(), before, strict=True)]
    return (spent[3] + spent[4]) / sum(spent)  # idle, and waiting for a disk


def is_quiet() -> bool:
    return idle_share(0.5) > 0.9
