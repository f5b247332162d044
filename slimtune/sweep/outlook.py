"""What a study would take, card by card, before anything is downloaded: hours, dollars, and what does not fit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from slimtune.errors import UserError
from slimtune.forecast import Forecast, forecast_recipe
from slimtune.gpus import GpuSpec
from slimtune.sweep.asked import Asked


@dataclass(frozen=True)
class Misfit:
    """One contestant on one task that does not train on a card, and why."""

    contestant: str
    task: str
    why: str


@dataclass(frozen=True)
class Outlook:
    """One card. `hours` and `usd` are (low, high), of training alone: scoring comes on top, and takes as long again
    where answers are long. `usd` None: no price is known."""

    card: GpuSpec
    fits: int
    hours: tuple[float, float]
    usd: tuple[float, float] | None
    misfits: tuple[Misfit, ...]


def outlooks(cells: Sequence[Asked], cards: Iterable[GpuSpec]) -> list[Outlook]:
    """One for each card. Cells of served models, and those whose data are away, are not in it."""
    return [_outlook([cell for cell in cells if cell.ready is not None], card) for card in cards]


def fitting_cards(cells: Sequence[Asked], cards: Iterable[GpuSpec]) -> list[GpuSpec]:
    """The cards on which every one of these cells trains."""
    return [one.card for one in outlooks(cells, cards) if not one.misfits]


def _outlook(cells: Sequence[Asked], card: GpuSpec) -> Outlook:
    """Seeds take the same: each contestant and task is planned once."""
    planned: dict[tuple[str, str], Forecast | str] = {}
    for cell in cells:
        place = (cell.contestant, cell.task)
        if place not in planned:
            planned[place] = _forecast(cell, card)
    found = [planned[cell.contestant, cell.task] for cell in cells]
    speeds = [one.speed for one in found if isinstance(one, Forecast) and one.speed is not None]
    low, high = (sum(speed.hours[end] for speed in speeds) for end in (1, 0))
    price = card.hourly_usd
    misfits = tuple(Misfit(*place, why) for place, why in planned.items() if isinstance(why, str))
    usd = None if price is None else (low * price, high * price)
    return Outlook(card, len(speeds), (low, high), usd, misfits)


def _forecast(cell: Asked, card: GpuSpec) -> Forecast | str:
    try:
        return forecast_recipe(cell.ready, card)
    except UserError as error:
        return str(error)
