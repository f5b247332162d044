"""A recipe: one YAML file that says everything about a run, checked as a whole before anything starts.

Every mistake is reported at once, with its line and the nearest known word. The file is data: no anchors, no tags, no
duplicate keys, and a scalar means what it looks like (`5e-5` is a number, `no` is a word).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_serializer, model_validator

from slimtune.errors import Problem, Problems, UserError, did_you_mean
from slimtune.files import digest_json
from slimtune.strict_yaml import Document, parse_scalar, parse_yaml

_FILE_KEYS = ("test", "format", "columns", "kind", "instruction", "scorer")


class Section(BaseModel):
    """A part of a recipe. Unknown keys are errors, and a loaded recipe never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Lora(Section):
    """Which directions the adapter may move in. The defaults are the published study's."""

    r: int = Field(64, ge=1, le=1024)
    """Rank."""
    alpha: int = Field(64, ge=1, le=65_536)
    """Scale; the update is multiplied by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Above 0 switches Unsloth's fast kernels off."""


class Train(Section):
    """How the adapter is trained. The defaults are the published study's."""

    epochs: float = Field(4, gt=0, le=10_000)
    lr: float = Field(5e-5, gt=0, lt=1)
    """Peak learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    batch: int = Field(16, ge=1, le=65_536)
    """Rows per optimizer step. It never changes, whatever has to be split to fit."""
    micro_batch: int | None = Field(None, ge=1)
    """Rows per forward pass; chosen by the plan where it is not given."""
    collation: Literal["auto", "padded", "shared-prefix"] = "auto"
    """How rows are laid out; `auto` takes the fastest that is proven for the model and machine."""
    quantisation: Literal["auto", "4bit", "16bit"] = "auto"
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    checkpoint_minutes: float = Field(5, gt=0)
    checkpoint_steps: int | None = Field(None, ge=1)
    """Save every so many steps as well."""
    keep_checkpoints: int = Field(2, ge=2)


class Data(Section):
    """Which rows are used: of a task (the selection), or of files (train, test and how to read them)."""

    train: str | None = None
    test: str | None = None
    format: str | None = None
    """One of slimtune.tasks.formats.FORMATS; told from the first row where it is not given. A .csv is read as one."""
    columns: dict[str, str] = {}
    """For CSV: {prompt: ..., completion: ...}, {text: ..., label: ...}, and group: ... where rows belong together."""
    kind: Literal["classification", "qa", "text"] | None = None
    """What prompt-and-answer rows are; told from the rows where it is not given."""
    instruction: str | None = None
    """The system turn."""
    scorer: str | None = None
    labels: tuple[str, ...] = ()
    """Keep only these classes."""
    train_rows: int | None = Field(None, ge=1)
    test_rows: int | None = Field(None, ge=1)
    skip_bad: bool = False
    """Leave unreadable rows out, counted, instead of refusing the file."""
    long_rows: Literal["error", "drop"] = "error"
    """What to do with rows longer than the context. Answers are never cut."""
    allow_overlap: bool = False
    """Run although training rows stand in the test set."""


class Evaluate(Section):
    """How base and tuned are scored."""

    few_shot: int = Field(3, ge=0, le=1000)
    """Training examples in the few-shot prompt; with few classes, at least one of each. 0 leaves that score out."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Longest answer; the task's own limit where it is not given."""


class Context(Section):
    """How long a row may be, and how positions beyond the model's own window are reached. A number is short for
    {length: number}."""

    length: int = Field(2048, ge=64, le=16 * 1024**2)
    """Longest row in tokens, prompt and answer."""
    method: Literal["none", "yarn"] = "none"
    """`yarn` stretches the window of a model that is meant for it (see plan/context.py)."""
    needles: int = Field(20, ge=1)
    """Rows of the long-context check that comes with `yarn`, at each length."""

    @model_validator(mode="after")
    def _nothing_unread(self) -> "Context":
        if self.method == "none" and "needles" in self.model_fields_set:
            raise ValueError("gives needles, which only `method: yarn` asks")
        return self

    @model_serializer
    def _in_short(self) -> int | dict[str, Any]:
        return self.length if self.method == "none" else dict(self)


class Recipe(Section):
    """Everything that decides a run's result."""

    model: str
    """A name of `slimtune list models`, the Hugging Face repository of one, or a folder."""
    revision: str | None = None
    """Commit of a Hugging Face repository; resolved and pinned at the first run."""
    task: str | None = None
    """A name of `slimtune list tasks`, or a folder with job.json, train.jsonl and test.jsonl."""
    data: Data = Data()
    lora: Lora = Lora()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    context: Context = Context()
    """A number of tokens, or {length, method}."""
    thinking: Literal["off", "on", "mixed"] = "off"
    """For models with a thinking mode; `mixed` thinks in rows that carry reasoning."""
    seed: int = Field(17, ge=0)

    @field_validator("context", mode="before")
    @classmethod
    def _number_or_section(cls, value: Any) -> Any:
        if not isinstance(value, int | float | dict | Context):
            raise ValueError("is a number of tokens, or {length: 131072, method: yarn}")
        return {"length": value} if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _one_source_of_rows(self) -> "Recipe":
        if self.task is None and self.data.train is None:
            raise ValueError("names no rows: give `task:`, or `data:` with `train:`")
        if self.task is not None and self.data.train is not None:
            raise ValueError("names rows twice: give `task:` or `data.train:`, not both")
        if self.task is not None:
            unread = [key for key in _FILE_KEYS if getattr(self.data, key) != getattr(Data(), key)]
            if unread:
                raise ValueError(
                    f"gives {', '.join(f'data.{key}' for key in unread)}, which only files need: a task brings its own"
                )
        if self.train.micro_batch and self.train.batch % self.train.micro_batch:
            raise ValueError(
                f"train.batch {self.train.batch} is not a multiple of micro_batch {self.train.micro_batch}"
            )
        return self

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """SHA-256 over every key that can change the result: not over when checkpoints are written."""
        value = self.as_json()
        for key in ("checkpoint_minutes", "checkpoint_steps", "keep_checkpoints"):
            del value["train"][key]
        return digest_json(value)


@dataclass(frozen=True)
class RecipeSource:
    """A recipe file as read: the recipe, or None and what is wrong with it. `rest` is the recipe without its wrong
    keys, for looking at what else is wrong; None where nothing sensible is left."""

    path: str
    document: Document
    recipe: Recipe | None
    rest: Recipe | None
    problems: tuple[Problem, ...]

    def where(self, *keys: str) -> str:
        """ "recipe.yaml:12 train.lr" for a key."""
        return _where(self.path, self.document, keys)


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> RecipeSource:
    """Read a recipe and its `a.b=c` overrides. Nothing is raised for what the file says: see `problems`."""
    document = parse_yaml(path)
    problems = list(document.problems)
    for override in overrides:
        problems += _override(document, override)
    return check_recipe(document, str(path), problems)


def check_recipe(document: Document, path: str, problems: Sequence[Problem] = ()) -> RecipeSource:
    """The recipe in a document, or what is wrong with it; `path` is how it is called in a problem."""
    problems = list(problems)
    try:
        rest = Recipe.model_validate(document.value)
    except ValidationError as error:
        problems += [_problem(path, document, item) for item in error.errors()]
        rest = _without(document.value, [item["loc"] for item in error.errors()])
    return RecipeSource(path, document, None if problems else rest, rest, tuple(problems))


def _without(value: dict[str, Any], wrong: Sequence[Sequence[Any]]) -> Recipe | None:
    """The recipe that is left when the keys at these places are taken out."""
    value = copy.deepcopy(value)
    for place in wrong:
        section, depth = value, 0
        while depth + 1 < len(place) and isinstance(section.get(place[depth]), dict):
            section, depth = section[place[depth]], depth + 1
        if place:
            section.pop(place[depth], None)
    try:
        return Recipe.model_validate({"model": "", **value})
    except ValidationError:
        return None


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file. Raises Problems with every mistake in it."""
    source = read_recipe(path, overrides)
    if source.recipe is None:
        raise Problems(str(path), source.problems)
    return source.recipe


def _override(document: Document, text: str) -> list[Problem]:
    key, equals, value = text.partition("=")
    keys = tuple(key.split("."))
    if not equals or not all(keys):
        return [Problem(f"--set {text}", "is not of the form a.b=c")]
    place = document.value
    if keys[0] == "context" and isinstance(place.get("context"), int):
        place["context"] = {"length": place["context"]}
    for step in keys[:-1]:
        place = place.setdefault(step, {})
        if not isinstance(place, dict):
            return [Problem(f"--set {text}", f"{step} is not a section")]
    items = value[1:-1].split(",") if value.startswith("[") and value.endswith("]") else None
    place[keys[-1]] = parse_scalar(value) if items is None else [parse_scalar(item.strip()) for item in items]
    document.lines[keys] = f"--set {key}"
    return []


def _problem(path: str, document: Document, item: dict[str, Any]) -> Problem:
    keys = tuple(str(key) for key in item["loc"])
    where = _where(path, document, keys)
    if item["type"] == "extra_forbidden":
        return Problem(where, "is not a key of a recipe.", did_you_mean(keys[-1], _known_keys(keys[:-1])))
    if item["type"] == "missing":
        return Problem(where, "is missing.")
    if item["type"] == "literal_error":
        words = [word.strip("' ") for word in item["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return Problem(where, f"cannot be {item['input']!r}.", did_you_mean(str(item["input"]), words))
    message = item["msg"].removeprefix("Value error, ")
    given = "" if isinstance(item["input"], dict) else f", not {item['input']!r}"
    return Problem(where, f"{message[0].lower()}{message[1:]}{given}.")


def _known_keys(path: tuple[str, ...]) -> list[str]:
    section: Any = Recipe
    for key in path:
        field = getattr(section, "model_fields", {}).get(key)
        section = field.annotation if field else None
    return list(getattr(section, "model_fields", {}))


def _where(path: str, document: Document, keys: tuple[str, ...]) -> str:
    lines = (document.lines.get(keys[:length]) for length in range(len(keys), -1, -1))
    line = next((line for line in lines if line is not None), None)
    if isinstance(line, str):
        return line
    return f"{path if line is None else f'{path}:{line}'} {'.'.join(keys)}".rstrip()


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path, or the name of one that comes with slimtune. Raises UserError for neither."""
    for path in (Path(name), Path(f"{name}.yaml")):
        if path.is_file():
            return path
    shipped = {file.stem: file for file in recipes_folder().glob("*.yaml")}
    if name not in shipped:
        raise UserError(
            f"There is no recipe file {name}, and none of that name comes with slimtune. {did_you_mean(name, shipped)}"
        )
    return shipped[name]


def recipes_folder() -> Path:
    """The recipes that come with slimtune: installed with the package, or beside it in a checkout."""
    package = Path(__file__).parent
    return package / "recipes" if (package / "recipes").is_dir() else package.parent / "recipes"
