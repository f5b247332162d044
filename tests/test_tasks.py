"""Every task loads whole, gives its own answers a perfect score, and says what was left out; bad data is refused by
file and line."""

import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from slimtune.data import Message, ToolCall
from slimtune.errors import Problems, UserError
from slimtune.models.toolcalls import TOOL_CALL_FORMATS, parse_tool_calls
from slimtune.scorers import get_scorer, gold_completion
from slimtune.tasks import Selection, get_task, inspect_task, list_tasks, task_from_files
from slimtune.tasks.quality import lacking_arguments
from slimtune.tasks.task import TRAINING_TEXT

SHIPPED = tuple(job.name for job in list_tasks() if job.rows)
DATA = Path(os.environ.get("SLIMTUNE_DATA", Path(__file__).parents[2] / "shared" / "data"))
OUTSIDE = SHIPPED if DATA.is_dir() else ()


def gold_score(task, example, tool_format):
    completion = gold_completion(example, tool_format=tool_format)
    parsed = parse_tool_calls(completion.text, tool_format, example.tools).calls
    return get_scorer(task.scorer)(replace(completion, tool_calls=parsed), example)


def check_whole(task):
    rows = (*task.train, *task.test)
    scored = rows[::20] if task.kind == "text2sql" else rows  # databases are made for each; test_sql.py takes them all
    for tool_format in TOOL_CALL_FORMATS if task.kind == "tool_calling" else ("json",):
        # calls that break their own function's schema are no full score, and are warned of
        whole = [example for example in scored if not lacking_arguments(example)]
        assert len(whole) >= 0.99 * len(scored)
        off = [example for example in whole if gold_score(task, example, tool_format).value != 1.0]
        # tags leave the type to the schema, and a few of BFCL's answers break their own
        assert len(off) <= (len(rows) / 200 if tool_format == "qwen_xml" else 0)
    assert {example.messages[0] for example in rows} == {Message("system", task.instruction)}
    assert {example.messages[-1].role for example in rows} <= {"user", "tool"}
    asked = [example for example in task.train if TRAINING_TEXT not in example.meta]
    assert max(len(gold_completion(example).text) for example in asked) // 2 < task.max_new_tokens
    assert all(get_scorer(name) for name in task.also) and task.scorer not in task.also
    assert inspect_task(task).errors == ()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_task_is_whole_and_its_own_answers_are_perfect(name):
    task = get_task(name)
    check_whole(task)
    assert task.licence and task.attribution and task.source
    assert (Path("slimtune/tasks") / name / "LICENCE.txt").read_text().count(task.licence.replace("CC-BY", "CC BY")[:5])


@pytest.mark.skipif(not OUTSIDE, reason=f"no task data at {DATA}: set SLIMTUNE_DATA to a folder of task folders")
@pytest.mark.parametrize("name", OUTSIDE or ["none"])
def test_every_task_of_the_data_folder_is_whole(name):
    check_whole(get_task(name, data_dir=DATA))


def test_the_three_shipped_tasks_have_the_rows_they_are_known_for():
    banking, voice, squad = (get_task(name) for name in ("banking77", "voice_banking", "squad2_open_book"))
    assert (len(banking.train), len(banking.test), len(banking.labels)) == (5000, 997, 77)
    assert (len(voice.train), len(voice.test)) == (155, 197)
    assert len({example.group for example in voice.test}) == 50  # conversations
    assert {len(example.tools) for example in voice.test} == {14}
    assert banking.title == "Banking77" and "slice" in squad.title and "152 of 1,806" in squad.notes[0]
    assert max(path.stat().st_size for path in Path("slimtune/tasks").glob("squad2*/*.jsonl")) < 300_000


def test_voice_banking_overlaps_in_openings_only():
    quality = inspect_task(get_task("voice_banking"))
    assert (quality.overlap_exact, quality.overlap_openings, quality.leaks) == (21, 21, 0)
    told = str(quality.warnings[0])
    assert "what training asks too, as its task lists: 21. A score is given without them." in told
    bare = inspect_task(replace(get_task("voice_banking"), openings=()))
    assert (bare.overlap_openings, bare.leaks) == (21, 0) and "open a conversation" in str(bare.warnings[0])


@pytest.mark.parametrize("rows", [8, 32])
def test_openings_that_a_task_lists_are_no_leaks_of_a_sample_either(rows):
    """A sample may leave out how their conversations go on."""
    task = get_task("voice_banking", selection=Selection(test_rows=rows))
    quality = inspect_task(task)
    shared = sum(task.is_opening(row) for row in task.test)
    assert quality.errors == () and (quality.overlap_openings, quality.leaks) == (shared, 0)
    assert shared and f"as its task lists: {shared}." in str(quality.warnings[0])
    learned = [replace(row, id=f"x{n}") for n, row in enumerate(task.train) if not task.is_opening(row)]
    leaky = inspect_task(replace(task, test=(*task.test, *learned[:4])))
    assert leaky.leaks == 4 and f"4 of {rows + 4} rows" in str(leaky.errors[0])


def test_an_opening_that_never_goes_on_is_a_leak():
    voice = replace(get_task("voice_banking"), openings=())
    openings = tuple(example for example in voice.test if len(example.messages) == 2)
    quality = inspect_task(replace(voice, test=openings))
    assert (quality.overlap_openings, quality.leaks) == (0, 21)
    assert "21 of 50 rows (42.0%)" in str(quality.errors[0])
    assert inspect_task(replace(voice, test=openings), allowed_leaks=1.0).errors == ()


# selections


def test_ten_labels_limit_the_prompt_the_rows_and_the_title():
    labels = get_task("banking77").labels[:10]
    task = get_task("banking77", selection=Selection(labels=labels[::-1], train_rows=240, test_rows=50))
    assert task.title.startswith("Banking77, 10 of 77 intents, 240 of ") and "50 of " in task.title
    assert task.labels == labels and {example.target for example in task.test} == set(labels)
    assert "one of 10 fine-grained" in task.instruction and task.instruction.count("\n") == 14
    assert "may not be set beside" in task.notes[0]
    assert task.train[0].meta["labels"] == labels
    assert not inspect_task(task).errors and not inspect_task(task).warnings


def test_chosen_rows_are_stratified_nested_in_order_and_seeded():
    def chosen(rows, seed=0):
        return get_task("banking77", selection=Selection(train_rows=rows, seed=seed)).train

    small, large = chosen(77), chosen(400)
    assert set(Counter(example.target for example in small).values()) == {1}
    assert {example.id for example in small} < {example.id for example in large}
    assert [example.id for example in large] == [row.id for row in get_task("banking77").train if row in large]
    assert small == chosen(77) and small != chosen(77, seed=1)
    whole, part = (
        Counter(row.target for row in get_task("banking77").train),
        Counter(row.target for row in chosen(1000)),
    )
    assert all(abs(part[label] - whole[label] / 5) <= 1.5 for label in whole)


def test_a_choice_of_test_rows_does_not_move_the_training_rows():
    few = get_task("banking77", selection=Selection(train_rows=100, test_rows=10))
    assert few.train == get_task("banking77", selection=Selection(train_rows=100)).train


def test_the_seed_moves_the_choice_of_test_rows_too():
    one, other = (get_task("banking77", selection=Selection(test_rows=50, seed=seed)).test for seed in (1, 2))
    assert len(one) == len(other) == 50 and one != other


def test_a_long_right_answer_raises_the_token_limit_up_to_a_cap(tmp_path):
    def limit(length):
        rows = [{"prompt": "Say it.", "completion": "x" * length}]
        return get_task(folder(tmp_path / "long", {"kind": "text"}, rows, rows)).max_new_tokens

    assert limit(10) == 256 and limit(2000) == 1008 and limit(100_000) == 4096


def test_asking_for_more_rows_than_there_are_is_said():
    task = get_task("voice_banking", selection=Selection(train_rows=10_000))
    assert len(task.train) == 155 and task.title == "Voice assistant for a bank"
    assert "At most 10,000 training rows were asked for; there are 155." in task.notes


def test_a_selection_that_cannot_be_met_is_refused_with_every_reason():
    with pytest.raises(UserError) as caught:
        get_task("banking77", selection=Selection(labels=("card_arival", "age_limits", "age_limit")))
    assert "Did you mean 'card_arrival'?" in str(caught.value) and "'age_limits'" in str(caught.value)
    with pytest.raises(UserError, match="only a classification task"):
        get_task("voice_banking", selection=Selection(labels=("greeting",)))
    for bad in ({"train_rows": 0}, {"test_rows": -1}, {"labels": ("a", "a")}):
        with pytest.raises(UserError):
            Selection(**bad)


def test_the_digest_moves_with_all_that_can_change_a_score_and_with_nothing_else():
    task = get_task("squad2_open_book")
    first = task.train[0]
    changed = [
        replace(task, scorer="squad_f1"),
        replace(task, kind="text"),
        replace(task, labels=("a",)),
        replace(task, max_new_tokens=1),
        replace(task, train=task.train[::-1]),
        replace(task, test=task.test[1:]),
        replace(task, train=(replace(first, target="x"), *task.train[1:])),
        replace(task, train=(replace(first, group="x"), *task.train[1:])),
        replace(task, train=(replace(first, tools=({"name": "f"},)), *task.train[1:])),
        replace(task, train=(replace(first, meta={"answers": ("x",)}), *task.train[1:])),
        replace(task, train=(replace(first, messages=(Message("user", "?"),)), *task.train[1:])),
    ]
    assert len({task.digest, *(other.digest for other in changed)}) == len(changed) + 1
    assert replace(task, title="Another", licence="MIT").digest == task.digest == get_task("squad2_open_book").digest


# a folder of your own


def folder(path, job, train, test):
    path.mkdir(parents=True, exist_ok=True)
    (path / "job.json").write_text(json.dumps(job))
    for name, rows in (("train", train), ("test", test)):
        (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(*labels, start=0):
    return [{"text": f"question number {start + n}", "label": label} for n, label in enumerate(labels)]


JOB = {"kind": "classification", "description": "Which is it?"}


def test_a_minimal_folder_is_a_task_with_the_labels_of_its_training_rows(tmp_path):
    task = get_task(folder(tmp_path / "my_intents", JOB, texts("b", "a", "b"), texts("a", start=9)))
    assert task.labels == ("a", "b") and task.name == "my_intents" and task.title == "My intents"
    assert task.instruction == "Which is it?\n\nLabels:\na\nb\n\nAnswer with one of these labels and nothing else."
    assert task.train[0].messages[1] == Message("user", "question number 0") and task.train[0].id == "train-1"
    assert get_task(str(tmp_path / "my_intents")) == task


def test_a_data_folder_wins_over_a_shipped_task_of_the_same_name(tmp_path):
    folder(tmp_path / "banking77", JOB, texts("a"), texts("a", start=5))
    assert get_task("banking77", data_dir=tmp_path).labels == ("a",)
    assert len(get_task("voice_banking", data_dir=tmp_path).test) == 197
    assert [job.name for job in list_tasks(data_dir=tmp_path)] == sorted([*SHIPPED, "trec"])


def test_a_data_folder_that_names_no_scorer_is_scored_as_the_shipped_task_is(tmp_path):
    shipped, whole = Path("slimtune/tasks/bfcl_single_turn"), tmp_path / "bfcl_single_turn"
    shutil.copytree(shipped, whole)
    job = json.loads((whole / "job.json").read_text())
    (whole / "job.json").write_text(json.dumps({key: job[key] for key in job if key not in ("scorer", "groups")}))
    read, ours = get_task("bfcl_single_turn", data_dir=tmp_path), get_task("bfcl_single_turn")
    assert (read.scorer, read.also, read.digest) == ("bfcl_ast", ours.also, ours.digest)
    (whole / "job.json").write_text(json.dumps({**job, "scorer": "staged_tool_call"}))
    assert get_task("bfcl_single_turn", data_dir=tmp_path).scorer == "staged_tool_call"


def test_an_unknown_task_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(UserError, match=r"Did you mean 'banking77'\?"):
        get_task("bankin77")
    with pytest.raises(UserError, match=rf"come with slimtune, in {tmp_path}, and as a folder of {Path.cwd()}\."):
        get_task("mytask", data_dir=tmp_path)
    with pytest.raises(UserError, match="There is no folder"):
        get_task(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"job.json and test.jsonl is missing"):
        (tmp_path / "half").mkdir()
        (tmp_path / "half" / "train.jsonl").write_text("{}")
        get_task(tmp_path / "half")


def test_everything_wrong_with_both_files_is_told_at_once_or_skipped_and_counted(tmp_path):
    path = folder(tmp_path / "bad", JOB, texts("a", "b"), texts("a", start=7))
    with (path / "train.jsonl").open("a") as file:
        file.write('{"text": "x"}\n{"text": "  ", "label": "a"}\n{"text": "x", "label": 3}\n{"text":')
    with (path / "test.jsonl").open("a") as file:
        file.write('{"txet": "x", "label": "a"}\n')
    with pytest.raises(Problems) as caught:
        get_task(path)
    places = "train.jsonl:6", "train.jsonl:3", "train.jsonl:4", "train.jsonl:5", "test.jsonl:2"
    assert [problem.where for problem in caught.value.problems] == [f"{path}/{place}" for place in places]
    assert "Did you mean 'txet'?" in str(caught.value) and "a number for 'label'" in str(caught.value)
    task = get_task(path, selection=Selection(skip_bad=True))
    assert len(task.train) == 2 and len(task.skipped) == 5
    assert "could not be read: 5, first" in str(inspect_task(task).warnings[-1])


def test_a_file_that_lost_whole_lines_is_noticed_by_the_count_in_job_json(tmp_path):
    path = folder(tmp_path / "cut", {**JOB, "rows": {"train": 3, "test": 1}}, texts("a", "b"), texts("a", start=7))
    with pytest.raises(UserError, match=r"train.jsonl has 2 rows and job.json says 3"):
        get_task(path, selection=Selection(skip_bad=True))


def test_a_wrong_job_json_is_told_at_once(tmp_path):
    path = folder(tmp_path / "bad", {"knd": "qa", "labels": ["a", "a"], "description": 3}, [], [])
    with pytest.raises(Problems) as caught:
        get_task(path)
    text = str(caught.value)
    assert "Did you mean 'kind'?" in text and "name a label twice" in text and "kind: is missing" in text
    assert "description: is a number, not text" in text
    (path / "job.json").write_text('{"kind": "clasification"}')
    with pytest.raises(Problems, match=r"/bad/job.json kind: .* is no kind.*Did you mean 'classification'\?"):
        get_task(path)
    (path / "job.json").write_text('{"kind": "qa",\n "labels": [}\n')
    with pytest.raises(Problems, match=r"/bad/job.json: is not JSON: .* at line 2, column 13"):
        get_task(path)


def test_an_empty_file_is_no_task(tmp_path):
    with pytest.raises(UserError, match=r"test.jsonl has no rows"):
        get_task(folder(tmp_path / "empty", JOB, texts("a"), []))


def test_a_row_with_its_own_system_text_keeps_it_without_a_second_system_turn(tmp_path):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Pay 5"}]
    row = {"messages": chat, "expected": [{"name": "pay", "arguments": {"amount": 5}}], "conversation": "c1"}
    job = {"kind": "tool_calling", "description": "Call.", "tools": [{"function": {"name": "pay"}}]}
    example = get_task(folder(tmp_path / "calls", job, [row], [row])).train[0]
    assert example.messages == (Message("system", "Call."), Message("user", "Be brief.\n\nPay 5"))
    assert example.group == "c1" and example.target == (ToolCall("pay", {"amount": 5}),)
    assert example.tools == ({"function": {"name": "pay"}},)


@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [
        ("qa", {"question": "Who?", "answers": []}, "no 'answers'"),
        ("qa", {"question": "Who?", "answers": ["x", " "]}, "empty or no text"),
        ("qa", {"question": "Who?", "answers": ["x"], "context": 3}, "a number for 'context'"),
        ("tool_calling", {"messages": [{"role": "user", "content": "hi"}]}, "no 'expected'"),
        (
            "tool_calling",
            {"messages": [{"role": "user", "content": "hi"}], "expected": [{"nam": "f"}]},
            "without a name",
        ),
        ("tool_calling", {"messages": [], "expected": []}, "holds no turns"),
        ("ner", {"text": "In Rome", "entities": [{"text": "Rome", "type": "x", "start": 0}]}, "at its offsets"),
        ("ner", {"text": "In Rome", "entities": [{"text": "Rome"}]}, "no 'type'"),
        ("ner", {"text": "In Rome", "entities": ["Rome"]}, "no object"),
        ("text2sql", {"question": "How many?", "schema": "CREATE TABLE t(a)"}, "no 'sql'"),
        ("pii", {"text": "x", "redacted": ""}, "empty 'redacted'"),
    ],
)
def test_a_bad_row_of_each_kind_is_refused_by_name(tmp_path, kind, row, reason):
    with pytest.raises(Problems) as caught:
        get_task(folder(tmp_path / "bad", {"kind": kind}, [row], [row]))
    assert caught.value.problems[0].where == f"{tmp_path}/bad/train.jsonl:1" and reason in caught.value.problems[0].what


def test_questions_bring_their_context_answers_and_group(tmp_path):
    row = {"question": "Who?", "context": "Ada did.", "answers": ["Ada", "Ada Lovelace"], "doc_id": "d1"}
    task = get_task(folder(tmp_path / "qa", {"kind": "qa", "description": "Read."}, [row], [row]))
    (example,) = task.test
    assert example.messages[1].content == "Ada did.\n\nQuestion: Who?" and example.target == "Ada"
    assert example.meta["answers"] == ("Ada", "Ada Lovelace") and example.group == "d1"
    assert (task.scorer, task.also) == ("squad_em", ("squad_f1", "rouge_l"))


# quality


def test_a_label_in_other_dress_is_refused_with_the_nearest_label(tmp_path):
    job = {**JOB, "labels": ["card_arrival", "age_limit"]}
    train, test = texts("card_arrival", "Card arrival"), texts("card_arrival ", "age_limits", "zzz", start=5)
    errors = [str(error) for error in inspect_task(get_task(folder(tmp_path / "t", job, train, test))).errors]
    assert len(errors) == 4
    assert errors[0].startswith("train label 'Card arrival'") and "Nearest: 'card_arrival'" in errors[0]
    assert "first train-2" in errors[0] and "Nearest: 'age_limit'" in errors[1]
    assert "Known: card_arrival, age_limit" in errors[3]


def test_derived_labels_that_differ_in_dress_only_are_refused(tmp_path):
    task = get_task(folder(tmp_path / "t", JOB, texts("Yes", "yes", "no"), texts("no", start=5)))
    assert "differs from 'Yes' in case or spaces only" in str(inspect_task(task).errors[0])


def test_a_class_without_training_rows_is_a_warning_with_its_name(tmp_path):
    job = {**JOB, "labels": ["a", "b", "c"]}
    quality = inspect_task(get_task(folder(tmp_path / "t", job, texts("a"), texts("a", "b", start=5))))
    assert quality.errors == () and "without a row to learn from: b." in str(quality.warnings[0])
    assert quality.train_labels == {"a": 1} and quality.test_labels == {"a": 1, "b": 1}


def test_duplicate_ids_are_errors_and_duplicate_rows_are_counted(tmp_path):
    train = [{"id": 7, "text": "x", "label": "a"}, {"id": 7, "text": "x", "label": "a"}]
    quality = inspect_task(get_task(folder(tmp_path / "t", JOB, train, texts("a", start=5))))
    assert "train 7: is the id of 2 rows" in str(quality.errors[0])
    assert quality.duplicate_train_rows == 1 and quality.duplicate_test_rows == 0


def test_a_text_with_two_labels_is_counted_and_warned_of(tmp_path):
    train = [*texts("a", "b"), *texts("b", "b")]  # the first is an a, and then a b
    quality = inspect_task(get_task(folder(tmp_path / "t", JOB, train, texts("b", "a"))))
    assert (quality.contrary_train_rows, quality.contrary_test_rows, quality.duplicate_train_rows) == (1, 1, 1)
    told = [str(warning) for warning in quality.warnings if "another answer" in str(warning)]
    assert told[0] == (
        "train: Rows that ask what an earlier row asks and have another answer: 1, first train-3, against train-1. "
        "Keep the right one."
    )
    assert told[1].startswith("test: ") and "1, first test-2, against train-2." in told[1]


def test_another_answer_is_none_where_one_of_both_rows_accepts_it_or_the_system_turn_differs(tmp_path):
    rows = [{"question": "Who?", "answers": given} for given in (["Ada", "Lovelace"], ["Lovelace"], ["Byron"])]
    quality = inspect_task(get_task(folder(tmp_path / "t", {"kind": "qa"}, rows, rows[:1])))
    assert (quality.contrary_train_rows, quality.contrary_test_rows) == (1, 0)
    rows = [
        {"messages": [*({"role": role, "content": said} for role, said in turns)]}
        for turns in (
            (("system", "In French."), ("user", "Hello"), ("assistant", "Bonjour")),
            (("system", "In Italian."), ("user", "Hello"), ("assistant", "Ciao")),
        )
    ]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert inspect_task(task_from_files(path, path)).contrary_train_rows == 0


def test_overlap_is_counted_exactly_and_by_words_and_refused_above_the_threshold(tmp_path):
    train = [
        {"text": "Where is my card?", "label": "a"},
        {"text": "???", "label": "a"},
        {"text": "\uff21ge", "label": "a"},
    ]
    test = [{"text": "Where is my card?", "label": "a"}, {"text": "where is MY card", "label": "a"}]
    test += [{"text": "!!!", "label": "a"}, {"text": "age!", "label": "a"}, *texts("a", "a", "a", "a")]
    task = get_task(folder(tmp_path / "t", JOB, train, test))
    quality = inspect_task(task)
    assert (quality.overlap_exact, quality.overlap_normalised, quality.leaks) == (1, 3, 3)
    assert "3 of 8 rows (37.5%)" in str(quality.errors[0]) and "test-1, test-2, test-4" in str(quality.errors[0])
    allowed = inspect_task(task, allowed_leaks=0.375)
    assert allowed.errors == () and "3 of 8" in str(allowed.warnings[0])


def test_a_document_on_both_sides_is_a_warning(tmp_path):
    train, test = ({"question": ask, "context": "C", "answers": ["x"], "doc_id": "d1"} for ask in ("Who?", "When?"))
    quality = inspect_task(get_task(folder(tmp_path / "t", {"kind": "qa"}, [train], [test])))
    assert "with rows in training and in test: d1." in str(quality.warnings[0])


def test_a_call_without_an_argument_that_its_function_requires_is_a_warning(tmp_path):
    job = {"kind": "tool_calling", "tools": [{"function": {"name": "pay", "parameters": {"required": ["to", "sum"]}}}]}
    rows = [
        {"messages": [{"role": "user", "content": ask}], "expected": [{"name": "pay", "arguments": given}]}
        for ask, given in (("Pay Ann 5", {"to": "Ann", "sum": 5}), ("Pay 7", {"sum": 7}), ("Pay", {}))
    ]
    quality = inspect_task(get_task(folder(tmp_path / "t", job, rows, rows[:1])))
    told = [str(warning) for warning in quality.warnings if "requires" in str(warning)]
    assert len(told) == 1 and told[0].startswith("train: The answer leaves out an argument")
    assert "2 rows of 3, first train-2 (to of pay)" in told[0]


def test_an_empty_answer_is_an_error():
    task = get_task("squad2_open_book")
    emptied = replace(task, test=(replace(task.test[0], target=" "), *task.test[1:]))
    assert "has an empty answer" in str(inspect_task(emptied).errors[0])


# the formats of others


def jsonl(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def ask(content, role="user"):
    return {"role": role, "content": content}


PROMPT = (Message("user", "2+2?"),)
SAME_ROW = {
    "messages": {"messages": [ask("2+2?"), ask("4", "assistant")]},
    "sharegpt": {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]},
    "alpaca": {"instruction": "2+2?", "input": "", "output": "4"},
    "prompt_completion": {"prompt": "2+2?", "completion": "4"},
    "chat prompt_completion": {"prompt": [ask("2+2?")], "completion": [ask("4", "assistant")]},
}


@pytest.mark.parametrize("name", SAME_ROW)
def test_every_format_is_told_by_its_first_row_and_gives_the_same_example(tmp_path, name):
    task = task_from_files(jsonl(tmp_path / "train.jsonl", SAME_ROW[name]), jsonl(tmp_path / "t.jsonl", SAME_ROW[name]))
    assert (task.train[0].messages, task.train[0].target, task.kind) == (PROMPT, "4", "text")
    assert (task.scorer, task.instruction, task.train[0].id) == ("exact_match", "", "train-1")


def test_an_instruction_takes_the_place_of_system_turns(tmp_path):
    row = {"messages": [ask("Old.", "system"), ask("2+2?"), ask("4", "assistant")]}
    path = jsonl(tmp_path / "train.jsonl", row)
    assert task_from_files(path, path).instruction == "Old."
    task = task_from_files(path, path, instruction="New.", title="Sums")
    assert task.train[0].messages == (Message("system", "New."), *PROMPT) and task.title == "Sums"


def test_only_the_last_assistant_turn_is_the_answer(tmp_path):
    turns = [ask("Hi"), ask("Hello", "assistant"), ask("2+2?"), ask("4", "assistant")]
    path = jsonl(tmp_path / "train.jsonl", {"messages": turns})
    example = task_from_files(path, path).train[0]
    assert example.target == "4" and [turn.role for turn in example.messages] == ["user", "assistant", "user"]


@pytest.mark.parametrize("arguments", [{"amount": 5}, '{"amount": 5}'])
def test_tool_calls_of_a_chat_are_read_with_arguments_as_object_or_string(tmp_path, arguments):
    call = {"id": "1", "type": "function", "function": {"name": "pay", "arguments": arguments}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    tools = [{"type": "function", "function": {"name": "pay"}}]
    path = jsonl(tmp_path / "train.jsonl", {"messages": [ask("Pay 5"), answer], "tools": tools})
    task = task_from_files(path, path)
    assert task.kind == "tool_calling" and task.scorer == "tool_call_equivalence"
    assert task.train[0].target == (ToolCall("pay", {"amount": 5}),) and task.train[0].tools == tuple(tools)


def test_sharegpt_calls_and_tools_in_strings_are_read(tmp_path):
    turns = [
        {"from": "human", "value": "Pay 5"},
        {"from": "function_call", "value": '{"name": "pay", "arguments": {}}'},
    ]
    path = jsonl(tmp_path / "train.jsonl", {"conversations": turns, "system": "S", "tools": '[{"name": "pay"}]'})
    task = task_from_files(path, path)
    assert task.train[0].target == (ToolCall("pay", {}),) and task.instruction == "S"
    assert task.train[0].tools == ({"name": "pay"},)


def test_rows_that_end_in_calls_and_rows_that_end_in_text_are_two_tasks(tmp_path):
    call = {"role": "assistant", "tool_calls": [{"name": "pay"}]}
    path = jsonl(tmp_path / "t.jsonl", {"messages": [ask("a"), call]}, {"messages": [ask("b"), ask("c", "assistant")]})
    with pytest.raises(UserError, match="2 of 4 rows end in tool calls"):
        task_from_files(path, path)


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([ask("4", "assistant")], "turn 1 is an assistant turn after nothing"),
        ([ask("a"), ask("b"), ask("c", "assistant")], "turn 2 is a user turn after a user turn"),
        ([ask("a"), ask("b", "assistant"), ask("s", "system")], "system turn in the middle"),
        ([ask("a")], "no assistant turn"),
        ([ask("a"), ask("b", "assistant"), ask("c")], "ends with a user turn"),
        ([ask("a"), ask("  ", "assistant")], "turn 2 is an empty assistant turn"),
        ([ask("a"), ask(None, "assistant")], "null for content"),
        ([ask([{"type": "text", "text": "a"}]), ask("b", "assistant")], "turn 1 has a list for content"),
        ([ask("a"), ask("r", "tool"), ask("b", "assistant")], "tool turn after a user turn"),
        ([ask("a"), ask("b", "assistant"), ask("r", "tool"), ask("c", "assistant")], "called no tool"),
        ([ask("a"), ask("b", "asistant")], "Did you mean 'assistant'?"),
        ([{**ask("a"), "tool_calls": [{"name": "f"}]}, ask("b", "assistant")], "only the assistant calls"),
        (["a"], "a string, not an object"),
        ([], "holds no turns"),
        ("hi", "a string where a list"),
    ],
)
def test_a_chat_out_of_order_is_refused_by_name(tmp_path, turns, reason):
    path = jsonl(tmp_path / "train.jsonl", SAME_ROW["messages"], {"messages": turns})
    with pytest.raises(Problems) as caught:
        task_from_files(path, path)
    assert caught.value.problems[0].where.endswith("/train.jsonl:2")
    assert reason in caught.value.problems[0].what


def test_an_unclear_format_lists_the_formats(tmp_path):
    path = jsonl(tmp_path / "train.jsonl", {"body": "x", "topic": "y"})
    with pytest.raises(UserError) as caught:
        task_from_files(path)
    assert "'body', 'topic'" in str(caught.value) and "alpaca: instruction, output" in str(caught.value)
    with pytest.raises(UserError, match=r"Did you mean 'sharegpt'\?"):
        task_from_files(path, format="sharedgpt")


def test_a_csv_with_named_columns_is_a_classification_task(tmp_path):
    path = tmp_path / "mails.csv"
    path.write_bytes('\ufeffbody,topic\r\n"Hello,\nwhere is ""it""?",late\r\nBye é,other\r\n'.encode())
    task = task_from_files(path, path, columns={"text": "body", "label": "topic"}, instruction="Sort.")
    assert task.labels == ("late", "other") and task.kind == "classification" and task.name == "mails"
    assert [row.messages[1].content for row in task.train] == ['Hello,\nwhere is "it"?', "Bye é"]
    assert [row.id for row in task.train] == ["mails-3", "mails-4"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"text;label\na;b\n", "divided by ';'"),
        (b"text,text\na,b\n", "twice: text"),
        (b"", "no header"),
        (b'text,label\n"a,b\n', "quote"),
        (b"text,label\ncaf\xe9,b\n", "Latin-1"),
        ("text,label\na,b\n".encode("utf-16"), "UTF-16"),
    ],
)
def test_a_csv_that_cannot_be_trusted_is_refused(tmp_path, content, reason):
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason):
        task_from_files(path)


def test_ragged_csv_rows_and_wrong_columns_are_named(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\na,b\nc\nd,e,f\n")
    with pytest.raises(Problems) as caught:
        task_from_files(path, path)
    assert [problem.where for problem in caught.value.problems][:2] == [f"{path}:3", f"{path}:4"]
    with pytest.raises(UserError, match=r"no column 'labl'. Did you mean 'label'\?"):
        task_from_files(path, columns={"label": "labl"})


def test_answers_become_labels_or_accepted_answers_when_asked(tmp_path):
    path = jsonl(
        tmp_path / "t.jsonl", {"prompt": "2+2?", "completion": "four "}, {"prompt": "1+1?", "completion": "two"}
    )
    labelled = task_from_files(path, path, kind="classification")
    assert labelled.labels == ("four", "two") and labelled.train[0].target == "four"
    assert task_from_files(path, path, labels=("four", "two", "six")).labels == ("four", "two", "six")
    asked = task_from_files(path, path, kind="qa", scorer="squad_f1")
    assert asked.train[1].meta["answers"] == ("two",) and (asked.scorer, asked.also) == ("squad_f1", ("rouge_l",))
    with pytest.raises(UserError, match="make a text task, not a ner one"):
        task_from_files(path, path, kind="ner")
    with pytest.raises(UserError, match="no scorer named"):
        task_from_files(path, path, scorer="exact")


# a test side held out


def test_a_held_out_side_parts_no_group_and_no_near_duplicates(tmp_path):
    rows = [{"text": f"Row {n}", "label": "ab"[n % 2], "group": f"g{n // 5}"} for n in range(100)]
    rows += [{"text": f"row {n}!", "label": "ab"[n % 2]} for n in range(0, 100, 9)]
    path = jsonl(tmp_path / "rows.jsonl", *rows)
    task = task_from_files(path)
    quality = inspect_task(task)
    assert quality.overlap_normalised == 0 and not quality.warnings
    assert len(task.train) + len(task.test) == len(rows) and 0.15 < len(task.test) / len(rows) < 0.3
    assert task == task_from_files(path) and task != task_from_files(path, selection=Selection(seed=1))


def test_a_held_out_side_has_every_label_that_can_be_spared(tmp_path):
    labels = ["a"] * 40 + ["b"] * 10 + ["only once"]
    path = jsonl(tmp_path / "rows.jsonl", *texts(*labels))
    task = task_from_files(path)
    assert Counter(row.target for row in task.test) == {"a": 8, "b": 2}
    assert not inspect_task(task).warnings


def test_rows_that_cannot_be_parted_are_refused(tmp_path):
    rows = [{"text": f"row {n}", "label": "a", "group": "one"} for n in range(10)]
    with pytest.raises(UserError, match="Give a test file"):
        task_from_files(jsonl(tmp_path / "rows.jsonl", *rows))
    with pytest.raises(UserError, match=r"held_out is 0\.9"):
        task_from_files(jsonl(tmp_path / "rows.jsonl", *texts("a", "b", "c")), held_out=0.9)
