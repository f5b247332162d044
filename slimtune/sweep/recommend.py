"""Which model to take, with reasons: own cells where there are any, printed ranks where not, the memory plan always.

Nothing is drawn at random but the resampling of the paired differences, with a fixed seed: the same question over the
same store gets the same answer. It says what it does not know.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from slimtune.errors import UserError
from slimtune.forecast import BATCH, EPOCHS, EXAMPLES, RANK, Card, Line, Load, answer_tokens, line_of, read_tokens
from slimtune.gpus import GpuSpec, detect_gpu, find_gpu, get_gpu
from slimtune.models import MODELS, ModelSpec, find_model
from slimtune.plan.cost import UTILISATION, Request, ServingCost, Throughput, estimate_throughput, serving_cost
from slimtune.published import PublishedRank
from slimtune.report.text import clean
from slimtune.stats import Interval, SeedNoise, Separation, holm, rows_to_separate, seed_noise
from slimtune.sweep.evidence import (
    Evidence,
    PassedOver,
    check_kind,
    guessed_request,
    kind_of,
    own_evidence,
    passed_over,
    printed_ranks,
    refuse_both,
    request_of,
    teacher_usd,
)
from slimtune.sweep.gather import SEED, Grid, gather
from slimtune.sweep.spent import rows_per_s
from slimtune.sweep.store import read_study
from slimtune.sweep.versus import Pair, compared, outcome
from slimtune.tasks.kinds import KINDS

_CONTEXT = 2048
_ASSUMED = Request(500, 50)  # where no own answer was measured
_UNITS = {"": 1, "m": 10**6, "b": 10**9}


@dataclass(frozen=True)
class Wish:
    """What the command line was given; None where nothing was said."""

    task: str | None = None
    kind: str | None = None
    gpu: str | None = None
    max_params: str | None = None
    context: str | None = None
    store: Path | None = None
    usd_per_hour: float | None = None


@dataclass(frozen=True)
class Candidate:
    """One choice. `line` is its memory plan. Own ones have a `score` and, where their base was scored, a `gain` over it
    on the same rows, prompted as it does better, which `untuned` says; those that follow a first own one a paired
    `difference` to it, whether they are `tied`, and what would part them. `speed` None: it does not fit a server on
    this card."""

    name: str
    spec: ModelSpec
    line: Line
    score: Interval | None = None
    gain: Interval | None = None
    untuned: str = ""
    seeds: int = 0
    printed: PublishedRank | None = None
    difference: Interval | None = None
    tied: bool = False
    separation: Separation | None = None
    speed: Throughput | None = None
    serving: ServingCost | None = None

    @property
    def fits(self) -> bool:
        return self.line.plan is not None

    @property
    def learned(self) -> bool:
        """An own one of which nothing says that its training did nothing: its gain is clear, or not known."""
        return self.score is not None and (self.gain is None or self.gain.low > 0)


@dataclass(frozen=True)
class Recommendation:
    """`ranked`: those that fit and of which something is known, the first to be taken. `unfit` do not fit as asked;
    `untold` fit, and nothing is known of them; `passed_over` are own contestants that are not ranked here.
    `request_from`: what lengths of requests are, if they were not measured; `usd_a_request`: what a served model cost
    here."""

    card: Card
    hourly_usd: float | None
    context_tokens: int
    about: str
    ranked: tuple[Candidate, ...]
    unfit: tuple[Candidate, ...]
    untold: tuple[Candidate, ...]
    evidence: Evidence | None
    passed_over: tuple[PassedOver, ...]
    request: Request
    request_from: str
    usd_a_request: float | None

    @property
    def spec(self) -> GpuSpec | None:
        """The card's data sheet; None where it is not listed."""
        return self.card.spec


def recommend(wish: Wish) -> Recommendation:
    """The answer. Raises UserError for a card, task, kind, size or store there is not, and where no card is known."""
    refuse_both(wish.task, wish.kind)
    card = get_gpu(wish.gpu) if wish.gpu else detect_gpu()
    if card is None:
        raise UserError("There is no GPU here to plan for. Name one: --gpu t4. `slimtune list gpus` has names.")
    grid = gather(read_study(wish.store)) if wish.store else None
    kind = check_kind(wish.kind) if wish.kind else kind_of(wish.task, grid) if wish.task else None
    context = read_tokens(wish.context) if wish.context else _CONTEXT
    specs = _specs(wish.max_params)
    lines = {key: line_of(spec, card, _load(context)) for key, spec in specs.items()}
    own = _own(grid, wish.task, kind, lines)
    request = _request(grid, own)
    guessed = guessed_request(wish.task) if wish.task and not request else None
    asked = request or guessed or _ASSUMED
    known = card.spec
    hourly = _hourly(wish.usd_per_hour, known)
    pairs = _candidates(grid, own, lines)
    speeds = [_speed(grid, own, one, known, asked) for one in pairs]
    priced = [_priced(one, speed, hourly) for one, speed in zip(pairs, speeds, strict=True)]
    return Recommendation(
        card=card,
        hourly_usd=hourly,
        context_tokens=context,
        about=clean(wish.task or "") or (f"{KINDS[kind].words} tasks" if kind else "any task"),
        ranked=tuple(one for one in priced if one.fits and (one.score or one.printed)),
        unfit=tuple(one for one in priced if not one.fits),
        untold=tuple(one for one in priced if one.fits and not one.score and not one.printed),
        evidence=own,
        passed_over=passed_over(grid, own, lines) if grid else (),
        request=asked,
        request_from="" if request else f"guessed from {clean(wish.task)}'s test rows" if guessed else "assumed",
        usd_a_request=teacher_usd(grid) if grid else None,
    )


def _hourly(given: float | None, card: GpuSpec | None) -> float | None:
    """Dollars an hour: what was given, else what is known of the card. Raises UserError for no price at all."""
    if given is None:
        return card.hourly_usd if card else None
    if not 0 < given < math.inf:
        raise UserError(f"--usd-per-hour has to be a price above 0, not {given}.")
    return given


def read_params(text: str) -> int:
    """2B, 500M or 1700000000 as a number of weights. Raises UserError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mb]?)", text.strip().lower())
    if not match or float(match[1]) <= 0:
        raise UserError(f"{text!r} is not a size of a model. Say it like 2B or 500M.")
    return round(float(match[1]) * _UNITS[match[2]])


def _specs(max_params: str | None) -> dict[str, ModelSpec]:
    most = read_params(max_params) if max_params else None
    found = {
        key: spec for key, spec in MODELS.items() if spec.trainable and (most is None or spec.params_total <= most)
    }
    if not found:
        raise UserError(
            f"No model that can be trained has at most {max_params} weights. `slimtune list models` has all."
        )
    return found


def _load(context: int) -> Load:
    return Load(EXAMPLES, EPOCHS, context, context, answer_tokens(context), RANK, BATCH)


def _own(grid: Grid | None, task: str | None, kind: str | None, lines: dict[str, Line]) -> Evidence | None:
    """Own evidence on contestants whose model is asked for and fits."""
    if grid is None:
        return None
    models = {name: entry.cells[0].model for (name, _), entry in grid.entries.items()}
    found = {name: find_model(models[name]) for name in grid.trained}
    among = [name for name, spec in found.items() if spec and (line := lines.get(spec.key)) and line.plan is not None]
    return own_evidence(grid, task=task, kind=kind, among=among)


def _candidates(grid: Grid | None, own: Evidence | None, lines: dict[str, Line]) -> list[Candidate]:
    """Own contestants by score, then models without an own one by printed rank, then the rest by size; last, own ones
    that did not clearly gain from tuning. What was measured on other kinds of task comes after printed ranks, and then
    a model may stand in both."""
    noise = seed_noise([e.sides["tuned"].seeds for e in grid.entries.values() if "tuned" in e.sides]) if grid else None
    found = _own_candidates(own, lines, noise) if own else []
    learned, idle = [one for one in found if one.learned], [one for one in found if not one.learned]
    printed = printed_ranks()
    counts = own is not None and (own.near != "other" or not _any_printed(lines, printed))
    lead, seen = (learned, {one.spec.key for one in found}) if counts else ([], set())
    rest = [
        Candidate(line.spec.label, line.spec, line, printed=printed.get(key))
        for key, line in lines.items()
        if key not in seen and line.spec.gguf_package is None
    ]
    rest.sort(key=lambda one: (*_place(one.printed), one.spec.params_total, one.spec.key))
    if lead:
        return [*_with_differences(lead, own, noise), *rest, *idle]
    return [*_with_overlaps(rest), *learned, *idle]


def _any_printed(lines: dict[str, Line], printed: dict[str, PublishedRank]) -> bool:
    return any(key in printed and line.plan is not None for key, line in lines.items())


def _place(printed: PublishedRank | None) -> tuple[int, float]:
    """Of a printed rank: a newer edition first, then the better mean."""
    return (0, 0.0) if printed is None else (-printed.edition, printed.mean)


def _own_candidates(own: Evidence, lines: dict[str, Line], noise: SeedNoise | None) -> list[Candidate]:
    """By score, the best first."""
    rng, found = np.random.default_rng(SEED), []
    for name in sorted(own.pooled, key=lambda name: (-own.pooled[name].value, name)):
        line, answers = lines[own.models[name]], own.pooled[name]
        untuned, score = own.untuned.get(name), answers.measured.score
        gain = compared(Pair(untuned.answers, answers), noise, rng).difference if untuned else None
        words, seeds = untuned.words if untuned else "", len(answers.seeds)
        found.append(Candidate(name, line.spec, line, score=score, gain=gain, untuned=words, seeds=seeds))
    return found


def _with_differences(lead: Sequence[Candidate], own: Evidence, noise: SeedNoise | None) -> list[Candidate]:
    """Each own one after the first with its difference to the first."""
    found, rng = list(lead), np.random.default_rng(SEED)
    answers = [own.pooled[one.name] for one in lead]
    pairs = [compared(Pair(answers[0], other, trained_a=True), noise, rng) for other in answers[1:]]
    raised = iter(holm([pair.p for pair in pairs if pair is not None]))
    for at, pair in enumerate(pairs, start=1):
        if pair is not None:
            tied = outcome(pair, next(raised)) == "not clear"
            apart = rows_to_separate(pair) if tied else None
            found[at] = replace(found[at], difference=pair.difference, tied=tied, separation=apart)
    return found


def _with_overlaps(rest: Sequence[Candidate]) -> list[Candidate]:
    """Where no own cell leads: printed ranks whose intervals, by Student's t, overlap the first one's are tied."""
    first = next((one for one in rest if one.fits and one.printed), None)
    if first is None:
        return list(rest)
    return [one if one is first else replace(one, tied=_overlap(first.printed, one.printed)) for one in rest]


def _overlap(a: PublishedRank, b: PublishedRank | None) -> bool:
    if b is None or b.edition != a.edition or a.t_half is None or b.t_half is None:
        return False
    return abs(a.mean - b.mean) <= a.t_half + b.t_half


def _request(grid: Grid | None, own: Evidence | None) -> Request | None:
    if grid is None or own is None:
        return None
    return request_of(grid, max(own.pooled, key=lambda name: (own.pooled[name].value, name)), own.tasks)


def _measured_speed(grid: Grid | None, own: Evidence | None, one: Candidate, card: GpuSpec) -> Throughput | None:
    """Rows a second of plain generation while scoring, where all of it ran on this very card: the mean over all own
    contestants of its model, which is the same to serve however it was trained."""
    if grid is None or own is None or one.score is None:
        return None
    alike = [name for name, model in own.models.items() if model == one.spec.key]
    cells = [[cell.result for task in own.tasks for cell in grid.entries[name, task].done] for name in alike]
    here = [
        results
        for results in cells
        if all(find_gpu(str(result["environment"].get("gpu") or "")) is card for result in results)
    ]
    rates = [rate for results in here for result in results if (rate := rows_per_s(result["sides"]["tuned"]))]
    mean = float(np.mean(rates)) if rates else None
    return Throughput(mean, mean, f"measured on {card.name}", True) if mean else None


def _speed(
    grid: Grid | None, own: Evidence | None, one: Candidate, card: GpuSpec | None, request: Request
) -> Throughput | None:
    """As it was measured, else as it is estimated; None where the card is not listed or cannot serve it."""
    if card is None:
        return None
    return _measured_speed(grid, own, one, card) or estimate_throughput(one.spec, card, request)


def _priced(one: Candidate, speed: Throughput | None, hourly_usd: float | None) -> Candidate:
    price = serving_cost(hourly_usd, speed, utilisation=UTILISATION) if speed and hourly_usd else None
    return replace(one, speed=speed, serving=price)
