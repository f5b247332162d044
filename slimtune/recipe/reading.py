"""From a file to a recipe: every mistake is reported at once, with its line and the nearest known word.

The file is data: no anchors, no tags, no duplicate keys, and a scalar means what it looks like (`5e-5` is a number,
`no` is a word).
"""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from slimtune.errors import Problem, Problems, UserError, did_you_mean
from slimtune.models import find_model
from slimtune.recipe.keys import meant
from slimtune.recipe.sections import Recipe
from slimtune.strict_yaml import Document, parse_scalar, parse_yaml
from slimtune.wording import refused

_MODEL = re.compile(r"^model: *(\S+)", re.MULTILINE)
_MAY_HOLD_A_KEY = {("key_env",), ("base_url",)}  # by mistake; so what stands there is not repeated


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
    if not equals or not all(key.split(".")):
        return [Problem(f"--set {text}", "is not of the form a.b=c")]
    items = value[1:-1].split(",") if value.startswith("[") and value.endswith("]") else None
    given = parse_scalar(value) if items is None else [parse_scalar(item.strip()) for item in items]
    return put_key(document, key, given, said=f"--set {text}", line=f"--set {key}")


def put_key(document: Document, key: str, value: Any, *, said: str, line: int | str) -> list[Problem]:
    """Set "a.b" in a document, which says from now on that it stands in `line`. `said` is what a problem calls it."""
    *path, name = key.split(".")
    place = document.value
    if path[:1] == ["context"] and isinstance(place.get("context"), int):
        place["context"] = {"length": place["context"]}
    for step in path:
        place = place.setdefault(step, {})
        if not isinstance(place, dict):
            return [Problem(said, f"{step} is not a section")]
    place[name] = value
    document.lines[(*path, name)] = line
    return []


def _problem(path: str, document: Document, item: dict[str, Any]) -> Problem:
    keys = tuple(str(key) for key in item["loc"])
    unknown = item["type"] == "extra_forbidden"
    if keys[-1:] in _MAY_HOLD_A_KEY:
        item = {**item, "input": {}}
    whole = isinstance(document.lines.get(keys), str)  # written as one word, and so it is to be mended
    what, fix = ("is not a key of a recipe.", meant(keys, whole=whole)) if unknown else refused(item)
    return Problem(_where(path, document, keys), what, fix)


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
    if name not in shipped and (spec := find_model(name)) is not None:
        raise UserError(_a_model(name, spec.key, shipped))
    if name not in shipped:
        raise UserError(
            f"There is no recipe file {name}, and none of that name comes with slimtune. {did_you_mean(name, shipped)}"
        )
    return shipped[name]


def recipe_name(path: Path) -> str:
    """What its runs are called: as its file, or as its folder where the file is a recipe.yaml, as of `slimtune new`."""
    return path.resolve().parent.name if path.stem == "recipe" else path.stem


def _a_model(name: str, key: str, shipped: Mapping[str, Path]) -> str:
    """What to type where a model stands in place of a recipe."""
    texts = {recipe: path.read_text(encoding="utf-8") for recipe, path in sorted(shipped.items())}
    models = {recipe: find_model(named) for recipe, text in texts.items() for named in _MODEL.findall(text)}
    own = [recipe for recipe, spec in models.items() if spec is not None and spec.key == key]
    have = f"Recipes with it: {', '.join(own)}." if own else "No recipe that comes with slimtune has it."
    return f"{name} is a model, not a recipe. {have} Any other recipe takes it by: RECIPE --set model={name}."


def recipes_folder() -> Path:
    """The recipes that come with slimtune: installed with the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    return package / "recipes" if (package / "recipes").is_dir() else package.parent / "recipes"
