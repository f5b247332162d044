"""The studies of a folder: found by name, looked at cheaply, and one cell of one of them opened."""

from pathlib import Path

import numpy as np

from slimtune.errors import UserError, unknown_name
from slimtune.report.board import Board
from slimtune.sweep.gather import SEED
from slimtune.sweep.leaderboard import make_board
from slimtune.sweep.store import MATRIX, SWEEPS, Study, read_result, read_study
from slimtune.wording import counted


class NotYet(UserError):
    """A cell whose result is still to come: nothing is wrong."""


def list_studies(folder: Path = SWEEPS) -> list[str]:
    """The names of the studies there, in order."""
    return sorted(path.parent.name for path in folder.glob(f"*/{MATRIX}"))


def open_study(name: str, folder: Path = SWEEPS) -> Study:
    """A study by its name: no path leads out of the folder. Raises UserError where there is none."""
    if name not in list_studies(folder):
        raise unknown_name("study", name, list_studies(folder))
    return read_study(folder / name)


def board_of(study: Study, *, published: bool = False) -> Board:
    """Its leaderboard, with links as seen from the study's own `leaderboard` folder."""
    return make_board(study, out=study.store / "leaderboard", rng=np.random.default_rng(SEED), published=published)


def how_far(study: Study) -> str:
    """In a sentence; it changes whenever a cell does."""
    said = ", ".join(f"{count:,} {state}" for state, count in study.counts.items() if count)
    return f"{counted(len(study.cells), 'cell')}: {said}."


def attempt_of(study: Study, fingerprint: str) -> Path:
    """The run's folder behind a cell's result. Raises UserError where it has none, NotYet where it waits for one."""
    cell = next((cell for cell in study.cells if cell.fingerprint == fingerprint), None)
    if cell is None:
        raise UserError(f"{study.name} has no such cell.")
    if cell.result is None:
        kind = UserError if cell.state == "failed" else NotYet
        what = f"{cell.contestant} on {cell.task}, seed {cell.seed}, has no result: it is {cell.state}."
        raise kind(f"{what} {cell.why}".rstrip())
    return cell.folder / cell.result["attempt"]


def refuse_study(folder: Path) -> None:
    """Raises UserError where a folder that should be a run's is a study's or a cell's, and says which to give."""
    if (folder / MATRIX).is_file():
        what, cells = "study", sorted(folder.glob("cells/*"))
    elif (folder / "cell.json").is_file():
        what, cells = "cell of a study", [folder]
    else:
        return
    runs = [cell / found["attempt"] for cell in cells if (found := read_result(cell))]
    trained = [run for run in runs if (run / "recipe.json").is_file()]
    if not trained:
        raise UserError(f"{folder} is a {what}, and no trained run is done in it.")
    which = "its run" if len(trained) == 1 else f"one of its {len(trained):,} runs, such as"
    raise UserError(f"{folder} is a {what}, not a run. Give the folder of {which}: {trained[0]}")
