"""`slimtune rank` and `slimtune recommend`: a study's leaderboard, and which model to take."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

_SEED = 20261129  # of the resampling: the same store gives the same figures


def rank(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A study's folder: sweeps/NAME.", show_default=False)],
    published: Annotated[bool, typer.Option("--published", help="Put the published study's figures beside.")] = False,
    incomplete: Annotated[bool, typer.Option("--incomplete", help="Rank over missing cells too.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the files go. Default: STORE/leaderboard.")
    ] = None,
) -> None:
    """Rank a study's contestants, with how sure that is: here, and as a page, Markdown and CSV."""
    import numpy as np

    from slimtune import screen_board
    from slimtune.report.board_page import write_board
    from slimtune.sweep.leaderboard import make_board
    from slimtune.sweep.store import read_study

    folder = out or store / "leaderboard"
    rng = np.random.default_rng(_SEED)
    board = make_board(read_study(store), out=folder, rng=rng, incomplete=incomplete, published=published)
    screen_board.show_board(Console(), board, write_board(board, folder))
