"""The teacher's column of a run: a served model answers the rows that base and tuned answered.

It changes nothing of the training, so it is no part of what a run is: a teacher that is added to a finished run, or
exchanged for another, is one more step.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from slimtune.answering import answer_served
from slimtune.check import Ready
from slimtune.data import Example
from slimtune.endpoint import asking
from slimtune.evaluate import Evaluation, choose_shots, read_evaluation, with_shots, write_evaluation
from slimtune.files import damage, read_json
from slimtune.recipe import Recipe
from slimtune.runs import Run
from slimtune.scorers.judge import Judge
from slimtune.status import Listener

_FOLDER = "teacher"


def teacher_due(recipe: Recipe, folder: Path) -> bool:
    """Whether a recipe names a teacher whose answers, to what is asked now, are not in a run's folder."""
    if recipe.teacher is None:
        return False
    if damage(folder / _FOLDER) is not None:
        return True
    return read_json(folder / _FOLDER / "evaluation.json").get("served", {}).get("asked") != recipe.teacher.asked


class TeacherColumn:
    """Nothing is done where the recipe names no teacher, or where the column is complete."""

    def __init__(
        self,
        prepared: Ready,
        run: Run,
        *,
        max_new_tokens: int,
        listener: Listener,
        should_stop: Callable[[], bool],
    ):
        self.recipe, self.task, self.run = prepared.recipe, prepared.task, run
        self.max_new_tokens, self.listener, self.should_stop = max_new_tokens, listener, should_stop
        self.journal = run.folder / f"{_FOLDER}.journal"

    def greet(self) -> None:
        """Ask for the first row's answer, which is kept."""
        if not teacher_due(self.recipe, self.run.folder):
            return
        teacher = self.recipe.teacher
        self.listener.say(f"Asking the teacher, {teacher.model}, for a first answer.")
        with asking(
            teacher.endpoint, journal=self.journal, say=self.listener.say, should_stop=self.should_stop
        ) as session:
            list(session.generate(self._examples()[:1], self.max_new_tokens))

    def answer(self, judge: Judge | None) -> Evaluation | None:
        """The column; None where the recipe names no teacher. Raises what `answer_served` raises."""
        teacher, folder = self.recipe.teacher, self.run.folder / _FOLDER
        if teacher is None:
            return None
        if not teacher_due(self.recipe, self.run.folder):
            return read_evaluation(folder)
        shots = self._shots()
        evaluation = answer_served(
            teacher.endpoint,
            self.task,
            self._examples(),
            name=_FOLDER,
            label=f"teacher, {teacher.model}{f', {len(shots)}-shot' if shots else ''}",
            few_shot_k=len(shots),
            journal=self.journal,
            listener=self.listener,
            should_stop=self.should_stop,
            max_new_tokens=self.max_new_tokens,
            judge=judge,
        )
        evaluation = replace(evaluation, served={**evaluation.served, "asked": teacher.asked})
        write_evaluation(folder, evaluation)
        return evaluation

    def _shots(self) -> tuple[Example, ...]:
        return choose_shots(self.task, self.recipe.teacher.few_shot, seed=self.recipe.seed)

    def _examples(self) -> list[Example]:
        shots = self._shots()
        return [with_shots(example, shots) for example in self.task.test]
