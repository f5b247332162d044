"""A task of your own, from rows to a score: writes its folder, looks for what is wrong with it, and scores a function.

    python examples/my_task.py tickets

No torch, no GPU, no model: about a second. The folder it leaves is a task like those that come along, so the model to
beat the function is one line away: `task: tickets` in a recipe, then `slimtune check` and `slimtune run`.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from slimtune.data import Completion, Example
from slimtune.evaluate import evaluate
from slimtune.tasks import Task, get_task, inspect_task

JOB = {"kind": "classification", "description": "Sort a customer's message into one of our intents."}
TRAIN = (
    ("Where is my parcel? It was due on Monday.", "delivery"),
    ("The courier left my order with a neighbour.", "delivery"),
    ("How long does delivery to Norway take?", "delivery"),
    ("I was charged twice for one order.", "billing"),
    ("Please send me the invoice for May.", "billing"),
    ("My card was declined, but the money is gone.", "billing"),
    ("The app closes when I open my basket.", "app"),
    ("I cannot log in since the last update.", "app"),
    ("The search button in the app does nothing.", "app"),
)
TEST = (
    ("My parcel is due today, when does the courier come?", "delivery"),
    ("The invoice is wrong: I was charged for two.", "billing"),
    ("After the update the app does not start.", "app"),
    ("Nobody rang, and I was at home on Friday.", "delivery"),
    ("Why is my card charged in dollars?", "billing"),
    ("I cannot log in on my new phone.", "app"),
)


def write_task(folder: Path) -> None:
    """job.json, and a line of JSON for each row of train.jsonl and test.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(json.dumps(JOB), encoding="utf-8")
    for name, rows in (("train", TRAIN), ("test", TEST)):
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def by_neighbour(task: Task, examples: Sequence[Example]) -> Iterator[tuple[int, Completion]]:
    """The label of the training row with most words in common. Yields (index of the example, what it answers)."""

    def words(example: Example) -> set[str]:
        return set(re.findall(r"\w+", example.messages[-1].content.lower()))

    for index, example in enumerate(examples):
        nearest = max(task.train, key=lambda row: len(words(row) & words(example)) / len(words(row)))
        yield index, Completion(nearest.target)


def main(folder: Path) -> None:
    write_task(folder)
    task = get_task(folder)
    quality = inspect_task(task)
    print(f"{task.title}: {quality.train_rows} training rows, {quality.test_rows} test rows, labels {task.labels}")
    print("Wrong with it:", *(quality.errors + quality.warnings or ["nothing was found"]), sep="\n  ")
    answer = evaluate(task, task.test, lambda rows, _: by_neighbour(task, rows), name="neighbour", label="neighbour")
    print(f"{answer.label}: {answer.score}, {answer.score.n} rows, {answer.score.method} interval")
    for record in [record for record in answer.records if record.score == 0]:
        print(f"  wrong: {record.prompt!r} is {record.target}, not {record.answer}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Name the folder to write: python examples/my_task.py tickets")
    main(Path(sys.argv[1]))
