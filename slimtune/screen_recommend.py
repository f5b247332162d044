"""How a recommendation looks on the terminal: the sentence, then each candidate with its reasons, then what is not
known."""

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from slimtune.sweep.advice import evidence, headline, memory, near, serving, unknown
from slimtune.sweep.recommend import Candidate, Recommendation

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
    _show_unfit(console, found, found.unfit)
    if months:
        console.print(Text("\nA month", style="bold"))
    for line in months:
        _say(console, line)
    console.print(Text("\nNot known", style="bold"))
    for line in unknown(found):
        _say(console, line)


def _show_unfit(console: Console, found: Recommendation, unfit: Sequence[Candidate]) -> None:
    if unfit:
        console.print(Text(f"\nNot at {found.context_tokens:,} tokens on the {found.card.name}", style="bold"))
    for one in unfit:
        _say(console, f"{one.name}: {memory(one, found)}")


def _say(console: Console, text: str) -> None:
    console.print(Padding(Text(text), (0, 0, 0, 3)))
