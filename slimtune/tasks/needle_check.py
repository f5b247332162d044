"""The long-context check of a run whose context is stretched: needles at a short and at its full length."""

from collections.abc import Callable
from dataclasses import replace

from slimtune.recipe import Context
from slimtune.tasks.folders import get_task
from slimtune.tasks.needle import ANSWER_TOKENS, DEPTHS, needle
from slimtune.tasks.task import Selection, Task

SHORT_TOKENS = 1500  # of the rows in slimtune/tasks/needle


def needle_names(context: Context, who: str) -> dict[str, str]:
    """The evaluations of one model, by their reach; none where the context is the model's own."""
    reaches = ("short", "long") if context.length > SHORT_TOKENS else ("long",)
    return {} if context.method == "none" else {reach: f"needle-{reach}-{who}" for reach in reaches}


def needle_checks(context: Context, tokens_in: Callable[[str], int], *, answer_tokens: int) -> dict[str, Task]:
    """What to ask, by reach. The short rows are those of the task `needle`, the same for every model and context, so
    that a model without YaRN can be scored on them too; the long ones fill the context, as `tokens_in` counts it.
    Answers get `answer_tokens` where the task gives less.
    """
    short = get_task("needle", selection=Selection(train_rows=1, test_rows=context.needles))
    room = max(answer_tokens, ANSWER_TOKENS)
    drafts = [
        needle(
            number=number, side="test", depth=DEPTHS[number % len(DEPTHS)], tokens=context.length, answer_tokens=room,
            tokens_in=tokens_in,
        )
        for number in range(context.needles)
    ]  # fmt: skip
    system = short.test[0].messages[0]
    long = tuple(replace(draft, messages=(system, *draft.messages)) for draft in drafts)
    return {
        "short": replace(short, title=_title(SHORT_TOKENS), max_new_tokens=room),
        "long": replace(short, title=_title(context.length), max_new_tokens=room, test=long),
    }


def _title(tokens: int) -> str:
    return f"needle in {tokens:,} tokens"
