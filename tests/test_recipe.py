"""A recipe says what it means, and every mistake in it is named with its line, all at once."""

from pathlib import Path

import pytest

from slimtune.errors import Problems, UserError
from slimtune.recipe import find_recipe, load_recipe, read_recipe, recipe_name, recipes_folder
from slimtune.recipe.keys import every_key
from slimtune.strict_yaml import parse_scalar, parse_yaml


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def said(folder: Path, text: str, *overrides: str) -> str:
    return "\n".join(map(str, read_recipe(written(folder, text), overrides).problems))


def test_the_default_is_the_published_setting_but_for_batch_and_rate(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, "model: smollm2-135m-embedded\ntask: banking77\n"))
    assert (recipe.lora.r, recipe.lora.alpha, recipe.train.epochs, recipe.train.lr) == (64, 64, 4, 4e-4)
    assert (recipe.train.schedule, recipe.train.warmup, recipe.train.batch, recipe.thinking) == (
        "linear",
        0.05,
        None,
        "off",
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("16", 16),
        ("1_000", "1_000"),
        ("-3", -3),
        ("true", True),
        ("null", None),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("010", "010"),
        ("12:30:45", "12:30:45"),
        ("0x10", "0x10"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_a_plain_scalar_means_what_it_looks_like(text: str, value: object) -> None:
    assert parse_scalar(text) == value and type(parse_scalar(text)) is type(value)


def test_a_quoted_number_is_a_word(tmp_path: Path) -> None:
    assert parse_yaml(written(tmp_path, 'a: "5"\nb: 5\n')).value == {"a": "5", "b": 5}


def test_five_mistakes_are_named_together_with_their_lines(tmp_path: Path) -> None:
    text = said(
        tmp_path, "model: m\ntask: t\nlora: {rr: 8}\ntrain:\n  epochs: -1\n  schedule: liner\n  lr: fast\ncontxt: 9\n"
    )
    assert "recipe.yaml:3 lora.rr: is not a key of a recipe. Did you mean 'r'?" in text
    assert "recipe.yaml:5 train.epochs: has to be greater than 0, not -1." in text
    assert "recipe.yaml:6 train.schedule: cannot be 'liner'. Did you mean 'linear'?" in text
    assert "recipe.yaml:7 train.lr: " in text
    assert "recipe.yaml:8 contxt: is not a key of a recipe. Did you mean 'context'?" in text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train: {epochs: one}", "train.epochs: has to be a number, not 'one'."),
        ("train: {batch: many}", "train.batch: has to be a whole number, not 'many'."),
        ("train: {batch: 1.5}", "train.batch: has to be a whole number, not 1.5."),
        ("lora: {r: 0}", "lora.r: has to be at least 1, not 0."),
        ("lora: {r: 4096}", "lora.r: has to be at most 1024, not 4096."),
        ("lora: {dropout: 1}", "lora.dropout: has to be less than 1, not 1."),
        ("lora: 8", "lora: has to be a section, with keys of its own, not 8."),
        ("train: [a]", "train: has to be a section, with keys of its own, not ['a']."),
        ("data: {labels: a}", "data.labels: has to be a list, not 'a'."),
        ("data: {skip_bad: perhaps}", "data.skip_bad: has to be true or false, not 'perhaps'."),
        ("revision: 5", "revision: has to be text, not 5."),
        ("data: {columns: {text: 5}}", "data.columns.text: has to be text, not 5."),
    ],
)
def test_a_value_that_does_not_fit_is_told_in_plain_words(tmp_path: Path, line: str, words: str) -> None:
    assert f"recipe.yaml:3 {words}" in said(tmp_path, f"model: m\ntask: t\n{line}\n")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("learning_rate: 1e-4", "train.lr"),
        ("train: {learning_rate: 1e-4}", "lr"),
        ("lora: {rank: 8}", "r"),
        ("lora_rank: 8", "lora.r"),
        ("train: {batch-size: 8}", "batch"),
        ("num_epochs: 1", "train.epochs"),
        ("max_seq_length: 512", "context"),
        ("lr: 1e-4", "train.lr"),
        ("train: {r: 8}", "lora.r"),
        ("train: {epoch: 1}", "epochs"),
    ],
)
def test_a_key_as_other_tools_call_it_is_known(tmp_path: Path, line: str, key: str) -> None:
    assert f"is not a key of a recipe. Did you mean {key!r}?" in said(tmp_path, f"model: m\ntask: t\n{line}\n")


def test_every_key_says_what_it_takes_and_what_it_is() -> None:
    keys = {key.name: key for key in every_key()}
    assert [name for name, key in keys.items() if not key.gloss] == []
    assert (keys["train.lr"].takes, keys["train.lr"].default) == ("number, above 0, below 1", "0.0004")
    assert keys["lora.r"].takes == "whole number, from 1, at most 1,024" and keys["model"].default == "needed"
    assert keys["data.kind"].takes == "classification, qa, text" and keys["data.labels"].takes == "list of texts"
    assert {"lora.alpha", "context", "context.method", "evaluate.few_shot", "seed"} <= keys.keys()


def test_a_key_that_stands_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    assert "recipe.yaml:3 train.lr: stands in line 2 too." in said(
        tmp_path, "train:\n  lr: 1e-4\n  lr: 1e-5\nmodel: m\ntask: t\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "model: &a m\ntask: *a\n",
        "model: !!python/object/apply:os.system ['true']\ntask: t\n",
        "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nmodel: m\ntask: t\n",
    ],
)
def test_anchors_aliases_and_tags_are_refused(tmp_path: Path, text: str) -> None:
    problems = said(tmp_path, text)
    assert "anchor" in problems or "tag" in problems


def test_deep_nesting_is_refused_before_it_is_built(tmp_path: Path) -> None:
    assert "nested more than" in said(tmp_path, "model: " + "[" * 200 + "]" * 200)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"model: [", "not YAML"),
        ("model: \u00e9".encode("latin-1"), "UTF-8"),
        (b"x" * 300_000, "larger"),
    ],
)
def test_what_is_not_a_recipe_is_refused_in_a_sentence(tmp_path: Path, content: bytes, word: str) -> None:
    with pytest.raises(UserError, match=word):
        read_recipe(written(tmp_path, content))


def test_a_model_in_place_of_a_recipe_is_called_one_with_the_recipes_that_have_it() -> None:
    with pytest.raises(UserError, match=r"is a model.* Recipes with it: qwen3-0.6b-banking77\..*--set model="):
        find_recipe("qwen3-0.6b")
    with pytest.raises(UserError, match=r"is a model, not a recipe. No recipe .* has it\."):
        find_recipe("Qwen/Qwen3-32B")


def test_runs_are_called_as_the_recipe_or_as_the_folder_that_slimtune_new_put_it_in(tmp_path: Path) -> None:
    assert recipe_name(Path("nights/tickets.yaml")) == "tickets"
    assert recipe_name(tmp_path / "tickets" / "recipe.yaml") == "tickets"


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UserError, match=r"There is no file nowhere\.yaml"):
        read_recipe(Path("nowhere.yaml"))


def test_set_changes_one_key_and_is_named_in_its_own_mistakes(tmp_path: Path) -> None:
    path = written(tmp_path, "model: m\ntask: t\ntrain: {lr: 1e-4}\n")
    recipe = load_recipe(path, ["train.lr=5e-5", "data.labels=[a, b]", "lora.r=8"])
    assert (recipe.train.lr, recipe.data.labels, recipe.lora.r) == (5e-5, ("a", "b"), 8)
    assert str(read_recipe(path, ["lora.r=x"]).problems[0]).startswith("--set lora.r: ")
    assert "not of the form" in str(read_recipe(path, ["lora"]).problems[0])


def test_rows_come_from_one_place(tmp_path: Path) -> None:
    with pytest.raises(Problems, match="names no rows"):
        load_recipe(written(tmp_path, "model: m\n"))
    with pytest.raises(Problems, match="names rows twice"):
        load_recipe(written(tmp_path, "model: m\ntask: t\ndata: {train: x.csv}\n"))


def test_when_checkpoints_are_written_does_not_make_another_run(tmp_path: Path) -> None:
    plain = load_recipe(written(tmp_path, "model: m\ntask: t\n"))
    often = load_recipe(written(tmp_path, "model: m\ntask: t\n"), ["train.checkpoint_steps=1"])
    other = load_recipe(written(tmp_path, "model: m\ntask: t\n"), ["seed=1"])
    assert plain.digest == often.digest != other.digest


@pytest.mark.parametrize("path", sorted(recipes_folder().glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_recipe_is_ready_to_run(path: Path) -> None:
    from slimtune.check import ready

    prepared = ready(read_recipe(path))
    text = path.read_text()
    assert prepared.task.train and prepared.task.test
    assert f"slimtune run recipes/{path.name}" in text and text.count("\n") <= 30


def test_a_field_that_no_format_has_is_named_among_the_columns(tmp_path: Path) -> None:
    from slimtune.check import ready
    from slimtune.tasks import task_from_files

    rows = tmp_path / "rows.csv"
    rows.write_text("message,intent\nhello,greet\n")
    path = written(
        tmp_path, f"model: qwen3-0.6b\ndata:\n  train: {rows}\n  columns: {{texts: message, label: intent}}\n"
    )
    with pytest.raises(Problems) as caught:
        ready(read_recipe(path))
    assert [str(problem) for problem in caught.value.problems] == [
        f"{path}:4 data.columns.texts: is not a field of a row. Did you mean 'text'?"
    ]
    with pytest.raises(Problems, match=r"columns lable: is not a field of a row\. Did you mean 'label'"):
        task_from_files(rows, columns={"text": "message", "lable": "intent"})


SEVEN = """model: qwen3-0.6bb
data: {train: rows.csv, columns: {text: message, label: intnt}}
lora: {r: -16}
train:
  epochs: one
  learning_rate: 2e-4
  batch: 8
  batch: 16
thinking: sometimes
"""


def test_mistakes_in_keys_hide_none_in_model_rows_and_columns(tmp_path: Path) -> None:
    from slimtune.check import ready
    from slimtune.errors import Problems

    (tmp_path / "rows.csv").write_text("message,intent\nhello,greet\n")
    path = tmp_path / "bad.yaml"
    path.write_text(SEVEN.replace("rows.csv", str(tmp_path / "rows.csv")))
    with pytest.raises(Problems) as caught:
        ready(read_recipe(path))
    lines = [int(problem.where.split(":")[1].split()[0]) for problem in caught.value.problems]
    assert lines == [1, 2, 3, 5, 6, 8, 9], str(caught.value)
    assert "'intent'" in str(caught.value), "the column that is meant"
