"""The Leaderboard tab: a study's ranks as they stand, live while it runs, and every cell of it down to its answers."""

from pathlib import Path
from typing import Any

import gradio as gr

from slimtune.app import advice_view, answers_view
from slimtune.app.look import CELLS, sentence
from slimtune.errors import SlimtuneError
from slimtune.report import report_fragment
from slimtune.report.board_page import board_fragment
from slimtune.sweep.studies import NotYet, attempt_of, board_of, how_far, list_studies, open_study

LABEL = "Leaderboard"
_EVERY_S = 5.0
_NO_STUDY = (
    "No study yet. `slimtune sweep run MATRIX` in this folder makes one: several models over several tasks, ranked, "
    "with how sure that is. `slimtune list matrices` names some to begin with."
)
_NO_CELL = "Choose a cell, or a score in the table above."


def build(tabs: gr.Tabs, tab: gr.Tab) -> None:
    """The tab on the page. It looks at the study again and again for as long as it is the one that is seen; the
    leaderboard is made anew when a cell has changed."""
    chosen = gr.Dropdown([], label="Study", elem_id="study", filterable=True)
    beside = gr.Checkbox(False, label="Published figures beside", elem_id="beside", container=False)
    advice_view.build(chosen)
    far = gr.HTML(elem_id="study-progress")
    board = gr.HTML(elem_classes="slim-report", elem_id="board", js_on_load=CELLS)
    cell = gr.Dropdown([], label="Cell", elem_id="cell-chosen", filterable=True)
    label = answers_view.build(cell, _folder, prefix="cell-", none=_NO_CELL)
    opened = gr.HTML(elem_classes="slim-report", elem_id="cell")
    shown, timer = gr.State(""), gr.Timer(_EVERY_S, active=False)
    gr.on(
        [tab.select, timer.tick, chosen.input, beside.input], _look, [chosen, beside, shown],
        [chosen, far, board, cell, shown], show_progress="hidden", api_name=False,
    )  # fmt: skip
    tabs.select(_watched, None, timer, show_progress="hidden", queue=False, api_name=False)
    board.click(_asked, chosen, cell, show_progress="hidden", api_name=False)
    cell.change(_open, cell, [opened, label], show_progress="minimal", api_name=False)


def _watched(selected: gr.SelectData) -> gr.Timer:
    return gr.Timer(active=selected.value == LABEL)


def _look(name: str | None, published: bool, shown: str) -> tuple[Any, ...]:
    """The study as it is now; its leaderboard only where another one is shown."""
    names = list_studies()
    name = name if name in names else next(iter(names), None)
    choices = gr.update(choices=names, value=name)
    try:
        if name is None:
            return choices, sentence(_NO_STUDY), "", gr.update(choices=[], value=None), ""
        study = open_study(name)
        now = f"{name}, {published}, {how_far(study)}"
        if now == shown:
            return choices, gr.skip(), gr.skip(), gr.skip(), shown
        cells = [
            (f"{one.contestant}, {one.task}, seed {one.seed}: {one.state}", f"{name}/{one.fingerprint}")
            for one in study.cells
        ]
        board = board_fragment(board_of(study, published=published))
        going = any(one.state in ("running", "waiting") for one in study.cells)
        return choices, sentence(how_far(study)) if going else "", board, gr.update(choices=cells), now
    except SlimtuneError as error:
        return choices, sentence(str(error), "bad"), "", gr.update(choices=[], value=None), ""


def _asked(study: str, event: gr.EventData) -> str:
    """The cell whose link was clicked."""
    return f"{study}/{event.cell}"


def _folder(cell: str | None) -> Path | None:
    if not cell:
        return None
    study, _, fingerprint = cell.rpartition("/")
    return attempt_of(open_study(study), fingerprint)


def _open(cell: str | None) -> tuple[Any, Any]:
    try:
        folder = _folder(cell)
        if folder is None:
            return "", gr.skip()
        return report_fragment(folder), answers_view.label_choices(folder)
    except NotYet as error:
        return sentence(str(error)), gr.skip()
    except SlimtuneError as error:
        return sentence(str(error), "bad"), gr.skip()
