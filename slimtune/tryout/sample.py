"""A prompt to begin with: what the run's own task asks first."""

from pathlib import Path
from typing import Any

from slimtune.check import checked_task
from slimtune.data import Message
from slimtune.errors import UserError
from slimtune.runs import recipe_of


def sample_prompt(
    run_folder: Path, *, data_dir: Path | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The turns of the first test row of a run's task, without its answer, and the tools that it offers.

    Raises UserError for a folder that holds no run, and where the task's rows are not there or not right any more.
    """
    path = run_folder / "recipe.json"
    if not path.is_file():
        raise UserError(f"{run_folder} holds no run: recipe.json is missing.")
    task = checked_task(recipe_of(run_folder), task_name=None, rows=None, data_dir=data_dir)
    first = task.test[0]
    return [_turn(message) for message in first.messages], [dict(tool) for tool in first.tools]


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [call.as_json() for call in message.tool_calls]
    return turn
