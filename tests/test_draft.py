"""What is chosen on a form becomes the recipe it says, a plan at once, and a sentence where it cannot be."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quiet import is_quiet

from slimtune.draft import (
    Draft,
    draft_of,
    every_model,
    keep_upload,
    outlook,
    recipe_text,
    recipe_value,
    starting_drafts,
)
from slimtune.errors import UserError
from slimtune.gpus import get_gpu
from slimtune.recipe import Recipe, Train, load_recipe
from slimtune.strict_yaml import parse_yaml

DRAFT = Draft("qwen3-4b", task="banking77", rank=16, alpha=16, lr=2e-4)
WORDS = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


def written(draft: Draft, folder: Path) -> Path:
    path = folder / f"{draft.name}.yaml"
    path.write_text(recipe_text(draft), encoding="utf-8")
    return path


def test_a_recipe_says_what_differs_from_the_defaults_and_no_more(tmp_path: Path) -> None:
    text = recipe_text(DRAFT)
    assert text.splitlines() == [
        "# Qwen3-4B learns banking77.",
        "#   slimtune run qwen3-4b-banking77.yaml",
        "model: qwen3-4b",
        "task: banking77",
        "lora: {r: 16, alpha: 16}",
        "train: {lr: 2e-4}",
        "context: 2048",
    ]
    recipe = load_recipe(written(DRAFT, tmp_path))
    assert (recipe.lora.r, recipe.lora.alpha, recipe.train.lr, recipe.train.epochs) == (16, 16, 2e-4, 4)
    assert recipe == Recipe.model_validate(recipe_value(DRAFT))


@settings(max_examples=60, deadline=None)
@given(text=WORDS, column=WORDS.filter(str.strip), lr=st.floats(1e-8, 0.9), epochs=st.floats(0.01, 99))
def test_whatever_words_and_numbers_stand_in_a_form_they_are_read_back(
    tmp_path_factory, text, column, lr, epochs
) -> None:
    draft = replace(
        DRAFT, task=None, train="a.csv", columns=(("text", column),), instruction=text, lr=lr, epochs=epochs
    )
    value = parse_yaml(written(draft, tmp_path_factory.mktemp("recipe"))).value
    assert value["data"].get("instruction", "") == text and value["data"]["columns"] == {"text": column}
    asked = Train(**value.get("train", {}))
    assert asked.lr == pytest.approx(lr) and asked.epochs == pytest.approx(epochs, rel=1e-4)


def test_numbers_that_look_like_words_and_words_that_look_like_numbers_keep_their_kind(tmp_path: Path) -> None:
    columns = (("text", "5e-5"), ("label", "no"), ("group", "010"))
    value = parse_yaml(written(replace(DRAFT, task=None, train="true", columns=columns), tmp_path)).value
    assert value["data"] == {"train": "true", "columns": dict(columns)}


def test_a_change_is_answered_at_once_and_the_plan_is_that_of_the_recipe() -> None:
    first = outlook(DRAFT, get_gpu("t4"))
    assert not first.problems and first.forecast.plan.gpu == "T4" and first.forecast.detectable > 0
    quiet, took = is_quiet(), []
    for rank in (16, 32, 64):
        began = time.monotonic()
        second = outlook(replace(DRAFT, rank=rank), get_gpu("t4"))
        lines = every_model(second.prepared, get_gpu("t4"))
        took.append(time.monotonic() - began)
    assert min(took) < (0.3 if quiet else 1.5), f"the rows are read once: {took}"
    assert second.forecast.plan.parts_gib["LoRA weights"] > 3 * first.forecast.plan.parts_gib["LoRA weights"]
    assert next(line.plan for line in lines if line.spec.key == "qwen3-4b").peak_gib == second.forecast.plan.peak_gib
    assert any(not line.plan and "GiB" in line.why for line in lines), "32B does not fit a T4"


def test_what_cannot_be_is_said_with_what_would_help() -> None:
    stretched = outlook(replace(DRAFT, context=65536), None)
    assert stretched.prepared is None and "method: yarn" in stretched.problems[0].fix
    assert not outlook(replace(DRAFT, context=65536, yarn=True), get_gpu("h100")).problems
    assert "does not fit" in outlook(replace(DRAFT, model="qwen3-32b"), get_gpu("t4")).refusal
    assert "no task named" in str(outlook(replace(DRAFT, task="banking78"), None).problems[0])
    assert outlook(replace(DRAFT, rank=0), None).problems


def test_rows_that_changed_on_the_disk_are_read_again(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    draft = replace(DRAFT, task=None, train=str(rows), columns=(("text", "text"), ("label", "label")))
    rows.write_text("text,label\n" + "".join(f"word {n},{'ab'[n % 2]}\n" for n in range(40)))
    few = len(outlook(draft, None).prepared.task.train)
    rows.write_text("text,label\n" + "".join(f"word {n},{'ab'[n % 2]}\n" for n in range(80)))
    assert len(outlook(draft, None).prepared.task.train) > few


def test_an_upload_is_kept_under_a_name_of_ours_and_nothing_but_rows_is_taken(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    sent = tmp_path / "sent"
    sent.write_text("text,label\nx,y\n")
    kept = keep_upload(sent, name="../../My Téxt (1).CSV")
    assert kept == keep_upload(sent, name="../../My Téxt (1).CSV") and Path(kept).parts[0] == "uploads"
    assert Path(kept).read_text() == sent.read_text() and kept.endswith("/my-t-xt-1.csv")
    for name in ("rows.parquet", "rows", "rows.csv.exe"):
        with pytest.raises(UserError, match=r"Upload \.jsonl"):
            keep_upload(sent, name=name)


def test_a_recipe_that_comes_along_fills_the_form_whole_or_is_not_offered(tmp_path: Path) -> None:
    drafts = starting_drafts()
    assert "smollm2-banking77-demo" in drafts
    for draft in drafts.values():
        assert draft_of(load_recipe(written(draft, tmp_path))) == draft
    (tmp_path / "more.yaml").write_text("model: qwen3-4b\ntask: banking77\ntrain: {weight_decay: 0.1}\n")
    assert draft_of(load_recipe(tmp_path / "more.yaml")) is None, "a form that does not ask for it would lose it"
