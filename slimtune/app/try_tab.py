"""The Try it tab: base and tuned side by side on any prompt. The models live in a process of their own."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import gradio as gr

from slimtune import jobs
from slimtune.app.look import html, sentence
from slimtune.data import strict_json
from slimtune.errors import SlimtuneError, UserError
from slimtune.tryout import Tryout, sample_prompt

_IDLE = "Choose a run whose training is done, and load it: base and tuned then answer side by side."


class _Stage:
    """The one model that is loaded, for all pages: a card has room for one."""

    def __init__(self) -> None:
        self.lock, self.tryout, self.name = threading.Lock(), None, ""

    def load(self, name: str) -> Tryout:
        with self.lock:
            if self.tryout is None or self.name != name or self.tryout.state in ("failed", "ended"):
                folder = jobs.find_run(name)
                self._close()
                self.tryout, self.name = Tryout(folder), name
            return self.tryout

    def unload(self) -> None:
        with self.lock:
            self._close()

    def cancel(self) -> None:
        if (tryout := self.tryout) is not None:
            tryout.cancel()

    def _close(self) -> None:
        tryout, self.tryout, self.name = self.tryout, None, ""
        if tryout is not None:
            tryout.close()


def build(tab: gr.Tab) -> None:
    """The tab on the page."""
    stage = _Stage()
    with gr.Row(elem_classes="slim-controls"):
        chosen = gr.Dropdown([], label="Run", scale=4, min_width=260, elem_id="tried", filterable=True)
        load = gr.Button("Load", variant="primary", scale=1, min_width=110, elem_id="load")
        unload = gr.Button("Unload", scale=1, min_width=110, elem_id="unload")
    said = gr.HTML(sentence(_IDLE), elem_id="try-said")
    before = gr.State([])  # the turns of a conversation that the prompt goes on with
    with gr.Accordion("Instruction and tools", open=False):
        system = gr.Textbox("", label="Instruction (the system turn)", lines=4, max_lines=12, elem_id="try-system")
        tools = gr.Textbox("", label="Tools, as JSON", lines=4, max_lines=16, elem_id="try-tools")
    earlier = gr.HTML(elem_classes="slim", elem_id="try-before")
    drop = gr.Button("Leave the conversation out", size="sm", visible=False, elem_id="drop-conversation")
    prompt = gr.Textbox("", label="Prompt", lines=3, elem_id="prompt")
    with gr.Row(elem_classes="slim-controls"):
        limit = gr.Number(128, label="Answer tokens, at most", precision=0, minimum=1, maximum=4096, min_width=110)
        ask = gr.Button("Ask both", variant="primary", min_width=110, elem_id="ask")
        stop = gr.Button("Stop", variant="stop", min_width=110, elem_id="stop-answer")
    with gr.Row():
        base = gr.HTML(html("answer", _blank("Base")), elem_id="base-answer")
        tuned = gr.HTML(html("answer", _blank("Tuned")), elem_id="tuned-answer")
    tab.select(lambda name: _look(stage, name), chosen, [chosen, said], show_progress="hidden", api_name=False)
    talk = [before, earlier, drop]
    chosen.change(_prefill, chosen, [system, prompt, tools, *talk], show_progress="hidden", api_name=False)
    drop.click(lambda: _conversation([]), None, talk, show_progress="hidden", api_name=False)
    load.click(lambda name: (yield from _load(stage, name)), chosen, said, show_progress="hidden", api_name=False)
    unload.click(lambda: _unload(stage), None, said, show_progress="hidden", api_name=False)
    gr.on(
        [ask.click, prompt.submit],
        lambda *asked: (yield from _ask(stage, *asked)),
        [chosen, system, before, prompt, tools, limit],
        [base, tuned, said],
        show_progress="hidden",
        api_name=False,
        concurrency_limit=1,
    )
    stop.click(stage.cancel, None, None, queue=False, api_name=False)


def _look(stage: _Stage, name: str | None) -> tuple[Any, str]:
    """The runs there are, the one that is loaded chosen, and whether one is."""
    trained = [state.name for state in jobs.list_runs() if (state.folder / "training.json").is_file()]
    tryout, loaded = stage.tryout, stage.name
    chosen = next((one for one in (name, loaded, *trained) if one in trained), None)
    ready = tryout is not None and tryout.state == "ready"
    return gr.update(choices=trained, value=chosen), _loaded(loaded, tryout) if ready else sentence(_IDLE)


def _loaded(name: str, tryout: Tryout) -> str:
    return sentence(f"{tryout.label} is loaded, of the run {name}, in process {tryout.pid}.", "good")


def _prefill(name: str | None) -> tuple[Any, ...]:
    """The prompt of a test row, to start from: instruction, last question, tools, and the turns before it."""
    nothing = ("", "", "", *_conversation([]))
    if not name:
        return nothing
    try:
        messages, tools = sample_prompt(jobs.find_run(name))
    except SlimtuneError:
        return nothing
    system = "\n\n".join(turn["content"] for turn in messages if turn["role"] == "system")
    turns = [turn for turn in messages if turn["role"] != "system"]
    prompt = turns.pop()["content"] if turns and turns[-1]["role"] == "user" else ""
    offered = json.dumps(tools, indent=2, ensure_ascii=False) if tools else ""
    return system, prompt, offered, *_conversation(turns)


def _conversation(turns: list[dict[str, Any]]) -> tuple[Any, ...]:
    """What is kept and shown of the turns before the prompt."""
    return turns, html("conversation", {"turns": turns}), gr.update(visible=bool(turns))


def _load(stage: _Stage, name: str | None) -> Iterator[str]:
    try:
        tryout = stage.load(name or "")
        while not tryout.wait(0.5):
            yield sentence(tryout.said)
        yield _loaded(stage.name, tryout)
    except SlimtuneError as error:
        yield sentence(str(error), "bad")


def _unload(stage: _Stage) -> str:
    stage.unload()
    return sentence("Nothing is loaded; its memory is free.")


def _ask(
    stage: _Stage, name: str | None, system: str, before: list[Any], prompt: str, tools: str, limit: float
) -> Iterator[tuple[str, str, str]]:
    sides = {"base": _blank("Base"), "tuned": _blank("Tuned")}

    def shown(word: str) -> tuple[str, str, str]:
        return html("answer", sides["base"]), html("answer", sides["tuned"]), word

    try:
        tryout = stage.load(name or "")
        turns = [{"role": "system", "content": system}] if (system or "").strip() else []
        asked = [] if before and not prompt.strip() else [{"role": "user", "content": prompt}]
        messages = [*turns, *before, *asked]
        for event in tryout.ask(messages, _tools(tools), side="both", max_new_tokens=int(limit or 1)):
            yield shown(_hear(sides, event))
    except SlimtuneError as error:
        yield shown(sentence(str(error), "bad"))


def _hear(sides: dict[str, dict[str, Any]], event: dict[str, Any]) -> str:
    """Take one event into what is shown; the words above it."""
    side, kind = sides.get(event.get("side", "")), event["event"]
    if kind == "piece" and side:
        side["thought" if event.get("thinking") else "text"] += event["text"]
    elif kind == "end" and side:
        side.update(calls=event["tool_calls"] or [], unread=event["unread"], end=event)
    return sentence(event["text"], "bad" if kind == "error" else "soft") if kind in ("error", "loading") else ""


def _blank(title: str) -> dict[str, Any]:
    return {"title": title, "text": "", "thought": "", "calls": [], "unread": "", "end": None}


def _tools(text: str) -> list[dict[str, Any]] | None:
    if not (text or "").strip():
        return None
    try:
        tools = strict_json(text)
    except ValueError as error:
        raise UserError(f"The text of the tools {error}.") from error
    if not isinstance(tools, list):
        raise UserError("The tools are a JSON list of function schemas.")
    return tools
