"""`slimtune new`: one file of rows becomes a task folder whose sides share nothing, and what to mind is said."""

import csv
import json
import subprocess
import sys

import pytest

from slimtune.check import ready, unlearned
from slimtune.errors import Problems, UserError
from slimtune.newtask import columns_of, new_task
from slimtune.recipe import read_recipe
from slimtune.tasks import get_task, inspect_task
from slimtune.tasks.quality import normal_prompt


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def bank(n):
    intent = ("pay", "lock", "move")[n % 3 if n < 150 else 0]
    return {"body": f"please {intent} number {n}", "intent": intent, "thread": f"t{n // 4}"}


ROWS = [
    *map(bank, range(200)),
    *({**bank(3 * n), "body": f"Please PAY number {3 * n}!", "thread": ""} for n in range(9)),
]
COLUMNS = {"text": "body", "label": "intent", "group": "thread"}


def test_a_table_becomes_a_task_whose_sides_share_no_group_and_no_question(here):
    made = new_task("mine", table(here / "data.csv", ROWS), columns=COLUMNS)
    task = get_task("mine")
    assert (len(task.train), len(task.test)) == (made.train_rows, made.test_rows) and sum(
        (made.train_rows, made.test_rows)
    ) == 209
    assert made.train_rows + made.test_rows == 209
    assert 0.15 < made.test_rows / 209 < 0.25
    assert not {row.group for row in task.train} & {row.group for row in task.test} - {None}
    assert not {normal_prompt(row) for row in task.train} & {normal_prompt(row) for row in task.test}
    assert {row.target for row in task.train} == {row.target for row in task.test} == {"pay", "lock", "move"}
    assert not inspect_task(task).errors
    assert json.loads((here / "mine" / "test.jsonl").open().readline()).keys() == {"text", "label", "group"}
    files = ["job.json", "recipe.yaml", "test.jsonl", "train.jsonl"]
    assert sorted(file.name for file in (here / "mine").iterdir()) == files


def test_its_recipe_is_ready_to_run_and_says_how(here):
    new_task("mine", table(here / "data.csv", ROWS), columns=COLUMNS)
    assert ready(read_recipe(here / "mine" / "recipe.yaml")).task.name == "mine"
    assert "#   slimtune run mine/recipe.yaml\n" in (here / "mine" / "recipe.yaml").read_text()


def test_what_to_look_at_is_said(here):
    rows = [*ROWS, *[ROWS[0]] * 3, {"body": "refund?", "intent": "refund", "thread": "x"}]
    said = "\n".join(new_task("mine", table(here / "data.csv", rows), columns=COLUMNS).remarks)
    for part in (
        "4 labels",
        "uneven",
        "fewer than 10",
        "no test row",
        "repeat another",
        "longest row",
        "find a difference of",
        "groups",
    ):
        assert part in said, part
    said = "\n".join(new_task("other", here / "data.csv", columns={"text": "body", "label": "intent"}).remarks)
    assert "--column group=THEIRS" in said


CALL = [
    {"role": "user", "content": "Pay"},
    {"role": "assistant", "tool_calls": [{"name": "pay", "arguments": {"n": 1}}]},
]


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("text", {"instruction": "Say {n}", "input": "", "output": "x {n}"}),
        ("text", {"messages": [{"role": "user", "content": "Say {n}"}, {"role": "assistant", "content": "x"}]}),
        ("qa", {"question": "Who is {n}?", "answers": ["Ada"], "context": "Ada."}),
        ("tool_calling", {"messages": CALL, "tools": [{"function": {"name": "pay"}}], "group": "{n}"}),
        ("pii", {"text": "I am Ada {n}", "redacted": "I am [PERSON] {n}", "entities": []}),
    ],
)
def test_each_format_becomes_a_folder_that_reads_as_the_file_did(here, kind, row):
    lines = [json.dumps(row).replace("{n}", str(n)).replace('"Pay"', f'"Pay {n}"') for n in range(10)]
    (here / "rows.jsonl").write_text("\n".join(lines) + "\n")
    made = new_task("mine", here / "rows.jsonl")
    task = get_task("mine")
    assert task.kind == kind and (made.train_rows, made.test_rows) == (8, 2)
    assert task.test[0].target and task.test[0].messages[-1].role == "user"


def test_what_cannot_be_a_folder_is_a_sentence(here):
    turns = [{"role": role, "content": f"{role} N"} for role in ("user", "assistant", "user", "assistant")]
    lines = [json.dumps({"messages": turns}).replace("N", str(n)) + "\n" for n in range(8)]
    (here / "rows.jsonl").write_text("".join(lines))
    with pytest.raises(UserError, match="chats of several turns"):
        new_task("mine", here / "rows.jsonl")
    assert not (here / "mine").exists()
    (here / "mine").mkdir()
    with pytest.raises(UserError, match="is there already"):
        new_task("mine", here / "rows.jsonl")
    (here / "bad.jsonl").write_text('{"text": "a", "label": "b"}\n{"text": "", "label": "b"}\n')
    with pytest.raises(Problems, match="empty 'text'"):
        new_task("bad", here / "bad.jsonl")
    with pytest.raises(UserError, match="--column text is no pair"):
        columns_of(["text"])
    assert columns_of(["text=a=b"]) == {"text": "a=b"}


def test_columns_that_are_not_named_are_asked_for_as_the_command_line_takes_them(here):
    rows = [{"id": n, "year": "2026", "message": f"where is parcel {n}?", "intent": "ab"[n % 2]} for n in range(20)]
    rows[3]["intent"] = ""
    table(here / "mine.csv", rows)

    def said(*columns):
        command = [sys.executable, "-m", "slimtune.cli", "new", "mine", "--from", "mine.csv"]
        words = [word for column in columns for word in ("--column", column)]
        done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=120)
        assert done.returncode == 2
        return done.stderr

    assert "--column text=message --column label=intent" in said() and "columns={" not in said()
    assert "Our field comes first: text=message" in said("message=text")
    assert "mine.csv:5: has an empty 'intent'" in said("text=message", "label=intent")


def test_the_command_line_makes_it_and_says_what_comes_next(here):
    table(here / "data.csv", ROWS)
    command = [sys.executable, "-m", "slimtune.cli", "new", "mine", "--from", "data.csv"]
    columns = [word for ours, theirs in COLUMNS.items() for word in ("--column", f"{ours}={theirs}")]
    done = subprocess.run([*command, *columns], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "training rows" in done.stdout and "Next: slimtune check mine/recipe.yaml" in done.stdout
    again = subprocess.run([*command, *columns], capture_output=True, text=True, timeout=120)
    assert again.returncode == 2 and "is there already" in again.stderr


def test_rows_that_cannot_be_read_are_refused_with_the_way_out_and_left_out_where_it_is_taken(here):
    bad = {"body": "no label", "intent": "", "thread": ""}
    many = table(here / "many.csv", [*ROWS, *[bad] * 30])
    with pytest.raises(Problems, match=r"slimtune new --skip-bad`\.$"):
        new_task("mine", many, columns=COLUMNS)
    file = table(here / "data.csv", [*ROWS, bad])
    with pytest.raises(Problems, match=r"data.csv:211: .*slimtune new --skip-bad"):
        new_task("mine", file, columns=COLUMNS)
    made = new_task("mine", file, columns=COLUMNS, skip_bad=True)
    assert made.train_rows + made.test_rows == 209 and "1 row could not be read: first data.csv:211" in made.remarks[0]
    (here / "own.yaml").write_text(RECIPE)
    assert "`data.skip_bad: true` leaves such rows out" in str(refused := problems_of(here / "own.yaml")), refused
    (here / "own.yaml").write_text(RECIPE + "  skip_bad: true\n")
    assert len(ready(read_recipe(here / "own.yaml")).task.skipped) == 1


def problems_of(path):
    with pytest.raises(Problems) as refused:
        ready(read_recipe(path))
    return refused.value


RECIPE = """\
model: smollm2-135m-embedded
data:
  train: data.csv
  columns: {text: body, label: intent}
"""


def test_a_run_is_not_scored_on_rows_of_another_task_that_it_was_trained_on(here):
    (here / "own.yaml").write_text(RECIPE)
    table(here / "data.csv", ROWS)
    new_task("mine", here / "data.csv", columns=COLUMNS)
    recipe, task, said = read_recipe(here / "own.yaml").recipe, get_task("mine"), []
    own = ready(read_recipe(here / "own.yaml")).task
    trained = {normal_prompt(row) for row in own.train}
    kept = unlearned(task, recipe, digest=own.digest, say=said.append)
    assert 0 < len(kept.test) < len(task.test) and kept.train == task.train
    assert kept.test == tuple(row for row in task.test if normal_prompt(row) not in trained)
    left_out = f"{len(task.test) - len(kept.test)} of {len(task.test)} test rows"
    assert said == [f"Left out: {left_out} that ask what this run was trained on."]
    table(here / "data.csv", ROWS[:150])
    assert unlearned(task, recipe, digest=own.digest, say=said.append) == task and "not those any more" in said[-1]
    (here / "data.csv").unlink()
    assert unlearned(task, recipe, digest=own.digest, say=said.append) == task
    assert "is not known: its own cannot be read" in said[-1]


def test_where_a_run_was_trained_on_every_row_nothing_is_scored(here):
    rows = [{"body": f"please pay number {n}", "intent": "pay"} for n in range(20)]
    (here / "own.yaml").write_text(RECIPE + "  test: other.csv\n")
    table(here / "data.csv", rows)
    table(here / "other.csv", [{"body": "another", "intent": "pay"}])
    new_task("mine", here / "data.csv", columns={"text": "body", "label": "intent"})
    source = read_recipe(here / "own.yaml")
    digest = ready(source).task.digest
    with pytest.raises(UserError, match="none is left to prove anything"):
        unlearned(get_task("mine"), source.recipe, digest=digest, say=print)
