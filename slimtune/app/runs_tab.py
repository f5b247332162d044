"""The Runs tab: what is at work, live, and what stopped; to be stopped and gone on with. It reads run folders and owns
none of the work."""

import time
from typing import Any

import gradio as gr

from slimtune import jobs
from slimtune.app.look import html, sentence
from slimtune.errors import SlimtuneError
from slimtune.report.live import read_live
from slimtune.status import State, read_state

LABEL = "Runs"
_EVERY_S = 2.0


def build(tabs: gr.Tabs, tab: gr.Tab, started: gr.State) -> None:
    """The tab on the page. It looks at the run again and again for as long as it is the one that is seen."""
    with gr.Row(elem_classes="slim-controls"):
        chosen = gr.Dropdown([], label="Run", scale=4, min_width=260, elem_id="run", filterable=True)
        stop = gr.Button("Stop", variant="stop", scale=1, min_width=110, elem_id="stop", interactive=False)
        resume = gr.Button("Go on", variant="primary", scale=1, min_width=110, elem_id="resume", interactive=False)
    said, view = gr.HTML(elem_id="run-said"), gr.HTML(elem_classes="slim", elem_id="run-view")
    with gr.Accordion("What the process printed", open=False):
        log = gr.HTML(elem_id="run-log")
    timer = gr.Timer(_EVERY_S, active=False)
    shown = [chosen, view, log, stop, resume]
    gr.on([tab.select, timer.tick], _tick, chosen, shown, show_progress="hidden", api_name=False)
    tabs.select(_watched, None, timer, show_progress="hidden", queue=False, api_name=False)
    chosen.input(_show, chosen, shown[1:], show_progress="hidden", api_name=False)
    started.change(
        lambda name: (*_tick(name), gr.Timer(active=True)) if name else gr.skip(), started, [*shown, timer],
        show_progress="hidden", api_name=False,
    )  # fmt: skip
    stop.click(lambda name: _do(jobs.stop, name, _STOPPING), chosen, said, api_name=False)
    resume.click(lambda name: _do(jobs.resume, name, "It goes on."), chosen, said, api_name=False)


_STOPPING = "Asked to stop. It finishes the step it is at, and saves."


def _watched(selected: gr.SelectData) -> gr.Timer:
    return gr.Timer(active=selected.value == LABEL)


def _tick(name: str | None) -> tuple[Any, ...]:
    states = jobs.list_runs()
    names = [state.name for state in states]
    chosen = name if name in names else next(iter(names), None)
    choices = gr.update(choices=[(_words(state), state.name) for state in states])
    return choices if chosen == name else choices | {"value": chosen}, *_show(chosen)


def _show(name: str | None) -> tuple[Any, ...]:
    if not name:
        nothing = sentence("No run yet. The Plan tab starts one; so does `slimtune run RECIPE` in this folder.")
        return nothing, "", gr.update(interactive=False), gr.update(interactive=False)
    state = read_state(jobs.find_run(name))
    live = read_live(state.folder)
    values = {"state": state, "live": live, "age_s": max(0.0, time.time() - state.updated) if state.updated else None}
    return (
        html("run", values),
        html("log", {"text": jobs.last_words(state.folder, lines=40)}),
        gr.update(interactive=state.phase == "running"),
        gr.update(interactive=state.phase in ("stopped", "failed")),
    )


def _words(state: State) -> str:
    return f"{state.name}: {state.phase}"


def _do(what: Any, name: str | None, done: str) -> str:
    try:
        what(jobs.find_run(name or ""))
    except SlimtuneError as error:
        return sentence(str(error), "bad")
    return sentence(done, "good")
