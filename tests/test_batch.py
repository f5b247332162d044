"""How many rows make a step where a recipe does not say."""

import pytest

from slimtune.check import Ready, plan_of, ready
from slimtune.files import digest_json
from slimtune.gpus import get_gpu
from slimtune.pipeline import run_identity
from slimtune.plan import usual_batch
from slimtune.recipe import check_recipe
from slimtune.strict_yaml import Document
from slimtune.sweep.identity import trained_identity


@pytest.mark.parametrize(
    ("rows", "epochs", "batch"),
    [(10_000, 4, 64), (2_791, 4, 64), (2_000, 2, 16), (320, 4, 8), (50, 4, 8), (50, 400, 64)],
)
def test_it_is_64_but_for_runs_that_would_have_few_steps(rows: int, epochs: float, batch: int) -> None:
    assert usual_batch(rows, epochs) == batch


def prepared(train: dict, rows: int) -> Ready:
    recipe = {"model": "smollm2-135m-embedded", "task": "banking77", "data": {"train_rows": rows}, "train": train}
    return ready(check_recipe(Document(recipe), "r.yaml"))


def test_it_is_a_multiple_of_what_is_computed_at_a_time() -> None:
    assert prepared({"micro_batch": 6}, 320).batch == 12 and prepared({"micro_batch": 6}, 5000).batch == 66


def test_a_plan_says_why_it_takes_less() -> None:
    asked = [({}, 320), ({}, 5000), ({"batch": 16}, 320), ({"micro_batch": 128}, 5000)]
    plans = [plan_of(prepared(train, rows), gpu=get_gpu("H200")) for train, rows in asked]
    assert [plan.batch for plan in plans] == [8, 64, 16, 128]
    told = [[note for note in plan.notes if "make few steps" in note] for plan in plans]
    assert told == [["320 rows make few steps: 8 a step, where more rows have 64."], [], [], []]


def test_a_run_that_another_version_would_cut_into_other_steps_is_another_run(monkeypatch) -> None:
    chosen, said = prepared({}, 320), prepared({"batch": 8}, 320)

    def identities() -> list[str]:
        cells = [trained_identity(one.recipe, one) for one in (chosen, said)]
        return [digest_json(one) for one in (*cells, *(run_identity(one, as_gpu=None) for one in (chosen, said)))]

    before = identities()
    monkeypatch.setattr("slimtune.plan.batch._ENOUGH_STEPS", 50)
    assert [one == other for one, other in zip(before, identities(), strict=True)] == [False, True, False, True]
