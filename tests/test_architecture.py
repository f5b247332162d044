"""Imports point down the design's list, the heavy libraries live in one room, and only the command line prints."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "slimtune"
ROWS = (
    ("errors",),
    ("data", "files", "stats", "published", "tallies", "gpus", "strict_yaml", "wording"),
    ("models", "endpoint"),
    ("recipe", "scorers"),
    ("tasks",),
    ("plan", "runs", "status"),
    ("engine",),
    ("distill", "evaluate", "export", "serve", "lengths", "check", "doctor", "answering"),
    ("report", "forecast", "contest"),
    ("steps",),
    ("pipeline", "tryout"),
    ("sweep", "jobs", "draft"),
    ("newtask",),
    (
        "cli",
        "screen",
        "screen_plan",
        "screen_board",
        "screen_recommend",
        "screen_sweep",
        "screen_contest",
        "listing",
        "app",
    ),
)
HEIGHT = {room: height for height, row in enumerate(ROWS) for room in row}
HEAVY = {"torch", "unsloth", "unsloth_zoo", "trl", "peft", "transformers", "bitsandbytes", "accelerate", "datasets"}
PRINTERS = {"cli", "screen", "screen_plan", "screen_board", "screen_recommend", "screen_sweep", "screen_contest"}
FILES = sorted(PACKAGE.rglob("*.py"))


def dotted(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


NAMES = {file: dotted(file) for file in FILES}


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def room(file: Path) -> str:
    """The module or folder right under slimtune/ that a file belongs to; "" for slimtune itself."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py").replace("__init__", "")


def imported(file: Path) -> set[str]:
    """Dotted names of everything a file imports, anywhere in it; `from slimtune import x` counts as slimtune.x."""
    names = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: write the import in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(file: Path) -> set[str]:
    return {parts[1] for name in imported(file) if (parts := name.split("."))[0] == "slimtune" and parts[1] in HEIGHT}


def test_every_room_has_its_place_in_the_list():
    unplaced = {room(file) for file in FILES} - HEIGHT.keys() - {""}
    assert not unplaced, f"add {unplaced} to ROWS, and to the import order in CONTRIBUTING.md"


@pytest.mark.parametrize("file", FILES, ids=NAMES.values())
def test_imports_point_down_the_list(file):
    if room(file) == "":
        assert not rooms_imported(file), "slimtune/__init__.py imports nothing, so that every room stays light"
        return
    height = HEIGHT[room(file)]
    up = {name for name in rooms_imported(file) if HEIGHT[name] > height}
    assert not up, f"{NAMES[file]} imports {up}, which are above it"


@pytest.mark.parametrize("file", FILES, ids=NAMES.values())
def test_only_the_engine_imports_the_training_libraries(file):
    heavy = {name.split(".")[0] for name in imported(file)} & HEAVY
    assert not heavy or room(file) == "engine"


@pytest.mark.parametrize("file", FILES, ids=NAMES.values())
def test_only_the_command_line_prints(file):
    prints = [
        node.lineno
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not prints or room(file) in PRINTERS, f"{NAMES[file]} prints on lines {prints}"


def test_everything_outside_the_engine_stays_light():
    light = [name for file, name in NAMES.items() if room(file) != "engine" and not name.endswith("__main__")]
    code = (
        "import importlib, sys\n"
        f"for name in {light}:\n"
        "    importlib.import_module(name)\n"
        f"    heavy = sorted({HEAVY} & set(sys.modules))\n"
        "    assert not heavy, f'{name} pulls in {heavy}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, timeout=300)
    assert done.returncode == 0, done.stderr


TIME_OF_DAY = {"time.time", "time.time_ns", "now", "utcnow", "today", "getmtime", "st_mtime", "st_mtime_ns", "st_ctime"}
MAY_READ_IT = {  # a clock jumps: what waits, limits, orders steps or measures goes by the monotonic one
    "slimtune.app.runs_tab": "shows how old a line is",
    "slimtune.contest.hold": "dates a page",
    "slimtune.draft": "a file that was changed is read again",
    "slimtune.endpoint.call": "a wait until a date, where the service does not tell its own time",
    "slimtune.endpoint.journal": "dates a line",
    "slimtune.jobs": "a list shows the run that was last at work first",
    "slimtune.models.on_disk": "a file that was changed is read again",
    "slimtune.report.live": "a file that was changed is read again",
    "slimtune.runs": "dates an owner",
    "slimtune.status": "dates a status",
    "slimtune.steps.bench": "dates a run",
    "slimtune.sweep.store": "shows that another machine is at work",
}


def times_of_day(file: Path) -> set[str]:
    """What a file reads of the time of day: the attributes and names above."""
    nodes = [node for node in ast.walk(tree(file)) if isinstance(node, ast.Attribute)]
    return {name for node in nodes for name in (node.attr, ast.unparse(node)) if name in TIME_OF_DAY}


def test_the_time_of_day_is_read_where_it_decides_nothing():
    found = {NAMES[file] for file in FILES if times_of_day(file)}
    assert found == MAY_READ_IT.keys()
    assert not [name for names in map(imported, FILES) for name in names if name in TIME_OF_DAY], "write time.time"
