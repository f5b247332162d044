"""What the documents say is what the code does: files, links, commands, recipes, exit codes, samples, examples."""

import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import recipe_table
from test_architecture import ROWS
from typer.main import get_command

from slimtune import errors, listing
from slimtune.check import ready
from slimtune.cli import app
from slimtune.data import Completion
from slimtune.evaluate import evaluate, write_evaluation
from slimtune.gpus import find_gpu
from slimtune.plan.calibration import errors_held_out, read_table
from slimtune.recipe import read_recipe
from slimtune.sweep.matrix import read_matrix
from slimtune.tasks import Selection, get_task
from slimtune.tasks.formats import FORMATS

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "BENCHMARKS.md", "docs/FAQ.md", "docs/PEERS.md", "docs/RECIPE.md")
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NUMBERED = sorted((ROOT / "examples").glob("[0-9]*.py"))
VERBS = get_command(app).commands
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, text: str = README) -> str:
    """The one code block of that language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found


def glosses() -> dict[str, str]:
    """Path -> gloss of README's list of files; two spaces of indentation are one folder."""
    found, parents = {}, []
    for line in block("tree").splitlines():
        name, _, gloss = line.strip().partition(" ")
        depth = (len(line) - len(line.lstrip())) // 2
        parents = [*parents[:depth], name]
        found["".join(parents)] = gloss.strip()
    return found


def documented() -> list[str]:
    """The text of every file that may show a command: the documents, the recipes, the examples."""
    files = [*(ROOT / name for name in DOCUMENTS), *ROOT.glob("recipes/*.yaml"), *EXAMPLES]
    return [file.read_text(encoding="utf-8") for file in files]


def commands(text: str) -> list[str]:
    """`slimtune ...` between backticks, and as a line of a code block or of an indented comment."""
    inline = re.findall(r"`(slimtune [^`\n]+)`", text)
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    lines = re.findall(r"^(?:#? {3,4})?(slimtune [a-z][^\n]*)$", blocks, re.MULTILINE)
    return inline + lines + re.findall(r"^#? {3,4}(slimtune [a-z][^\n]*)$", text, re.MULTILINE)


def table(heading: str) -> list[list[str]]:
    """The cells of the README table whose first column has that heading."""
    lines = README[README.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def run(file: Path, *arguments: object) -> str:
    """What an example prints; it fails if the example brings torch in."""
    code = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__'); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, str(file), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_has_a_gloss():
    modules = {str(file.relative_to(ROOT)).removesuffix("__init__.py") for file in (ROOT / "slimtune").rglob("*.py")}
    assert sorted(modules - glosses().keys()) == [], "add them to README's list of files"


def test_every_gloss_is_of_something_that_is_there():
    assert [path for path in glosses() if not (ROOT / path).exists()] == []
    assert [path for path, gloss in glosses().items() if not gloss] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", (ROOT / document).read_text(encoding="utf-8"))
    assert links and [link for link in links if not (ROOT / document).parent.joinpath(link).exists()] == []


def test_paths_in_contributing_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:slimtune|tests|constraints)/[a-z0-9_./-]*)`", text)
    assert paths and [path for path in paths if not (ROOT / path).exists()] == []


def test_the_verbs_are_those_of_the_command_line():
    shown = [re.search(r"slimtune (\w+)", row[0]).group(1) for row in table("verb")]
    assert sorted(shown) == sorted(VERBS)


@pytest.mark.parametrize("line", sorted({line for text in documented() for line in commands(text)}))
def test_a_command_that_is_shown_exists(line):
    verb, *words = shlex.split(line, comments=True)[1:]
    if verb == "VERB":
        return
    assert verb in VERBS
    command = VERBS[verb]
    while words and hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options
    assert all(find_gpu(word) for before, word in pairwise(words) if before in ("--gpu", "--as-gpu"))
    assert verb != "list" or {*words} <= {*listing.KINDS, "WHAT"}


def test_recipes_that_are_named_exist():
    named = {name for text in documented() for name in re.findall(r"recipes/[\w.-]+\.ya?ml", text)}
    assert named and [recipe for recipe in named if not (ROOT / recipe).is_file()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_has_the_targets_that_are_named(document):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([\w-]+)", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE))
    assert named and named <= targets


def test_exit_codes_are_those_of_the_errors():
    codes = {kind.exit_code for kind in vars(errors).values() if hasattr(kind, "exit_code")}
    assert {int(row[0]) for row in table("exit code")} == codes | {0}


def test_the_formats_are_those_that_are_read():
    fields = {name.strip("`"): set(re.findall(r"`(\w+)`", shown)) for name, shown, _ in table("format")}
    assert fields.keys() == FORMATS.keys()
    assert [name for name, format in FORMATS.items() if not set(format.fields) <= fields[name]] == []


def test_the_table_of_keys_is_that_of_the_program():
    assert recipe_table.written() == recipe_table.table(), "run: python tests/recipe_table.py"


def test_the_import_order_is_the_one_the_tests_hold():
    rows = block("rows", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert [tuple(sorted(line.split())) for line in rows.splitlines()] == [tuple(sorted(row)) for row in ROWS]


def test_the_matrix_of_the_readme_is_read(tmp_path):
    (tmp_path / "m.yaml").write_text(block("matrix"), encoding="utf-8")
    assert len(read_matrix(tmp_path / "m.yaml")) == 2 * 2 * 3 * 2


def test_the_csv_and_the_recipe_of_the_readme_are_ready_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tickets.csv").write_text(block("csv"), encoding="utf-8")
    Path("tickets.yaml").write_text(block("yaml"), encoding="utf-8")
    task = ready(read_recipe(Path("tickets.yaml"))).task
    assert task.kind == "classification" and set(task.labels) == {"delivery", "billing", "app"}
    assert len(task.train) + len(task.test) == 6 and len(task.test) == 1


def test_the_task_folder_of_the_readme_is_a_task(tmp_path):
    (tmp_path / "job.json").write_text(block("json"), encoding="utf-8")
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(block("jsonl"), encoding="utf-8")
    assert get_task(tmp_path).labels == ("billing", "delivery")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.name)
def test_an_example_opens_with_the_command_that_runs_it(example):
    assert f"    python examples/{example.name}" in example.read_text(encoding="utf-8").split('"""')[1]


@pytest.mark.parametrize("example", NUMBERED, ids=lambda file: file.name)
def test_a_numbered_example_is_in_the_readme(example):
    assert f"(examples/{example.name})" in README


def test_anything_that_answers_gets_a_score_with_an_interval():
    assert re.search(r"keywords: 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\], \d+ rows, Wilson", run(NUMBERED[0]))


def test_a_run_is_read_row_by_row(tmp_path):
    task = get_task("banking77", selection=Selection(test_rows=4))
    for name, right in (("base", 1), ("tuned", 3)):
        said = [Completion(row.target if index < right else "no label") for index, row in enumerate(task.test)]
        scored = evaluate(task, task.test, lambda *_, said=said: enumerate(said), name=name, label=name)
        write_evaluation(tmp_path / name, scored)
    shown = run(NUMBERED[1], tmp_path)
    assert "Mended 2, broken 0, as before 2." in shown and "Still wrong: 1" in shown


def test_models_are_planned_for_a_card_before_anything_is_there():
    shown = run(NUMBERED[2], "t4", "1024", "15")
    assert shown.startswith("T4: 10,000 rows") and "qwen3-0.6b " in shown and "qwen3-8b" not in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("t44",), "There is no GPU named 't44'. Did you mean"),
        (("t4", "many"), "Name a card, tokens of a row"),
        (("t4", "3"), "Name a card, tokens of a row"),
        (("t4", "1024", "soon"), "Name a card, tokens of a row"),
    ],
)
def test_what_fits_answers_nonsense_with_a_sentence(arguments, said):
    done = subprocess.run([sys.executable, NUMBERED[2], *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr


def test_a_task_of_ones_own_is_written_checked_and_scored(tmp_path):
    shown = run(ROOT / "examples/my_task.py", tmp_path / "tickets")
    assert "nothing was found" in shown and "  wrong: 'Nobody rang" in shown
    assert re.search(r"neighbour: 0\.833 \[0\.\d{3}, 0\.\d{3}\], 6 rows, Wilson", shown)
    assert get_task(tmp_path / "tickets").labels == ("app", "billing", "delivery")


@pytest.mark.slow
def test_the_loop_without_slimtune_learns(tmp_path):
    every_core = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, str(ROOT / "examples/sft_loop.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=every_core, timeout=580)
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"^step .*: loss (\d+\.\d+)$", done.stdout, re.MULTILINE)]
    assert len(losses) == 12 and sum(losses[-3:]) / 3 < losses[0] / 10
    right, rows = map(int, re.search(r"accuracy \d\.\d{3}: (\d+) of (\d+) test rows", done.stdout).groups())
    assert rows == 27 and right > 20  # of four labels


def test_the_table_of_settings_held_out_is_the_calibration_table():
    text = (ROOT / "BENCHMARKS.md").read_text(encoding="utf-8").split("held out -->")[1]
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"][2:]
    held_out = [row for row in read_table() if row.use == "test"]
    assert len(shown) == len(held_out) >= 20
    for cells, row in zip(shown, held_out, strict=True):
        assert cells[0] == row.spec.key and cells[4] == f"{row.setting.micro_batch} x {row.setting.row_tokens:,}"
        assert cells[-3:] == [f"{row.reserved_gib:.2f}", f"{row.predicted_gib:.2f}", f"{row.error:+.1%}"]
    errors = errors_held_out(held_out)
    assert errors["worst"] <= 0.05
    said = f"{errors['median']:.1%} off in the middle", f"{errors['worst']:.1%} at worst"
    assert all(words in document for words in said for document in (README, (ROOT / "BENCHMARKS.md").read_text()))


def test_the_part_of_the_table_of_all_models_is_what_the_program_prints() -> None:
    command = [sys.executable, "-m", "slimtune.cli", "plan", "--all", "--gpu", "t4"]
    printed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120).stdout
    shown = re.findall(r"^(?:smollm2|qwen3)-\S+ +(?:fp16|needs).*$", README, re.MULTILINE)
    assert len(shown) >= 4
    assert [line for line in shown if line.rstrip() not in map(str.rstrip, printed.splitlines())] == []


def test_the_readme_names_every_key_of_a_matrix() -> None:
    from slimtune.sweep.asked import Matrix

    table = README.split("| key of a matrix |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(Matrix.model_fields)
