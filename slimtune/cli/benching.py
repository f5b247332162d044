"""`slimtune bench speed`: who trains how fast, here."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from slimtune.cli.options import CardOption, DataOption, RecipeArgument, SetOption

bench = typer.Typer(no_args_is_help=True)


@bench.callback()
def measure() -> None:
    """Measure this machine."""


def default_folder(
    recipe: str, *, shape: str | None, card: str | None, changes: Sequence[str], data: Path | None
) -> Path:
    """Where a contest is kept: its name says which it is. `changes`: as in --set; in which order does not matter."""
    from slimtune.files import digest_json

    said = [re.sub(r"[^a-z0-9.]+", "-", Path(name).name.lower()) for name in (shape, card) if name]
    other = [*sorted(changes), *([f"data {data.resolve()}"] if data else [])]
    return Path("speed") / "-".join([recipe, *said, *([digest_json(other)[:8]] if other else [])])


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
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where it is kept. Default: speed/RECIPE, with what else was asked."),
    ] = None,
) -> None:
    """Train the recipe's rows with slimtune, with Unsloth and with plain TRL, in turn: examples a second, twice told.

    A training step is a forward and backward pass over what is computed at a time. No speed is told where the loss did
    not fall or a gradient was zero. Interrupted? The same command goes on."""
    from slimtune import contest, jobs, screen, screen_contest
    from slimtune.check import ready
    from slimtune.files import write_json, write_text
    from slimtune.gpus import get_gpu
    from slimtune.recipe import find_recipe, read_recipe, recipe_name

    path, card = find_recipe(recipe), get_gpu(as_gpu) if as_gpu else None
    prepared = ready(read_recipe(path, overrides), data_dir=data)
    card_name = card.name if card else None
    folder = out or default_folder(recipe_name(path), shape=shape, card=card_name, changes=overrides, data=data)
    with screen.Live(Console()) as listener:
        held = contest.hold(
            prepared,
            folder,
            only=way,
            shape=shape,
            as_gpu=card,
            course=contest.Course(warm, steps),
            listener=listener,
            should_stop=jobs.stop_flag(),
        )
    write_json(folder / "speed.json", held.as_json())
    write_text(folder / "speed.md", contest.as_markdown(held))
    screen_contest.show_contest(Console(), held, folder / "speed.md")
