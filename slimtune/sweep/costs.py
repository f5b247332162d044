"""What serving takes, in sentences: dollars a million requests, a month, and where those figures come from."""

import math

from slimtune.gpus import PRICES_AS_OF
from slimtune.plan.cost import HOURS_A_MONTH, MILLION, Throughput, break_even
from slimtune.report.text import usd
from slimtune.sweep.recommend import Candidate, Recommendation
from slimtune.wording import listed


def serving(one: Candidate) -> str:
    """Dollars for a million requests; requests a second where the card has no price."""
    if one.speed is None:
        return "16-bit weights leave no room to serve on this card"
    if one.serving is None:
        return f"{_range(one.speed.low, one.speed.high)} requests/s when full ({_how(one.speed)}); no price is known"
    dollars = _usd_range(one.serving.low_usd, one.serving.high_usd)
    return f"{dollars} a million requests at {one.serving.utilisation:.0%} utilisation ({_how(one.speed)})"


def monthly(found: Recommendation, requests: int, api_usd_a_request: float | None) -> tuple[str, ...]:
    """What so many requests a month take with the first choice that can be served there, and from how many on that
    beats a service."""
    first = found.ranked[0] if found.ranked else None
    served = next((one for one in found.ranked if one.serving), None)
    if served is None:
        return (f"What a month costs is not known: {_uncosted(first, found)}",)
    which = served.name if served is first else f"{served.name}, the first of these that can be served there"
    hourly, cost = found.hourly_usd, served.serving
    month_s, rates = HOURS_A_MONTH * 3600, (cost.throughput.high, cost.throughput.low)
    cards = [math.ceil(requests / (rate * month_s * cost.utilisation)) for rate in rates]
    busy = [100 * requests / (rate * month_s * count) for rate, count in zip(rates, cards, strict=True)]
    month = [count * hourly * HOURS_A_MONTH for count in cards]
    lines = [
        f"{requests:,} requests a month with {which}: {_whole_range(*cards)} card"
        f"{'' if cards == [1, 1] else 's'} around the clock, {_usd_range(*month)} at ${hourly:.2f} an hour "
        f"({_how(cost.throughput)}), each busy {_range(*sorted(busy))}% of the time."
    ]
    if api_usd_a_request is None:
        return (*lines, "A service to compare with: no own cell tells what one costs. Give --api-usd-per-m.")
    if api_usd_a_request == 0:
        return (*lines, "A service that costs nothing: no card beats it.")
    even = break_even(hourly, api_usd_a_request, cost.throughput, utilisation=cost.utilisation)
    lines.append(
        f"A service at {usd(api_usd_a_request * MILLION)} a million: {usd(requests * api_usd_a_request)}. One card "
        f"beats it from {even.requests:,.0f} requests a month on{_reached(even.certain, even.possible)}"
    )
    return tuple(lines)


def where_from(found: Recommendation) -> tuple[str, ...]:
    """Where what serving takes is from: the throughput, and the dollars."""
    kinds = _kinds({one.speed.measured for one in found.ranked if one.speed})
    return (*kinds, _priced_by(found)) if found.ranked else ()


def _kinds(measured: set[bool]) -> list[str]:
    if measured == {True, False}:
        return [
            "Speed and cost of serving are of two kinds, which do not compare: measured is plain generation without a "
            "server, estimated is a full server by the card's data sheet."
        ]
    if measured == {True}:
        return ["Speed and cost of serving were measured in plain generation: what a server does is not known."]
    return ["Speed and cost of serving are estimated from the card's data sheet, not measured."] if measured else []


def _priced_by(found: Recommendation) -> str:
    """Where the dollars come from."""
    if found.hourly_usd is None:
        return f"No hourly price of a {found.card.name} is known here, so there are no dollars."
    if found.spec and found.spec.hourly_usd == found.hourly_usd:
        return f"Prices of cards are of {PRICES_AS_OF}."
    return f"${found.hourly_usd:.2f} an hour for the card is what was given."


def _uncosted(first: Candidate | None, found: Recommendation) -> str:
    """What there is no month's cost for want of: a choice, a price, a throughput."""
    if first is None:
        return "nothing is recommended."
    lacking, card = [], found.card.name
    if found.hourly_usd is None:
        lacking.append(f"no hourly price of a {card} is known here (give --usd-per-hour)")
    if first.speed is None:
        why = f"16-bit weights leave no room to serve on a {card}" if found.spec else f"a {card} is not listed"
        lacking.append(f"{first.name} has no throughput ({why})")
    return f"{listed(lacking)}."


def _how(speed: Throughput) -> str:
    """Of which kind a throughput is: one that was measured, without a server, is not to be set beside an estimate."""
    return f"{speed.how} in plain generation, not by a server, which answers more" if speed.measured else speed.how


def _reached(certain: bool, possible: bool) -> str:
    if certain:
        return ", and serves that many."
    return ", if it serves that many: at the low end it does not." if possible else "; but it cannot serve that many."


def _range(low: float, high: float) -> str:
    return _digits(low) if math.isclose(low, high) else f"{_digits(low)} to {_digits(high)}"


def _digits(value: float) -> str:
    """Two digits that count, and no powers of ten."""
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 10 else f"{value:.2g}"


def _whole_range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _usd_range(low: float, high: float) -> str:
    return usd(low) if math.isclose(low, high) else f"{usd(low)} to {usd(high)}"
