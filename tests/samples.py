"""Small real tasks that the tests make."""

import json
from pathlib import Path

LABELS = ("pay", "lock", "move")


def write_rows(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_task(folder: Path, *, train: int = 24, test: int = 9) -> Path:
    """A classification task folder that a model can learn: the word is the label."""
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(
        json.dumps({"kind": "classification", "description": "Name the action.", "labels": list(LABELS)})
    )
    for name, rows, start in (("train", train, 0), ("test", test, 1000)):
        write_rows(
            folder / f"{name}.jsonl",
            [{"text": f"please {LABELS[n % 3]} number {start + n} now", "label": LABELS[n % 3]} for n in range(rows)],
        )
    return folder
