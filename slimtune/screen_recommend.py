"""How a recommendation looks on the terminal: the sentence, then each candidate with its reasons, then what is not
known."""

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from slimtune.sweep.advice import evidence, headline, memory, near, set_aside, unknown
from slimtune.sweep.costs import serving
from slimtune.sweep.recommend import Recommendation

_SHOWN = 10


def show_recommendation(console: Console, found: Recommendation, months: Sequence[str]) -> None:
    console.print(Text(headline(found), style="bold"))
    if found.ranked:
        console.print(Text(f"Ranked by {near(found)}."))
    for place, one in enumerate(found.ranked[:_SHOWN], start=1):
        console.print(Text(f"\n{place}. {one.name}"))
        for line in (evidence(one, found), memory(one, found), serving(one)):
            _say(console, line)
    if len(found.ranked) > _SHOWN:
        console.print(Text(f"\nand {len(found.ranked) - _SHOWN} more.", style="dim"))
    unfit = [f"{one.name}: {memory(one, found)}" for one in found.unfit]
    _show_part(console, f"Not at {found.context_tokens:,} tokens on the {found.card.name}", unfit)
    _show_part(console, "Own contestants set aside", set_aside(found))
    _show_part(console, "A month", months)
    _show_part(console, "Not known", unknown(found))


def _show_part(console: Console, title: str, lines: Sequence[str]) -> None:
    if lines:
        console.print(Text(f"\n{title}", style="bold"))
    for line in lines:
        _say(console, line)


def _say(console: Console, text: str) -> None:
    console.print(Padding(Text(text), (0, 0, 0, 3)))
