"""The Data tab: what the rows of the plan are, what the model will learn of them, and what is wrong with them."""

from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr

from slimtune import jobs
from slimtune.app.form import Form
from slimtune.app.look import html, sentence
from slimtune.draft import outlook, recipe_text
from slimtune.errors import SlimtuneError, UserError


def build(form: Form, tab: gr.Tab) -> None:
    """The tab on the page."""
    with gr.Row(elem_classes="slim-controls"):
        gr.HTML(html("data_head", {}), elem_classes="slim")
        again = gr.Button("Look again", size="sm", scale=0, min_width=120, elem_id="look-again")
    found, tokens = gr.HTML(elem_classes="slim", elem_id="data"), gr.HTML(elem_classes="slim", elem_id="tokens")
    gr.on(
        [tab.select, again.click],
        lambda values: (yield from _look(form, values)),
        form.components,
        [found, tokens],
        show_progress="hidden",
        trigger_mode="always_last",
        api_name=False,
    )


def _look(form: Form, values: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    """What is seen at once; then the tokens, which need a process of their own."""
    try:
        draft = form.draft(values)
        seen = outlook(draft, form.planned_card(values))
    except UserError as error:
        yield sentence(str(error), "bad"), ""
        return
    if seen.prepared is None:
        yield html("problems", {"problems": seen.problems}), ""
        return
    task, quality = seen.prepared.task, seen.prepared.quality
    rows = html("data", {"task": task, "quality": quality, "labels": _counted(quality.train_labels)})
    yield rows, sentence("Counting tokens with the model's own tokenizer: some seconds.")
    try:
        tokens = jobs.check(recipe_text(draft), gpu=values[form.card])["tokens"]
    except SlimtuneError as error:
        yield rows, sentence(str(error), "bad")
        return
    if isinstance(tokens, str):
        yield rows, sentence(tokens)
    else:
        yield rows, html("tokens", {"tokens": tokens, "context": draft.context})


def _counted(labels: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(labels.items(), key=lambda item: -item[1])
