"""Every answer of a run, filtered, searched and turned over page by page: a part of two tabs."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from slimtune.app.look import html, sentence
from slimtune.errors import SlimtuneError
from slimtune.report.browse import FILTERS, browse, labels_of
from slimtune.report.collect import collect

FolderOf = Callable[[str | None], Path | None]


def build(chosen: gr.Component, folder_of: FolderOf, *, prefix: str, none: str) -> gr.Dropdown:
    """The part on the page. `folder_of` finds the run by the value of `chosen`, None where nothing is chosen: then
    `none` is said. Returns the choice of labels, to be filled (`label_choices`) where the run is shown."""
    with gr.Accordion("Every answer", open=False, elem_id=f"{prefix}answers"):
        with gr.Row():
            which = gr.Dropdown(list(FILTERS), value=next(iter(FILTERS)), label="Which", elem_id=f"{prefix}which")
            label = gr.Dropdown([("any", "")], value="", label="Label", elem_id=f"{prefix}which-label")
            search = gr.Textbox(
                "", label="Search", placeholder="a word in question, target or answer", elem_id=f"{prefix}search"
            )
            number = gr.Number(1, label="Page", precision=0, minimum=1, elem_id=f"{prefix}answers-page", min_width=90)
        answers = gr.HTML(elem_classes="slim-report", elem_id=f"{prefix}answer-rows")
    asked = [chosen, which, label, search, number]
    gr.on(
        [component.change for component in asked], partial(_shown, folder_of, none), asked, answers,
        show_progress="hidden", trigger_mode="always_last", api_name=False,
    )  # fmt: skip
    return label


def _shown(folder_of: FolderOf, none: str, name: str | None, which: str, label: str, search: str, number: Any) -> str:
    try:
        folder = folder_of(name)
        return sentence(none) if folder is None else _answers(folder, which, label, search, number)
    except SlimtuneError as error:
        return sentence(str(error), "bad")


def label_choices(folder: Path) -> Any:
    """The labels that a run's answers can be filtered by."""
    return gr.update(choices=[("any", ""), *((label, label) for label in labels_of(collect(folder)))], value="")


def _answers(folder: Path, which: str, label: str, search: str, number: Any) -> str:
    run = collect(folder)
    which = which if which in FILTERS else next(iter(FILTERS))
    page = int(number) if isinstance(number, int | float) and 1 <= number < 1e6 else 1
    found = browse(run, which=which, label=label or "", search=search or "", number=page)
    return html("answers", {"page": found, "note": run.note})
