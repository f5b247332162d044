"""A study goes in, a leaderboard comes out: its ranks are those of the rows, nothing in it acts, every link leads."""

import csv
import io
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pandas
import pytest
from study_store import Made, put_study
from typer.testing import CliRunner

from slimtune.cli import app
from slimtune.errors import UserError
from slimtune.files import read_json, write_json
from slimtune.report.board import CellLine
from slimtune.report.board_page import as_csv, write_board
from slimtune.stats import holm, mean_ranks, paired_difference
from slimtune.sweep.leaderboard import make_board
from slimtune.sweep.lines import links_of
from slimtune.sweep.store import read_study, write_failure
from slimtune.sweep.studies import NotYet, attempt_of
from slimtune.wording import in_common

HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(2)> | a ` \x1b[31mred\x1b[0m \u202e =1+1"
TASKS = ("banking77", "trec", "voice_banking")
SMALL = Made(
    {"small, r 8": 0.55, "small, r 64": 0.63, "large, r 64": 0.8},
    TASKS,
    seeds=(0, 1),
    rows=80,
    models={"large, r 64": "qwen3-0.6b"},
    served={"openai:gpt-oss-120b": 0.8},
    teacher=0.78,
)


def board_of(store, **options):
    return make_board(read_study(store), out=store / "leaderboard", rng=np.random.default_rng(0), **options)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return put_study(tmp_path_factory.mktemp("sweeps") / "t4-small", SMALL)


@pytest.fixture(scope="module")
def board(store):
    return board_of(store, published=True)


@pytest.fixture(scope="module")
def written(board, store):
    return write_board(board, store / "leaderboard")


def rows_of(store, contestant, task, side):
    """The mean score of each row over the seeds, from the files alone."""
    found = []
    for cell in read_study(store).cells:
        if (cell.contestant, cell.task) == (contestant, task):
            folder = cell.folder / cell.result["attempt"] / side
            found.append(pandas.read_parquet(folder / "examples.parquet").set_index("id"))
    return pandas.concat([one.score for one in found], axis=1).mean(axis=1), found[0].group


def table(board, name):
    return next(one for one in board.tables if one.name == name)


# what it says


def test_evaluate_says_of_a_study_and_of_a_cell_which_run_to_give(tmp_path):
    states = {("small, r 8", "trec", 0): "waiting"}
    store = put_study(tmp_path / "mine", replace(SMALL, states=states))
    done = sorted((cell for cell in read_study(store).cells if cell.state == "done"), key=lambda cell: cell.folder)
    waiting = next(cell for cell in read_study(store).cells if cell.state == "waiting")
    run, other = (cell.folder / cell.result["attempt"] for cell in done[:2])
    for folder in (run, other):
        write_json(folder / "recipe.json", {})
    for folder, said in (
        (store, f"mine is a study, not a run. Give the folder of one of its 2 runs, such as: {run}"),
        (done[0].folder, f"is a cell of a study, not a run. Give the folder of its run: {run}"),
        (waiting.folder, "is a cell of a study, and no trained run is done in it."),
    ):
        result = CliRunner().invoke(app, ["evaluate", str(folder)])
        assert isinstance(result.exception, UserError) and str(result.exception).endswith(said)


@pytest.mark.parametrize(("exit_code", "state"), [(75, "waiting"), (2, "failed")])
def test_only_what_failed_is_linked_with_a_why_and_what_waits_is_said_not_to_be_there_yet(tmp_path, exit_code, state):
    store = put_study(tmp_path, replace(SMALL, states={("small, r 8", "trec", 0): "waiting"}))
    cell = next(one for one in read_study(store).cells if one.state == "waiting")
    why = "Stopped after step 1 of 3; run the same command to go on."
    write_failure(cell.folder, exit_code=exit_code, why=why, attempt="attempts/box-1")
    cell = next(one for one in read_study(store).cells if one.fingerprint == cell.fingerprint)
    assert [link.label for link in links_of(cell, store)] == (["why"] if state == "failed" else [])
    with pytest.raises(UserError) as caught:
        attempt_of(read_study(store), cell.fingerprint)
    assert str(caught.value).endswith(f"has no result: it is {state}. {why}")
    assert isinstance(caught.value, NotYet) == (state == "waiting")


def test_mean_ranks_are_those_of_the_rows(board, store):
    names = list(SMALL.contestants)
    tuned, few = (
        np.array([[rows_of(store, name, task, side)[0].mean() for task in TASKS] for name in names])
        for side in ("tuned", "few_shot")
    )
    shown = [[board.squares[name, task].shown.score.value for task in TASKS] for name in names]
    assert np.array(shown) == pytest.approx(tuned)
    for kind, scores in (("tuned", tuned), ("gain", tuned - few), ("base", few)):
        expected = {name: row.mean for name, row in zip(names, mean_ranks(scores), strict=True)}
        assert {one.contestant: one.mean_rank for one in table(board, kind).standings} == pytest.approx(expected)
        assert [one.mean_rank for one in table(board, kind).standings] == sorted(expected.values())
    assert "few-shot" in table(board, "gain").about and "rewards a low start" in table(board, "gain").about


def test_chances_add_up_and_ranges_hold_the_rank(board):
    for one in board.tables:
        assert sum(row.p_best for row in one.standings) == pytest.approx(1)
        assert all(row.rank_range[0] <= row.rank_range[1] <= 3 for row in one.standings)
    assert board.tables[0].standings[0].contestant == "large, r 64"
    assert board.headline.startswith("large, r 64 leads over 3 tasks: mean rank 1.00 of 3, first in ")


def test_what_is_served_is_shown_and_compared_with_but_not_ranked(board):
    served = "openai:gpt-oss-120b"
    assert all(served not in [row.contestant for row in one.standings] for one in board.tables)
    assert board.squares[served, "trec"].shown.seeds == 2 and not board.squares[served, "trec"].ranked
    assert board.contestants[-1] == served
    assert {one.teacher for one in board.against} == {served, "teacher, gpt-oss-120b"}


def test_a_student_is_set_against_its_teacher_row_by_row_and_holm_counts_all_comparisons(board, store):
    raw = []
    for one in board.against:
        side, who = ("served", one.teacher) if one.teacher.startswith("openai") else ("teacher", one.student)
        (teacher, groups), (student, _) = (
            rows_of(store, who, one.task, side),
            rows_of(store, one.student, one.task, "tuned"),
        )
        both = student.notna() & teacher.notna()
        found = paired_difference(teacher[both], student[both], list(groups[both]), rng=np.random.default_rng(0))
        assert one.comparison.difference.value == pytest.approx(found.difference.value)
        assert one.comparison.n == both.sum() == 79 + (SMALL.rows - 79) * bool(both.iloc[0])
        raw.append(one.comparison.p)
    assert [one.p for one in board.against] == pytest.approx(list(holm(raw)))
    assert {one.outcome for one in board.against} == {"worse", "not clear"}
    assert all(one.p < 0.05 for one in board.against if one.outcome != "not clear")
    assert sum(line.startswith("small, r 8 against") for line in board.against_summary) == 2


def test_noise_between_seeds_is_measured_printed_and_widens_the_intervals(board, store, written, tmp_path):
    assert board.noise.runs == 18 and board.noise.squares == 9 and 0 < board.noise.low < board.noise.sd
    assert f"standard deviation of {board.noise.sd:.4f}" in text(written["html"])
    assert all("seed noise added" in one.comparison.difference.method for one in board.against)
    single = board_of(put_study(tmp_path / "one", replace(SMALL, seeds=(0,))))
    assert single.noise is None and any("luck of training is not known" in line for line in single.remarks)
    assert all("seed noise" not in one.comparison.difference.method for one in single.against)


def test_the_front_is_of_those_that_no_other_beats(board):
    spent = {one.contestant: one for one in board.spent}
    assert [one.score for one in board.spent] == sorted((one.score for one in board.spent), reverse=True)
    assert all("cost" in one.fronts for one in board.spent)  # the better ones took longer
    assert spent["large, r 64"].usd == pytest.approx(0.4 * (60 + 400 * 0.8 + 1.5) / 3600)
    assert spent["large, r 64"].rows_per_s == pytest.approx(1 / (0.02 + 0.1 * 0.8))


def test_a_worse_and_dearer_contestant_is_not_on_the_front(store):
    from slimtune.sweep.gather import gather
    from slimtune.sweep.spent import spent

    study = read_study(store)
    cells = []
    for cell in study.cells:
        slow = {"wall": 9000.0, "training": 4500.0} if cell.contestant == "small, r 8" else None
        cells.append(replace(cell, result={**cell.result, "seconds": slow}) if slow else cell)
    found = {
        one.contestant: one for one in spent(gather(replace(study, cells=tuple(cells))), list(SMALL.contestants), TASKS)
    }
    assert "time" not in found["small, r 8"].fronts and "time" in found["large, r 64"].fronts


def test_cards_that_differ_are_said(store):
    study = read_study(store)
    changed = {
        **study.cells[0].result,
        "environment": {"gpu": "NVIDIA L4", "precision": "bf16", "quantisation": "4bit"},
    }
    mixed = replace(study, cells=(replace(study.cells[0], result=changed), *study.cells[1:]))
    found = make_board(mixed, out=store, rng=np.random.default_rng(0))
    said = " ".join((*found.remarks, *found.cost_remarks))
    assert "NVIDIA L4, bf16, 4bit; Tesla T4, fp16, 16bit" in said and "times and memory do not compare" in said


# what is missing


def test_a_model_whose_files_moved_during_a_study_is_named(tmp_path):
    made = put_study(tmp_path / "study", replace(SMALL, tasks=TASKS[:2], seeds=(0,)))
    for number, cell in enumerate(one for one in read_study(made).cells if one.model == "qwen3-0.6b"):
        result = read_json(cell.folder / "result.json")
        result["environment"]["model"] = {"digest": f"{number:064d}"}
        write_json(cell.folder / "result.json", result)
    said = " ".join(board_of(made).remarks)
    assert "The files of qwen3-0.6b were not the same in all cells" in said and "smollm2" not in said


def test_what_is_to_be_said_of_a_models_weights_is_said_beside_its_scores(tmp_path):
    made = put_study(tmp_path / "study", replace(SMALL, tasks=TASKS[:1], seeds=(0,)))
    for name, label in (("small, r 8", "Small"), ("large, r 64", "Large")):
        cell = next(one for one in read_study(made).cells if one.contestant == name)
        result = read_json(cell.folder / "result.json")
        result["environment"]["model"] = {"label": label, "note": "random weights: no quality"}
        write_json(cell.folder / "result.json", result)
    said = board_of(made).remarks
    assert {"Small: random weights: no quality.", "Large: random weights: no quality."} <= set(said)


def test_contestants_that_answered_other_rows_are_said(tmp_path):
    made = put_study(tmp_path / "study", replace(SMALL, tasks=TASKS[:2], seeds=(0,)))
    assert not any("same test rows" in line for line in board_of(made).remarks)
    cell = next(one for one in read_study(made).cells if one.task == "banking77")
    result = read_json(cell.folder / "result.json")
    result["sides"]["tuned"]["n"] = 40
    write_json(cell.folder / "result.json", result)
    (said,) = (line for line in board_of(made).remarks if "same test rows" in line)
    assert "of banking77 (40 or 80 of them)" in said


def test_answers_that_are_gone_from_one_seed_are_said(tmp_path):
    made = put_study(tmp_path / "study", replace(SMALL, tasks=TASKS[:1]))
    cell = next(one for one in read_study(made).cells if one.contestant == "small, r 8")
    (cell.folder / cell.result["attempt"] / "tuned" / "examples.parquet").unlink()
    (square,) = board_of(made).trouble
    assert (square.contestant, square.state) == ("small, r 8", "partly") and square.why.endswith("are not: tuned")


@pytest.fixture(scope="module")
def holed(tmp_path_factory):
    states = {("small, r 8", "trec", seed): "failed" for seed in (0, 1)} | {("large, r 64", "banking77", 1): "waiting"}
    return put_study(tmp_path_factory.mktemp("sweeps") / "holed", replace(SMALL, states=states, why=HOSTILE))


def test_a_missing_cell_is_shown_with_its_reason_and_ranks_are_over_the_whole_block(holed):
    found = board_of(holed)
    assert found.counts == {"done": 21, "failed": 2, "running": 0, "waiting": 1, "stale": 0}
    assert {(one.contestant, one.task, one.state) for one in found.trouble} == {
        ("small, r 8", "trec", "failed"),
        ("large, r 64", "banking77", "partly"),
    }
    assert any("Not ranked, for want of a score: small, r 8 (no score on trec)" in line for line in found.remarks)
    assert {one.contestant for one in found.tables[0].standings} == {"small, r 64", "large, r 64"}
    assert found.squares["small, r 8", "trec"].why.endswith("=1+1")


def test_a_study_that_has_just_begun_ranks_two_over_the_task_they_share_and_one_alone_not_at_all(tmp_path):
    begun = replace(SMALL, contestants={"a": 0.5, "b": 0.8}, tasks=TASKS[:2], seeds=(0,), served={})
    found = board_of(put_study(tmp_path / "two", replace(begun, states={("b", "trec", 0): "waiting"})))
    assert [one.contestant for one in found.tables[0].standings] == ["b", "a"]
    assert found.headline.startswith("b leads over 1 task: mean rank 1.00 of 2, first in 100.0% of the draws of rows,")
    assert " with one seed each" in found.headline
    assert any("Not ranked, for want of a score: trec (no score of b)" in line for line in found.remarks)
    alone = board_of(put_study(tmp_path / "one", replace(begun, states={("b", task, 0): "waiting" for task in TASKS})))
    assert alone.headline == "Only a is ranked, over 2 tasks: there is nothing to compare it with."


def test_settings_of_one_model_that_are_compared_on_test_rows_come_with_a_warning_and_models_do_not(tmp_path):
    settings = replace(SMALL, contestants={"a": 0.5, "b": 0.8}, served={}, models={"a": "one", "b": "one"})
    apart = replace(settings, models={"a": "one", "b": "other"})
    for made, count in ((settings, 1), (apart, 0)):
        store = put_study(tmp_path / made.models["b"], made)
        said = [line for line in board_of(store).remarks if line.startswith("Several settings of a model")]
        assert len(said) == count


def test_what_all_contestants_are_is_said_once(tmp_path):
    ways = Made({"SmolLM2 (4-bit), rank 64": 1.5, "SmolLM2 (4-bit), rank 8": 1.0}, TASKS)
    store = put_study(tmp_path / "two", ways)
    board = board_of(store)
    assert board.who == "2 contestants, all of SmolLM2 (4-bit)" and board.short("SmolLM2 (4-bit), rank 8") == "rank 8"
    paths = write_board(board, store / "leaderboard")
    assert "| rank 64 |" in text(paths["markdown"]) and text(paths["html"]).count(">rank 64<") > 2
    assert board.headline.startswith("SmolLM2 (4-bit), rank 64 leads")


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (("a, r 8", "a, r 64"), "a, "),
        (("a, b, 1", "a, b, 2"), "a, b, "),
        (("a", "a, r 8"), ""),
        (("ab, 1", "ac, 1"), ""),
        (("a, r 8",), ""),
        ((), ""),
    ],
)
def test_what_names_have_in_common_ends_at_a_comma(names, alike):
    assert in_common(names) == alike


def test_who_has_the_same_ranks_is_level_and_nobody_leads(tmp_path):
    level = Made({"a": 1.5, "b": 1.5}, TASKS[:1])  # all right, both
    store = put_study(tmp_path / "two", level)
    found = board_of(store)
    assert found.headline == "a and b are level over 1 task: mean rank 1.50 of 2."
    assert "2 contestants; 1 task. Cells:" in text(write_board(found, store / "leaderboard")["markdown"])
    three = board_of(put_study(tmp_path / "three", replace(level, contestants={"a": 1.5, "b": 1.5, "c": 0.3})))
    assert three.headline == "a and b are level over 1 task: mean rank 1.50 of 3 each."
    more = replace(level, contestants={"a": 1.5, "b": 1.5, "c": 0.3}, tasks=TASKS)
    assert board_of(put_study(tmp_path / "more", more)).headline == (
        "a and b are level over 3 tasks: mean rank 1.50 of 3 each. By ranks alone, none of the others can be told "
        "apart from them."
    )


def test_incomplete_ranks_are_asked_for_and_carry_a_footnote(holed):
    (only,) = board_of(holed, incomplete=True).tables
    assert {one.contestant: one.tasks for one in only.standings}["small, r 8"] == 2
    assert "small, r 8: 2 of 3 tasks" in only.footnotes[0] and "do not compare like with like" in only.footnotes[0]
    assert all(one.p_best is None for one in only.standings)
    assert write_board(board_of(holed, incomplete=True), holed / "leaderboard")["html"].is_file()


def test_cells_that_are_no_longer_asked_for_are_counted_and_not_ranked(store, tmp_path):
    copy = shutil.copytree(store, tmp_path / "copy")
    matrix = read_json(copy / "matrix.json")
    kept = [entry for entry in matrix["cells"] if entry["contestant"] != "small, r 8"]
    write_json(copy / "matrix.json", {**matrix, "cells": kept})
    found = board_of(copy)
    assert found.counts["stale"] == 6 and "small, r 8" not in found.contestants


def test_a_study_without_a_result_has_a_leaderboard_that_says_so(tmp_path):
    waiting = {(name, task, 0): "waiting" for name in (*SMALL.contestants, *SMALL.served) for task in TASKS}
    store = put_study(tmp_path / "new", replace(SMALL, seeds=(0,), states=waiting))
    found = board_of(store)
    assert found.headline.startswith("Nothing to rank yet") and found.tables == () and found.spent == ()
    assert "Nothing to rank yet" in text(write_board(found, store / "leaderboard")["markdown"])


def test_one_task_has_ranks_without_an_interval(tmp_path):
    found = board_of(put_study(tmp_path / "one", replace(SMALL, tasks=("trec",), seeds=(0,))))
    assert all(one.interval is None for one in found.tables[0].standings)
    assert found.tables[0].critical_difference is None and "One task has no spread" in found.tables[0].footnotes[0]
    assert write_board(found, tmp_path / "out")["html"].is_file()


# the files


def text(path):
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    def __init__(self, words):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(words)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def test_every_number_leads_to_a_report_or_to_the_line_of_its_cells(written):
    page = Page(text(written["html"]))
    ids = [value for name, value in page.attributes if name == "id"]
    links = [value for name, value in page.attributes if name == "href"]
    inside = {link[1:] for link in links if link.startswith("#") and "-t" in link}
    assert len(ids) == len(set(ids)) and inside and inside <= set(ids)
    files = [link for link in links if not link.startswith("#")]
    assert len({link for link in files if link.endswith("report.html")}) == 24
    assert all((written["html"].parent / unquote(link)).is_file() for link in files)


def test_a_store_that_was_copied_without_its_reports_has_a_leaderboard_too(tmp_path):
    store = put_study(tmp_path / "copied", Made({"a, r 8": 0.5, "a, r 64": 0.7}, ("banking77",)))
    for report in store.glob("cells/*/attempts/*/report.html"):
        report.unlink()
    page = write_board(board_of(store), tmp_path / "out")["html"].read_text()
    assert "report.html" not in page and page.count("examples.parquet") >= 6


def test_the_page_loads_nothing_and_runs_nothing(written):
    page = Page(text(written["html"]))
    assert {"script", "img", "iframe", "link", "object"}.isdisjoint(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "src"]
    assert "default-src 'none'" in text(written["html"])


def test_text_from_outside_is_text_on_the_page_in_markdown_and_on_the_terminal(tmp_path):
    names = {f"{HOSTILE} {number}": 0.5 + number / 9 for number in range(3)}
    made = replace(
        SMALL,
        contestants=names,
        tasks=TASKS[:2],
        seeds=(0,),
        states={(next(iter(names)), "trec", 0): "failed"},
        why=HOSTILE,
    )
    store = put_study(tmp_path / "store", made, name=HOSTILE)
    paths = write_board(board_of(store), store / "leaderboard")
    page = Page(text(paths["html"]))
    assert {"script", "img"}.isdisjoint(page.tags) and not [name for name, _ in page.attributes if name == "onerror"]
    assert "<script" not in text(paths["markdown"]) and "<img" not in text(paths["markdown"])
    done = slimtune("rank", store)
    assert done.returncode == 0 and "\x1b" not in done.stdout and "<script>" in done.stdout


def test_the_csv_has_every_cell_and_no_formula(written, holed, store):
    rows = list(csv.DictReader(io.StringIO(text(written["csv"]))))
    cells = read_study(store).cells
    assert [(row["contestant"], row["task"], int(row["seed"])) for row in rows] == [
        (cell.contestant, cell.task, cell.seed) for cell in cells
    ]
    assert float(rows[0]["tuned"]) == cells[0].result["sides"]["tuned"]["score"]["value"]
    assert all((written["csv"].parent / unquote(row["report"])).is_file() for row in rows)
    bad = {f"f{at}": f"{sign}cmd()" for at, sign in enumerate("=+-@\t\r")} | {"number": -3.5}
    (row,) = csv.DictReader(io.StringIO(as_csv([CellLine(bad, ())]), newline=""))
    assert all(row[name].startswith("'") for name in bad if name != "number") and row["number"] == "-3.5"


def test_published_figures_stand_beside_with_their_source_and_change_nothing(board, store, written):
    without = board_of(store)
    assert without.published == () and without.tables == board.tables and without.against == board.against
    page, first = text(written["html"]), board.published[0]
    assert ("Qwen3-8B", "2.33", "\u00b10.57", "\u00b10.67", "-") in first.rows
    own = next(row for row in first.rows if row[0] == "Qwen3-0.6B")
    assert own[-1] == "large, r 64: 1.00 of 3"
    assert first.source in page and all(one.source and one.rows for one in board.published) and first.caveats


def test_the_same_store_gives_the_same_files(store, tmp_path):
    for name in ("a", "b"):
        write_board(make_board(read_study(store), out=tmp_path / "x", rng=np.random.default_rng(3)), tmp_path / name)
    names = sorted(str(path.relative_to(tmp_path / "a")) for path in (tmp_path / "a").rglob("*.*"))
    assert len(names) >= 9
    assert [
        name for name in names if (tmp_path / "a" / name).read_bytes() != (tmp_path / "b" / name).read_bytes()
    ] == []


# the verb


def slimtune(*words):
    command = [sys.executable, "-m", "slimtune.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"COLUMNS": "150"})


def test_rank_prints_the_tables_and_says_where_the_files_are(store, tmp_path):
    done = slimtune("rank", store, "--out", tmp_path / "board", "--published")
    assert done.returncode == 0, done.stderr
    assert "large, r 64 leads over 3 tasks" in done.stdout and "P(top 3)" in done.stdout and "Source:" in done.stdout
    assert all(
        (tmp_path / "board" / name).is_file() for name in ("leaderboard.html", "leaderboard.md", "leaderboard.csv")
    )


def test_rank_without_a_study_is_a_user_error(tmp_path):
    done = slimtune("rank", tmp_path / "nowhere")
    assert done.returncode == 2 and "There is no study in" in done.stderr
    with pytest.raises(UserError):
        read_study(tmp_path)


@pytest.mark.parametrize("rows", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_135_cells_are_ranked_in_time(tmp_path, rows):
    names = {f"contestant {at}": 0.5 + at / 40 for at in range(15)}
    store = put_study(tmp_path / "large", Made(names, [f"task{at}" for at in range(9)], rows=rows))
    began = time.process_time()  # other work on the machine does not count
    found = board_of(store)
    write_board(found, tmp_path / "out")
    took = time.process_time() - began
    assert len(found.cells) == 135 and len(found.tables) == 3
    assert took < (30 if rows == 1000 else 15), f"{took:.1f} s"


# in a browser


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1280, "dark"),
        (400, "light"),
        pytest.param(1280, "light", marks=pytest.mark.slow),
        pytest.param(400, "dark", marks=pytest.mark.slow),
    ],
)
def test_the_page_fits_complains_of_nothing_and_shuts_nobody_out(written, browser, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints, asked = [], []
    page.on("console", lambda said: complaints.append(said.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(written["html"].as_uri())
    assert complaints == [] and asked == [written["html"].as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")] == []
    page.locator("table.heat td a").first.click()
    page.locator("table.cells tr:target td a").first.click()
    assert page.locator("h1").inner_text() == "Answers"
    page.close()


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium here: `apt-get install chromium`")
    with sync.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()
