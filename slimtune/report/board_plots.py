"""The pictures of a leaderboard: mean ranks with their intervals, what a critical difference cannot tell apart, and
score against what it takes. Drawn as a report's are (plots.py): narrow, on no ground, in middle tones."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from slimtune.report.board import Board, Curve, RankTable, Spent
from slimtune.report.plots import ACCENT, COLOURS, INK, STYLE, panels, png_of, svg_of, tick

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW_IN = 0.44  # inches a contestant
_FRONT = COLOURS["few_shot"]
MEASURES: dict[str, tuple[str, Callable[[Spent], float | None], bool]] = {  # title, value, whether less is better
    "cost": ("Dollars to train, a task", lambda spent: spent.usd, True),
    "time": ("Minutes to train, a task", lambda spent: None if spent.hours is None else 60 * spent.hours, True),
    "memory": ("Peak memory of training, GiB", lambda spent: spent.peak_gib, True),
    "speed": ("Test rows answered a second", lambda spent: spent.rows_per_s, False),
}


def draw_board(board: Board) -> dict[str, tuple[str, bytes]]:
    """Each picture there is something for, by name: its SVG, to be put into a page, and its PNG."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figures = {f"ranks-{table.name}": _ranks(board, table) for table in board.tables if table.standings}
        figures |= {f"apart-{table.name}": _apart(board, table) for table in board.tables if table.critical_difference}
        figures |= {name: _against(board.spent, name) for name in measures_shown(board.spent)}
        figures |= {f"curve-{curve.key}": _curve(curve) for curve in board.curves}
        return {name: (svg_of(figure, name), png_of(figure)) for name, figure in figures.items()}


def measures_shown(spent: Sequence[Spent]) -> list[str]:
    """The measures that at least two contestants have: dollars, or time where no price is known; memory; speed."""
    there = [name for name, (_, value, _) in MEASURES.items() if sum(value(one) is not None for one in spent) > 1]
    return [name for name in there if name != "time" or "cost" not in there]


def _ranks(board: Board, table: RankTable) -> "Figure":
    """A dot a contestant; thick the interval of the mean rank, thin the range of ranks."""
    axis, figure = _rows(board, table)
    for place, one in _placed(table):
        if one.rank_range:
            axis.plot(one.rank_range, [place, place], color=ACCENT, alpha=0.55, linewidth=1.2)
        if one.interval:
            axis.plot(one.interval, [place, place], color=ACCENT, linewidth=3.2, solid_capstyle="round")
        axis.plot([one.mean_rank], [place], "o", color=ACCENT, markersize=6.5)
    axis.set_xlabel("Rank (1 is best)")
    return figure


def _apart(board: Board, table: RankTable) -> "Figure":
    """Mean ranks; a bar on the right joins those that differ by less than the critical difference, whose length stands
    at the top (Demsar, JMLR 7, 2006, turned by a right angle)."""
    axis, figure = _rows(board, table, above=1)
    places = {one.contestant: place for place, one in _placed(table)}
    for place, one in _placed(table):
        axis.plot([one.mean_rank], [place], "o", color=ACCENT, markersize=6.5)
    count, top = len(table.standings), len(table.standings) - 0.1
    axis.plot([1, min(1 + table.critical_difference, count)], [top, top], color=_FRONT, linewidth=2.4)
    axis.text(1, top + 0.16, f"critical difference {table.critical_difference:.2f} ranks", color=_FRONT)
    for column, group in enumerate(table.groups):
        across = max(count, 2) * 1.06 + 0.035 * (count + 1) * column
        ends = [places[group[0]] + 0.16, places[group[-1]] - 0.16]
        axis.plot([across, across], ends, color=_FRONT, linewidth=3.2, solid_capstyle="round", clip_on=False)
    axis.set_xlabel("Mean rank (1 is best)")
    return figure


def _rows(board: Board, table: RankTable, *, above: float = 0) -> "tuple[Axes, Figure]":
    """An axis of ranks with a line a contestant, its name above it and its mean rank at the right."""
    count = len(table.standings)
    figure, (axis,) = panels(1, height=0.75 + _ROW_IN * (count + above))
    for place, one in _placed(table):
        axis.plot([1, count], [place, place], color=INK, alpha=0.18, linewidth=1)
        axis.text(1, place + 0.22, tick(board.short(one.contestant)))
        axis.text(count, place + 0.22, f"{one.mean_rank:.2f}", ha="right")
    margin, step = 0.03 * count, max(1, round(count / 6))
    axis.set(xlim=(1 - margin, max(count, 2) + margin), ylim=(-0.5, count - 0.2 + above), yticks=[])
    axis.set_xticks(range(1, count + 1, step))
    axis.spines["left"].set_visible(False)
    return axis, figure


def _placed(table: RankTable) -> "list[tuple[int, object]]":
    """The best at the top."""
    return [(len(table.standings) - 1 - index, one) for index, one in enumerate(table.standings)]


def _against(spent: Sequence[Spent], name: str) -> "Figure":
    """Score over a measure; numbers are those of the table beside it, and the line joins the front."""
    title, value, less = MEASURES[name]
    points = [(value(one), one) for one in spent if value(one) is not None]
    figure, (axis,) = panels(1, height=3.3)
    front = sorted((x, one.score) for x, one in points if name in one.fronts)
    axis.plot([x for x, _ in front], [y for _, y in front], color=_FRONT, alpha=0.6, linewidth=1.4)
    for x, one in points:
        colour = _FRONT if name in one.fronts else ACCENT
        axis.plot([x], [one.score], "o", color=colour, markersize=6.5)
        axis.annotate(str(one.number), (x, one.score), xytext=(6, 5), textcoords="offset points")
    if min(x for x, _ in points) > 0 and max(x for x, _ in points) > 8 * min(x for x, _ in points):
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axis.margins(0.12)
    axis.set_title("Mean tuned score", loc="left", fontsize=9.5)
    axis.grid(color=INK, alpha=0.18)
    axis.set_xlabel(f"{title} ({'less' if less else 'more'} is better)")
    return figure


def _curve(curve: Curve) -> "Figure":
    """A line a lot of contestants, with the interval of each point; its name at its end where there are several."""
    figure, (axis,) = panels(1, height=3.3)
    colours = [ACCENT, *(colour for colour in COLOURS.values() if colour != ACCENT)]
    for number, (name, points) in enumerate(curve.lines.items()):
        colour, xs, ys = colours[number % len(colours)], [at.x for at in points], [at.score for at in points]
        errors = [[at.score - at.low for at in points], [at.high - at.score for at in points]]
        axis.errorbar(xs, ys, yerr=errors, fmt="o-", color=colour, markersize=6, linewidth=1.6, elinewidth=1.2)
        if len(curve.lines) > 1:
            axis.annotate(tick(name), (xs[-1], ys[-1]), xytext=(0, 9), textcoords="offset points", ha="right")
    values = [at.x for points in curve.lines.values() for at in points]
    if min(values) > 0 and max(values) >= 8 * min(values):
        axis.set_xscale("log")
        axis.set_xticks(sorted(set(values)), [f"{value:g}" for value in sorted(set(values))])
        axis.minorticks_off()
    axis.margins(0.12)
    axis.set_title("Mean tuned score", loc="left", fontsize=9.5)
    axis.grid(color=INK, alpha=0.18)
    axis.set_xlabel(curve.key)
    return figure
