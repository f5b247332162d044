"""`slimtune rank` and `slimtune recommend`: a study's leaderboard, and which model to take."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def rank(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A study's folder: sweeps/NAME.", show_default=False)],
    published: Annotated[bool, typer.Option("--published", help="Put the published study's figures beside.")] = False,
    against: Annotated[
        str | None, typer.Option("--against", metavar="CONTESTANT", help="Set every other against it, paired by row.")
    ] = None,
    incomplete: Annotated[bool, typer.Option("--incomplete", help="Rank over missing cells too.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the files go. Default: STORE/leaderboard.")
    ] = None,
) -> None:
    """Rank a study's contestants, with how sure that is: here, and as a page, Markdown and CSV."""
    import numpy as np

    from slimtune import screen_board
    from slimtune.report.board_page import write_board
    from slimtune.sweep.gather import SEED
    from slimtune.sweep.leaderboard import make_board, set_against
    from slimtune.sweep.store import read_study

    folder = out or store / "leaderboard"
    rng = np.random.default_rng(SEED)
    study, console = read_study(store), Console()
    apart = set_against(study, against, np.random.default_rng(SEED)) if against is not None else ()
    board = make_board(study, out=folder, rng=rng, incomplete=incomplete, published=published)
    screen_board.show_board(console, board, write_board(board, folder))
    screen_board.show_apart(console, board, against, apart)


def recommend(
    task: Annotated[str | None, typer.Option("--task", help="The task it is for.")] = None,
    kind: Annotated[
        str | None, typer.Option("--task-kind", metavar="KIND", help="Or its kind, e.g. classification, tool_calling.")
    ] = None,
    gpu: Annotated[str | None, typer.Option("--gpu", help="The card. Default: this machine's.")] = None,
    max_params: Annotated[str | None, typer.Option("--max-params", metavar="2B", help="The largest model.")] = None,
    context: Annotated[str | None, typer.Option("--context", help="Tokens of a row, e.g. 4k. Default: 2k.")] = None,
    store: Annotated[Path | None, typer.Option("--store", metavar="DIR", help="A study of your own.")] = None,
    usd_per_hour: Annotated[
        float | None, typer.Option("--usd-per-hour", help="What the card costs an hour, where it is known better.")
    ] = None,
    per_month: Annotated[int | None, typer.Option("--per-month", min=1, help="Requests a month, for the cost.")] = None,
    api_usd_per_m: Annotated[
        float | None,
        typer.Option("--api-usd-per-m", min=0, help="With it: dollars a million requests of a service instead."),
    ] = None,
) -> None:
    """Say which model to take, with reasons: own cells first, published ranks where there are none, the plan always."""
    from slimtune import screen_recommend
    from slimtune.errors import UserError
    from slimtune.plan.cost import MILLION
    from slimtune.sweep.costs import monthly
    from slimtune.sweep.recommend import Wish
    from slimtune.sweep.recommend import recommend as answer

    if api_usd_per_m is not None and per_month is None:
        raise UserError("--api-usd-per-m goes with --per-month: how many requests a month it is.")
    found = answer(Wish(task, kind, gpu, max_params, context, store, usd_per_hour))
    price = api_usd_per_m / MILLION if api_usd_per_m is not None else found.usd_a_request
    months = monthly(found, per_month, price) if per_month else ()
    screen_recommend.show_recommendation(Console(), found, months)
