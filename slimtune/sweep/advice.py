"""A recommendation in sentences: what to take, why, and what is not known."""

from collections.abc import Sequence

from slimtune.published import published_edition
from slimtune.report.text import signed
from slimtune.sweep.costs import where_from
from slimtune.sweep.recommend import Candidate, Recommendation
from slimtune.tasks.task import TEST
from slimtune.wording import counted, in_common, listed

_MOST_NAMED = 3
_NEAR = {
    "asked": "own cells on {tasks}",
    "kind": "own cells on other tasks of its kind ({tasks})",
    "other": "own cells on other kinds of task ({tasks}), which say less",
}


def headline(found: Recommendation) -> str:
    """Take X; Y is tied and so much the price to serve; Z fits only so far. And what was not tried."""
    if not found.ranked:
        return f"Nothing to recommend: of no model that fits the {found.card.name} is anything known."
    first, idle = found.ranked[0], _idle(found)
    if first.score and not first.learned:
        return f"{idle}Nothing speaks for another: no other model that fits the {found.card.name} has a printed rank."
    parts = [f"{idle}Take {first.name} for {found.about} on the {found.card.name}"]
    tied = [one for one in found.ranked[1:] if one.tied]
    if found.spec and first.speed is None:
        parts.append("its 16-bit weights leave no room to serve it there")
    if tied:
        parts.append(_tied(first, tied, served=found.spec is not None))
    short = [one for one in found.unfit if one.printed and one.line.longest_context]
    parts += [f"{one.name} {_reach(one, found)}" for one in short[:_MOST_NAMED]]
    return f"{'; '.join(parts)}.{_untried(found)}"


def evidence(one: Candidate, found: Recommendation) -> str:
    """What speaks for a candidate, and how surely."""
    if one.score is not None:
        seeds = f", {counted(one.seeds, 'seed')}"
        noun = "row" if found.evidence.scored_on == TEST else f"{found.evidence.scored_on} row"
        rows = f"{counted(one.score.n, noun)} of {', '.join(found.evidence.tasks)}"
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
        return _unfit(one, found)
    stretched = f", past {_k(one.spec.native_context)} by YaRN" if reach > one.spec.native_context else ""
    ways = f"{plan.precision} {plan.quantisation}{', checkpointing' * plan.checkpointing}"
    return (
        f"trains at {found.context_tokens:,} tokens in {plan.peak_gib['expected']:.1f} of {plan.room_gib:.1f} GiB "
        f"({ways}); the longest row: {_k(reach)} tokens{stretched}"
    )


def unknown(found: Recommendation) -> tuple[str, ...]:
    """What the answer does not rest on."""
    lines, own = [], found.evidence
    if own is None:
        why = "no own contestant can be ranked" if found.passed_over else f"nothing was measured on {found.about}"
        lines.append(
            f"No own cell to go by: {why}. Printed ranks are means over other people's mixed tasks; a sweep over the "
            "first few here would tell."
        )
    elif own.near != "asked":
        lines.append(f"No contestant that is ranked has a cell on {found.about}: this is ranked by {near(found)}.")
    if own is not None and any(one.seeds < 2 for one in found.ranked if one.score):
        lines.append("One seed a cell: how much of a difference is the luck of training is not known.")
    if found.request_from:
        about = f"{found.request.prompt_tokens:,.0f} tokens in and {found.request.answer_tokens:,.0f} out"
        lines.append(f"How long requests are: {about} are {found.request_from}.")
    lines += where_from(found)
    if found.untold:
        lines.append(f"They fit, and neither own cells nor printed ranks tell of them: {_named(found.untold)}.")
    return tuple(lines)


def set_aside(found: Recommendation) -> tuple[str, ...]:
    """The own contestants that are not ranked or come last, by the reason."""
    reasons: dict[str, list[str]] = {}
    for one in found.passed_over:
        reasons.setdefault(f"Not ranked ({one.why})", []).append(one.name)
    for one in found.ranked:
        if one.score and not one.learned:
            reasons.setdefault("Ranked last (no clear gain from tuning)", []).append(one.name)
    return tuple(f"{why}: {_alike(names)}." for why, names in reasons.items())


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
    aside = own and found.evidence.near == "other" and not found.ranked[0].score
    if not own or aside or any(one.learned for one in own):
        return ""
    tasks, more, than = ", ".join(found.evidence.tasks), len(own) - _MOST_NAMED, {one.untuned for one in own}
    names = f"{_alike([one.name for one in own[:_MOST_NAMED]])}{f' and {more} more' if more > 0 else ''}"
    return f"No own contestant clearly beat {than.pop() if len(than) == 1 else 'its own base'} on {tasks} ({names}). "


def _tied(first: Candidate, tied: Sequence[Candidate], *, served: bool) -> str:
    """Who cannot be told apart from the first; where the card cannot serve that one, which of them it can."""
    can = next((one for one in tied if one.speed), None) if served and first.speed is None else None
    shown = list(tied[:_MOST_NAMED])
    if can and can not in shown:
        shown[-1] = can
    alike = in_common([first.name, *(one.name for one in tied)])
    names = [
        f"{one.name.removeprefix(alike)}{' (which can be served there)' if one is can else _dearer(first, one)}"
        for one in shown
    ]
    names += [f"{len(tied) - _MOST_NAMED} more"] if len(tied) > _MOST_NAMED else []
    word = "statistically tied with it" if first.score else "not told apart from it by the printed intervals"
    return f"{listed(names)} {'is' if len(tied) == 1 else 'are'} {word}"


def _untried(found: Recommendation) -> str:
    """Where own cells lead: that others have printed ranks and no own cell, so that nothing sets them against these."""
    untried = [one for one in found.ranked if one.printed and not one.score]
    if not untried or not found.ranked[0].score:
        return ""
    which = "this task" if len(found.evidence.tasks) == 1 else "these tasks"
    more = f", the best placed of them by printed ranks, and {len(untried) - 1} more that fit" if untried[1:] else ""
    return f" Not tried on {which}, and maybe better: {untried[0].name}{more or ', which fits and has a printed rank'}."


def _unfit(one: Candidate, found: Recommendation) -> str:
    """Why it does not train as asked: longer than it is made for, or more than the card holds."""
    reach, native = one.line.longest_context, one.spec.native_context
    if found.context_tokens <= native:
        return f"{one.line.why}; {f'alone, a row of up to {_k(reach)} tokens trains' if reach else 'no row trains'}"
    stretched = "stretched by YaRN, " if reach > native else ""
    here = f"{stretched}rows of up to {_k(reach)} train on this card" if reach else "no row trains on this card"
    here = "all of them train on this card" if reach == native else here
    return f"made for rows of up to {_k(native)} tokens; {here}"


def _reach(one: Candidate, found: Recommendation) -> str:
    if found.context_tokens > one.spec.native_context:
        return f"is made for rows of up to {_k(one.spec.native_context)} tokens"
    return f"fits only up to {_k(one.line.longest_context)} tokens"


def _gained(one: Candidate) -> str:
    """What training changed, and that it says nothing where that could be nothing."""
    if one.gain is None:
        return "; what it gained from tuning is not known, its base was not scored"
    said = f"; {signed(one.gain, 3)} to {one.untuned}"
    if one.gain.high < 0:
        return f"{said}: worse than without tuning"
    return said if one.learned else f"{said}: no clear gain from tuning"


def _apart(one: Candidate) -> str:
    if one.difference is None:
        return ""
    said = f"; {signed(one.difference, 3)} to the first"
    if not one.tied:
        return f"{said}: behind"
    if one.separation is None:
        return f"{said}: level here, so how many rows would part them is not known"
    if one.separation.more == 0:
        return f"{said}: tied"
    return f"{said}: tied; about {one.separation.more:,} more test rows would part them, if that is the true difference"


def _dearer(first: Candidate, one: Candidate) -> str:
    """How dear it is to serve beside the first; nothing where the two are not known in the same way. However a model
    was trained, it costs the same."""
    if first.speed and first.spec.key == one.spec.key:
        return " (as dear to serve)"
    if first.speed is None or one.speed is None or first.speed.measured != one.speed.measured:
        return ""
    ratio = first.speed.high / one.speed.high
    how = "measured without a server" if one.speed.measured else "estimated"
    if 0.9 <= ratio <= 1.1:
        return f" (about as dear to serve, {how})"
    words = f"{ratio:.0%} of the price" if ratio < 2 else f"{ratio:.1f} times as dear"
    return f" ({words} to serve, {how})"


def _k(tokens: int) -> str:
    return f"{tokens // 1024}k" if tokens >= 1024 else str(tokens)


def _alike(names: Sequence[str]) -> str:
    """Names of contestants; what all begin with is said once."""
    return "; ".join((*names[:1], *(name.removeprefix(in_common(names)) for name in names[1:])))


def _named(some: Sequence[Candidate]) -> str:
    return ", ".join(one.name for one in some)
