"""How a leaderboard looks on the terminal: who leads, the scores, the ranks, what is missing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from slimtune.report.board import Board, RankTable, Spent
from slimtune.report.board_plots import MEASURES, measures_shown
from slimtune.report.text import p_value, percent
from slimtune.sweep.versus import Apart
from slimtune.wording import counted

_FULLEST = 6  # tasks that fit a terminal with their scores; more are in the files
_COLUMN = 12  # of a score and its interval
_SPENT = {  # a measure's column, and how it is written
    "cost": ("USD a task", ".3g"),
    "time": ("min a task", ".1f"),
    "memory": ("peak GiB", ".1f"),
    "speed": ("rows/s", ".1f"),
}


def show_board(console: Console, board: Board, paths: Mapping[str, Path]) -> None:
    counts = board.counts
    console.print(Text(board.name, style="bold"))
    console.print(Text(board.headline))
    console.print(
        f"{board.who}. Cells: {counts['done']} done, {counts['failed']} failed, {counts['running']} running, "
        f"{counts['waiting']} waiting; stale, kept and not ranked: {counts['stale']}.",
        style="dim",
    )
    for one in board.trouble:
        _say(console, f"! {one.contestant} on {one.task}: {one.state}{f': {one.why}' if one.why else ''}", "yellow")
    _show_scores(console, board)
    for table in board.tables:
        _show_ranks(console, board, table)
    _show_spent(console, board)
    for line in (*board.against_summary, *board.remarks, *_noise(board)):
        _say(console, line, "dim")
    for one in board.published:
        _show_cells(console, one.title, one.columns, one.rows)
        _say(console, f"Source: {one.source}", "dim")
        for line in one.caveats:
            _say(console, line, "dim")
    console.print()
    for path in paths.values():
        console.print(str(path), soft_wrap=True, markup=False, highlight=False)


def show_apart(console: Console, board: Board, chosen: str | None, found: Sequence[Apart]) -> None:
    """Each other contestant minus the chosen one; nothing where none was chosen."""
    if chosen is None:
        return
    rows = [
        (
            board.short(one.contestant),
            one.tasks[0] if len(one.tasks) == 1 else f"all {len(one.tasks)}",
            f"{one.score:.3f}",
            f"{one.comparison.difference.value:+.3f}",
            f"{one.comparison.difference.low:+.3f} to {one.comparison.difference.high:+.3f}",
            f"{one.comparison.n:,}",
            str(one.seeds),
        )
        for one in found
    ]
    _show_cells(console, f"Minus {chosen}", ("", "task", "score", "difference", "95%", "rows", "seeds"), rows)
    noise = f"{'with' if board.noise else 'without'} the noise of seeds"
    _say(console, f"On the same {board.scored_rows}, paired; each interval is for its own comparison, {noise}.", "dim")


def _show_scores(console: Console, board: Board) -> None:
    names, longest = board.contestants, max(map(len, map(board.short, board.contestants)))
    tasks = board.tasks[: max(2, min(_FULLEST, (console.width - longest) // _COLUMN))]
    if len(names) <= _FULLEST < len(board.tasks):
        tasks = board.tasks
        rows = [(task, *(_score(board, name, task) for name in names)) for task in tasks]
        _show_cells(console, "Scores, tuned", ("", *map(board.short, names)), rows)
    else:
        rows = [(board.short(name), *(_score(board, name, task) for task in tasks)) for name in names]
        _show_cells(console, "Scores, tuned", ("", *tasks), rows)
    if len(board.tasks) > len(tasks):
        _say(console, f"In the files: {counted(len(board.tasks) - len(tasks), 'more task')}.", "dim")


def _score(board: Board, name: str, task: str) -> str:
    square = board.squares[name, task]
    if square.shown is None:
        return square.state
    score = square.shown.score
    mark = "*" if square.state == "partly" else ""
    return f"{score.value:.3f}{mark}\n{score.span}"


def _show_ranks(console: Console, board: Board, table: RankTable) -> None:
    rows = [
        (
            board.short(one.contestant),
            f"{one.mean_rank:.2f}",
            f"{one.interval[0]:.2f}-{one.interval[1]:.2f}" if one.interval else "-",
            f"{one.rank_range[0]}-{one.rank_range[1]}" if one.rank_range else "-",
            percent(one.p_best),
            percent(one.p_top3),
            f"{one.mean:+.3f}" if table.name == "gain" else f"{one.mean:.3f}",
        )
        for one in table.standings
    ]
    last = "mean gain" if table.name == "gain" else "mean score"
    _show_cells(console, table.title, ("", "mean rank", "95%", "range", "P(best)", "P(top 3)", last), rows)
    if table.critical_difference:
        alike = f" Are they all alike? {p_value(table.friedman_p)} (Friedman)." if table.friedman_p is not None else ""
        _say(console, f"Critical difference: {table.critical_difference:.2f} ranks.{alike}", "dim")
    for line in table.footnotes:
        _say(console, line, "dim")


def _show_spent(console: Console, board: Board) -> None:
    """What each takes; a star where no other scores as high for less."""
    if not board.spent:
        return

    def figure(one: Spent, name: str, form: str) -> str:
        value = MEASURES[name][1](one)
        return "-" if value is None else f"{value:{form}}{'*' if name in one.fronts else ''}"

    forms = {name: _SPENT[name] for name in measures_shown(board.spent)}
    rows = [
        (board.short(one.contestant), f"{one.score:.3f}", *(figure(one, name, forms[name][1]) for name in forms))
        for one in board.spent
    ]
    columns = ("", "score", *(title for title, _ in forms.values()))
    _show_cells(console, "Score against cost, memory and speed", columns, rows)
    _say(console, "* No other scores as high for less, or with more rows a second.", "dim")


def _noise(board: Board) -> Sequence[str]:
    noise = board.noise
    if noise is None:
        return ()
    return (
        f"Noise between seeds: standard deviation {noise.sd:.4f} [{noise.low:.4f}, {noise.high:.4f}], over "
        f"{noise.runs} trainings of {noise.squares} contestants and tasks.",
    )


def _show_cells(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(header_style="dim", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for at, name in enumerate(columns):
        table.add_column(Text(name, overflow="fold"), justify="right" if at else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    console.print()
    console.print(Text(title, style="bold"))
    console.print(table)


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Padding(Text(text, style=style), (0, 0, 0, 2)))
