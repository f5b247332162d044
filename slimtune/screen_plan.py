"""How a plan looks on the terminal: what fits and why, the parts of the peak, what else the job takes; and the table of
every model."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from slimtune.forecast import BATCH, EPOCHS, EXAMPLES, RANK, ROW_TOKENS, Forecast, Line
from slimtune.gpus import PRICES_AS_OF
from slimtune.plan.memory import constants
from slimtune.wording import counted, detectable_words, weights

_COARSE = 0.1  # a difference that most tunings do not reach


def show_plan(console: Console, plan: Any) -> None:
    """The plan alone: settings, peak, reasons."""
    console.print("\n[bold]Plan[/bold]")
    _say(
        console,
        f"{plan.gpu or 'no GPU: the CPU'}, {weights(plan.precision, plan.quantisation, gpu=plan.gpu)}, "
        f"{plan.collation} batches, "
        f"{counted(plan.steps, 'step')} of {plan.micro_batch} x {plan.accumulation} rows",
    )
    peak = plan.peak_gib
    _say(
        console,
        f"memory {peak['expected']:.1f} GiB expected ({peak['low']:.1f} to {peak['high']:.1f}) of "
        f"{plan.room_gib:.1f} to fill",
    )
    for note in plan.notes:
        _say(console, note, style="dim")


def show_forecast(console: Console, forecast: Forecast) -> None:
    """The plan and what follows from it."""
    console.print(f"[bold]{escape(forecast.spec.label)}[/bold]")
    show_plan(console, forecast.plan)
    table = Table.grid(padding=(0, 2))
    for name, size in forecast.plan.parts_gib.items():
        table.add_row(f"  {name}", f"{size:.2f} GiB", "█" * round(40 * size / forecast.plan.room_gib))
    console.print(table)
    _show_error(console, forecast)
    _show_alternatives(console, forecast)
    for process in getattr(forecast.card, "processes", ()):
        used = "" if process.used_gib is None else f", {process.used_gib:.1f} GiB"
        _say(console, f"Also on the card: process {process.pid}{used}.")
    _show_job(console, forecast)


def show_measured(console: Console, forecast: Forecast, measured: Any) -> None:
    """Predicted against measured."""
    predicted = forecast.plan.peak_gib["expected"]
    console.print(
        f"\n[bold]Measured here[/bold] with random weights: {measured.reserved_gib:.2f} GiB, predicted {predicted:.2f} "
        f"({predicted / measured.reserved_gib - 1:+.1%}); {measured.allocated_gib:.2f} GiB of it in use. "
        f"{measured.seconds:.1f} s for the steps, gradient norm {measured.grad_norm:.3g}."
    )


def show_all(console: Console, card: Any, lines: Sequence[Line]) -> None:
    """Every model on one card."""
    price = getattr(card, "hourly_usd", None)
    numbers = ("GiB", "reach", "rows/s", "hours", *(("USD",) if price else ()))
    table = Table(header_style="dim", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("model", "settings", *numbers):
        table.add_column(name, justify="right" if name in numbers else "left", no_wrap=True)
    for line in lines:
        table.add_row(*_cells(line)[: 2 + len(numbers)])
    console.print(
        f"[bold]{escape(card.name)}[/bold]: {EXAMPLES:,} rows of {ROW_TOKENS:,} tokens x {EPOCHS:g} epochs, "
        f"LoRA rank {RANK}, batch {BATCH}, as a recipe has them by default"
    )
    console.print(table)
    console.print(
        "ckpt: with gradient checkpointing. reach: the longest row that trains, in tokens, and beyond the model's own "
        "context can be asked. Speed, hours and dollars are estimated, not measured on this card.",
        style="dim",
    )
    money = f"USD {price:.2f} an hour, as of {PRICES_AS_OF}." if price else "No hourly price is known for this card."
    console.print(money, style="dim")
    for why in dict.fromkeys(line.spec.untrainable for line in lines if not line.spec.trainable):
        console.print(f"planned only: {why}", style="dim")


def _cells(line: Line) -> tuple[str, ...]:
    longest = f"{line.longest_context // 1024}k" if line.longest_context else ""
    if line.plan is None:
        return line.spec.key, line.why, "", longest, "", "", ""
    speed, plan = line.speed, line.plan
    numbers = ("", "", "") if speed is None else (_range(speed.examples_per_s), _range(speed.hours), _range(speed.usd))
    ways = f"{plan.precision} {plan.quantisation}{' ckpt' * plan.checkpointing}"
    return line.spec.key, ways, f"{plan.peak_gib['expected']:.1f}", longest, *numbers


def _range(ends: tuple[float, float] | None) -> str:
    if ends is None:
        return "-"
    low, high = sorted(ends)
    return f"{_short(low)}-{_short(high)}"


def _short(number: float) -> str:
    """In three characters, but for large numbers: 120, 4.2, .13, .02; less than .005 in two digits."""
    if 0 < number < 0.005:
        return f"{number:.1g}".lstrip("0")
    return f"{number:.0f}" if number >= 9.95 else f"{number:.1f}" if number >= 0.95 else f"{number:.2f}".lstrip("0")


def _show_error(console: Console, forecast: Forecast) -> None:
    if forecast.card is None:
        return
    held_out = constants().held_out
    _say(
        console,
        f"Against {held_out['rows']} measured settings that were not used in fitting, the expected peak was off by "
        f"{held_out['median']:.1%} (median) and {held_out['worst']:.1%} (worst).",
        style="dim",
    )


def _show_alternatives(console: Console, forecast: Forecast) -> None:
    """What was not chosen, and what it would cost."""
    if forecast.card is None or not forecast.plan.alternatives:
        return
    table = Table(header_style="dim", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("  instead")
    table.add_column("speed", justify="right")
    table.add_column("GiB, up to", justify="right")
    table.add_column("along with it")
    for other in forecast.plan.alternatives:
        memory = f"{other.high_gib:.1f}" if other.fits else f"{other.high_gib:.1f}: does not fit"
        table.add_row(f"  {other.how}", f"{other.share:.0%}" if other.fits else "-", memory, other.along)
    console.print()
    console.print(table)


def _show_job(console: Console, forecast: Forecast) -> None:
    disk = ", ".join(f"{name} {size:.1f}" for name, size in forecast.disk_gib.items() if size >= 0.05)
    console.print()
    _say(console, f"disk GiB: {disk or 'under 0.1'}")
    if forecast.card is not None:
        _say(console, f"host memory: {forecast.ram_gib:.0f} GiB")
    if forecast.speed is not None:
        speed = forecast.speed
        usd = "" if speed.usd is None else f", USD {_range(speed.usd)} at prices of {PRICES_AS_OF}"
        _say(
            console,
            f"{_range(speed.examples_per_s)} examples/s, {_range(speed.hours)} hours{usd}: estimated, not measured "
            "on this card",
        )
    if forecast.detectable is not None:
        _say(console, detectable_words(forecast.test_rows, forecast.detectable, noun=forecast.scored_noun))


def show_ready(console: Console, test_rows: int, difference: float, *, noun: str) -> None:
    """The last line, with what so few rows cannot show."""
    words = detectable_words(test_rows, difference, noun=noun)
    if difference <= _COARSE:
        console.print(f"{words}\n[green]Ready to run.[/green]")
    else:
        console.print(f"[yellow]Ready to run, but the result will say little:[/yellow] {words}")


def _say(console: Console, text: str, style: str = "") -> None:
    """A paragraph that stays indented where it wraps."""
    console.print(Padding(Text(text, style=style), (0, 0, 0, 2)))
