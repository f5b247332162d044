"""The form that makes a draft: which rows, which model, for which card, and the numbers of training."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from slimtune.app.look import sentence
from slimtune.draft import READABLE, Draft, keep_upload, starting_drafts
from slimtune.errors import SlimtuneError, UserError, unknown_name
from slimtune.forecast import Card, read_tokens
from slimtune.gpus import GPUS, detect_gpu, get_gpu
from slimtune.models import MODELS
from slimtune.tasks import list_tasks
from slimtune.tasks.formats import format_of, read_rows

A_TASK, OWN_FILE = "A task that comes along", "A file of mine"
LABELS, FREE_TEXT = "One of a few labels", "Free text"
_MEANING = {LABELS: ("text", "label"), FREE_TEXT: ("prompt", "completion")}
_LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
_RANKS = (8, 16, 32, 64, 128)
_NEEDED = ("context", "rank", "alpha", "epochs", "lr", "few_shot")
_OPTIONAL = ("batch", "train_rows", "test_rows")
_LIMITS, _TRAINING = ("train_rows", "test_rows"), ("rank", "alpha", "epochs", "lr", "batch", "few_shot")
_OF_ROWS = (*_LIMITS, *_TRAINING)  # a recipe's, for the rows it was made for
FIRST = "smollm2-banking77-demo"  # the recipe the form starts as


@dataclass(frozen=True)
class Form:
    """The components whose values make a draft."""

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
    skip_bad: gr.Checkbox
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

    @property
    def changes(self) -> list[Any]:
        """The events after which it says something else. A text counts when it is left, not letter by letter."""
        others = self.components - {self.instruction}
        return [*(component.change for component in others), self.instruction.blur, self.instruction.submit]

    def draft(self, values: Mapping[Any, Any]) -> Draft:
        """What the form says, from the values of its components, which may be anything: what is no number is left to
        the recipe to refuse. Raises UserError for a name that is not offered."""
        said = {name: values[component] for name, component in vars(self).items()}
        own = said["source"] == OWN_FILE
        tasks = [job.name for job in list_tasks()]
        return Draft(
            model=_offered("model", said["model"], MODELS),
            task=None if own else _offered("task", said["task"], tasks),
            train=said["train"] if own else None,
            test=said["test"] if own else None,
            columns=_columns(said) if own else (),
            labels=tuple(map(str, said["labels"])) if isinstance(said["labels"], list) and not own else (),
            instruction=str(said["instruction"] or "").strip() if own else "",
            yarn=bool(said["yarn"]),
            skip_bad=bool(said["skip_bad"]) and own,
            **{name: _number(said[name], empty="") for name in _NEEDED},
            **{name: _number(said[name], empty=None) for name in _OPTIONAL},
        )

    def planned_card(self, values: Mapping[Any, Any]) -> Card | None:
        """The card that is planned for: one by name, or this machine's; None: the CPU."""
        return get_gpu(_offered("card", values[self.card], GPUS)) if values[self.card] else detect_gpu()

    def filled(self, draft: Draft) -> dict[Any, Any]:
        """The updates that make the form say `draft`, which is of a task that comes along."""
        same = ("model", "yarn", *_NEEDED, *_OPTIONAL)
        values = {getattr(self, name): getattr(draft, name) for name in same}
        labels = gr.update(choices=_labels(draft.task), value=list(draft.labels))
        return {**values, self.source: A_TASK, self.task: draft.task, self.labels: labels}


def build_form() -> Form:
    """The form on the page. It starts as the demo's recipe."""
    drafts = starting_drafts()
    first = drafts[FIRST]
    start = gr.Dropdown(list(drafts), value=FIRST, label="Start from a recipe", filterable=True, elem_id="start-from")
    rows = _task_rows(first, start)
    models = [(f"{spec.label}, {spec.params_total / 1e9:.2g}B", key) for key, spec in MODELS.items() if spec.trainable]
    model = gr.Dropdown(models, value=first.model, label="Model", filterable=True, elem_id="model")
    numbers = _numbers(first, rows["task"])
    form = Form(model=model, **rows, **numbers)
    usual = [getattr(form, name) for name in _OF_ROWS]
    form.source.change(
        lambda chosen, task: gr.update(visible=chosen == A_TASK and bool(_labels(task))), [form.source, form.task],
        form.labels, api_name=False, show_progress="hidden",
    )  # fmt: skip
    form.source.input(_usual, form.source, usual, api_name=False, show_progress="hidden")
    start.input(
        lambda name: form.filled(drafts[_offered("recipe", name, drafts)]), start, list(form.filled(first)),
        api_name=False, show_progress="hidden",
    )  # fmt: skip
    return form


def _task_rows(first: Draft, start: gr.Dropdown) -> dict[str, Any]:
    """Which rows: a task that comes along, or files, for which no recipe is there to `start` from."""
    source = gr.Radio([A_TASK, OWN_FILE], value=A_TASK, label="Rows", elem_id="source")
    with gr.Column(visible=True) as shipped:
        tasks = [(f"{job.shown} ({job.kind.replace('_', ' ')})", job.name) for job in list_tasks()]
        task = gr.Dropdown(tasks, value=first.task, label="Task", elem_id="task")
    with gr.Column(visible=False) as own:
        files = _own_rows()
    source.change(
        lambda chosen: [gr.update(visible=chosen == shown) for shown in (A_TASK, A_TASK, OWN_FILE)],
        source, [start, shipped, own], api_name=False, show_progress="hidden",
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
            batch = _count(first.batch, "Batch", empty="64, or fewer")
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


def _usual(source: str) -> list[Any]:
    """Where rows come from elsewhere: no limit is right for them, and for files of one's own no recipe's training."""
    usual = Draft(model="")
    training = [getattr(usual, name) if source == OWN_FILE else gr.skip() for name in _TRAINING]
    return [*(None for _ in _LIMITS), *training]


def _count(value: int | None, label: str, *, empty: str = "") -> gr.Number:
    """`empty`: what is shown where nothing was said."""
    return gr.Number(
        value, label=label, placeholder=empty, precision=0, min_width=90,
        elem_id=label.lower().replace(" ", "-").replace(",", ""),
    )  # fmt: skip


def _own_rows() -> dict[str, Any]:
    """The part of the form for files of one's own."""
    with gr.Row():
        train_file = gr.File(label="Training rows (.csv, .jsonl)", file_types=list(READABLE), height=140, min_width=200)
        test_file = gr.File(label="Test rows, if they are apart", file_types=list(READABLE), height=140, min_width=200)
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
    skip_bad = gr.Checkbox(False, label="Leave out rows that cannot be read", elem_id="skip-bad")
    train_file.change(_kept_train, train_file, [train, table, asked, answered, group, said], api_name=False)
    test_file.change(_kept_test, test_file, [test, said], api_name=False)
    return {
        "train": train, "test": test, "answer": answer, "asked_column": asked, "answer_column": answered,
        "group_column": group, "instruction": instruction, "skip_bad": skip_bad,
    }  # fmt: skip


def _kept_train(upload: str | None) -> tuple[Any, ...]:
    """Keep the training file; a table's columns become choices, and the likeliest are chosen."""
    nothing = gr.update(choices=[], value=None)
    if upload is None:
        return "", gr.update(visible=False), nothing, nothing, nothing, ""
    try:
        kept = _taken(Path(upload))
        read = read_rows(Path(kept), columns={})
    except SlimtuneError as error:
        return "", gr.update(visible=False), nothing, nothing, nothing, sentence(str(error), "bad")
    first_row = read.rows[0][1] if read.rows else {}
    asks = bool(first_row) and format_of(first_row) is None
    names = list(first_row) if asks else []
    first, last = (names[0], names[-1]) if names else (None, None)
    asked = _likely(names, ("text", "message", "prompt", "question", "input"), first)
    answered = _likely(names, ("label", "intent", "category", "completion", "answer", "output"), last)
    bad = f" {len(read.skipped):,} could not be, first {read.skipped[0]}." if read.skipped else ""
    said = sentence(f"{len(read.rows):,} rows read.{bad} The file is kept as {kept}.", "bad" if bad else "soft")
    return (
        kept, gr.update(visible=asks), gr.update(choices=names, value=asked),
        gr.update(choices=names, value=answered), gr.update(choices=[("none", ""), *names], value=""), said,
    )  # fmt: skip


def _taken(upload: Path) -> str:
    """Keep an upload where recipes find it; the copy that the page's server made of it goes."""
    try:
        return keep_upload(upload, name=upload.name)
    finally:
        upload.unlink()


def _kept_test(upload: str | None) -> tuple[str, str]:
    if upload is None:
        return "", ""
    try:
        kept = _taken(Path(upload))
    except SlimtuneError as error:
        return "", sentence(str(error), "bad")
    return kept, sentence(f"The test rows are kept as {kept}.")


def _likely(names: list[str], words: tuple[str, ...], otherwise: str | None) -> str | None:
    return next((name for word in words for name in names if word in name.lower()), otherwise)


def _columns(said: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Ours -> theirs, for a file whose fields do not tell; empty for one whose do."""
    if not said["asked_column"] or not said["answer_column"]:
        return ()
    names = (*_MEANING[_offered("answer", said["answer"], _MEANING)], "group")
    theirs = (said["asked_column"], said["answer_column"], said["group_column"])
    return tuple((name, str(column)) for name, column in zip(names, theirs, strict=True) if column)


def _offered(what: str, name: Any, known: Collection[str]) -> str:
    """A choice that was offered: a page is not the only one that can send one."""
    if not isinstance(name, str) or name not in known:
        raise unknown_name(what, str(name), known)
    return name


def _number(value: Any, *, empty: Any) -> Any:
    """A number as people type it: 1,024 and 32k too. What is none stays what it is."""
    if value is None or value == "":
        return empty
    if isinstance(value, str):
        try:
            return read_tokens(value.replace(",", "").removesuffix("tokens"))
        except UserError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else value
