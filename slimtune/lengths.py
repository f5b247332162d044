"""How long are the rows, in tokens? Counted where the model's tokenizer is at hand, else guessed from characters."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from slimtune.data import Example
from slimtune.errors import SlimtuneError, UserError
from slimtune.models import ModelSpec
from slimtune.plan import Together
from slimtune.recipe import Recipe
from slimtune.tasks import Task

_WORK = 2.5e6  # pairs of rows whose groups are found for a plan, of each size: a tenth of a second and more
_EPOCHS = 20  # whose order stands for that of more
_CHARACTERS_PER_TOKEN = 3.0  # for a first plan, before a tokenizer has counted; English text has 4 to 5


@dataclass(frozen=True)
class RowTokens:
    """Training rows counted in tokens: prompt with answer, the answer alone, and what all prompts begin with. `prompts`
    are of tokens, or of characters that are guessed to be `unit` of a token each."""

    lengths: Sequence[int]
    answers: Sequence[int]
    prefix: int
    prompts: Sequence[Sequence[Any]] = field(repr=False)
    unit: float

    def together(self, recipe: Recipe) -> Callable[[int, int], Together]:
        """Of a batch and a micro-batch: what a run computes at a time. Rows that are longer than the context are taken
        for rows of its length."""
        from slimtune.engine.parts import Rows, parts_of_batches
        from slimtune.engine.schedule import row_order

        context, rows = recipe.context.length, list(zip(self.prompts, self.lengths, strict=True))
        if recipe.data.long_rows == "drop":
            rows = [row for row in rows if row[1] <= context] or rows
        lengths = [min(length, context) / self.unit for _, length in rows]
        prompts = [
            prompt if len(prompt) < length else prompt[: int(length) - 1]
            for (prompt, _), length in zip(rows, lengths, strict=True)
        ]
        order = row_order(len(rows), epochs=min(recipe.train.epochs, _EPOCHS), seed=recipe.seed).tolist()
        run = Rows.of(prompts, lengths)

        @cache
        def of(batch: int, micro_batch: int) -> Together:
            parts = parts_of_batches(order, batch=batch, micro_batch=micro_batch)
            most = run.largest(parts, work=_WORK)
            return Together(self._tokens(most.ahead, most.own), self._tokens(*run.usual(parts, work=_WORK)))

        return of

    def _tokens(self, ahead: float, own: float) -> tuple[int, int]:
        return round(ahead * self.unit), math.ceil(own * self.unit)


@dataclass(frozen=True)
class TokenReport(RowTokens):
    """What the tokenizer makes of the training rows. `supervised` is the share of all tokens the loss is on; `samples`
    are rows, each alternating (text, is it supervised): the first, the one of middle length, the longest."""

    too_long: int
    supervised: float
    samples: tuple[tuple[tuple[str, bool], ...], ...]

    def as_json(self) -> dict[str, Any]:
        """Without the prompts, and what their items are."""
        told = [one.name for one in fields(self) if one.name not in ("prompts", "unit")]
        return {name: getattr(self, name) for name in told} | {"histogram": self.histogram(12)}

    def histogram(self, bins: int = 8) -> list[tuple[int, int, int]]:
        """Shortest, longest and number of the rows in each of up to `bins` equal spans of length."""
        low, high = min(self.lengths), max(self.lengths)
        width = max(1, -(-(high - low + 1) // bins))
        return [
            (start, start + width - 1, sum(start <= length < start + width for length in self.lengths))
            for start in range(low, high + 1, width)
        ]


def guess_tokens(train: Sequence[Example]) -> RowTokens:
    """The training rows' lengths from their characters: good enough for a first plan, without a tokenizer."""
    from slimtune.engine.groups import prefix_length

    prompts, answers = [_prompt(example) for example in train], [_answer_characters(example) for example in train]
    return RowTokens(
        [round((len(p) + a) / _CHARACTERS_PER_TOKEN) + 32 for p, a in zip(prompts, answers, strict=True)],
        [round(count / _CHARACTERS_PER_TOKEN) + 8 for count in answers],
        round(prefix_length(prompts) / _CHARACTERS_PER_TOKEN),
        prompts,
        1 / _CHARACTERS_PER_TOKEN,
    )


def count_rows(rows: Sequence[Any]) -> RowTokens:
    """Of rows that are tokens already (engine/render.py: `Encoded`)."""
    from slimtune.engine.groups import prefix_length

    prompts = [row.prompt for row in rows]
    return RowTokens([len(row) for row in rows], [len(row.answer) for row in rows], prefix_length(prompts), prompts, 1)


def local_renderer(spec: ModelSpec, recipe: Recipe, *, say: Callable[[str], None]) -> Any:
    """What makes tokens of rows (engine/render.py: `Renderer`), of a model whose files are here. `say` hears what takes
    its time. Raises UserError where they are not, or what reads them is not installed."""
    from slimtune.engine import require_training
    from slimtune.engine.render import load_tokenizer, make_renderer
    from slimtune.engine.source import local_folder

    require_training()
    folder = local_folder(spec, revision=recipe.revision, say=say)
    if folder is None:
        raise UserError(f"{spec.label} is not on this machine yet; `slimtune run` fetches it.")
    return make_renderer(load_tokenizer(folder, spec), spec, thinking=recipe.thinking)


def count_tokens(spec: ModelSpec, task: Task, recipe: Recipe, *, say: Callable[[str], None]) -> TokenReport | str:
    """Render and tokenize every training row; or, in a sentence, why that is not possible here."""
    from slimtune.engine.kept_rows import encode_kept

    try:
        renderer = local_renderer(spec, recipe, say=say)
    except SlimtuneError as error:
        return f"Tokens are not counted: {error}"
    rows = encode_kept(renderer, task.train, skip_bad=recipe.data.skip_bad)
    counted = count_rows(rows)
    text, by_length = renderer.tokenizer.decode, sorted(rows, key=len)
    shown = {row.id: row for row in (rows[0], by_length[len(rows) // 2], by_length[-1])}
    return TokenReport(
        **vars(counted),
        too_long=sum(length > recipe.context.length for length in counted.lengths),
        supervised=sum(counted.answers) / sum(counted.lengths),
        samples=tuple(((text(row.prompt), False), (text(row.answer), True)) for row in shown.values()),
    )


def _answer_characters(example: Example) -> int:
    return len(example.target) if isinstance(example.target, str) else 120 * len(example.target)


def _prompt(example: Example) -> str:
    return (str(example.tools) if example.tools else "") + "".join(message.content for message in example.messages)
