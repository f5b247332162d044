"""What a study would take, card by card, before anything is downloaded: hours, dollars, and what does not fit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from slimtune.errors import UserError
from slimtune.forecast import Forecast, forecast_recipe
from slimtune.gpus import GpuSpec
from slimtune.sweep.asked import Asked
from slimtune.sweep.scoring import Side, scoring_s, sides_of

Ends = tuple[float, float]
"""Low and high."""


@dataclass(frozen=True)
class Misfit:
    """One contestant on one task that does not train on a card, and why."""

    contestant: str
    task: str
    why: str


@dataclass(frozen=True)
class Outlook:
    """One card, and (low, high) of what its cells take one after the other. Downloads and loading come on top. `usd`
    None: no price is known."""

    card: GpuSpec
    fits: int
    training_hours: Ends
    scoring_hours: Ends
    usd: Ends | None
    misfits: tuple[Misfit, ...]

    @property
    def hours(self) -> Ends:
        """Of training and scoring."""
        return _ends((self.training_hours, self.scoring_hours))


def outlooks(cells: Sequence[Asked], cards: Iterable[GpuSpec], *, usd_per_hour: float | None = None) -> list[Outlook]:
    """One for each card, at `usd_per_hour` or its price in the list. Cells of served models, and those whose data are
    away, are not in it."""
    planned = [cell for cell in cells if cell.ready is not None]
    sides = {(cell.contestant, cell.task): sides_of(cell.ready) for cell in _once(planned)}
    return [_outlook(planned, sides, card, usd_per_hour) for card in cards]


def fitting_cards(cells: Sequence[Asked], cards: Iterable[GpuSpec]) -> list[GpuSpec]:
    """The cards on which every one of these cells trains."""
    planned = _once([cell for cell in cells if cell.ready is not None])
    return [card for card in cards if all(isinstance(_forecast(cell, card), Forecast) for cell in planned)]


def _once(cells: Sequence[Asked]) -> list[Asked]:
    """One of each contestant and task: seeds take the same."""
    return list({(cell.contestant, cell.task): cell for cell in cells}.values())


def _outlook(
    cells: Sequence[Asked], sides: dict[tuple[str, str], dict[str, Side]], card: GpuSpec, usd_per_hour: float | None
) -> Outlook:
    planned = {(cell.contestant, cell.task): _forecast(cell, card) for cell in _once(cells)}
    misfits = tuple(Misfit(*place, why) for place, why in planned.items() if isinstance(why, str))
    fitting = [cell for cell in cells if isinstance(planned[cell.contestant, cell.task], Forecast)]
    speeds = [planned[cell.contestant, cell.task].speed for cell in fitting]
    training = _ends([(speed.hours[1], speed.hours[0]) for speed in speeds if speed is not None])
    asked: dict[tuple[object, ...], Ends] = {}
    for cell in fitting:
        asked |= _scoring(cell, sides[cell.contestant, cell.task], planned[cell.contestant, cell.task])
    scoring = _ends(asked.values())
    price = card.hourly_usd if usd_per_hour is None else usd_per_hour
    low, high = _ends((training, scoring))
    usd = None if price is None else (low * price, high * price)
    return Outlook(card, len(fitting), training, scoring, usd, misfits)


def _scoring(cell: Asked, sides: dict[str, Side], forecast: Forecast) -> dict[tuple[object, ...], Ends]:
    """Hours of each side, by what it is of: a score of the untrained model is kept for the next cell that asks it the
    same; worked examples are of a seed's own rows."""
    plan, train = forecast.plan, cell.ready.task.train
    same = (cell.model, cell.task, plan.setting.quantisation)
    kept = {"base": same, "few_shot": (*same, cell.seed, len(train)), "tuned": (cell.fingerprint,)}
    found = {}
    for name, side in sides.items():
        slow_s, fast_s = scoring_s(side, cell.ready.spec, plan.setting, forecast.card)
        found[name, side, *kept[name]] = (fast_s / 3600, slow_s / 3600)
    return found


def _ends(found: Iterable[Ends]) -> Ends:
    found = list(found)
    return sum(low for low, _ in found), sum(high for _, high in found)


def _forecast(cell: Asked, card: GpuSpec) -> Forecast | str:
    try:
        return forecast_recipe(cell.ready, card)
    except UserError as error:
        return str(error)
