"""write_board: a leaderboard as one HTML page, as Markdown and as CSV, with its pictures.

The page asks for nothing from anywhere: style and pictures stand in it, and it has no scripts. In the CSV, text that a
spreadsheet would take for a formula gets a quote before it (OWASP, "CSV Injection").
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from slimtune.files import write_bytes, write_text
from slimtune.report.board import Against, Board, CellLine
from slimtune.report.board_plots import MEASURES, draw_board, measures_shown
from slimtune.report.render import as_html, as_markdown

NAMES = {"html": "leaderboard.html", "markdown": "leaderboard.md", "csv": "leaderboard.csv"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_board(board: Board, out: Path) -> dict[str, Path]:
    """Write the leaderboard into a folder; what was written, by kind. Raises CannotWrite."""
    pictures = draw_board(board)
    for name, (_, png) in pictures.items():
        write_bytes(out / "plots" / f"{name}.png", png)
    values = board_values(board, pictures)
    paths = {kind: out / name for kind, name in NAMES.items()}
    write_text(paths["csv"], as_csv(board.cells))
    write_text(paths["markdown"], as_markdown(values, "board.md.jinja"))
    write_text(paths["html"], as_html(values, "board.html.jinja"))
    return paths


def board_fragment(board: Board) -> str:
    """The page's content, to be put into another page; nothing is written."""
    return as_html(board_values(board, draw_board(board)), "board_main.html.jinja")


def board_values(board: Board, pictures: Mapping[str, tuple[str, bytes]]) -> dict[str, Any]:
    """What the templates see."""
    places = {name: at for at, name in enumerate(board.contestants)}
    return {
        "board": board,
        "pictures": {name: Markup(svg) for name, (svg, _) in pictures.items()},
        "places": places,
        "columns": {task: at for at, task in enumerate(board.tasks)},
        "measures": {name: MEASURES[name][0] for name in measures_shown(board.spent)},
        "cells_of": _cells_of(board),
        "duels": _duels(board.against),
    }


def as_csv(cells: Sequence[CellLine]) -> str:
    """One line a cell, every figure a column, and the path of its report last."""
    names = list(dict.fromkeys(name for cell in cells for name in cell.figures))
    buffer = io.StringIO()
    table = csv.writer(buffer)
    table.writerow([*map(_plain, names), "report"])
    for cell in cells:
        report = next((link.href for link in cell.links if link.is_report), "")
        table.writerow([*(_plain(cell.figures.get(name)) for name in names), _plain(report)])
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    """A value that a spreadsheet shows and does not compute. Numbers stay numbers, negative ones too."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value


def _cells_of(board: Board) -> dict[tuple[str, str], list[CellLine]]:
    found: dict[tuple[str, str], list[CellLine]] = {}
    for cell in board.cells:
        found.setdefault((cell.figures["contestant"], cell.figures["task"]), []).append(cell)
    return found


def _duels(against: Sequence[Against]) -> dict[tuple[str, str], dict[str, Against]]:
    """By student and teacher, and then by task."""
    found: dict[tuple[str, str], dict[str, Against]] = {}
    for one in against:
        found.setdefault((one.student, one.teacher), {})[one.task] = one
    return found
