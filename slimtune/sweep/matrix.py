"""From a matrix file to its cells: models x contestants x axes x tasks x seeds over one base recipe.

    base: smollm2-banking77-demo     a recipe by name or file, or its keys written out; without model, task and seed
    models: [qwen3-0.6b, ...]
    tasks: [banking77, ...]          or a section: each task with the keys that it alone sets
    seeds: [17, 18, 19]
    axes: {lora.r: [8, 64]}          any key of a recipe, with its values
    contestants: {fifty: {data.train_rows: 50}}    named ways, a `model` among their keys if need be
    served: [{model: ..., base_url: ..., runs: 3}]    models behind an endpoint: scored, never trained

Strict like a recipe: mistakes are reported at once, with their lines. All seeds answer the same test rows.
"""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from slimtune.check import read_rows, ready
from slimtune.errors import Problem, Problems, ServiceAway, UserError, by_line, did_you_mean
from slimtune.models import get_model
from slimtune.recipe import Recipe, check_recipe, find_recipe, put_key, read_recipe, recipes_folder
from slimtune.strict_yaml import Document, parse_yaml
from slimtune.sweep.asked import Asked, Entrant, Matrix
from slimtune.sweep.identity import digest_of, served_identity, trained_identity
from slimtune.wording import refused

_OURS = {"task": "tasks", "seed": "seeds"}  # keys of a recipe that a matrix has its own for


@dataclass(frozen=True)
class _Way:
    """One contestant before its tasks and seeds: a model, and the keys that are changed for it."""

    model: str
    name: str
    axes: Mapping[str, Any]
    lines: Mapping[str, int]


def find_matrix(name: str) -> Path:
    """The file of a matrix: a path, or the name of one that comes with slimtune. UserError for neither."""
    for path in (Path(name), Path(f"{name}.yaml")):
        if path.is_file():
            return path
    shipped = {file.stem: file for file in (recipes_folder() / "matrix").glob("*.yaml")}
    if name not in shipped:
        hint = did_you_mean(name, shipped)
        raise UserError(f"There is no matrix file {name}, and none of that name comes with slimtune. {hint}")
    return shipped[name]


def read_matrix(path: Path, *, data_dir: Path | None = None) -> tuple[Asked, ...]:
    """The cells of a matrix file, model by model. Raises Problems with its mistakes."""
    document = parse_yaml(path)
    problems = list(document.problems)
    matrix = _sections(path, document, problems)
    of_base: list[Problem] = []
    base = _base(path, document, matrix, of_base)
    ways = list(_ways(path, document, matrix, problems))
    if of_base:  # every cell would repeat them
        raise Problems(str(path), by_line([*problems, *of_base]))
    cells = _Cells(path, document, matrix, base, data_dir)
    found = [cells.trained(way, *place) for way in ways for place in cells.places(matrix.seeds)]
    found += [cells.served(one, *place) for one in matrix.served for place in cells.places(range(1, one.runs + 1))]
    problems += cells.problems
    if problems := problems or [*_twice(path, found), *_mixed(path, found)]:
        raise Problems(str(path), by_line(problems))
    return tuple(cell for cell in found if cell is not None)


def _sections(path: Path, document: Document, problems: list[Problem]) -> Matrix:
    """What stands in the file, without the sections that are wrong: the rest is checked too. Where these are what cells
    are made of (models, tasks, contestants, served), raises Problems with them alone."""
    try:
        return Matrix.model_validate(document.value)
    except ValidationError as error:
        problems += [_problem(path, document, item) for item in error.errors()]
        wrong = {item["loc"][0] for item in error.errors() if item["loc"]}
    rest = {key: value for key, value in document.value.items() if key not in wrong}
    if not wrong or wrong & {"models", "tasks", "contestants", "served"}:
        raise Problems(str(path), problems)
    return Matrix.model_validate(rest)


class _Cells:
    """Makes cells over one base; each task is read once for all that take the same rows of it."""

    def __init__(self, path: Path, document: Document, matrix: Matrix, base: Document, data_dir: Path | None):
        self.path, self.lines, self.matrix, self.base, self.data_dir = path, document.lines, matrix, base, data_dir
        self.problems: list[Problem] = []
        self._rows: dict[str, Any] = {}

    def places(self, seeds: Sequence[int]) -> Iterator[tuple[str, int]]:
        yield from itertools.product(self.matrix.tasks, seeds)

    def trained(self, way: _Way, task: str, seed: int) -> Asked | None:
        document = self._document(way.model, task, seed)
        for key, value in way.axes.items():
            where = f"{self.path}:{way.lines[key]} {key}"
            self.problems += put_key(document, key, value, said=where, line=where)
        source = check_recipe(document, str(self.path))
        prepared, wrong = None, ""
        try:
            prepared = ready(source, data_dir=self.data_dir, rows=self._read)
        except Problems as error:
            self.problems += error.problems
            return None
        except ServiceAway as error:
            wrong = str(error)
        identity = trained_identity(source.recipe, prepared)
        return Asked(
            digest_of(identity), way.name, way.model, task, seed, way.axes, source.recipe, None, identity, prepared,
            wrong,
        )  # fmt: skip

    def served(self, entrant: Entrant, task: str, run: int) -> Asked | None:
        """A cell of a served model; `run` stands for the seed."""
        model = f"openai:{entrant.model}"
        source, wrong, found = check_recipe(self._document(model, task, self._first), str(self.path)), "", None
        self.problems += source.problems
        if source.recipe is None:
            return None
        try:
            found, _ = self._read(source.recipe, self.data_dir)
        except Problems as error:
            self.problems += error.problems
            return None
        except UserError as error:
            self.problems.append(Problem(f"{self.path} {task}", str(error)))
            return None
        except ServiceAway as error:
            wrong = str(error)
        identity = served_identity(entrant.asked, source.recipe, found, run=run)
        name = entrant.model + (f", {entrant.few_shot}-shot" if entrant.few_shot else "")
        return Asked(
            digest_of(identity), name, model, task, run, {}, source.recipe, entrant, identity, None, wrong
        )  # fmt: skip

    @property
    def _first(self) -> int:
        return self.matrix.seeds[0]

    def _document(self, model: str, task: str, seed: int) -> Document:
        """The base with a model, a task and a seed in it, each with the line it stands in."""
        document = Document(copy.deepcopy(self.base.value), dict(self.base.lines))
        given = {"model": model, "task": task, "seed": seed}
        for key, section in (("model", "models"), ("task", "tasks"), ("seed", "seeds")):
            line = self.lines.get((section, task)) or self.lines.get((section,), 1)
            put_key(document, key, given[key], said=str(self.path), line=line)
        own = self.matrix.tasks[task] if isinstance(self.matrix.tasks, dict) else {}
        for key, value in own.items():
            line = self.lines.get(("tasks", task, key), 1)
            where = f"{self.path}:{line} {key}"
            self.problems += put_key(document, key, value, said=where, line=where)
        document.value.setdefault("data", {}).setdefault("test_seed", self._first)
        return document

    def _read(self, recipe: Recipe, data_dir: Path | None) -> Any:
        key = repr((recipe.task, recipe.data, recipe.seed, recipe.thinking))
        if key not in self._rows:
            try:
                self._rows[key] = read_rows(recipe, data_dir)
            except ServiceAway as error:  # asked once, and not by every cell anew
                self._rows[key] = error
        if isinstance(self._rows[key], ServiceAway):
            raise self._rows[key]
        return self._rows[key]


def _base(path: Path, document: Document, matrix: Matrix, problems: list[Problem]) -> Document:
    """The base recipe as a document whose lines are the matrix's, or those of the recipe it names."""
    if isinstance(matrix.base, str):
        try:
            source = read_recipe(find_recipe(matrix.base))
        except UserError as error:
            problems.append(Problem(f"{path}:{document.lines.get(('base',), 1)} base", str(error)))
            return Document({})
        problems += source.problems
        value = {key: value for key, value in source.document.value.items() if key not in ("model", *_OURS)}
        return Document(value, dict.fromkeys(source.document.lines, document.lines[("base",)]))
    lines = {keys[1:]: line for keys, line in document.lines.items() if keys[:1] == ("base",)}
    problems += _not_ours(path, matrix.base, ("model", *_OURS), lambda key: lines.get((key,), 1), "base.")
    return Document({key: value for key, value in matrix.base.items() if key not in ("model", *_OURS)}, lines)


def _ways(path: Path, document: Document, matrix: Matrix, problems: list[Problem]) -> Iterator[_Way]:
    """Every contestant: models x named ways x the axes' values."""
    problems += _misplaced(path, document, matrix)
    for name in matrix.axes:
        if any(name in keys for keys in matrix.contestants.values()):
            where = f"{path}:{document.lines.get(('axes', name), 1)} {name}"
            problems.append(Problem(where, "is set by both contestants and axes.", "Leave it to one of them."))
    own = [keys.get("model") for keys in matrix.contestants.values()]
    if not matrix.models and not matrix.served and not (own and all(own)):
        problems.append(Problem(str(path), "names no model.", "Give `models:`, or `served:`."))
    named = matrix.contestants or {"": {}}
    for name, keys in named.items():
        models = [keys["model"]] if "model" in keys else matrix.models
        lines = {key: document.lines.get(("contestants", name, key), 1) for key in keys}
        lines |= {key: document.lines.get(("axes", key), 1) for key in matrix.axes}
        axed = {key: values for key, values in matrix.axes.items() if values}
        for model, values in itertools.product(models, itertools.product(*axed.values())):
            axes = dict(zip(axed, values, strict=True))
            label = _label(model)
            said = label.lower() in name.lower()  # else a way alone, "rank 4", reads like a place
            words = [*([] if said else [label]), *([name] if name else []), *_words(matrix, axes)]
            changed = {key: value for key, value in keys.items() if key != "model"}
            yield _Way(model, ", ".join(words), {**changed, **axes}, lines)


def _misplaced(path: Path, document: Document, matrix: Matrix) -> Iterator[Problem]:
    """Keys that a matrix has a section of its own for, which names its cells by them; and axes without values."""
    own = matrix.tasks if isinstance(matrix.tasks, dict) else {}
    for section, named in (("axes", {"": matrix.axes}), ("contestants", matrix.contestants), ("tasks", own)):
        ours = _OURS if section == "contestants" else ("model", *_OURS)
        for name, keys in named.items():
            place = (section, name) if name else (section,)
            yield from _not_ours(path, keys, ours, lambda key, at=place: document.lines.get((*at, key), 1), "")
    for name, values in matrix.axes.items():
        if not values:
            yield Problem(f"{path}:{document.lines.get(('axes', name), 1)} axes.{name}", "has no values.")


def _words(matrix: Matrix, axes: Mapping[str, Any]) -> list[str]:
    """The axes that differ, in short: "r 8", by the key's last word where that tells it from the others."""
    last = [key.rpartition(".")[2] for key in matrix.axes]
    shown = {key: key if last.count(word) > 1 else word for key, word in zip(matrix.axes, last, strict=True)}
    return [
        f"{shown[key]} {f'{value:g}' if isinstance(value, float) else value}"
        for key, value in axes.items()
        if len(matrix.axes[key]) > 1
    ]


def _label(model: str) -> str:
    """As people call it; what is wrong with a name is said where the cell is checked."""
    try:
        return get_model(model).label
    except (UserError, ServiceAway):
        return model


def _not_ours(
    path: Path, keys: Sequence[str], ours: Sequence[str], line: Callable[[str], Any], prefix: str
) -> list[Problem]:
    return [
        Problem(
            f"{path}:{line(key)} {prefix}{key}",
            "is not for here.",
            f"A matrix has `{_OURS.get(key, 'models')}:` for it.",
        )
        for key in keys
        if key in ours
    ]


def _twice(path: Path, cells: Sequence[Asked | None]) -> Iterator[Problem]:
    """Cells that are one and the same under two names; and two under one, which would be ranked as seeds of one."""
    seen: dict[str, Asked] = {}
    named: dict[tuple[str, str, int], Asked] = {}
    for cell in filter(None, cells):
        first = seen.setdefault(cell.fingerprint, cell)
        namesake = named.setdefault((cell.contestant, cell.task, cell.seed), cell)
        if first is not cell:
            yield Problem(str(path), f"{first.contestant!r} and {cell.contestant!r} are the same on {cell.task}.")
        elif namesake is not cell:
            what = f"asks for two different {cell.contestant!r} on {cell.task}."
            yield Problem(str(path), what, "Put one into a matrix of its own.")


def _mixed(path: Path, cells: Sequence[Asked | None]) -> Iterator[Problem]:
    """Cells of which some are scored on test rows, and some on rows held out of train."""
    if len({cell.recipe.data.validation_rows is None for cell in cells if cell is not None}) > 1:
        what = "scores some cells on test rows and some on validation rows, which never mix."
        yield Problem(str(path), what, "Set data.validation_rows in `base:`, for all.")


def _problem(path: Path, document: Document, item: Mapping[str, Any]) -> Problem:
    keys = tuple(str(key) for key in item["loc"])
    line = next((document.lines[keys[:n]] for n in range(len(keys), -1, -1) if keys[:n] in document.lines), 1)
    where = f"{path}:{line} {'.'.join(keys)}".rstrip()
    if item["type"] == "extra_forbidden":
        section = Entrant if keys[0] == "served" else Matrix
        return Problem(where, "is not a key of a matrix.", did_you_mean(keys[-1], section.model_fields))
    return Problem(where, *refused(item))
