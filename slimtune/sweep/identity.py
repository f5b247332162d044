"""What a cell is of: everything that can change its result, by name. Its digest names the cell's folder, so that done
work is never redone, and changed work never taken for it.
"""

from collections.abc import Mapping
from typing import Any

from slimtune.answering import SCORES_SCHEMA
from slimtune.check import Ready
from slimtune.files import digest_json
from slimtune.models.on_disk import folder_digest
from slimtune.pipeline import TRAINING_SCHEMA
from slimtune.recipe import Recipe
from slimtune.tasks import Task

NOT_READ = "not read yet"  # in place of the data's digest, where they are away


def trained_identity(recipe: Recipe, prepared: Ready | None) -> dict[str, Any]:
    """Of a run. A teacher is no part of a run's own identity, and is of a cell's: its column stands in the result. A
    model in a folder is its files: a name says nothing of them."""
    folder = prepared.spec.folder if prepared else None
    return {
        "recipe": recipe.digest,
        "model": prepared.spec.key if prepared else recipe.model,
        "revision": recipe.revision,
        **({"model's files": folder_digest(folder)} if folder else {}),
        **(prepared.chosen if prepared else {}),
        **_data(prepared.task if prepared else None),
        "teacher": recipe.teacher.asked if recipe.teacher else None,
        "training_schema": TRAINING_SCHEMA,
    }


def served_identity(asked: Mapping[str, Any], recipe: Recipe, task: Task | None, *, run: int) -> dict[str, Any]:
    """Of one time that a served model answers. The seed chooses the worked examples, where there are some."""
    judge = recipe.judge.asked if recipe.judge else None
    limit = recipe.evaluate.max_new_tokens
    shots = {"seed": recipe.seed} if asked["few_shot"] else {}
    return {"served": dict(asked), "run": run, **_data(task), "limit": limit, "judge": judge, **shots}


def digest_of(identity: Mapping[str, Any]) -> str:
    return digest_json(dict(identity))


def _data(task: Task | None) -> dict[str, Any]:
    return {
        "data": task.digest if task else NOT_READ,
        "scorers": [task.scorer, *task.also] if task else [],
        "scores_schema": SCORES_SCHEMA,
    }
