"""Which model to take, asked on the page: for a kind of task and a card, by the study that is shown and by what others
printed."""

from typing import Any

import gradio as gr

from slimtune.app.look import html, sentence
from slimtune.errors import SlimtuneError
from slimtune.gpus import GPUS, detect_gpu
from slimtune.sweep.advice import evidence, headline, memory, near, set_aside, unknown
from slimtune.sweep.costs import serving
from slimtune.sweep.recommend import Recommendation, Wish, recommend
from slimtune.sweep.store import SWEEPS
from slimtune.sweep.studies import list_studies
from slimtune.tasks.kinds import KINDS

_SIZES = (
    ("any size", ""),
    ("up to 500M", "500M"),
    ("up to 1B", "1B"),
    ("up to 2B", "2B"),
    ("up to 4B", "4B"),
    ("up to 8B", "8.5B"),
)
_HERE = "this machine's"


def build(study: gr.Dropdown) -> None:
    """The part on the page; it answers when a choice changes or it is opened."""
    here = detect_gpu()
    cards = [(f"{here.name} ({_HERE})", "")] if here else []
    with gr.Accordion("Which model should I take?", open=False, elem_id="advice") as opened:
        with gr.Row(elem_classes="slim-controls"):
            kind = gr.Dropdown(list(KINDS), value="classification", label="Kind of task", elem_id="advice-kind")
            card = gr.Dropdown(
                [*cards, *GPUS], value="" if here else "T4", label="GPU",
                elem_id="advice-gpu", filterable=True,
            )  # fmt: skip
            size = gr.Dropdown(list(_SIZES), value="", label="Size", elem_id="advice-size")
        said = gr.HTML(elem_classes="slim", elem_id="advice-said")
    asked = [study, kind, card, size]
    gr.on([opened.expand, study.change, kind.change, card.change, size.change], _advise, asked, said, api_name=False)


def _advise(study: str | None, kind: str, card: str, size: str) -> str:
    store = SWEEPS / study if study in list_studies() else None
    try:
        found = recommend(Wish(kind=kind, gpu=card or None, max_params=size or None, store=store))
    except SlimtuneError as error:
        return sentence(str(error), "bad")
    return html("recommendation", _values(found))


def _values(found: Recommendation) -> dict[str, Any]:
    return {
        "found": found,
        "headline": headline(found),
        "near": near(found),
        "choices": [
            {"name": one.name, "lines": [evidence(one, found), memory(one, found), serving(one)]}
            for one in found.ranked
        ],
        "unfit": [f"{one.name}: {memory(one, found)}" for one in found.unfit],
        "aside": set_aside(found),
        "unknown": unknown(found),
    }
