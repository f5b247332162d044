"""Every way to train that there is to choose from, how fast each is predicted to be, and which one is taken.

Small models lose most of their time to settings made for big ones: 4-bit weights, checkpointing, a few rows at a time.
So nothing is taken for granted: weights, checkpointing, micro-batch, layout and optimizer are tried in all combinations
by arithmetic (speed.py, memory.py), and the fastest that fits is taken.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slimtune.gpus import DetectedGpu, GpuSpec
from slimtune.models import ModelSpec
from slimtune.plan.collation import is_framed
from slimtune.plan.memory import Setting, Together, high_gib, with_levers
from slimtune.plan.speed import HOST, example_s, is_replayed
from slimtune.wording import counted, listed

_GRAPHS_GIB = 0.125  # of captured steps outside what torch reserves: 84 MiB with the first, up to 2 with each later
_AS_FAST = 0.97  # of the fastest: what is that near is as fast, and 16-bit weights and memory decide
_ENOUGH_TOKENS_CPU = 4096  # at a time: more only take memory
_A_CPU = GpuSpec("CPU", 0.0, (0, 0), 20.0, 0.15)  # two cores: what is faster than what, no speeds
_A_CARD = GpuSpec("a card", 0.0, (8, 0), 600.0, 125.0)  # one that no data sheet is known of: likewise

_CHANGED = ("collation", "quantisation", "checkpointing")  # each has two ways


@dataclass(frozen=True)
class Candidate:
    """A way to train. `graphs_gib` lies outside what torch reserves. `examples_per_s` is predicted for a slow host, and
    for comparing alone where the card is not known."""

    collation: str
    setting: Setting
    high_gib: float
    graphs_gib: float
    examples_per_s: float

    @property
    def needs_gib(self) -> float:
        return self.high_gib + self.graphs_gib

    def fits(self, room_gib: float) -> bool:
        return self.needs_gib <= room_gib


@dataclass(frozen=True)
class Alternative:
    """What else could be chosen: `how` in words, and what changes `along` with it, as the rest is chosen anew; its
    predicted speed as a share of what was chosen, the peak's upper end in GiB, and whether that fits."""

    how: str
    along: str
    share: float
    high_gib: float
    fits: bool


def candidates(
    spec: ModelSpec,
    smallest: Setting,
    gpu: GpuSpec | DetectedGpu | None,
    *,
    layouts: Sequence[str],
    weights: Sequence[str],
    sizes: Sequence[int],
    together: Callable[[int], Together] | None,
    row_tokens: float,
    batch: int,
    room_gib: float,
) -> list[Candidate]:
    """All combinations, `smallest` giving what they have in common; `sizes`: of micro-batches, `together`: what one of
    a size is, where rows are known. `row_tokens`: the mean of all. Adam's moments are in 8 bits where 32 do not fit."""
    card, found = (gpu.spec or _A_CARD) if gpu else _A_CPU, []
    for collation, way, size in itertools.product(layouts, _ways(spec, smallest, weights), sizes):
        alike = collation == "shared-prefix"
        setting = dataclasses.replace(
            way, micro_batch=size, prefix_tokens=smallest.prefix_tokens if alike else 0,
            together=together(size) if alike and together else None, framed=is_framed(collation, gpu),
        )  # fmt: skip
        if gpu is None and size > min(sizes) and setting.tokens > _ENOUGH_TOKENS_CPU:
            continue
        for optimizer in ("adamw", "adamw_8bit") if gpu else ("adamw",):  # 8-bit moments are slower
            setting = dataclasses.replace(setting, optimizer=optimizer)
            each = example_s(spec, setting, card, row_tokens, accumulation=batch // size, host=HOST[0])
            graphs_gib = _GRAPHS_GIB if is_replayed(spec, setting) else 0.0
            one = Candidate(collation, setting, high_gib(spec, setting), graphs_gib, 1 / each)
            if one.fits(room_gib):
                break
        found.append(one)
    return found


def fastest(found: Sequence[Candidate], room_gib: float) -> Candidate | None:
    """The fastest that fits; of those as fast, one with 16-bit weights, then with 32-bit Adam, then on a card the one
    that takes least memory. None where nothing fits."""
    fitting = [one for one in found if one.fits(room_gib)]
    best = max((one.examples_per_s for one in fitting), default=0.0)
    near = [one for one in fitting if one.examples_per_s >= _AS_FAST * best]

    def preference(one: Candidate) -> tuple[float, ...]:
        at = one.setting
        rest = one.high_gib if at.cuda else -at.micro_batch
        return at.quantisation == "4bit", at.optimizer == "adamw_8bit", rest

    return min(near, key=preference, default=None)


def alternatives(found: Sequence[Candidate], chosen: Candidate, room_gib: float) -> tuple[Alternative, ...]:
    """What was not chosen, one change asked for at a time and the rest chosen anew: the fastest with it that fits, else
    the one that takes least."""
    told = [(one, _told(one)) for one in found]
    here, rows = _told(chosen), chosen.setting.micro_batch
    others = {kind: {words[kind] for _, words in told} - {here[kind]} for kind in _CHANGED}
    asked = [(kind, how) for kind in _CHANGED for how in others[kind]]
    asked += [("rows", _rows(2 * rows)), ("rows", _rows(rows // 2))]
    said = []
    for kind, how in asked:
        tiled = kind == "checkpointing"  # is another change
        if with_it := [one for one, words in told if words[kind] == how and not (tiled and one.setting.tiled_mlp)]:
            best = fastest(with_it, room_gib)
            shown = best or min(with_it, key=lambda one: one.high_gib)
            along = [word for what, word in _told(shown).items() if what != kind and word != here[what]]
            share = shown.examples_per_s / chosen.examples_per_s
            said.append(Alternative(how, listed(along), round(share, 3), shown.high_gib, fits=best is not None))
    return tuple(said)


def _told(one: Candidate) -> dict[str, str]:
    """In words, by what can be chosen."""
    at = one.setting
    return {
        "collation": "shared prefixes" if one.collation == "shared-prefix" else "padded rows",
        "quantisation": "4-bit weights" if at.quantisation == "4bit" else "16-bit weights",
        "checkpointing": "checkpointing" if at.checkpointing else "no checkpointing",
        "rows": _rows(at.micro_batch),
        "optimizer": "8-bit Adam" if at.optimizer == "adamw_8bit" else "32-bit Adam",
        "levers": "an MLP in tiles" if at.tiled_mlp else "a whole MLP",
    }


def _rows(many: int) -> str:
    return f"{counted(many, 'row')} at a time"


def _ways(spec: ModelSpec, smallest: Setting, weights: Sequence[str]) -> list[Setting]:
    """Weights and checkpointing, and at the end everything that saves memory for long rows."""
    ways = [
        dataclasses.replace(smallest, quantisation=kind, checkpointing=checkpointing, optimizer="adamw")
        for kind, checkpointing in itertools.product(weights, (False, True))
    ]
    return [*ways, with_levers(spec, ways[-1])] if smallest.cuda else ways
