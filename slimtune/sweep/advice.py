"""A recommendation in sentences: what to take, why, what it costs a month, and what is not known."""

import math
from collections.abc import Sequence

from slimtune.gpus import PRICES_AS_OF
from slimtune.plan.cost import HOURS_A_MONTH, MILLION, break_even
from slimtune.published import published_edition
from slimtune.report.text import signed, usd
from slimtune.sweep.recommend import Candidate, Recommendation
from slimtune.wording import counted, listed

_MOST_NAMED = 3
_NEAR = {
    "task": "own cells on {tasks}",
    "kind": "own cells on other tasks of the kind ({tasks})",
    "other": "own cells on other kinds of task ({tasks}), which say less",
}


def headline(found: Recommendation) -> str:
    """Take X; Y is tied and so much the price to serve; Z fits only so far."""
    if not found.ranked:
        return f"Nothing to recommend: of no model that fits the {found.card.name} is anything known."
    first, idle = found.ranked[0], _idle(found)
    if first.score and not first.learned:
        return f"{idle}Nothing speaks for one: no rank is printed of a model that fits the {found.card.name}."
    parts = [f"{idle}Take {first.name} for {found.about} on the {found.card.name}"]
    tied = [one for one in found.ranked[1:] if one.tied]
    if found.spec and first.speed is None:
        parts.append(_unserved(tied))
    if tied:
        names = [f"{one.name}{_dearer(first, one)}" for one in tied[:_MOST_NAMED]]
        names += [f"{len(tied) - _MOST_NAMED} more"] if len(tied) > _MOST_NAMED else []
        word = "statistically tied with it" if first.score else "not told apart from it by the printed intervals"
        parts.append(f"{listed(names)} {'is' if len(tied) == 1 else 'are'} {word}")
    short = [one for one in found.unfit if one.printed and one.line.longest_context]
    parts += [f"{one.name} fits only up to {_k(one.line.longest_context)} tokens" for one in short[:_MOST_NAMED]]
    return "; ".join(parts) + "."


def evidence(one: Candidate, found: Recommendation) -> str:
    """What speaks for a candidate, and how surely."""
    if one.score is not None:
        seeds = f", {counted(one.seeds, 'seed')}"
        rows = f"{counted(one.score.n, 'row')} of {', '.join(found.evidence.tasks)}"
        return f"{one.score} over {rows}{seeds}{_gained(one)}{_apart(one)}"
    if one.printed is None:
        return "nothing is known of it"
    printed, edition = one.printed, published_edition(one.printed.edition)
    half = (
        f" \u00b1{printed.half:.2f} (with Student's t \u00b1{printed.t_half:.2f})"
        if printed.half
        else " (no interval printed)"
    )
    return f"printed mean rank {printed.mean:.2f}{half} of {len(edition.models)} models, {edition.published}"


def memory(one: Candidate, found: Recommendation) -> str:
    """Whether it trains on the card, how, and how far."""
    plan, reach = one.line.plan, one.line.longest_context
    if plan is None:
        return f"{one.line.why}; {f'alone, a row of up to {_k(reach)} tokens trains' if reach else 'no row trains'}"
    ways = f"{plan.precision} {plan.quantisation}{', checkpointing' * plan.checkpointing}"
    return (
        f"trains at {found.context_tokens:,} tokens in {plan.peak_gib['expected']:.1f} of {plan.room_gib:.1f} GiB "
        f"({ways}); the longest row: {_k(reach)} tokens"
    )


def serving(one: Candidate) -> str:
    """Dollars for a million requests; requests a second where the card has no price."""
    if one.speed is None:
        return "16-bit weights leave no room to serve on this card"
    if one.serving is None:
        return f"{_range(one.speed.low, one.speed.high)} requests/s when full ({one.speed.how}); no price is known"
    dollars = _usd_range(one.serving.low_usd, one.serving.high_usd)
    return f"{dollars} a million requests at {one.serving.utilisation:.0%} utilisation ({one.speed.how})"


def monthly(found: Recommendation, requests: int, api_usd_a_request: float | None) -> tuple[str, ...]:
    """What so many requests a month take with the first choice, and from how many on that beats a service."""
    first = found.ranked[0] if found.ranked else None
    if first is None or first.serving is None:
        return (f"What a month costs is not known: {_uncosted(first, found)}",)
    hourly, cost = found.hourly_usd, first.serving
    seconds = HOURS_A_MONTH * 3600 * cost.utilisation
    cards = [math.ceil(requests / (rate * seconds)) for rate in (cost.throughput.high, cost.throughput.low)]
    month = [count * hourly * HOURS_A_MONTH for count in cards]
    lines = [
        f"{requests:,} requests a month with {first.name}: {_whole_range(*cards)} card"
        f"{'' if cards == [1, 1] else 's'} around the clock, {_usd_range(*month)} at ${hourly:.2f} an hour."
    ]
    if api_usd_a_request is None:
        return (*lines, "A service to compare with: no own cell tells what one costs. Give --api-usd-per-m.")
    even = break_even(hourly, api_usd_a_request, cost.throughput, utilisation=cost.utilisation)
    lines.append(
        f"A service at {usd(api_usd_a_request * MILLION)} a million: {usd(requests * api_usd_a_request)}. One card "
        f"beats it from {even.requests:,.0f} requests a month on{_reached(even.certain, even.possible)}"
    )
    return tuple(lines)


def unknown(found: Recommendation) -> tuple[str, ...]:
    """What the answer does not rest on."""
    lines, own = [], found.evidence
    if own is None:
        lines.append(
            f"No own cell: nothing was measured on {found.about}. Printed ranks are means over other people's mixed "
            "tasks; a sweep over the first few here would tell."
        )
    elif own.near != "task":
        lines.append(f"No own cell on {found.about} itself: this is ranked by {near(found)}.")
    if found.left_out:
        lines.append(
            f"Own contestants that are not ranked here: {', '.join(found.left_out)}. Their model is not listed, too "
            f"large or does not fit, or they lack a cell on {', '.join(own.tasks) if own else 'any task'}."
        )
    if own is not None and any(one.seeds < 2 for one in found.ranked if one.score):
        lines.append("One seed a cell: how much of a difference is the luck of training is not known.")
    if found.assumed_request:
        about = f"{found.request.prompt_tokens:,.0f} tokens in and {found.request.answer_tokens:,.0f} out"
        lines.append(f"How long requests are: {about} are assumed.")
    if any(one.speed and not one.speed.measured for one in found.ranked):
        lines.append("Speed and cost of serving are estimated from the card's data sheet, not measured.")
    if found.ranked:
        lines.append(_priced_by(found))
    if found.untold:
        lines.append(f"They fit, and neither own cells nor printed ranks tell of them: {_named(found.untold)}.")
    return tuple(lines)


def near(found: Recommendation) -> str:
    """What the ranking rests on, the first thing first."""
    own, printed = found.evidence, "printed ranks"
    if own is None:
        return printed
    cells, first = _NEAR[own.near].format(tasks=", ".join(own.tasks)), found.ranked[0]
    return f"{cells}, then by {printed}" if first.score else f"{printed}, then by {cells}"


def _idle(found: Recommendation) -> str:
    """That none of the own contestants learned anything that can be told from nothing."""
    own = [one for one in found.ranked if one.score]
    if not own or any(one.learned for one in own):
        return ""
    tasks, more = ", ".join(found.evidence.tasks), len(own) - _MOST_NAMED
    names = f"{_named(own[:_MOST_NAMED])}{f' and {more} more' if more > 0 else ''}"
    return f"No own contestant clearly gained from tuning on {tasks} ({names}). "


def _unserved(tied: Sequence[Candidate]) -> str:
    """Of a first choice that the card trains and cannot serve: which of those tied with it it can."""
    can = next((one for one in tied if one.speed), None)
    other = f", where {can.name}, tied with it, can be served" if can else ""
    return f"its 16-bit weights leave no room to serve it there{other}"


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


def _priced_by(found: Recommendation) -> str:
    """Where the dollars come from."""
    if found.hourly_usd is None:
        return f"No hourly price of a {found.card.name} is known here, so there are no dollars."
    if found.spec and found.spec.hourly_usd == found.hourly_usd:
        return f"Prices of cards are of {PRICES_AS_OF}."
    return f"${found.hourly_usd:.2f} an hour for the card is what was given."


def _gained(one: Candidate) -> str:
    """What training changed, and that it says nothing where that could be nothing."""
    if one.gain is None:
        return "; what it gained from tuning is not known, its base was not scored"
    said = f"; {signed(one.gain, 3)} to its own base"
    return said if one.learned else f"{said}: no clear gain from tuning"


def _apart(one: Candidate) -> str:
    if one.difference is None:
        return ""
    said = f"; {signed(one.difference, 3)} to the first"
    if not one.tied:
        return f"{said}: behind"
    if one.separation is None:
        return f"{said}: level, and no number of rows would part them"
    if one.separation.more == 0:
        return f"{said}: tied"
    return f"{said}: tied; about {one.separation.more:,} more test rows would part them, if that is the true difference"


def _dearer(first: Candidate, one: Candidate) -> str:
    """How dear it is to serve beside the first; nothing where the two are not known in the same way."""
    if first.speed is None or one.speed is None or first.speed.measured != one.speed.measured:
        return ""
    ratio, how = first.speed.high / one.speed.high, "measured" if one.speed.measured else "estimated"
    if 0.9 <= ratio <= 1.1:
        return f" (about as dear to serve, {how})"
    words = f"{ratio:.0%} of the price" if ratio < 2 else f"{ratio:.1f} times as dear"
    return f" ({words} to serve, {how})"


def _reached(certain: bool, possible: bool) -> str:
    if certain:
        return ", and serves that many."
    return ", if it serves that many: at the low end it does not." if possible else "; but it cannot serve that many."


def _k(tokens: int) -> str:
    return f"{tokens // 1024}k" if tokens >= 1024 else str(tokens)


def _range(low: float, high: float) -> str:
    return _digits(low) if math.isclose(low, high) else f"{_digits(low)} to {_digits(high)}"


def _digits(value: float) -> str:
    """Two digits that count, and no powers of ten."""
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 10 else f"{value:.2g}"


def _whole_range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _usd_range(low: float, high: float) -> str:
    return usd(low) if math.isclose(low, high) else f"{usd(low)} to {usd(high)}"


def _named(some: Sequence[Candidate]) -> str:
    return ", ".join(one.name for one in some)
