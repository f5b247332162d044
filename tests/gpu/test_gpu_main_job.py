"""The main job on a real card: real weights to a score, killed in the middle; and a 4B shape inside a T4's memory."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEEP = Path(os.environ["OUT"]) if "OUT" in os.environ else None


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "slimtune.cli", "run", *map(str, arguments)]


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text())


def keep(folder: Path, name: str) -> None:
    """Leave the evidence where a person can read it."""
    if KEEP is not None:
        for file in ("report.html", "report.json", "metrics.jsonl", "plan.json"):
            if (folder / file).exists():
                (KEEP / name).mkdir(exist_ok=True)
                shutil.copy(folder / file, KEEP / name / file)


def test_smollm2_killed_in_the_middle_goes_on_and_learns_banking77(smollm2: Path, tmp_path: Path) -> None:
    out = tmp_path / "banking77"
    run = command(
        ROOT / "recipes/smollm2-banking77.yaml",
        "--set",
        f"model={smollm2}",
        "--set",
        "train.checkpoint_steps=25",
        "--out",
        out,
    )
    victim = subprocess.Popen(run, cwd=ROOT)
    metrics, deadline = out / "metrics.jsonl", time.monotonic() + 400
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") > 110):
        assert victim.poll() is None and time.monotonic() < deadline, "the run ended or hung before it could be killed"
        time.sleep(0.05)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert not (out / "training.json").exists()

    subprocess.run(run, cwd=ROOT, check=True)
    keep(out, "banking77")
    training, scores = read(out, "training.json"), {row["name"]: row for row in read(out, "report.json")["scores"]}
    assert training["resumed"] == 1 and training["resumed_at_step"] >= 100 and training["steps"] == 250
    assert training["last_loss"] < training["first_loss"] / 4
    assert scores["tuned"]["n"] == 997
    assert scores["tuned"]["score"]["low"] > max(scores["base"]["score"]["high"], scores["few_shot"]["score"]["high"])


def test_fp16_takes_the_same_gradients_as_bf16(smollm2: Path, tmp_path: Path) -> None:
    """With next to no learning rate every step sees the same weights, so each batch's norm can be compared."""
    norms = {}
    for precision, flags in {"bf16": [], "fp16": ["--as-gpu", "t4"]}.items():
        out = tmp_path / precision
        changes = {
            "model": smollm2,
            "data.train_rows": 96,
            "data.test_rows": 16,
            "train.epochs": 1,
            "train.lr": 1e-7,
            "evaluate.few_shot": 0,
            "evaluate.max_new_tokens": 4,
        }
        sets = [part for name, value in changes.items() for part in ("--set", f"{name}={value}")]
        run = command(ROOT / "recipes/smollm2-banking77.yaml", *flags, "--out", out, *sets)
        subprocess.run(run, cwd=ROOT, check=True)
        assert read(out, "environment.json")["precision"] == precision
        steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        norms[precision] = [None if step["skipped"] else step["grad_norm"] for step in steps]
    print(norms)
    both = [(half, full) for half, full in zip(norms["fp16"], norms["bf16"], strict=True) if half is not None]
    assert len(both) >= 3
    assert all(abs(half / full - 1) < 0.05 for half, full in both)


def test_a_4b_shape_trains_in_4_bit_fp16_inside_a_t4(random_checkpoint, tmp_path: Path) -> None:
    model, out = random_checkpoint("qwen3-4b"), tmp_path / "qwen3-4b"
    subprocess.run(
        command(
            ROOT / "recipes/smollm2-banking77.yaml",
            "--as-gpu",
            "t4",
            "--out",
            out,
            "--set",
            f"model={model}",
            "--set",
            "data.train_rows=480",
            "--set",
            "data.test_rows=16",
            "--set",
            "train.epochs=1",
            "--set",
            "train.quantisation=4bit",
            "--set",
            "evaluate.few_shot=0",
            "--set",
            "evaluate.max_new_tokens=4",
            "--set",
            "train.lr=5e-5",
            "--set",
            "train.batch=16",
        ),
        cwd=ROOT,
        check=True,
    )
    keep(out, "qwen3-4b")
    ran, training = read(out, "environment.json"), read(out, "training.json")
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert ran["precision"] == "fp16" and ran["quantisation"] == "4bit"
    assert training["steps"] == len(steps) == 30
    assert sum(step["skipped"] for step in steps) < 10 and steps[-1]["grad_norm"] > 0
    assert training["last_loss"] < training["first_loss"]
    assert training["peak_gpu_gib"] < 14.56
