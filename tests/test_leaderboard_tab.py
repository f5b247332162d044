"""The Leaderboard tab in a real browser: a study's ranks, live, and from a score down to the answers behind it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from study_store import Made, put_study
from test_app import App, Page, axe, browser, pytestmark  # noqa: F401  the fixture and its marks are used by name

from slimtune.app import advice_view, leaderboard_tab
from slimtune.errors import UserError
from slimtune.files import read_json
from slimtune.sweep.studies import attempt_of, how_far, list_studies, open_study

TASKS = ("banking77", "voice_banking", "docs_contracts")
WHOLE = Made({"SmolLM2, r 8": 0.5, "SmolLM2, r 64": 0.7, "SmolLM2, 50 rows": 0.3}, TASKS, teacher=0.8)
MISSING = ("SmolLM2, r 64", "docs_contracts", 0)


def folder_with_study(folder: Path) -> Path:
    put_study(folder / "sweeps" / "small", Made(**vars(WHOLE) | {"states": {MISSING: "waiting"}}), name="small")
    return folder


def test_a_study_is_ranked_live_and_opened_down_to_its_answers(tmp_path: Path, browser) -> None:  # noqa: F811
    app = App(folder_with_study(tmp_path / "work"))
    try:
        page = Page(browser, app.url)
        page.tab("Leaderboard")
        page.wait_text("#study-progress", "9 cells: 8 done, 1 waiting")
        page.wait_text("#board", "SmolLM2, r 8 leads")  # the better one lacks a score
        put_study(tmp_path / "other", WHOLE, name="small")
        cell = next(one for one in open_study("small", app.folder / "sweeps").cells if one.state == "waiting")
        finished = tmp_path / "other" / "cells" / cell.fingerprint
        for name in ("attempts", "result.json"):
            (finished / name).rename(cell.folder / name)
        page.wait_text("#board", "SmolLM2, r 64 leads")  # it looks by itself

        page.page.locator("#board table.heat a[href*='cells/']").first.click()
        leader = page.page.locator("#cell-chosen input")
        page.wait_text("#cell", "Banking77|banking77|tuned")
        assert leader.input_value() == "SmolLM2, r 64, banking77, seed 0: done"
        page.page.locator("#cell-answers button").first.click()
        page.wait_text("#cell-answer-rows", "Question 1 of banking77")

        page.page.locator("#advice button").first.click()
        page.wait_text("#advice-said", "Take SmolLM2, r 64 for classification tasks")
        page.choose("#advice-size", "up to 500M")
        page.choose("#advice-gpu", "L4")
        page.wait_text("#advice-said", "on the L4")

        page.page.get_by_label("Published figures beside").check()
        page.wait_text("#board", "Qwen3-8B|published")
        found = axe.Axe().run(page.page).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
        page.close()
    finally:
        app.close()


def test_no_name_leads_out_of_the_folder_and_no_cell_out_of_its_study(tmp_path: Path) -> None:
    sweeps = folder_with_study(tmp_path) / "sweeps"
    put_study(tmp_path / "elsewhere", WHOLE, name="elsewhere")
    assert list_studies(sweeps) == ["small"]
    for name in ("../elsewhere", "smal", ""):
        with pytest.raises(UserError):
            open_study(name, sweeps)
    study = open_study("small", sweeps)
    assert how_far(study) == "9 cells: 8 done, 1 waiting."
    done = next(one for one in study.cells if one.state == "done")
    assert read_json(attempt_of(study, done.fingerprint) / "tuned" / "evaluation.json")["name"] == "tuned"
    waiting = next(one for one in study.cells if one.state == "waiting")
    for fingerprint, said in ((waiting.fingerprint, "has no result: it is waiting"), ("../../x", "no such cell")):
        with pytest.raises(UserError, match=said):
            attempt_of(study, fingerprint)


@pytest.mark.parametrize("state", ["waiting", "failed"])
def test_only_what_failed_is_red(tmp_path: Path, monkeypatch, state: str) -> None:
    monkeypatch.chdir(tmp_path)
    put_study(tmp_path / "sweeps" / "small", Made(**vars(WHOLE) | {"states": {MISSING: state}}), name="small")
    cell = next(one for one in open_study("small").cells if one.state == state)
    said, _ = leaderboard_tab._open(f"small/{cell.fingerprint}")
    assert f"it is {state}" in said and ("slim-bad" in said) == (state == "failed")


def test_without_a_study_the_tab_says_which_command_names_matrices(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = str(leaderboard_tab._look(None, False, "")[1])
    (command,) = re.findall(r"`slimtune (list \w+)`|<code>slimtune (list \w+)</code>", said)
    done = subprocess.run(
        [sys.executable, "-m", "slimtune.cli", *"".join(command).split()], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "demo-cpu" in done.stdout and "published-15x9" in done.stdout


def test_the_advice_says_why_own_contestants_are_set_aside(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = Made(**vars(WHOLE) | {"models": {"SmolLM2, r 8": "/not/<here>"}})
    put_study(tmp_path / "sweeps" / "small", made, name="small")
    said = advice_view._advise("small", "classification", "T4", "")
    assert "Own contestants set aside" in said
    assert "Not ranked (the model is not listed, so whether it fits is not known): SmolLM2, r 8." in said
    assert "Own contestants set aside" not in advice_view._advise(None, "classification", "T4", "")
