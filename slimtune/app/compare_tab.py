"""The Compare tab: finished runs side by side."""

from typing import Any

import gradio as gr

from slimtune import jobs
from slimtune.app.look import html, sentence
from slimtune.app.results_tab import reported
from slimtune.errors import SlimtuneError
from slimtune.report.collect import NAMES
from slimtune.report.side_by_side import side_by_side


def build(tab: gr.Tab) -> None:
    """The tab on the page."""
    chosen = gr.Dropdown([], multiselect=True, label="Runs", elem_id="compared", filterable=True)
    table = gr.HTML(elem_classes="slim", elem_id="comparison")
    looked = tab.select(_choices, chosen, chosen, show_progress="hidden", api_name=False)
    looked.then(_compare, chosen, table, show_progress="hidden", api_name=False)
    chosen.input(_compare, chosen, table, show_progress="hidden", api_name=False)


def _choices(names: list[str] | None) -> Any:
    known = reported()
    kept = [name for name in names or [] if name in known]
    return gr.update(choices=known, value=kept or known[:3])


def _compare(names: list[str] | None) -> str:
    if not names:
        return sentence("Choose runs to compare. A run is there once it has a report.")
    try:
        return html("compare", {"names": NAMES, "found": side_by_side([jobs.find_run(name) for name in names])})
    except SlimtuneError as error:
        return sentence(str(error), "bad")
