"""A recipe: one YAML file that says everything about a run, checked as a whole before anything starts.

sections   what may stand in it, with the defaults
keys       its keys as a list, and which one is meant by a word that is none
reading    from the file to the recipe, or to every mistake in it
"""

from slimtune.recipe.reading import (
    RecipeSource,
    check_recipe,
    find_recipe,
    load_recipe,
    put_key,
    read_recipe,
    recipe_name,
    recipes_folder,
)
from slimtune.recipe.sections import Context, Data, Evaluate, Judge, Lora, Recipe, Section, Served, Teacher, Train

__all__ = [
    "Context",
    "Data",
    "Evaluate",
    "Judge",
    "Lora",
    "Recipe",
    "RecipeSource",
    "Section",
    "Served",
    "Teacher",
    "Train",
    "check_recipe",
    "find_recipe",
    "load_recipe",
    "put_key",
    "read_recipe",
    "recipe_name",
    "recipes_folder",
]
