"""A real study that is killed -9 at random ends as one that never was: the same adapters, scores and ranks.

python tests/kill_sweep.py OUT [--kills 5] [--seed 0] [--cells N]

The study is tests/kill_sweep.yaml: 36 cells of the embedded model on two CPU cores. It is run once unharmed into
OUT/whole, then into OUT/killed, where the whole process group is killed at random moments. Each has a cache of its own,
so no score of the one is taken for the other's. Run it again and it goes on. `--cells`: only the first so many.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from slimtune.files import read_json
from slimtune.sweep.leaderboard import make_board
from slimtune.sweep.matrix import read_matrix
from slimtune.sweep.store import Cell, read_study

MATRIX = Path(__file__).with_suffix(".yaml")


def start(out: Path, name: str, ids: list[str]) -> subprocess.Popen:
    """The command, in a process group of its own."""
    chosen = [word for cell in ids for word in ("--cell", cell)]
    command = [sys.executable, "-m", "slimtune.cli", "sweep", "run", str(MATRIX), "--store", str(out / name), *chosen]
    environment = {**os.environ, "SLIMTUNE_CACHE": str(out / f"cache-{name}")}
    return subprocess.Popen(command, env=environment, start_new_session=True)


def whole(out: Path, ids: list[str]) -> float:
    """Seconds that the unharmed study took."""
    began = time.monotonic()
    assert start(out, "whole", ids).wait() == 0
    return time.monotonic() - began


def killed(out: Path, ids: list[str], *, kills: int, within_s: float, rng: np.random.Generator) -> list[str]:
    """Kill it so often, each time after up to `within_s` seconds, then let it end. What was done at each kill."""
    said = []
    for wait_s in rng.uniform(0.2, 1.0, kills) * within_s:
        study = start(out, "killed", ids)
        try:
            study.wait(wait_s)
        except subprocess.TimeoutExpired:
            os.killpg(study.pid, signal.SIGKILL)
            study.wait()
        done = len(list((out / "killed").glob("cells/*/result.json")))
        said.append(f"killed after {wait_s:.0f} s, {done} cells done")
        print(said[-1], flush=True)
    assert start(out, "killed", ids).wait() == 0
    return said


def differences(out: Path) -> list[str]:
    """What is not the same in both stores."""
    first, second = (read_study(out / name) for name in ("whole", "killed"))
    found = [_difference(*pair) for pair in zip(first.cells, second.cells, strict=True)]
    boards = [make_board(study, out=study.store, rng=np.random.default_rng(0)) for study in (first, second)]
    if boards[0].tables != boards[1].tables:
        found.append("the tables of ranks differ")
    return list(filter(None, found))


def _difference(first: Cell, second: Cell) -> str:
    what = f"{first.contestant} on {first.task}, seed {first.seed}"
    if first.result is None or second.result is None:
        return "" if first.result is second.result else f"{what}: done in one store alone"
    parts = {
        "adapter": [cell.result["training"]["adapter_sha256"] for cell in (first, second)],
        "scores": [{side: one["score"] for side, one in cell.result["sides"].items()} for cell in (first, second)],
    }
    wrong = [part for part, (a, b) in parts.items() if a != b]
    return f"{what}: {' and '.join(wrong)}" if wrong else ""


def resumed(store: Path) -> int:
    """Cells that were gone on with from a checkpoint."""
    results = [read_json(path) for path in store.glob("cells/*/result.json")]
    return sum(result["training"]["resumed_at_step"] is not None for result in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", type=int)
    asked = parser.parse_args()
    out = asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    ids = [cell.id for cell in read_matrix(MATRIX)][: asked.cells]
    seconds = whole(out, ids)
    print(f"unharmed: {seconds:.0f} s for {len(ids)} cells", flush=True)
    rng = np.random.default_rng(asked.seed)
    killed(out, ids, kills=asked.kills, within_s=1.5 * seconds / (asked.kills + 1), rng=rng)
    print(f"{resumed(out / 'killed')} of {len(ids)} cells were gone on with from a checkpoint")
    found = differences(out)
    print("\n".join(found) or "the same adapters, scores and ranks")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
