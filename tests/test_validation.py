"""Rows held out of train to choose settings by: who is held out, and that their scores are never taken for others."""

import io
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from samples import make_task, write_rows
from study_store import Made, put_study
from test_matrix import read
from typer.testing import CliRunner

from slimtune.check import plan_of, ready
from slimtune.cli import app
from slimtune.errors import Problems, UserError
from slimtune.files import read_json, write_json
from slimtune.recipe import Recipe, read_recipe
from slimtune.screen import show_check
from slimtune.stats import seed_noise
from slimtune.sweep.gather import gather
from slimtune.sweep.leaderboard import make_board, set_against
from slimtune.sweep.store import read_study
from slimtune.tasks import Selection, get_task, inspect_task
from slimtune.tasks.quality import normal_prompt
from slimtune.tasks.task import TRAINING_TEXT

MADE = Made({"small, r 8": 0.55, "small, r 64": 0.63, "small, r 16": 0.6}, ("banking77", "voice_banking"), rows=80)


def held(name, rows, **more):
    return get_task(name, selection=Selection(validation_rows=rows, **more))


def test_validation_rows_are_training_rows_that_are_not_trained_on():
    whole, task = get_task("banking77"), held("banking77", 400, seed=3)
    assert len(task.test) == 400 and {row.id for row in task.train} | {row.id for row in task.test} == {
        row.id for row in whole.train
    }
    assert not {row.id for row in task.train} & {row.id for row in task.test}
    kept, every = (Counter(row.target for row in rows) for rows in (task.test, whole.train))
    assert all(abs(kept[label] - 0.08 * every[label]) <= 2 for label in every)
    assert inspect_task(task).overlap_normalised == 0


def test_no_conversation_and_no_question_stands_on_both_sides():
    task = held("voice_banking", 40)
    sides = [{row.group for row in rows} for rows in (task.train, task.test)]
    asked = [{normal_prompt(row) for row in rows} for rows in (task.train, task.test)]
    assert sides[0] and sides[1] and not sides[0] & sides[1] and not asked[0] & asked[1]


def test_what_is_only_learned_is_never_asked():
    """Closed-book paragraphs are texts without a question."""
    task = held("squad2_closed_book", 60)
    assert len(task.test) >= 60 and not [row for row in task.test if TRAINING_TEXT in row.meta]
    assert [row for row in task.train if TRAINING_TEXT in row.meta]


def test_all_seeds_answer_the_same_validation_rows_and_a_choice_of_training_rows_has_none_of_them():
    one, other = (held("banking77", 100, seed=seed, test_seed=17, train_rows=200) for seed in (1, 2))
    assert one.test == other.test and one.train != other.train and len(one.train) == 200
    assert not {row.id for row in one.train} & {row.id for row in one.test}
    assert held("banking77", 100, seed=1).test != one.test


def test_it_is_said_wherever_the_task_is_shown():
    task = held("banking77", 100)
    assert task.title == "Banking77, 4,900 of 5,000 training rows, scored on 100 validation rows held out of train"
    assert "may not be set beside scores on test rows" in task.notes[-1] and task.scored_noun == "validation row"


def test_the_same_rows_as_validation_rows_are_another_task():
    task = held("banking77", 100)
    assert task.digest != replace(task, scored_on="test").digest


def test_rows_that_cannot_be_parted_are_refused(tmp_path):
    folder = make_task(tmp_path / "one", train=6)
    write_rows(folder / "train.jsonl", [{"text": f"pay {n}", "label": "pay", "group": "g"} for n in range(6)])
    with pytest.raises(UserError, match=r"No validation rows can be held out of 6: .* has 6\."):
        held(folder, 2)
    with pytest.raises(UserError, match="validation_rows is 0"):
        Selection(validation_rows=0)


def test_a_recipe_asks_for_one_of_both_and_one_that_asks_for_none_is_named_as_ever():
    asked = {"model": "smollm2-135m-embedded", "task": "banking77"}
    with pytest.raises(ValueError, match="leave one out"):
        Recipe.model_validate({**asked, "data": {"validation_rows": 5, "test_rows": 5}})
    plain, held_out = (Recipe.model_validate({**asked, "data": data}) for data in ({}, {"validation_rows": 5}))
    assert "validation_rows" not in plain.as_json()["data"] and plain.digest != held_out.digest
    assert Recipe.model_validate(held_out.as_json()) == held_out


def test_check_says_which_rows_it_would_be_scored_on(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: smollm2-135m-embedded\ntask: banking77\ndata: {validation_rows: 300, train_rows: 50}\n")
    prepared, shown = ready(read_recipe(recipe)), io.StringIO()
    show_check(Console(file=shown, width=200), prepared, "not counted", plan_of(prepared, gpu=None))
    said = " ".join(shown.getvalue().split())
    assert "50 training rows, 300 validation rows, scored by" in said and "held out of train (seed 17)" in said
    assert "300 validation rows find a difference" in said and "test row " not in said


# studies


def test_a_matrix_never_scores_some_cells_on_either(tmp_path):
    task = make_task(tmp_path / "actions")
    cells = read(tmp_path, task, "seeds: [1, 2]", base="{data: {validation_rows: 6}}")
    assert [row.id for row in cells[0].ready.task.test] == [row.id for row in cells[1].ready.task.test]
    assert cells[0].fingerprint != read(tmp_path, task, "seeds: [1]")[0].fingerprint
    with pytest.raises(Problems, match="some on validation rows, which never mix"):
        read(tmp_path, task, "contestants: {a: {}, b: {data.validation_rows: 6}}")


def mark(store, cells=slice(None)):
    """Say of cells of a study that they were scored on validation rows."""
    for path in sorted(store.glob("cells/*/result.json"))[cells]:
        write_json(path, read_json(path) | {"scored_on": "validation"})
    return store


def board_of(store, **options):
    return make_board(read_study(store), out=store / "leaderboard", rng=np.random.default_rng(0), **options)


def test_a_leaderboard_says_what_its_scores_are_of_and_none_is_of_both(tmp_path):
    store = mark(put_study(tmp_path / "s", MADE))
    told = CliRunner().invoke(app, ["rank", str(store)], env={"COLUMNS": "200"}).output
    assert "All scores are of validation rows held out of train" in told
    page = (store / "leaderboard" / "leaderboard.md").read_text()
    assert "on each task's validation rows held out of train" in page and "task's test rows" not in page
    assert ",validation," in (store / "leaderboard" / "leaderboard.csv").read_text()
    with pytest.raises(UserError, match="are of validation rows"):
        board_of(store, published=True)
    mixed = mark(put_study(tmp_path / "m", MADE), slice(1))
    with pytest.raises(UserError, match="holds test rows and validation rows held out of train: scores on them never"):
        gather(read_study(mixed))


def test_a_recommendation_says_that_its_rows_are_validation_rows(tmp_path):
    store = mark(put_study(tmp_path / "s", MADE))
    asked = ["recommend", "--gpu", "t4", "--task", "banking77", "--store", str(store)]
    said = " ".join(CliRunner().invoke(app, asked, env={"COLUMNS": "200"}).output.split())
    assert "79 validation rows of banking77" in said


# one contestant against the others


def test_against_a_contestant_every_other_is_paired_by_row_on_each_task_and_on_all(tmp_path):
    study = read_study(put_study(tmp_path / "s", replace(MADE, seeds=(0, 1, 2))))
    found = set_against(study, "r 8", np.random.default_rng(0))
    assert [(one.contestant, one.tasks) for one in found[:3]] == [
        ("small, r 64", ("banking77",)),
        ("small, r 64", ("voice_banking",)),
        ("small, r 64", ("banking77", "voice_banking")),
    ]
    grid = gather(study)
    apart = [grid.answers("small, r 64", task, "tuned").value - grid.answers("small, r 8", task, "tuned").value
             for task in grid.tasks]  # fmt: skip
    values = [one.comparison.difference.value for one in found[:3]]
    assert values == pytest.approx([*apart, np.mean(apart)]) and {one.seeds for one in found} == {3}
    assert found == set_against(study, "small, r 8", np.random.default_rng(0))


def test_the_noise_of_seeds_counts_less_on_all_tasks_together(tmp_path):
    study = read_study(put_study(tmp_path / "s", replace(MADE, seeds=(0, 1, 2))))
    single, _, both, *_ = set_against(study, "r 8", np.random.default_rng(0))
    grid = gather(study)
    noise = seed_noise([entry.sides["tuned"].seeds for entry in grid.entries.values()])
    widths = [one.comparison.difference.high - one.comparison.difference.low for one in (single, both)]
    assert noise.sd > 0 and widths[1] < widths[0] and "seed noise added" in both.comparison.difference.method


def test_a_contestant_that_is_not_there_is_refused_with_the_nearest(tmp_path):
    study = read_study(put_study(tmp_path / "s", MADE))
    with pytest.raises(UserError, match="Did you mean 'r 64'"):
        set_against(study, "r 46", np.random.default_rng(0))


def test_rank_prints_the_differences(tmp_path):
    store = put_study(tmp_path / "s", replace(MADE, seeds=(0, 1)))
    told = CliRunner().invoke(app, ["rank", str(store), "--against", "r 8"], env={"COLUMNS": "200"})
    assert told.exit_code == 0 and "Minus r 8" in told.output
    line = next(line for line in told.output.splitlines() if "all 2" in line)
    assert line.split()[:2] == ["r", "64"] and " to " in line and line.split()[-1] == "2"
    assert "each interval is for its own comparison, with the noise of seeds" in told.output
