"""Code that is read in one sitting: functions and modules keep within a budget. Past it, first delete, then split."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "slimtune").rglob("*.py"))
NAMES = [str(file.relative_to(ROOT)) for file in FILES]
FUNCTION_LINES, MODULE_LINES = 50, 300
BANNED = {"utils", "util", "helper", "helpers", "common", "base", "manager", "handler", "processor", "misc"}


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_module_is_at_most_300_lines_and_says_what_it_is_for(file):
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MODULE_LINES
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "a module opens with what it is for"


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_function_is_at_most_50_lines(file):
    functions = [
        node
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lengths = {function.name: function.end_lineno - function.lineno + 1 for function in functions}
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES} == {}


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_no_function_hides_its_knobs(file):
    """`**kwargs` accepts a misspelt knob in silence. Only transformers' `on_*` callbacks are called with some."""
    functions = [
        node
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    hiding = [function.name for function in functions if function.args.kwarg]
    assert [name for name in hiding if not name.startswith("on_")] == []


def test_no_module_is_named_for_what_it_is_not():
    assert [name for name, file in zip(NAMES, FILES, strict=True) if file.stem in BANNED] == []
