"""The pictures of a report: scores with intervals, loss and gradient curves, the confusion heat map.

Drawn narrow, so that they stay legible on a phone, on a transparent ground and in middle tones, so that they do on dark
paper. In SVG the ink becomes `currentColor`, and text stays text in the page's font.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slimtune.report.collect import RunFiles
from slimtune.report.compare import ScoreRow
from slimtune.report.confusion import Confusion
from slimtune.report.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#7d8591"
ACCENT = "#5b7cfa"
COLOURS = {"base": "#8b95a5", "few_shot": "#d0902f", "tuned": ACCENT, "teacher": "#9a6fd0"}
MOST_LABELS = 30  # a heat map with more is a carpet
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a label with a dollar sign is a label
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


def draw(run: RunFiles, scores: Sequence[ScoreRow], found: Confusion | None) -> dict[str, tuple[str, bytes]]:
    """Each picture there is something for, by name: its SVG, to be put into a page, and its PNG."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figures = {"scores": _scores(scores), "training": _training(run.steps), "confusion": _confusion(found)}
        return {name: (svg_of(figure, name), png_of(figure)) for name, figure in figures.items() if figure}


def training_svg(steps: Sequence[Mapping[str, Any]]) -> str:
    """The curves of a training that may still go on, as an <svg> element; empty before its first step."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = _training(steps)
        return svg_of(figure, "live") if figure else ""


def _scores(scores: Sequence[ScoreRow]) -> "Figure | None":
    """A dot with whiskers a model, its name above its line."""
    rows = [row for row in scores if row.score]
    if not rows:
        return None
    figure, axes = panels(1, height=0.55 + 0.62 * len(rows))
    axis = axes[0]
    for place, row in enumerate(reversed(rows)):
        colour, score = COLOURS[row.name], row.score
        axis.plot([0, 1], [place, place], color=INK, alpha=0.18, linewidth=1)
        axis.plot([score.low, score.high], [place, place], color=colour, linewidth=2.4, solid_capstyle="round")
        axis.plot([score.value], [place], "o", color=colour, markersize=7.5)
        axis.text(0, place + 0.27, tick(row.label))
        axis.text(1, place + 0.27, str(score), ha="right")
    axis.set(xlim=(-0.015, 1.015), ylim=(-0.5, len(rows) - 0.3), yticks=[])
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axis.spines["left"].set_visible(False)
    return figure


def _training(steps: Sequence[Mapping[str, Any]]) -> "Figure | None":
    """Loss above, gradient norm below, by step. Steps that were skipped are crosses on the ground line."""
    if not any(number(step.get("loss")) for step in steps):
        return None
    figure, axes = panels(2, height=4.2)
    for axis, key, name in zip(axes, ("loss", "grad_norm"), ("Loss", "Gradient norm"), strict=True):
        points = [(step["step"], step[key]) for step in steps if number(step.get(key))]
        _curve(axis, points)
        axis.set_title(name, loc="left", fontsize=9.5)
        axis.grid(axis="y", color=INK, alpha=0.18)
        axis.set_ylim(bottom=0)
    skipped = [step["step"] for step in steps if step.get("skipped")]
    if skipped:
        axes[1].plot(skipped, [0] * len(skipped), "x", color=COLOURS["few_shot"], clip_on=False, label="skipped")
        axes[1].legend(frameon=False, loc="upper right")
    axes[1].set_xlabel("Step")
    for axis in axes:
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _curve(axis: "Axes", points: Sequence[tuple[int, float]]) -> None:
    """The values, faint, and their mean over a fifteenth of the run around each step (so it does not lag)."""
    places, values, half = [step for step, _ in points], [value for _, value in points], len(points) // 30
    around = [values[max(0, at - half) : at + half + 1] for at in range(len(values))]
    smooth = [sum(part) / len(part) for part in around]
    dot = "o" if len(points) == 1 else ""
    axis.plot(places, values, color=ACCENT, alpha=0.35, linewidth=1, marker=dot)
    axis.plot(places, smooth, color=ACCENT, linewidth=1.8)


def _confusion(found: Confusion | None) -> "Figure | None":
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    if found is None or len(found.labels) > MOST_LABELS:
        return None
    figure, axes = panels(1, height=2.2 + 0.27 * len(found.labels), width=3.2 + 0.3 * len(found.answers))
    axis, shade = axes[0], LinearSegmentedColormap.from_list("shade", [to_rgba(ACCENT, 0), to_rgba(ACCENT, 0.5)])
    most = max(max(row) for row in found.counts)
    axis.pcolormesh(found.counts, cmap=shade, vmin=0, vmax=most, edgecolors="none")
    for down, row in enumerate(found.counts):
        for across, count in enumerate(row):
            if count:
                axis.text(across + 0.5, down + 0.5, str(count), ha="center", va="center", fontsize=8)
    places = [index + 0.5 for index in range(len(found.answers))]
    axis.set_xticks(places, [tick(answer) for answer in found.answers], rotation=90)
    axis.set_yticks(places[: len(found.labels)], [tick(label) for label in found.labels])
    axis.tick_params(length=0, labelsize=8)
    axis.set(xlabel="Answered", ylabel="Label", aspect="equal")
    axis.invert_yaxis()
    return figure


def tick(label: str) -> str:
    label = label.replace("\n", " ")
    return label if len(label) <= 30 else label[:29] + "\u2026"


def panels(count: int, *, height: float, width: float = 5.4) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, [figure.add_subplot(count, 1, index + 1) for index in range(count)]


def svg_of(figure: "Figure", name: str) -> str:
    """The <svg> element alone. Ids carry the picture's name, so that several may share a page."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):  # the same run gives the same bytes
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{name}-", text)
    return text.replace(INK, "currentColor")


def png_of(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, transparent=True)
    return buffer.getvalue()
