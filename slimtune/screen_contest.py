"""How a speed test looks on the terminal: two tables, what is to be said of them, where it is kept."""

from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from slimtune.contest.table import FIGURES, TABLES, Contest

_SHOWN = ("times", "examples/s", "peak GiB", "loss")  # what fits a terminal; the rest is in the file


def show_contest(console: Console, contest: Contest, path: Path) -> None:
    console.print(Text(contest.title, style="bold"))
    for line in (*contest.facts, *contest.notes):
        console.print(Text(line, style="dim"))
    for name, meaning in TABLES.items():
        if contest.of(name):
            _show(console, contest, name, meaning)
    for line in contest.verdicts:
        console.print(Text(line, style="bold"))
    console.print(str(path), soft_wrap=True, markup=False, highlight=False)


def _show(console: Console, contest: Contest, name: str, meaning: str) -> None:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("", overflow="fold")
    for figure in _SHOWN:
        table.add_column(figure, justify="right", no_wrap=True)
    for line in contest.lines(name):
        cells = [line.figures[FIGURES.index(figure)] for figure in _SHOWN] if line.figures else []
        table.add_row(Text.assemble(line.who, "\n", (line.how, "dim")), *cells)
        if line.refusal:
            table.add_row(Text(f"no speed: {line.refusal}", style="yellow"))
    console.print()
    console.print(Text(meaning))
    console.print(Padding(table, (1, 0, 1, 2)))
