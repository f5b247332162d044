"""Measures the rows of the calibration table that have no measurement yet: `make calibrate`, on a machine with a GPU.

    python tests/gpu/calibrate.py TABLE.csv [--at-once 6] [--seconds 500]

A row says what to measure (model, weights, card to stand for, LoRA rank, checkpointing, levers, micro-batch, tokens);
the rest is filled in. Rows of one model and one way of loading share a process. Weights are random, in the real shape:
the table is about memory, never about quality.
"""

import argparse
import csv
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAME = ("model", "weights", "card", "r", "checkpointing", "tiled_mlp", "offload_embedding")
GIVEN = ("use", *SAME, "micro_batch", "row_tokens", "answer_tokens")
FOUND = ("precision", "room_gib", "resident_gib", "allocated_gib", "reserved_gib", "first_loss", "last_loss")
FOUND += ("grad_norm", "seconds", "gpu", "unsloth", "torch", "date", "failed")
DYNAMIC_SKIP = ("layers.0.self_attn.o_proj", "layers.1.mlp.down_proj", "layers.2.mlp.gate_proj")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("table", type=Path)
    parser.add_argument("--at-once", type=int, default=6)
    parser.add_argument("--gib", type=float, default=72.0)
    parser.add_argument("--seconds", type=float, default=540.0)
    asked = parser.parse_args()
    with asked.table.open() as file:
        rows = list(csv.DictReader(file))
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        if not (row["reserved_gib"] or row["seconds"] or row["failed"]):
            groups.setdefault(tuple(row[name] for name in SAME), []).append(row)
    measure_groups(list(groups.values()), asked)
    with asked.table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def measure_groups(waiting: list[list[dict]], asked: argparse.Namespace) -> None:
    """Several processes at a time, as long as they fit side by side on this card."""
    running: list[tuple[subprocess.Popen, list[dict], float, Path]] = []
    deadline = time.monotonic() + asked.seconds
    while waiting or running:
        used = sum(gib for _, _, gib, _ in running)
        fits = [group for group in waiting if used + room_gib(group) <= asked.gib]
        if fits and len(running) < asked.at_once and time.monotonic() < deadline:
            group = fits[0]
            waiting.remove(group)
            running.append((*start(group), room_gib(group), Path()))
            continue
        if not running:
            break
        time.sleep(0.5)
        for entry in list(running):
            if entry[0].poll() is not None or time.monotonic() > deadline:
                entry[0].kill()
                collect(entry[1], entry[0].log)
                running.remove(entry)


def room_gib(group: list[dict]) -> float:
    """What to leave a group: a good deal more than its rows are predicted to take, at most the card it stands for."""
    from slimtune.gpus import get_gpu
    from slimtune.models import get_model
    from slimtune.plan import high_gib
    from slimtune.plan.calibration import setting_of

    gpu = get_gpu(group[0]["card"])
    needs = [high_gib(get_model(row["model"]), setting_of(row, gpu=gpu)) for row in group]
    return min(1.25 * max(needs) + gpu.context_gib + 0.5, gpu.total_gib + 0.5)


def start(group: list[dict]) -> tuple[subprocess.Popen, list[dict]]:
    folder = Path(tempfile.mkdtemp(prefix="calibrate-"))
    given = [{name: row[name] for name in GIVEN} for row in group]
    (folder / "group.json").write_text(json.dumps(given))
    command = [sys.executable, __file__.replace("calibrate.py", "calibrate_group.py"), str(folder)]
    with (folder / "log").open("w") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "2"})
    child.log = folder
    print(f"{time.strftime('%H:%M:%S')} start", {name: group[0][name] for name in SAME}, len(group), flush=True)
    return child, group


def collect(group: list[dict], folder: Path) -> None:
    results = folder / "results.jsonl"
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for row, found in zip(group, lines, strict=False):
        row.update({name: str(value) for name, value in found.items()}, date=datetime.date.today().isoformat())
    name = " ".join(group[0][key] for key in SAME)
    print(f"{time.strftime('%H:%M:%S')} {len(lines)} of {len(group)}: {name}", flush=True)
    for found in lines:
        print("   ", json.dumps(found), flush=True)
    if len(lines) < len(group):
        print("    " + "\n    ".join((folder / "log").read_text().splitlines()[-12:]), flush=True)


if __name__ == "__main__":
    main()
