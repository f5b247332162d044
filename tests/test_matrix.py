"""From a matrix to its cells: every mistake at once, every cell named by all that can change it."""

import os
import shutil
from pathlib import Path

import pytest
from samples import make_task

from slimtune.errors import Problems, UserError
from slimtune.models import get_model
from slimtune.recipe import recipes_folder
from slimtune.sweep.matrix import find_matrix, read_matrix

MODEL = "smollm2-135m-embedded"
LABEL = get_model(MODEL).label


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return make_task(tmp_path / "actions")


def write(folder: Path, text: str) -> Path:
    path = folder / "m.yaml"
    path.write_text(text)
    return path


def read(folder: Path, task: Path, more: str = "", *, base: str = "{train: {epochs: 1}}"):
    return read_matrix(write(folder, f"base: {base}\nmodels: [{MODEL}]\ntasks: [{task}]\n{more}"))


def test_models_ways_axes_tasks_and_seeds_are_multiplied(tmp_path, task):
    more = (
        "seeds: [1, 2]\naxes: {lora.r: [8, 64], train.lr: [1e-3]}\ncontestants: {all: {}, two: {data.train_rows: 2}}\n"
    )
    cells = read(tmp_path, task, more)
    assert [cell.contestant for cell in cells] == [
        f"{LABEL}, {name}" for name in ("all, r 8", "all, r 64", "two, r 8", "two, r 64") for _ in range(2)
    ]
    assert len({cell.fingerprint for cell in cells}) == 8 and {cell.seed for cell in cells} == {1, 2}
    assert cells[-1].recipe.lora.r == 64 and cells[-1].recipe.train.lr == 1e-3 and cells[-1].recipe.data.train_rows == 2


def test_an_axis_is_as_good_as_a_way_that_says_the_same_key(tmp_path, task):
    (by_axis, *_), (by_way,) = (
        read(tmp_path, task, "axes: {lora.r: [8, 4]}"),
        read(tmp_path, task, "contestants: {eight: {lora.r: 8}}"),
    )
    assert by_axis.fingerprint == by_way.fingerprint and by_axis.contestant != by_way.contestant


def test_a_way_is_told_by_its_model_too_and_once(tmp_path, task):
    model = f"model: {MODEL}, "
    more = f"contestants: {{rank 4: {{{model}lora.r: 4}}, small {LABEL} of rank 8: {{{model}lora.r: 8}}}}"
    assert [cell.contestant for cell in read(tmp_path, task, more)] == [
        f"{LABEL}, rank 4",
        f"small {LABEL} of rank 8",
    ]


def test_all_seeds_answer_the_same_test_rows_and_learn_from_their_own(tmp_path, task):
    base = "{data: {train_rows: 4, test_rows: 3}}"
    first, second = read(tmp_path, task, "seeds: [5, 6]", base=base)
    ids = [
        [row.id for row in rows] for cell in (first, second) for rows in (cell.ready.task.test, cell.ready.task.train)
    ]
    assert ids[0] == ids[2] and ids[1] != ids[3]


@pytest.mark.parametrize(
    "change",
    ["axes: {train.lr: [1e-3]}", "axes: {data.train_rows: [3]}", "seeds: [3]", "axes: {evaluate.max_new_tokens: [3]}"],
)
def test_what_can_change_a_result_changes_the_name(tmp_path, task, change):
    assert read(tmp_path, task)[0].fingerprint != read(tmp_path, task, change)[0].fingerprint


def test_what_cannot_does_not(tmp_path, task):
    before = read(tmp_path, task)[0].fingerprint
    assert before == read(tmp_path, task, base="{train: {epochs: 1, checkpoint_minutes: 1}}")[0].fingerprint


def test_a_changed_test_row_changes_the_name(tmp_path, task):
    before = read(tmp_path, task)[0].fingerprint
    test = task / "test.jsonl"
    lines = test.read_text().splitlines()
    test.write_text("\n".join(lines[:-1]) + "\n")
    assert read(tmp_path, task)[0].fingerprint != before


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's folder as far as a matrix reads it."""
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(get_model(MODEL).config_file, folder / "config.json")
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    (folder / "model.safetensors").write_bytes(bytes(1000))
    (folder / "merges.txt").write_text("a b")
    return folder


def named(folder: Path, task: Path, model: Path) -> str:
    (cell,) = read_matrix(write(folder, f"models: [{model}]\ntasks: [{task}]\n"))
    return cell.fingerprint


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer_config.json", "merges.txt"])
def test_another_file_in_a_models_folder_makes_another_cell(tmp_path, task, model, file):
    before, there = named(tmp_path, task, model), (model / file).read_bytes()
    (model / file).write_bytes(there + b" ")
    assert named(tmp_path, task, model) != before
    (model / file).write_bytes(there)
    (model / "README.md").write_text("what loading does not read")
    assert named(tmp_path, task, model) == before


def test_of_a_models_folder_the_name_counts_and_no_file_is_read_twice(tmp_path, task, model):
    before, weights = named(tmp_path, task, model), model / "model.safetensors"
    stamp = weights.stat().st_mtime_ns
    weights.write_bytes(bytes([1]) * 1000)
    os.utime(weights, ns=(stamp, stamp))
    assert named(tmp_path, task, model) == before, "size and time are as they were: it was not read again"
    weights.rename(model / "other.safetensors")
    assert named(tmp_path, task, model) != before


def test_a_cell_of_a_model_that_is_no_folder_is_named_as_ever(tmp_path, task):
    assert set(read(tmp_path, task)[0].identity) == {
        "batch", "recipe", "model", "revision", "data", "scorers", "scores_schema", "teacher", "training_schema",
    }  # fmt: skip


def test_a_task_may_have_keys_of_its_own(tmp_path, task):
    path = write(tmp_path, f"models: [{MODEL}]\ntasks: {{{task}: {{context: 128, train.batch: 2}}}}\n")
    (cell,) = read_matrix(path)
    assert cell.recipe.context.length == 128 and cell.recipe.train.batch == 2


def test_a_served_model_takes_part_three_times_and_is_not_trained(tmp_path, task):
    served = '[{model: big, base_url: "http://127.0.0.1:9/v1"}]'
    cells = read_matrix(write(tmp_path, f"tasks: [{task}]\nserved: {served}\n"))
    assert [(cell.model, cell.contestant, cell.seed) for cell in cells] == [("openai:big", "big", n) for n in (1, 2, 3)]
    assert cells[0].as_json()["served"]["base_url"] == "http://127.0.0.1:9/v1"


def test_worked_examples_of_another_seed_make_another_served_cell(tmp_path, task):
    served = '[{model: big, base_url: "http://127.0.0.1:9/v1", few_shot: 2, runs: 1}]'
    base = "{data: {test_seed: 1}}"
    texts = [f"base: {base}\ntasks: [{task}]\nseeds: [{seed}]\nserved: {served}\n" for seed in (1, 2)]
    (first,), (second,) = (read_matrix(write(tmp_path, text)) for text in texts)
    assert first.fingerprint != second.fingerprint


def test_every_mistake_is_said_at_once_with_its_line(tmp_path, task):
    text = (
        "base:\n  train: {epoch: 1}\nmodels: [smollm2-135m-embeded]\n"
        f"tasks: {{{task}: {{contxt: 512}}}}\naxes: {{lora.rank: [8]}}\ncontestants: {{none: {{data.train_rows: 0}}}}\n"
    )
    with pytest.raises(Problems) as caught:
        read_matrix(write(tmp_path, text))
    said = str(caught.value)
    for line, words in (
        (2, "Did you mean 'epochs'"), (3, "Did you mean 'smollm2-135m-embedded'"), (4, "Did you mean 'context'"),
        (5, "lora.rank: is not a key of a recipe. Did you mean 'lora.r'"), (6, "has to be at least 1, not 0"),
    ):  # fmt: skip
        assert any(f"m.yaml:{line} " in row and words in row for row in said.splitlines()), (line, words, said)


def test_a_misspelt_axis_is_said_once_at_its_own_line(tmp_path, task):
    more = "contestants:\n  four: {lora.r: 4}\n  eight: {lora.r: 8}\naxes:\n  lora.rank: [4, 8]\n  train.epoch: [1]\n"
    with pytest.raises(Problems) as caught:
        read(tmp_path, task, more)
    said = [str(one).rpartition("m.yaml:")[2] for one in caught.value.problems]
    what = "is not a key of a recipe. Did you mean"
    assert said == [f"8 lora.rank: {what} 'lora.r'?", f"9 train.epoch: {what} 'train.epochs'?"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("model: x", "Did you mean 'models'"),
        ("seeds: [x]", "has to be a whole number"),
        ("axes: {seed: [1]}", "A matrix has `seeds:` for it"),
        (
            "axes:\n  lora.r: [8]\n  model: [qwen3-0.6b]",
            r"m.yaml:6 model: is not for here. A matrix has `models:` for it",
        ),
        ("contestants: {a: {\n  seed: 1}}", r"m.yaml:5 seed: is not for here. A matrix has `seeds:` for it"),
        ("axes: {lora.r: []}", "has no values"),
        ("contestants: {a: {}, b: {}}", ", a' and '.*, b' are the same"),
        (
            "axes: {lora.r: [4, 8]}\ncontestants: {rank 4: {lora.r: 4}, rank 8: {lora.r: 8}}",
            r"m.yaml:4 lora\.r: is set by both contestants and axes\.[^\n]*$",
        ),
        ('served: [{model: a, base_url: "http://h/v1", rums: 2}]', "Did you mean 'runs'"),
        (
            'served: [{model: a, base_url: "http://g/v1"}, {model: a, base_url: "http://h/v1"}]',
            "two different 'a' on .*Put one into a matrix of its own",
        ),
    ],
)
def test_what_a_matrix_cannot_say_is_refused(tmp_path, task, more, said):
    with pytest.raises(Problems, match=said):
        read(tmp_path, task, more)


def test_every_mistake_of_a_matrix_is_told_at_once(tmp_path):
    text = """\
base: smollm2-banking77-demo
models: [smollm2-135m-embedded]
tasks: [banking77, banking78]
seedz: [1, 2]
axes:
  lora.r: []
  train.lrr: [1e-4]
"""
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(Problems) as told:
        read_matrix(tmp_path / "m.yaml")
    assert [problem.where.partition("m.yaml:")[2] for problem in told.value.problems] == [
        "3 task", "4 seedz", "6 axes.lora.r", "7 train.lrr",
    ]  # fmt: skip


@pytest.mark.parametrize(("key", "section"), [("model", "models"), ("task", "tasks"), ("seed", "seeds")])
def test_a_task_has_no_model_task_or_seed_of_its_own(tmp_path, task, key, section):
    path = write(tmp_path, f"models: [{MODEL}]\ntasks:\n  {task}:\n    {key}: 3\n")
    with pytest.raises(Problems, match=f"m.yaml:4 {key}: is not for here. A matrix has `{section}:` for it"):
        read_matrix(path)


@pytest.mark.parametrize("file", sorted((recipes_folder() / "matrix").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_matrix_that_comes_along_opens_with_what_it_does_and_the_command(file):
    does, command, *_ = file.read_text().splitlines()
    assert does.startswith("# ") and does.endswith(".") and f"slimtune sweep run {file.stem}" in command
    assert find_matrix(file.stem) == file


@pytest.mark.parametrize("name", ["demo-cpu", "t4-small"])
def test_a_matrix_that_needs_no_hub_is_read(name):
    cells = read_matrix(find_matrix(name))
    assert len(cells) == {"demo-cpu": 4, "t4-small": 16}[name] and not any(cell.wrong for cell in cells)


def test_an_unknown_matrix_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'demo-cpu'"):
        find_matrix("demo-cpuu")
