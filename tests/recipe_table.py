"""Writes the table of docs/RECIPE.md: every key of a recipe, as recipe/sections.py has it.

python tests/recipe_table.py
"""

from pathlib import Path

from slimtune.listing import recipe_keys

PAGE = Path(__file__).parents[1] / "docs" / "RECIPE.md"
BEGINS, ENDS = "<!-- keys -->\n", "<!-- /keys -->"


def table() -> str:
    _, columns, rows = recipe_keys()
    lines = [columns, ("---",) * len(columns), *((f"`{key}`", *rest) for key, *rest in rows)]
    return "".join(f"| {' | '.join(' '.join(cell.split()) for cell in line)} |\n" for line in lines)


def written() -> str:
    """The table that stands in the page."""
    return PAGE.read_text(encoding="utf-8").split(BEGINS)[1].split(ENDS)[0]


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text.replace(written(), table()), encoding="utf-8")
