"""What `slimtune plan` answers: will it fit on this card, at which context, in which precision, how long, for how much,
and how small a difference the test rows could show. Arithmetic on shapes; nothing is downloaded.
"""

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from slimtune.check import Ready, detectable, plan_of, ready
from slimtune.errors import UserError
from slimtune.gpus import DetectedGpu, GpuSpec, detect_gpu, get_gpu
from slimtune.lengths import guess_tokens
from slimtune.models import MODELS, ModelSpec, get_model
from slimtune.plan import (
    Plan,
    Setting,
    Speed,
    Together,
    Yarn,
    choose_precision,
    disk_gib,
    estimate_speed,
    high_gib,
    longest_row,
    make_plan,
    ram_gib,
    refuse_needles,
    usual_batch,
    with_levers,
    yarn_for,
)
from slimtune.recipe import Context, Lora, Train, find_recipe, read_recipe, recipes_folder

Card = GpuSpec | DetectedGpu
EXAMPLES, ROW_TOKENS = 10_000, 1024  # what is planned for where there are no rows; the rest is a recipe's default
EPOCHS, RANK = Train().epochs, Lora().r
BATCH = usual_batch(EXAMPLES, EPOCHS)
_KEEP_CHECKPOINTS = 2
_SHORTEST_CONTEXT = 64  # as in a recipe


@dataclass(frozen=True)
class Forecast:
    """One plan and what follows from it. `speed` is None on a CPU; `detectable` where there is no test set yet."""

    spec: ModelSpec
    card: Card | None
    plan: Plan
    speed: Speed | None
    disk_gib: dict[str, float]
    ram_gib: float
    yarn: Yarn | None
    test_rows: int | None = None
    scored_noun: str = "test row"
    detectable: float | None = None


@dataclass(frozen=True)
class Load:
    """What a table of all models is about: so many rows, their lengths in tokens, and how they are trained on."""

    rows: int
    epochs: float
    longest_row_tokens: int
    row_tokens_mean: float
    longest_answer_tokens: int
    rank: int
    batch: int
    prefix_tokens: int = 0  # of the beginning that all rows share
    together: Callable[[int], Together] | None = None  # what micro-batches of a size are, where rows are known

    @property
    def examples(self) -> float:
        return self.rows * self.epochs


@dataclass(frozen=True)
class Line:
    """One model in the table of all: `plan` None where it does not train on the card, and `why` then says so."""

    spec: ModelSpec
    plan: Plan | None
    why: str
    longest_context: int
    speed: Speed | None


@dataclass(frozen=True)
class Asked:
    """What the command line was given; None where nothing was said."""

    gpu: str | None = None
    context: str | None = None
    batch: int | None = None
    rank: int | None = None
    overrides: tuple[str, ...] = ()
    data: Path | None = None


def plan_one(what: str | None, asked: Asked) -> Forecast:
    """The forecast for a recipe or a model by name. Raises UserError and Problems."""
    if what is None:
        raise UserError("Say what to plan: a recipe, a model, or --all. `slimtune list models` has names.")
    card = get_gpu(asked.gpu) if asked.gpu else detect_gpu()
    if _is_recipe(what):
        changes = {"context": asked.context, "train.batch": asked.batch, "lora.r": asked.rank}
        numbers = {"context": None if asked.context is None else read_tokens(asked.context)}
        given = [f"{key}={numbers.get(key, value)}" for key, value in changes.items() if value is not None]
        prepared = ready(read_recipe(find_recipe(what), [*asked.overrides, *given]), data_dir=asked.data)
        return forecast_recipe(prepared, card)
    if asked.overrides:
        raise UserError("--set changes a recipe, and this is a model. Use --context, --batch and --rank.")
    spec = get_model(what)
    length = read_tokens(asked.context) if asked.context else ROW_TOKENS
    for name, value, most in (("--batch", asked.batch, 65536), ("--rank", asked.rank, 1024)):
        if value is not None and not 1 <= value <= most:
            raise UserError(f"{name} is {value}: it has to be from 1 to {most:,}.")
    if length < _SHORTEST_CONTEXT:
        raise UserError(f"--context is {length}: it has to be at least {_SHORTEST_CONTEXT} tokens.")
    method = "yarn" if length > spec.native_context and spec.extension else "none"
    context = Context(length=length, method=method)
    return forecast_model(spec, card, context=context, batch=asked.batch or BATCH, rank=asked.rank or RANK)


def plan_all(what: str | None, asked: Asked) -> tuple[Card, list[Line]]:
    """The card, and the table of all models on it. Raises UserError where there is no card to plan for."""
    if what is not None or asked.overrides or asked.context or asked.batch or asked.rank:
        raise UserError("--all plans every model for the same rows: it goes with --gpu alone.")
    card = get_gpu(asked.gpu) if asked.gpu else detect_gpu()
    if card is None:
        raise UserError("There is no GPU here to plan for. Name one: --gpu t4. `slimtune list gpus` has names.")
    return card, forecast_all(card)


def read_tokens(text: str) -> int:
    """8192, 32k (of 1,024) and 1m as a number of tokens. Raises UserError for anything else, and for less than 1."""
    match = re.fullmatch(r"(\d+)\s*([km]?)", text.strip().lower())
    tokens = int(match[1]) * {"": 1, "k": 1024, "m": 1024**2}[match[2]] if match else 0
    if tokens < 1:
        raise UserError(f"{text!r} is not a number of tokens. Say it like 8192 or 32k.")
    return tokens


def answer_tokens(row_tokens: int) -> int:
    """What is taken for an answer's length where no data says: an eighth of the row."""
    return max(1, row_tokens // 8)


def _is_recipe(name: str) -> bool:
    shipped = recipes_folder() / f"{name}.yaml"
    return name.endswith((".yaml", ".yml")) or shipped.is_file() or Path(f"{name}.yaml").is_file()


def forecast_recipe(prepared: Ready, card: Card | None) -> Forecast:
    """The forecast for a checked recipe. Raises UserError where nothing fits."""
    _refuse_untrainable(prepared.spec)
    yarn = yarn_for(prepared.spec, prepared.recipe.context)
    plan = plan_of(prepared, gpu=card)
    guessed = "Lengths are estimated from the rows' text; `slimtune check` counts tokens where the model is here."
    plan = replace(plan, notes=(*plan.notes, guessed))
    recipe, task = prepared.recipe, prepared.task
    examples = len(task.train) * recipe.train.epochs
    mean = (plan.train_tokens or examples * plan.longest_row_tokens) / examples
    forecast = _forecast(prepared.spec, card, plan, examples, mean, yarn)
    told = {"test_rows": len(task.test), "scored_noun": task.scored_noun}
    return replace(forecast, **told, detectable=detectable(prepared))


def forecast_model(spec: ModelSpec, card: Card | None, *, context: Context, batch: int, rank: int) -> Forecast:
    """The forecast for a model without data: 10,000 examples x 4 epochs, every row as long as the context, an eighth of
    it the answer.

    Raises UserError for a context the model cannot be given, and where nothing fits.
    """
    _refuse_untrainable(spec)
    yarn = yarn_for(spec, context)
    plan = make_plan(
        spec, gpu=card, lora_r=rank, context_tokens=context.length, batch=batch, rows=EXAMPLES, epochs=EPOCHS,
        row_tokens_mean=context.length, longest_answer_tokens=answer_tokens(context.length),
    )  # fmt: skip
    refuse_needles(spec, plan, yarn)
    assumed = (
        f"Without a recipe: {EXAMPLES:,} rows of {context.length:,} tokens, an eighth of them the answer, "
        f"x {EPOCHS:g} epochs, LoRA rank {rank}, batch {batch}; what is not given is a recipe's default."
    )
    stretched = (yarn.note, f"In a recipe: `context: {{length: {context.length}, method: yarn}}`.") if yarn else ()
    plan = replace(plan, notes=(assumed, *plan.notes, *stretched))
    return _forecast(spec, card, plan, EXAMPLES * EPOCHS, context.length, yarn)


STUDY = Load(EXAMPLES, EPOCHS, ROW_TOKENS, ROW_TOKENS, answer_tokens(ROW_TOKENS), RANK, BATCH)


def forecast_all(card: Card | None, load: Load = STUDY) -> list[Line]:
    """Every model on one card, or on the CPU, for the same rows."""
    return [line_of(spec, card, load) for spec in MODELS.values() if spec.gguf_package is None]


def load_of(prepared: Ready) -> Load:
    """A checked recipe's rows, in tokens as far as their text tells."""
    recipe, counted = prepared.recipe, guess_tokens(prepared.task.train, prepared.spec)
    lengths, longest = counted.lengths, min(max(counted.lengths), recipe.context.length)
    return Load(
        len(lengths), recipe.train.epochs, longest, sum(lengths) / len(lengths), max(counted.answers), recipe.lora.r,
        prepared.batch, counted.prefix, partial(counted.together(recipe), prepared.batch),
    )  # fmt: skip


def longest_context(spec: ModelSpec, card: Card, *, rank: int) -> int:
    """The longest row that trains alone on the card, in steps of 1,024 tokens up to what the model takes; 0: none."""

    def alone(tokens: int) -> Setting:
        return with_levers(spec, _smallest(spec, card, rank, tokens))

    most = spec.extension.longest_tokens if spec.extension else spec.native_context
    return longest_row(spec, alone, card.usable_gib, most=most)


def measure(forecast: Forecast) -> Any:
    """What the forecast's setting really takes: the model in its real shape with random weights, three steps.

    Returns the engine's `Measured`. Raises UserError without a GPU, and where it runs out of memory.
    """
    from slimtune.engine import require_training

    require_training()
    if forecast.card is None:
        raise UserError("--measure trains on a GPU, and there is none here.")
    from slimtune.engine.measure import measure_setting

    with tempfile.TemporaryDirectory() as folder:
        return measure_setting(forecast.spec, forecast.plan.setting, Path(folder) / "model", yarn=forecast.yarn)


def _forecast(
    spec: ModelSpec, card: Card | None, plan: Plan, examples: float, row_tokens: float, yarn: Yarn | None
) -> Forecast:
    setting, known = plan.setting, card.spec if card else None
    speed = None
    if known:
        speed = estimate_speed(
            spec, setting, known, examples=examples, row_tokens_mean=row_tokens, accumulation=plan.accumulation
        )
    disk = disk_gib(spec, setting, keep_checkpoints=_KEEP_CHECKPOINTS)
    return Forecast(spec, card, plan, speed, disk, ram_gib(spec, setting), yarn)


def line_of(spec: ModelSpec, card: Card | None, load: Load) -> Line:
    """One model in that table."""
    if not spec.trainable:
        return Line(spec, None, "planned only", 0, None)
    longest = longest_context(spec, card, rank=load.rank) if card else 0  # RAM is not filled to its end
    if load.longest_row_tokens > spec.native_context:
        return Line(spec, None, f"made for {spec.native_context:,} tokens", longest, None)
    try:
        plan = make_plan(
            spec, gpu=card, lora_r=load.rank, context_tokens=load.longest_row_tokens, batch=load.batch, rows=load.rows,
            epochs=load.epochs, row_tokens_mean=load.row_tokens_mean, longest_answer_tokens=load.longest_answer_tokens,
            prefix_tokens=load.prefix_tokens, together=load.together,
        )  # fmt: skip
    except UserError:
        smallest = _smallest(spec, card, load.rank, load.longest_row_tokens)
        needs = high_gib(spec, with_levers(spec, smallest) if card else smallest)
        return Line(spec, None, f"needs {needs:.0f} GiB", longest, None)
    speed = _forecast(spec, card, plan, load.examples, load.row_tokens_mean, None).speed
    return Line(spec, plan, "", longest, speed)


def _smallest(spec: ModelSpec, card: Card | None, rank: int, row_tokens: int) -> Setting:
    cuda, answer = card is not None, answer_tokens(row_tokens)
    weights = "4bit" if cuda else "16bit"
    return Setting(weights, choose_precision(spec, card), cuda, 1, row_tokens, rank, cuda=cuda, answer_tokens=answer)


def _refuse_untrainable(spec: ModelSpec) -> None:
    if not spec.trainable:
        raise UserError(f"{spec.label} cannot be fine-tuned here: {spec.untrainable}")
