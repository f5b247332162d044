"""The Plan tab: what the form leads to, at once: whether it fits, how long and for how much. Starts the run."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from slimtune import jobs
from slimtune.app.form import Form, build_form
from slimtune.app.look import SORT, html, sentence
from slimtune.draft import Draft, Outlook, every_model, outlook, recipe_text
from slimtune.errors import SlimtuneError, UserError
from slimtune.forecast import Card, longest_context
from slimtune.models import get_model
from slimtune.status import read_state


def build() -> tuple[Form, gr.State]:
    """The tab on the page: its form, and the name of the run that it started last. The answer to what the form begins
    as comes with the page."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            form = build_form()
        plan, _, yaml, models, _ = _answer(form, {component: component.value for component in form.components})
        with gr.Column(scale=7, min_width=320):
            outcome = gr.HTML(plan, elem_classes="slim", elem_id="outcome")
            start, said = gr.Button("Start on this machine", variant="primary", elem_id="start"), gr.HTML()
            with gr.Accordion("Show the recipe", open=False):
                recipe = gr.Textbox(
                    yaml, label="Recipe", lines=8, interactive=False, buttons=["copy"], elem_id="recipe"
                )
    table = gr.HTML(models, elem_classes="slim", elem_id="every-model", js_on_load=SORT)
    started = gr.State("")
    gr.on(
        form.changes,
        lambda values: _answer(form, values),
        form.components,
        [outcome, form.yarn, recipe, table, start],
        show_progress="hidden",
        trigger_mode="always_last",
        queue=False,  # at once: it is arithmetic
        api_name=False,
    )
    start.click(lambda values: _start(form, values), form.components, [said, started], api_name=False)
    return form, started


def _answer(form: Form, values: Mapping[Any, Any]) -> tuple[Any, ...]:
    try:
        draft, card = form.draft(values), form.planned_card(values)
    except UserError as error:
        return sentence(str(error), "bad"), gr.skip(), gr.skip(), "", gr.update(interactive=False)
    found = outlook(draft, card)
    lines = every_model(found.prepared, card) if found.prepared else []
    return (
        html("plan", _values(draft, card, found)),
        gr.update(visible=_stretches(draft)),
        recipe_text(draft),
        html("every_model", {"lines": lines}),
        gr.update(interactive=found.prepared is not None),
    )


def _start(form: Form, values: Mapping[Any, Any]) -> tuple[str, str]:
    try:
        draft = form.draft(values)
        folder = jobs.start(recipe_text(draft), name=draft.name)
    except SlimtuneError as error:
        return sentence(str(error), "bad"), ""
    done = read_state(folder).phase == "finished"
    words = f"Done already: {folder.name}." if done else f"Started: {folder.name}. The Runs tab shows it at work."
    return sentence(words, "good"), folder.name


def _stretches(draft: Draft) -> bool:
    """Whether the switch for YaRN has anything to do."""
    spec = get_model(draft.model)
    longer = isinstance(draft.context, int) and draft.context > spec.native_context
    return draft.yarn or bool(spec.extension and longer)


def _values(draft: Draft, card: Card | None, found: Outlook) -> dict[str, Any]:
    """What the template shows."""
    forecast, spec = found.forecast, get_model(draft.model)
    plan = forecast.plan if forecast else None
    context_gib = getattr(card, "context_gib", 0.0)
    parts = {**(plan.parts_gib if plan else {}), **({"CUDA context, beside it": context_gib} if card else {})}
    room = (plan.room_gib if plan else 0.0) + context_gib
    return {
        "problems": found.problems,
        "refusal": found.refusal,
        "forecast": forecast,
        "card": card.name if card else "this machine's memory",
        "model": spec.label,
        "parts": sorted(parts.items(), key=lambda part: -part[1]),
        "room": room,
        "longest": longest_context(spec, card, rank=draft.rank) if card and found.prepared else None,
        "processes": getattr(card, "processes", ()),
        "title": found.prepared.task.title if found.prepared else "",
    }
