"""A score for anything that answers, with its interval: here a function of five lines that looks for words.

    python examples/01_score_anything.py

No torch, no GPU, no model: about a second. Put your own model, or a call to a served one, in place of `by_keyword`, and
it is measured on the same rows, by the same code, as everything slimtune trains.
"""

from collections.abc import Iterator, Sequence

from slimtune.data import Completion, Example
from slimtune.evaluate import evaluate
from slimtune.tasks import Selection, get_task

LABELS = ("activate_my_card", "age_limit", "atm_support", "cancel_transfer")


def by_keyword(examples: Sequence[Example], max_new_tokens: int) -> Iterator[tuple[int, Completion]]:
    """The label of which most words stand in the question. Yields (index of the example, what it answers)."""
    for index, example in enumerate(examples):
        question = example.messages[-1].content.lower()
        yield index, Completion(max(LABELS, key=lambda label: sum(word in question for word in label.split("_"))))


def main() -> None:
    task = get_task("banking77", selection=Selection(labels=LABELS))
    evaluation = evaluate(task, task.test, by_keyword, name="keywords", label="keywords")
    print(task.title)
    print(f"{evaluation.label}: {evaluation.score}, {evaluation.score.n} rows, {evaluation.score.method} interval")
    for record in [record for record in evaluation.records if record.score == 0][:3]:
        print(f"  wrong: {record.prompt!r} is {record.target}, not {record.answer}")


if __name__ == "__main__":
    main()
