"""Tasks: what to be good at, with rows to learn from and rows to prove it on.

A task is a folder with job.json, train.jsonl and test.jsonl: one beside this file, or one of your own. `get_task` reads
either; `task_from_files` reads the formats others use; `inspect_task` says what is wrong with a task's rows.
"""

from slimtune.tasks.folders import get_task, list_tasks
from slimtune.tasks.formats import task_from_files
from slimtune.tasks.quality import Quality, inspect_task
from slimtune.tasks.task import Selection, Task

__all__ = ["Quality", "Selection", "Task", "get_task", "inspect_task", "list_tasks", "task_from_files"]
