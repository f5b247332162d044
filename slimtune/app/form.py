"""The form that makes a draft: which rows, which model, for which card, and the numbers of training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from slimtune.app.look import sentence
from slimtune.draft import READABLE, Draft, keep_upload, starting_drafts
from slimtune.errors import SlimtuneError
from slimtune.forecast import Card
from slimtune.gpus import GPUS, detect_gpu, get_gpu
from slimtune.models import MODELS
from slimtune.tasks import list_tasks
from slimtune.tasks.formats import read_rows

A_TASK, OWN_FILE = "A task that comes along", "A file of mine"
LABELS, FREE_TEXT = "One of a few labels", "Free text"
_MEANING = {LABELS: ("text", "label"), FREE_TEXT: ("prompt", "completion")}
_LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
_RANKS = (8, 16, 32, 64, 128)
FIRST = "smollm2-banking77-demo"  # the recipe the form starts as


@dataclass(frozen=True)
class Form:
    """The components whose values make a draft."""

    start: gr.Dropdown
    source: gr.Radio
    task: gr.Dropdown
    labels: gr.Dropdown
    train: gr.State
    test: gr.State
    answer: gr.Radio
    asked_column: gr.Dropdown
    answer_column: gr.Dropdown
    group_column: gr.Dropdown
    instruction: gr.Textbox
    model: gr.Dropdown
    card: gr.Dropdown
    context: gr.Dropdown
    yarn: gr.Checkbox
    rank: gr.Dropdown
    epochs: gr.Number
    lr: gr.Number
    alpha: gr.Number
    batch: gr.Number
    few_shot: gr.Number
    train_rows: gr.Number
    test_rows: gr.Number

    @property
    def components(self) -> set[Any]:
        return set(vars(self).values())

    def draft(self, values: Mapping[Any, Any]) -> Draft:
        """What the form says, from the values of its components. No number becomes 0, which a recipe refuses."""
        said = {name: values[component] for name, component in vars(self).items()}
        own = said["source"] == OWN_FILE
        return Draft(
            model=said["model"],
            task=None if own else said["task"],
            train=(said["train"] or "no file yet") if own else None,
            test=said["test"] or None if own else None,
            columns=_columns(said) if own else (),
            labels=() if own else tuple(said["labels"] or ()),
            instruction=(said["instruction"] or "").strip() if own else "",
            yarn=bool(said["yarn"]),
            epochs=float(said["epochs"] or 0),
            lr=float(said["lr"] or 0),
            train_rows=_whole(said["train_rows"]) or None,
            test_rows=_whole(said["test_rows"]) or None,
            **{name: _whole(said[name]) for name in ("context", "rank", "alpha", "batch", "few_shot")},
        )

    def planned_card(self, values: Mapping[Any, Any]) -> Card | None:
        """The card that is planned for: one by name, or this machine's; None: the CPU."""
        return get_gpu(values[self.card]) if values[self.card] else detect_gpu()

    def filled(self, draft: Draft) -> dict[Any, Any]:
        """The updates that make the form say `draft`, which is of a task that comes along."""
        same = (
            "model",
            "context",
            "yarn",
            "rank",
            "epochs",
            "lr",
            "alpha",
            "batch",
            "few_shot",
            "train_rows",
            "test_rows",
        )
        values = {getattr(self, name): getattr(draft, name) for name in same}
        labels = gr.update(choices=_labels(draft.task), value=list(draft.labels))
        return {**values, self.source: A_TASK, self.task: draft.task, self.labels: labels}


def build_form() -> Form:
    """The form on the page. It starts as the demo's recipe."""
    drafts = starting_drafts()
    first = drafts[FIRST]
    start = gr.Dropdown(list(drafts), value=FIRST, label="Start from a recipe", filterable=True, elem_id="start-from")
    rows = _task_rows(first)
    models = [(f"{spec.label}, {spec.params_total / 1e9:.2g}B", key) for key, spec in MODELS.items() if spec.trainable]
    model = gr.Dropdown(models, value=first.model, label="Model", filterable=True, elem_id="model")
    numbers = _numbers(first, rows["task"])
    form = Form(start=start, model=model, **rows, **numbers)
    start.input(
        lambda name: form.filled(drafts[name]), start, list(form.filled(first)), api_name=False, show_progress="hidden"
    )
    return form


def _task_rows(first: Draft) -> dict[str, Any]:
    """Which rows: a task that comes along, or files."""
    source = gr.Radio([A_TASK, OWN_FILE], value=A_TASK, label="Rows", elem_id="source")
    with gr.Column(visible=True) as shipped:
        tasks = [(f"{job.shown} ({job.kind.replace('_', ' ')})", job.name) for job in list_tasks()]
        task = gr.Dropdown(tasks, value=first.task, label="Task", elem_id="task")
    with gr.Column(visible=False) as own:
        files = _own_rows()
    source.change(
        lambda chosen: (gr.update(visible=chosen == A_TASK), gr.update(visible=chosen == OWN_FILE)),
        source, [shipped, own], api_name=False, show_progress="hidden",
    )  # fmt: skip
    return {"source": source, "task": task, **files}


def _labels(task: str | None) -> list[str]:
    return next((list(job.labels) for job in list_tasks() if job.name == task), [])


def _numbers(first: Draft, task: gr.Dropdown) -> dict[str, Any]:
    """The card, the context, and how training goes."""
    here = detect_gpu()
    cards = [(f"This machine: {here.name if here else 'no GPU'}", ""), *((name, name) for name in GPUS)]
    card = gr.Dropdown(cards, value="", label="Plan for", elem_id="card")
    lengths = [(f"{length:,} tokens", length) for length in _LENGTHS]
    context = gr.Dropdown(
        lengths, value=first.context, label="Context: the longest row, with its answer", allow_custom_value=True,
        elem_id="context",
    )  # fmt: skip
    yarn = gr.Checkbox(first.yarn, label="Stretch the context with YaRN", visible=False, elem_id="yarn")
    with gr.Row():
        rank = gr.Dropdown(
            list(_RANKS), value=first.rank, label="LoRA rank", allow_custom_value=True, elem_id="rank", min_width=110
        )
        epochs = gr.Number(first.epochs, label="Epochs", step=0.5, elem_id="epochs", min_width=90)
        lr = gr.Number(first.lr, label="Learning rate", step=1e-5, elem_id="lr", min_width=110)
    with gr.Accordion("More", open=False, elem_id="more"):
        labels = gr.Dropdown(
            _labels(first.task), value=list(first.labels), multiselect=True, label="Only these labels", elem_id="labels"
        )
        with gr.Row():
            alpha = _count(first.alpha, "LoRA alpha")
            batch = _count(first.batch, "Batch")
            few_shot = _count(first.few_shot, "Worked examples")
        with gr.Row():
            train_rows = _count(first.train_rows, "Training rows, at most")
            test_rows = _count(first.test_rows, "Test rows, at most")
    task.input(
        lambda name: gr.update(choices=_labels(name), value=[], visible=bool(_labels(name))),
        task, labels, api_name=False, show_progress="hidden",
    )  # fmt: skip
    return {
        "labels": labels, "card": card, "context": context, "yarn": yarn, "rank": rank, "epochs": epochs, "lr": lr,
        "alpha": alpha, "batch": batch, "few_shot": few_shot, "train_rows": train_rows, "test_rows": test_rows,
    }  # fmt: skip


def _count(value: int | None, label: str) -> gr.Number:
    return gr.Number(
        value, label=label, precision=0, elem_id=label.lower().replace(" ", "-").replace(",", ""), min_width=90
    )


def _own_rows() -> dict[str, Any]:
    """The part of the form for files of one's own."""
    with gr.Row():
        train_file = gr.File(label="Training rows (.csv, .jsonl)", file_types=list(READABLE), height=110)
        test_file = gr.File(label="Test rows, if they are apart", file_types=list(READABLE), height=110)
    train, test, said = gr.State(""), gr.State(""), gr.HTML()
    with gr.Column(visible=False) as table:
        answer = gr.Radio([LABELS, FREE_TEXT], value=LABELS, label="What is answered", elem_id="answer")
        with gr.Row():
            asked = gr.Dropdown([], label="Column that is asked", elem_id="asked-column")
            answered = gr.Dropdown([], label="Column of the answer", elem_id="answer-column")
            group = gr.Dropdown([], label="Column of the group, if rows belong together", elem_id="group-column")
    instruction = gr.Textbox(
        "", label="Instruction", info="The system turn: what the model is to do", lines=2, elem_id="instruction"
    )
    train_file.change(_kept_train, train_file, [train, table, asked, answered, group, said], api_name=False)
    test_file.change(_kept_test, test_file, [test, said], api_name=False)
    return {
        "train": train, "test": test, "answer": answer, "asked_column": asked, "answer_column": answered,
        "group_column": group, "instruction": instruction,
    }  # fmt: skip


def _kept_train(upload: str | None) -> tuple[Any, ...]:
    """Keep the training file; a table's columns become choices, and the likeliest are chosen."""
    nothing = gr.update(choices=[], value=None)
    if upload is None:
        return "", gr.update(visible=False), nothing, nothing, nothing, ""
    try:
        kept = keep_upload(Path(upload), name=Path(upload).name)
        rows = read_rows(Path(kept), columns={}).rows
    except SlimtuneError as error:
        return "", gr.update(visible=False), nothing, nothing, nothing, sentence(str(error), "bad")
    is_table = not kept.endswith(("jsonl", "json"))
    names = list(rows[0][1]) if rows and is_table else []
    first, last = (names[0], names[-1]) if names else (None, None)
    asked = _likely(names, ("text", "message", "prompt", "question", "input"), first)
    answered = _likely(names, ("label", "intent", "category", "completion", "answer", "output"), last)
    said = sentence(f"{len(rows):,} rows read. The file is kept as {kept}.")
    return (
        kept, gr.update(visible=is_table), gr.update(choices=names, value=asked),
        gr.update(choices=names, value=answered), gr.update(choices=[("none", ""), *names], value=""), said,
    )  # fmt: skip


def _kept_test(upload: str | None) -> tuple[str, str]:
    if upload is None:
        return "", ""
    try:
        kept = keep_upload(Path(upload), name=Path(upload).name)
    except SlimtuneError as error:
        return "", sentence(str(error), "bad")
    return kept, sentence(f"The test rows are kept as {kept}.")


def _likely(names: list[str], words: tuple[str, ...], otherwise: str | None) -> str | None:
    return next((name for word in words for name in names if word in name.lower()), otherwise)


def _columns(said: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    ours = zip((*_MEANING[said["answer"]], "group"), ("asked_column", "answer_column", "group_column"), strict=True)
    return tuple((name, said[field]) for name, field in ours if said[field])


def _whole(value: Any) -> int:
    """A number as it was typed, thousands' commas and all; 0 for what is none, which a recipe refuses."""
    text = str(value if value is not None else 0).replace(",", "").replace("tokens", "").strip()
    return int(float(text)) if text.replace(".", "", 1).isdigit() else 0
