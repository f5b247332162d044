"""One cell for real: `slimtune run` into an attempt's folder, or a served model's answers.

Cells that follow each other in one process share the base model; each gets an adapter of its own.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slimtune.answering import answer_served, judging
from slimtune.check import read_rows, ready
from slimtune.errors import UserError
from slimtune.evaluate import choose_shots, with_shots, write_evaluation
from slimtune.files import damage, read_json, write_json
from slimtune.pipeline import run_recipe
from slimtune.recipe import Recipe, check_recipe
from slimtune.runs import open_run
from slimtune.status import Silent
from slimtune.strict_yaml import Document
from slimtune.sweep.asked import Entrant, short_id
from slimtune.sweep.identity import served_identity, trained_identity


class Cells:
    """`do` for `worker.work`: holds the base model between cells. `command` does the whole study; it and a cell's id do
    that cell again."""

    def __init__(self, data_dir: Path | None, command: str):
        self.data_dir, self.command, self.shelf = data_dir, command, None

    def __call__(self, folder: Path, attempt: Path, should_stop: Callable[[], bool]) -> None:
        asked = read_json(folder / "cell.json")
        source = check_recipe(Document(asked["recipe"]), str(folder / "cell.json"))
        if "served" in asked:
            self._served(Entrant.model_validate(asked["served"]), source.rest, asked, attempt, should_stop)
            return
        prepared = ready(source, data_dir=self.data_dir)
        _same(trained_identity(prepared.recipe, prepared), asked)
        run_recipe(
            prepared, name=asked["task"], out=attempt, listener=Silent(), should_stop=should_stop, shelf=self._shelf(),
            command=f"{self.command} --cell {short_id(asked['cell'])}",
        )  # fmt: skip

    def _shelf(self) -> Any:
        if self.shelf is None:
            from slimtune.engine import require_training

            require_training()
            from slimtune.engine.shelf import Shelf

            self.shelf = Shelf()
        return self.shelf

    def _served(
        self, entrant: Entrant, recipe: Recipe, asked: Mapping[str, Any], attempt: Path, should_stop: Callable[[], bool]
    ) -> None:
        """One time that a served model answers a task's test rows."""
        task, _ = read_rows(recipe, self.data_dir)
        _same(served_identity(entrant.asked, recipe, task, run=asked["seed"]), asked)
        shots = choose_shots(task, entrant.few_shot, seed=recipe.seed)
        with open_run(attempt, asked["identity"]) as run:
            facts = {"task": task.name, "title": task.title, "kind": task.kind, "scored_on": task.scored_on}
            facts |= {"test_rows": len(task.test), "digest": task.digest, "scorer": task.scorer}
            write_json(run.folder / "data.json", facts)
            if damage(run.folder / "served") is None:
                return
            heard = {"listener": Silent(), "should_stop": should_stop}
            with judging(recipe.judge, journal=run.folder / "judge.journal", **heard) as judge:
                evaluation = answer_served(
                    entrant.endpoint,
                    task,
                    [with_shots(example, shots) for example in task.test],
                    name="served",
                    label=f"{entrant.model}, {len(shots) or 'zero'}-shot",
                    few_shot_k=len(shots),
                    journal=run.folder / "served.journal",
                    max_new_tokens=recipe.evaluate.max_new_tokens,
                    judge=judge,
                    **heard,
                )
            write_evaluation(run.folder / "served", evaluation)


def _same(identity: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raises UserError where a cell's data or recipe are no longer those it was named for."""
    changed = sorted(part for part in identity if identity[part] != asked["identity"].get(part))
    if changed:
        raise UserError(
            f"The {' and '.join(changed)} of this cell changed since it was asked for. Run the same command again: it "
            "becomes another cell."
        )
