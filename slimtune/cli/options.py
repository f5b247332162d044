"""Arguments and options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A YAML file, or a name of `slimtune list recipes`.", show_default=False)
]
SetOption = Annotated[list[str], typer.Option("--set", metavar="A.B=C", help="Change one key, e.g. train.epochs=2.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="A folder of task folders to look in first.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The run's folder. Default: runs/NAME-HASH.")
]
CardOption = Annotated[
    str | None,
    typer.Option("--as-gpu", metavar="GPU", help="Rehearse for a smaller card, e.g. t4: its precision, its memory."),
]
