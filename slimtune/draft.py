"""A recipe in the making: from what a person chose on a form to YAML, to a plan, and to every model on the same rows.

Answers while one types: rows are read once and remembered, and the rest is arithmetic.
"""

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from slimtune.check import Ready, read_rows, ready
from slimtune.errors import Problem, Problems, UserError
from slimtune.files import digest_file, write_bytes
from slimtune.forecast import Card, Forecast, Line, forecast_all, forecast_recipe, load_of
from slimtune.models import get_model
from slimtune.recipe import (
    Evaluate,
    Lora,
    Recipe,
    RecipeSource,
    Section,
    Train,
    check_recipe,
    load_recipe,
    recipes_folder,
)
from slimtune.strict_yaml import Document
from slimtune.tasks import Quality, Task

UPLOADS = Path("uploads")
MOST_UPLOAD_MB = 200
READABLE = (".jsonl", ".csv", ".tsv")
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9.]+")
_HERE = "the form"


@dataclass(frozen=True)
class Draft:
    """What is chosen so far. `train` and `test` are files of one's own, in place of `task`; `columns` says what theirs
    mean, such as {"text": "message", "label": "intent"}."""

    model: str
    task: str | None = None
    train: str | None = None
    test: str | None = None
    columns: tuple[tuple[str, str], ...] = ()
    labels: tuple[str, ...] = ()
    instruction: str = ""
    context: int = 2048
    yarn: bool = False
    rank: int = Lora().r
    alpha: int = Lora().alpha
    epochs: float = Train().epochs
    lr: float = Train().lr
    batch: int | None = None
    train_rows: int | None = None
    test_rows: int | None = None
    few_shot: int = Evaluate().few_shot
    skip_bad: bool = False

    @property
    def name(self) -> str:
        """MODEL-TASK, as recipes are called."""
        rows = Path(self.task).name if self.task else Path(self.train or "rows").stem
        return "-".join(_NOT_IN_A_NAME.sub("-", part.lower()).strip("-.") for part in (self.model, rows))


def draft_of(recipe: Recipe) -> Draft | None:
    """The draft that makes this recipe; None where a form does not ask for all that it says."""
    data, train = recipe.data, recipe.train
    draft = Draft(
        recipe.model, recipe.task, data.train, data.test, tuple(data.columns.items()), data.labels,
        data.instruction or "", recipe.context.length, recipe.context.method == "yarn", recipe.lora.r,
        recipe.lora.alpha, train.epochs, train.lr, train.batch, data.train_rows, data.test_rows,
        recipe.evaluate.few_shot, data.skip_bad,
    )  # fmt: skip
    return draft if Recipe.model_validate(recipe_value(draft)) == recipe else None


@functools.cache
def starting_drafts() -> dict[str, Draft]:
    """By name, the recipes that come with slimtune and that a form can show whole."""
    found = {file.stem: draft_of(load_recipe(file)) for file in sorted(recipes_folder().glob("*.yaml"))}
    return {name: draft for name, draft in found.items() if draft is not None and draft.task}


@dataclass(frozen=True)
class Outlook:
    """What a draft leads to. `prepared` is there where nothing is wrong with it, `forecast` where it fits the card;
    `problems` and `refusal` say why not."""

    prepared: Ready | None
    problems: tuple[Problem, ...]
    forecast: Forecast | None
    refusal: str


def recipe_text(draft: Draft) -> str:
    """The recipe as a file: what differs from the defaults, headed by what it does and the command that runs it."""
    label = get_model(draft.model).label
    rows = draft.task or Path(draft.train or "").name
    lines = [f"# {label} learns {rows}.", f"#   slimtune run {draft.name}.yaml"]
    return "\n".join([*lines, *(f"{key}: {_flow(value)}" for key, value in recipe_value(draft).items())]) + "\n"


def recipe_value(draft: Draft) -> dict[str, Any]:
    """The recipe as a mapping, defaults left out."""
    data = {
        "train": draft.train, "test": draft.test, "columns": dict(draft.columns), "instruction": draft.instruction,
        "labels": list(draft.labels), "train_rows": draft.train_rows, "test_rows": draft.test_rows,
        "skip_bad": draft.skip_bad or None,
    }  # fmt: skip
    value = {
        "model": draft.model,
        "task": draft.task,
        "data": _said(data),
        "lora": _unusual(Lora(), {"r": draft.rank, "alpha": draft.alpha}),
        "train": _unusual(Train(), {"epochs": draft.epochs, "lr": draft.lr, "batch": draft.batch}),
        "evaluate": _unusual(Evaluate(), {"few_shot": draft.few_shot}),
        "context": {"length": draft.context, "method": "yarn"} if draft.yarn else draft.context,
    }
    return _said(value)


def _said(value: dict[str, Any]) -> dict[str, Any]:
    """Without what was left empty. A 0 was not."""
    return {key: item for key, item in value.items() if item not in (None, "", [], {})}


def _unusual(usual: Section, said: dict[str, Any]) -> dict[str, Any]:
    return {name: number for name, number in said.items() if number != getattr(usual, name)}


def outlook(draft: Draft, card: Card | None) -> Outlook:
    """What is wrong with a draft, or whether it fits `card` (None: the CPU), how long and for how much."""
    if not draft.task and not draft.train:
        return Outlook(None, (Problem("rows", "Upload a file of training rows, .csv or .jsonl."),), None, "")
    try:
        prepared = ready(_source(draft), rows=_remembered)
    except Problems as error:
        return Outlook(None, error.problems, None, "")
    except UserError as error:
        return Outlook(None, (Problem(_HERE, str(error)),), None, "")
    try:
        return Outlook(prepared, (), forecast_recipe(prepared, card), "")
    except UserError as error:
        return Outlook(prepared, (), None, str(error))


def every_model(prepared: Ready, card: Card | None) -> list[Line]:
    """Every model for the same rows and the same card."""
    return forecast_all(card, load_of(prepared))


def keep_upload(path: Path, *, name: str) -> str:
    """Copy an uploaded file to where recipes find it, under a name of ours; its path there. Raises UserError for what
    is no table of rows, or too large."""
    ending = Path(name).suffix.lower()
    if ending not in READABLE:
        raise UserError(f"{Path(name).name} is not a file of rows. Upload .jsonl, .csv or .tsv.")
    if path.stat().st_size > MOST_UPLOAD_MB * 2**20:
        raise UserError(f"{Path(name).name} is larger than {MOST_UPLOAD_MB} MB. Put it beside a recipe instead.")
    stem = _NOT_IN_A_NAME.sub("-", Path(name).stem.lower()).strip("-.")[:40]
    stem = "rows" if stem in ("", "train") else stem  # a file called train is named after its folder (formats.py)
    kept = UPLOADS / digest_file(path)[:8] / f"{stem}{ending}"
    if not kept.is_file():
        write_bytes(kept, path.read_bytes())
    return str(kept)


def _source(draft: Draft) -> RecipeSource:
    return check_recipe(Document(recipe_value(draft)), _HERE)


def _remembered(recipe: Recipe, data_dir: Path | None) -> tuple[Task, Quality]:
    """`read_rows`, once for the same rows: what else a recipe says does not change them."""
    asked = recipe.model_dump(mode="json", include={"task", "data", "seed"})
    files = [Path(file) for file in (recipe.data.train, recipe.data.test) if file]
    files += sorted(Path(recipe.task).glob("*.json*")) if recipe.task and Path(recipe.task).is_dir() else []
    stamps = [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file()]
    return _rows(json.dumps(asked), json.dumps(stamps))


@functools.lru_cache(maxsize=3)
def _rows(asked: str, stamps: str) -> tuple[Task, Quality]:
    return read_rows(Recipe.model_validate({"model": "any", **json.loads(asked)}))


class _Dumper(yaml.SafeDumper):
    """Small numbers as people write them: 2e-4."""


def _write_float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    if value.is_integer():
        return dumper.represent_int(int(value))
    text = np.format_float_scientific(value, trim="-", exp_digits=1) if 0 < value < 1e-2 else repr(value)
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


def _write_text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if value.isprintable() else '"')


_Dumper.add_representer(float, _write_float)
_Dumper.add_representer(str, _write_text)
# `5e-5` is a number in a recipe (strict_yaml), and so a text that looks like one is quoted
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9.]+[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
