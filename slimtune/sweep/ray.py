"""A study on a Ray cluster: one cell a task, one GPU a task. Ray moves and repeats them; what is done is in the store.

A cell is the command that does it anywhere, so nothing of a model is in Ray's processes. The store is a folder that
every node sees. Tried again: a node or process that dies, 75 and 69; every other exit code is final.
"""

import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

from slimtune.errors import Interrupted, ServiceAway, UserError
from slimtune.sweep.asked import Asked
from slimtune.sweep.local import Ended, prepare
from slimtune.sweep.process import Reply

_TRIES = 3
_AGAIN = (Interrupted.exit_code, ServiceAway.exit_code)


class TryAgain(Exception):
    """A cell that may end well another time."""


def run_on_ray(
    store: Path,
    name: str,
    cells: Sequence[Asked],
    chosen: Collection[str],
    *,
    command: Sequence[str],
    again: bool = False,
    gpus: float = 1,
) -> Ended:
    """Do what is not done of the chosen cells, each by `command` and its id, and wait for all of them. `gpus` a cell.

    Raises UserError where Ray is not installed. It joins the cluster that RAY_ADDRESS names, or begins one here.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UserError("--engine ray needs Ray. Run: pip install 'slimtune[ray]'") from error
    ended = Ended()
    todo = [cell for cell in prepare(store, name, cells, chosen=chosen, again=again) if not ended.counts(store, cell)]
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    task = ray.remote(num_gpus=gpus, num_cpus=1, max_retries=_TRIES, retry_exceptions=[TryAgain])(run_cell)
    running = {task.remote([*command, cell.id]): cell for cell in todo}
    while running:
        (finished,), _ = ray.wait(list(running), num_returns=1)
        _took(ended, running.pop(finished), finished, ray)
    return ended


def run_cell(command: Sequence[str]) -> Reply:
    """One cell, in the process of a Ray worker. Raises TryAgain where another time may help."""
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = done.stderr.strip()[-2000:]
    if done.returncode < 0 or done.returncode in _AGAIN:
        raise TryAgain(f"exit code {done.returncode}: {said}")
    return Reply(done.returncode, said)


def _took(ended: Ended, cell: Asked, finished: object, ray: object) -> None:
    try:
        reply = ray.get(finished)
    except (ray.exceptions.RayTaskError, ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
        reply = Reply(ServiceAway.exit_code, f"Tried {_TRIES + 1} times: {str(error).strip().splitlines()[-1]}")
    if reply.exit_code:
        ended.failed[cell.fingerprint] = reply
    else:
        ended.done += 1
