"""`slimtune bench speed`: who trains how fast, here."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from slimtune.cli.options import CardOption, DataOption, RecipeArgument, SetOption

bench = typer.Typer(no_args_is_help=True)


@bench.callback()
def measure() -> None:
    """Measure this machine."""


@bench.command()
def speed(
    recipe: RecipeArgument,
    overrides: SetOption = [],  # noqa: B006  typer copies it
    data: DataOption = None,
    shape: Annotated[
        str | None,
        typer.Option("--shape", metavar="MODEL", help="Train random weights in this model's shape: no download."),
    ] = None,
    way: Annotated[
        list[str],
        typer.Option(
            "--way", metavar="WORD", help="Only contestants with this in their names; a whole name: no trial."
        ),
    ] = [],  # noqa: B006  typer copies it
    as_gpu: CardOption = None,
    warm: Annotated[int, typer.Option("--warm", min=1, help="Training steps before the clock runs.")] = 50,
    steps: Annotated[int, typer.Option("--steps", min=2, help="Training steps that are timed.")] = 100,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where it is kept. Default: speed/RECIPE.")
    ] = None,
) -> None:
    """Train the recipe's rows with slimtune, with Unsloth and with plain TRL, in turn: examples a second, twice told.

    A training step is a forward and backward pass over what is computed at a time. No speed is told where the loss did
    not fall or a gradient was zero. Interrupted? The same command goes on."""
    from slimtune import contest, jobs, screen, screen_contest
    from slimtune.check import ready
    from slimtune.files import write_json, write_text
    from slimtune.gpus import get_gpu
    from slimtune.recipe import find_recipe, read_recipe

    path = find_recipe(recipe)
    prepared, folder = ready(read_recipe(path, overrides), data_dir=data), out or Path("speed") / path.stem
    with screen.Live(Console()) as listener:
        held = contest.hold(
            prepared,
            folder,
            only=way,
            shape=shape,
            as_gpu=get_gpu(as_gpu) if as_gpu else None,
            course=contest.Course(warm, steps),
            listener=listener,
            should_stop=jobs.stop_flag(),
        )
    write_json(folder / "speed.json", held.as_json())
    write_text(folder / "speed.md", contest.as_markdown(held))
    screen_contest.show_contest(Console(), held, folder / "speed.md")
