"""`slimtune sweep`: a study from its matrix, run, watched, planned, and written out for other engines."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from slimtune import screen_sweep
from slimtune.cli.options import DataOption
from slimtune.errors import UserError

sweep = typer.Typer(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})

_CARDS = ("T4", "L4", "RTX 4090", "A100-80GB", "H100")  # what people have or rent, small to large

MatrixArgument = Annotated[str, typer.Argument(metavar="MATRIX", help="A YAML file, or one that comes with slimtune.")]
StoreOption = Annotated[
    Path | None, typer.Option("--store", metavar="DIR", help="The study's folder. Default: sweeps/NAME.")
]


@sweep.command()
def run(
    matrix: MatrixArgument,
    store: StoreOption = None,
    hours: Annotated[float | None, typer.Option("--hours", min=0, help="Stop after so long.")] = None,
    usd: Annotated[float | None, typer.Option("--usd", min=0, help="Stop when the study has cost so much.")] = None,
    usd_per_hour: Annotated[
        float | None, typer.Option("--usd-per-hour", min=0, help="The price of a card here.")
    ] = None,
    cell: Annotated[list[str], typer.Option("--cell", metavar="ID", help="Only this cell, as in emit's list.")] = [],  # noqa: B006
    model: Annotated[list[str], typer.Option("--model", metavar="NAME", help="Only the cells of this model.")] = [],  # noqa: B006
    again: Annotated[bool, typer.Option("--again", help="Try what failed for good once more.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Let it take the place of the study in DIR.")] = False,
    engine: Annotated[str, typer.Option("--engine", help="local, or ray: one GPU of a cluster a cell.")] = "local",
    data: DataOption = None,
) -> None:
    """Do every cell that is not done. Interrupted? The same command goes on."""
    from slimtune import jobs
    from slimtune.sweep.local import Limits, run_study
    from slimtune.sweep.store import no_longer_asked

    path, cells = _cells(matrix, data)
    store = store or _store(path)
    chosen = _chosen(cells, cell, model)
    console = Console()
    left_out = no_longer_asked(store, path.stem, {cell.fingerprint for cell in cells}, replace=replace)
    if left_out:
        screen_sweep.show_left_out(console, left_out)
    if engine == "ray":
        from slimtune.sweep.ray import run_on_ray

        if hours is not None or usd is not None:
            raise UserError("--hours and --usd are this machine's: a Ray cluster goes on until its cells are done.")
        ended = run_on_ray(
            store, path.stem, cells, chosen, command=_command(path, store, data, usd_per_hour), again=again
        )
    elif engine == "local":
        limits = Limits(hours, usd, usd_per_hour if usd_per_hour is not None else _price())
        typed = shlex.join(["slimtune", "sweep", "run", matrix, "--store", str(store), *_data(data)])
        worker = [sys.executable, "-P", "-m", "slimtune.sweep", typed, *([str(data)] if data else [])]
        stop = jobs.stop_flag()
        with screen_sweep.Watch(console, store) as watch:
            ended = run_study(
                store, path.stem, cells, chosen=chosen, command=worker, limits=limits, should_stop=stop, again=again,
                on_tick=watch.tick,
            )  # fmt: skip
    else:
        raise UserError(f"There is no engine {engine!r} to run with: local or ray. `slimtune sweep emit` has others.")
    screen_sweep.show_ended(console, ended, shlex.join(["slimtune", *sys.argv[1:]]).removesuffix(" --again"))
    raise typer.Exit(ended.exit_code)


@sweep.command()
def status(store: Annotated[Path, typer.Argument(metavar="STORE", help="The study's folder.")]) -> None:
    """Show how far a study is, from its folder alone: on any machine that sees it."""
    from slimtune.sweep.progress import read_progress

    screen_sweep.show_progress(Console(), read_progress(store))


@sweep.command()
def plan(
    matrix: MatrixArgument,
    gpu: Annotated[list[str], typer.Option("--gpu", help="For this card; several may be named.")] = [],  # noqa: B006
    usd_per_hour: Annotated[
        float | None,
        typer.Option("--usd-per-hour", min=0, help="The price of the one --gpu, where it is known better."),
    ] = None,
    data: DataOption = None,
) -> None:
    """Say what a study would take on each card: cells, time, dollars, and what does not fit. Downloads nothing."""
    from slimtune.gpus import get_gpu
    from slimtune.sweep.outlook import outlooks

    if usd_per_hour is not None and len(gpu) != 1:
        raise UserError("--usd-per-hour is the price of one card: name it, as in --gpu t4.")
    cards = [get_gpu(name) for name in gpu or _CARDS]
    _, cells = _cells(matrix, data)
    screen_sweep.show_outlooks(Console(), cells, outlooks(cells, cards, usd_per_hour=usd_per_hour))


@sweep.command()
def emit(
    matrix: MatrixArgument,
    engine: Annotated[str, typer.Option("--engine", help="sky or slurm.")],
    store: Annotated[
        str,
        typer.Option(
            "--store", metavar="PLACE", help="For sky a bucket (gs://..., or a name), for slurm a shared folder."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the files go.")] = Path("sweeps/emitted"),
    data: DataOption = None,
) -> None:
    """Write a study out for an engine that rents or queues machines. Runs nothing."""
    from slimtune.sweep.emit import emit as write_out

    path, cells = _cells(matrix, data)
    files = write_out(engine, path, cells, store=store, out=out, data_dir=data)
    screen_sweep.show_emitted(Console(), engine, files, cells)


def _cells(matrix: str, data: Path | None) -> tuple[Path, Sequence[Any]]:
    from slimtune.sweep.matrix import find_matrix, read_matrix

    path = find_matrix(matrix)
    return path, read_matrix(path, data_dir=data)


def _store(path: Path) -> Path:
    from slimtune.sweep.store import SWEEPS

    return SWEEPS / path.stem


def _command(path: Path, store: Path, data: Path | None, usd_per_hour: float | None) -> list[str]:
    """What does one cell, wherever it is started; its id comes last."""
    price = [] if usd_per_hour is None else ["--usd-per-hour", str(usd_per_hour)]
    more = [*_data(data and data.resolve()), *price]
    return [
        sys.executable, "-P", "-m", "slimtune.cli", "sweep", "run", str(path.resolve()), "--store",
        str(store.resolve()), *more, "--cell",
    ]  # fmt: skip


def _data(folder: Path | None) -> list[str]:
    return ["--data", str(folder)] if folder else []


def _chosen(cells: Sequence[Any], ids: Sequence[str], models: Sequence[str]) -> set[str]:
    """Fingerprints of the cells with these ids and models; all where none is named. UserError for unknown ones."""
    for model in models:
        if model not in {cell.model for cell in cells}:
            known = ", ".join(dict.fromkeys(cell.model for cell in cells))
            raise UserError(f"This matrix has no model {model!r}. It has: {known}.")
    for name in ids:
        if len(name) < 6 or not any(cell.fingerprint.startswith(name) for cell in cells):
            raise UserError(
                f"This matrix has no cell {name!r}: a recipe that changed has another id. See its list anew."
            )
    return {
        cell.fingerprint
        for cell in cells
        if (not ids or cell.fingerprint.startswith(tuple(ids))) and (not models or cell.model in models)
    }


def _price() -> float | None:
    """Dollars an hour of this machine's card, where the table has it."""
    from slimtune.gpus import detect_gpu

    card = detect_gpu()
    return card.spec.hourly_usd if card is not None and card.spec is not None else None
