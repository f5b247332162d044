"""How many rows make a step where a recipe does not say."""

import pytest

from slimtune.check import plan_of, ready
from slimtune.gpus import get_gpu
from slimtune.plan import usual_batch
from slimtune.recipe import check_recipe
from slimtune.strict_yaml import Document


@pytest.mark.parametrize(
    ("rows", "epochs", "batch"),
    [(10_000, 4, 64), (2_791, 4, 64), (2_000, 2, 16), (320, 4, 8), (50, 4, 8), (50, 400, 64)],
)
def test_it_is_64_but_for_runs_that_would_have_few_steps(rows: int, epochs: float, batch: int) -> None:
    assert usual_batch(rows, epochs) == batch


def test_it_is_a_multiple_of_what_is_computed_at_a_time() -> None:
    assert usual_batch(320, 4, multiple_of=6) == 12 and usual_batch(10_000, 4, multiple_of=6) == 66


def test_a_plan_says_why_it_takes_less() -> None:
    def plan(train: dict, rows: int):
        recipe = {"model": "smollm2-135m-embedded", "task": "banking77", "data": {"train_rows": rows}, "train": train}
        return plan_of(ready(check_recipe(Document(recipe), "r.yaml")), gpu=get_gpu("T4"))

    few, many, said = plan({}, 320), plan({}, 5000), plan({"batch": 16}, 320)
    assert (few.batch, many.batch, said.batch) == (8, 64, 16)
    told = [[note for note in one.notes if "make few steps" in note] for one in (few, many, said)]
    assert told == [["320 rows make few steps: 8 a step, where more rows have 64."], [], []]
