"""The recipes that come along: short, headed alike, and each takes on the card it names what it says it takes."""

import re
from functools import cache
from pathlib import Path

import pytest

from slimtune.check import Ready
from slimtune.forecast import Asked, Forecast, forecast_model, forecast_recipe, plan_one
from slimtune.gpus import get_gpu
from slimtune.models import get_model
from slimtune.recipe import Recipe, load_recipe, recipes_folder
from slimtune.tasks import Selection, Task, get_task

ROOT = Path(__file__).parents[1]
RECIPES = sorted(file for file in recipes_folder().rglob("*.yaml") if file.parent.name != "matrix")
BENCHMARKS = (ROOT / "BENCHMARKS.md").read_text(encoding="utf-8")
CLAIM = re.compile(
    r"# Fits: (?P<card>[^,]+), planned peak (?P<peak>\d+\.\d) GiB\."
    r"( Measured on (?P<where>[^:]+): training \d+\.\d min(, peak \d+\.\d GiB)?\.)?"
)
FULL_ROWS = re.compile(r"^# Rows of all (?P<tokens>[\d,]+) tokens: planned peak (?P<peak>\d+\.\d) GiB\.$", re.MULTILINE)
STUDY = {  # the fifteen of distil labs' benchmark of March 2026
    "qwen3-8b", "qwen3-4b-instruct-2507", "qwen3-1.7b", "qwen3-0.6b",
    "llama-3.1-8b-instruct", "llama-3.2-3b-instruct", "llama-3.2-1b-instruct",
    "lfm2-350m", "lfm2-1.2b", "lfm2-2.6b-exp", "lfm2.5-1.2b-instruct",
    "smollm2-1.7b-instruct", "smollm2-135m-instruct", "gemma-3-1b-it", "gemma-3-270m-it",
}  # fmt: skip
FOR_A_PURPOSE = {"qwen3-14b-t4", "qwen3-30b-a3b", "qwen3-8b-128k-yarn", "lfm2-350m-edge", "smollm2-banking77-demo"}

every_recipe = pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)


@cache
def task_of(name: str, selection: Selection) -> Task:
    """A task is read once for all recipes that take the same part of it."""
    return get_task(name, selection=selection)


def forecast(recipe: Recipe, card: str) -> Forecast:
    """What `slimtune plan RECIPE --gpu CARD` finds."""
    data = recipe.data
    task = task_of(recipe.task, Selection(data.labels, data.train_rows, data.test_rows, recipe.seed, data.skip_bad))
    return forecast_recipe(Ready(recipe, task, get_model(recipe.model), quality=None), get_gpu(card))


def claim(file: Path) -> re.Match[str]:
    """The third line of a recipe: the card it fits, the peak it takes there, and what was measured."""
    line = file.read_text(encoding="utf-8").splitlines()[2]
    found = CLAIM.fullmatch(line)
    assert found, f"{line!r} is not of the form '# Fits: T4, planned peak 11.1 GiB.'"
    return found


@every_recipe
def test_a_recipe_opens_with_what_it_does_and_the_command_and_is_short(file):
    text = file.read_text(encoding="utf-8")
    does, command, *_ = text.splitlines()
    assert re.fullmatch(r"# [A-Z].{,46}\.", does), "`slimtune list recipes` shows it beside the name"
    assert command == f"#   slimtune run recipes/{file.relative_to(recipes_folder())}"
    assert text.endswith("\n") and len(text.splitlines()) <= 30


@every_recipe
def test_a_recipe_takes_on_the_card_it_names_what_it_says(file):
    recipe, said = load_recipe(file), claim(file)
    plan = forecast(recipe, said["card"]).plan
    assert said["peak"] == f"{plan.peak_gib['expected']:.1f}"
    assert said["card"] == plan.gpu and plan.peak_gib["high"] <= plan.room_gib


@every_recipe
def test_a_recipe_says_what_was_measured_if_the_benchmarks_have_it(file):
    assert bool(claim(file)["where"]) == (f"(recipes/{file.relative_to(recipes_folder())})" in BENCHMARKS)


@every_recipe
def test_a_stretched_recipe_says_what_its_longest_rows_take(file):
    recipe, said = load_recipe(file), FULL_ROWS.search(file.read_text(encoding="utf-8"))
    assert bool(said) == (recipe.context.method == "yarn")
    if said:
        spec, card = get_model(recipe.model), get_gpu(claim(file)["card"])
        batch = forecast(recipe, claim(file)["card"]).plan.batch
        asked = {"context": recipe.context, "batch": batch, "rank": recipe.lora.r}
        peak = forecast_model(spec, card, **asked).plan.peak_gib["expected"]
        assert (said["tokens"], said["peak"]) == (f"{recipe.context.length:,}", f"{peak:.1f}")


@every_recipe
def test_a_recipe_is_named_for_its_model_and_its_task(file):
    recipe = load_recipe(file)
    model, dash, task = file.stem.partition("-" + recipe.task.replace("_", "-"))
    assert bool(dash and not task) == (file.stem not in FOR_A_PURPOSE)
    assert dash == "" or set(model.split("-")) <= set(recipe.model.split("-"))


def test_the_peak_is_the_one_that_plan_shows():
    file = recipes_folder() / "qwen3-8b-voice-banking.yaml"
    shown = plan_one(str(file), Asked(gpu=claim(file)["card"]))
    assert shown.plan == forecast(load_recipe(file), "t4").plan


def test_every_model_of_the_study_has_a_recipe_for_a_t4():
    on_t4 = {load_recipe(file).model for file in RECIPES if claim(file)["card"] == "T4"}
    assert len(STUDY) == 15 and on_t4 >= STUDY


def test_every_task_but_the_needle_has_recipes():
    tasks = [load_recipe(file).task for file in RECIPES]
    assert all(tasks.count(name) >= 3 for name in ("banking77", "voice_banking", "squad2_open_book"))


@every_recipe
def test_tools_are_for_models_that_were_made_for_them(file):
    recipe = load_recipe(file)
    assert recipe.task != "voice_banking" or get_model(recipe.model).family not in ("smollm2", "gemma3")
