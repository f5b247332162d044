"""Tasks whose rows come from elsewhere: distil labs' job folders as they are, and a repository on the hub."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pandas as pd
import pytest

from slimtune.data import ToolCall
from slimtune.errors import Problems, UserError
from slimtune.tasks import Selection, get_task, list_tasks

TOOL = {"type": "function", "function": {"name": "ls", "parameters": {"type": "object", "properties": {}}}}


def job_folder(path, task, description, train, test, ending="jsonl"):
    path.mkdir()
    (path / "job_description.json").write_text(json.dumps(description))
    (path / "config.yaml").write_text(f"base:\n  task: {task}\n  student_model_name: Qwen3-0.6B\n")
    for side, rows in (("train", train), ("test", test)):
        if ending == "csv":
            pd.DataFrame(rows).to_csv(path / f"{side}.csv", index=False)
        else:
            (path / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def said(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_classification_folder_brings_its_classes_and_their_descriptions(tmp_path, ending):
    description = {"task_description": "Sort.", "classes_description": {"a": "the first", "b": "the second"}}
    rows = [{"question": "one", "answer": "a"}, {"question": "two", "answer": "b"}]
    task = get_task(job_folder(tmp_path / "sort", "classification", description, rows, rows[:1], ending))
    assert (task.kind, task.labels, task.train[1].target) == ("classification", ("a", "b"), "b")
    assert task.instruction.startswith("Sort.\n\nLabels:\na: the first\nb: the second")
    newer = [said("one", "a"), said("two", "b")]
    again = get_task(job_folder(tmp_path / "newer", "classification", description, newer, newer[:1]))
    assert [row.messages for row in again.train] == [row.messages for row in task.train]


def test_an_open_book_folder_shows_its_context(tmp_path):
    old = [{"question": "Who?", "context": "Ada did.", "answer": "Ada"}]
    new = [{**said("Who?", "Ada"), "context": "Ada did."}]
    for name, rows in (("old", old), ("new", new)):
        task = get_task(
            job_folder(tmp_path / name, "question-answering-open-book", {"task_description": "Read."}, rows, rows)
        )
        assert task.kind == "qa" and task.test[0].messages[-1].content == "Ada did.\n\nQuestion: Who?"
        assert task.test[0].target == "Ada"


def as_distil(row):
    """A row of ours as one of theirs: the history in the question, the last call as the answer."""
    history = [
        {
            "role": turn.role,
            "content": turn.content,
            **(
                {"tool_calls": [{"type": "function", "function": call.as_json()} for call in turn.tool_calls]}
                if turn.tool_calls
                else {}
            ),
        }
        for turn in row.messages[1:]
    ]
    (call,) = row.target
    return {"question": json.dumps(history), "answer": json.dumps({"name": call.name, "parameters": call.arguments})}


def test_each_assistant_call_of_a_conversation_is_one_case_grouped_by_conversation(tmp_path):
    """The voice assistant's own test file, rebuilt, gives the 197 cases that its published percentages count."""
    voice = get_task("voice_banking")
    last = {side: {row.group: row for row in getattr(voice, side)}.values() for side in ("train", "test")}
    theirs = {side: [as_distil(row) for row in rows] for side, rows in last.items()}
    description = {"task_description": voice.instruction, "tools": list(voice.test[0].tools)}
    task = get_task(job_folder(tmp_path / "voice", "multi-turn-tool-calling-closed-book", description, **theirs))
    assert (len(task.test), len({row.group for row in task.test})) == (197, 50)
    assert [(row.messages, row.target, row.tools) for row in task.test] == [
        (row.messages, row.target, row.tools) for row in voice.test
    ]


def test_a_single_turn_call_may_stand_in_either_form(tmp_path):
    old = {"question": "List.", "answer": '{"name": "ls", "parameters": {"a": true}}'}
    call = {"type": "function", "function": {"name": "ls", "arguments": {"a": True}}}
    new = {"messages": [{"role": "user", "content": "List."}, {"role": "assistant", "tool_calls": [call]}]}
    description = {"task_description": "Call.", "tools": [TOOL]}
    for name, row in (("old", old), ("new", new)):
        task = get_task(job_folder(tmp_path / name, "tool-calling-closed-book", description, [row], [row]))
        assert task.test[0].target == (ToolCall("ls", {"a": True}),) and task.test[0].tools == (TOOL,)


def test_what_is_wrong_with_a_job_folder_is_told_by_line_and_can_be_skipped(tmp_path):
    good = {"question": "List.", "answer": '{"name": "ls", "parameters": {}}'}
    bad = [{"question": "x"}, {"question": "x", "answer": "no call"}, {"messages": "[1]"}, said("hi", "hello")]
    description = {"task_description": "Call.", "tools": [TOOL]}
    path = job_folder(tmp_path / "bad", "tool-calling-closed-book", description, [good, *bad], [good])
    with pytest.raises(Problems) as caught:
        get_task(path)
    assert [problem.where.rsplit(":", 1)[1] for problem in caught.value.problems] == ["2", "3", "4", "5"]
    assert len(get_task(path, selection=Selection(skip_bad=True)).skipped) == 4
    (path / "config.yaml").write_text("base:\n  task: clasification\n")
    with pytest.raises(UserError, match="Did you mean 'classification'"):
        get_task(path)
    (path / "test.jsonl").unlink()
    (path / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"neither test.jsonl nor test.csv"):
        get_task(path)


# the hub

LOAD = """
import sys
from slimtune.errors import SlimtuneError
from slimtune.tasks import get_task
try:
    task = get_task(sys.argv[1])
except SlimtuneError as error:
    print(type(error).__name__, error)
    sys.exit(error.exit_code)
print(task.train[0].messages[1].content, task.train[0].target, len(task.train), len(task.test), task.licence)
assert not {"torch", "datasets", "transformers"} & sys.modules.keys()
"""


REVISIONS = {job.hub["repository"]: job.hub["revision"] for job in list_tasks() if job.hub}


class Hub(BaseHTTPRequestHandler):
    """Data sets, each at the commit that its job.json names: files by REPOSITORY/NAME, and 404 for the rest."""

    files: dict

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def log_message(self, *_):
        pass

    def _answer(self, *, body):
        repository, _, rest = unquote(self.path).removeprefix("/datasets/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        data = self.files.get(f"{repository}/{name}") if REVISIONS.get(repository) == revision else None
        self.send_response(200 if data else 404)
        headers = {
            "X-Repo-Commit": revision,
            "Content-Length": str(len(data or b"")),
            "ETag": f'"{hashlib.sha256(data or b"").hexdigest()}"',
        }
        if not data:
            headers["X-Error-Code"] = "EntryNotFound"
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if body and data:
            self.wfile.write(data)


@pytest.fixture
def hub(tmp_path):
    rows = [{"text": f"Who wrote book {n}?", "coarse_label": n % 6, "fine_label": n} for n in range(12)]
    pd.DataFrame(rows[:8]).to_parquet(tmp_path / "train.parquet")
    pd.DataFrame(rows[8:]).to_parquet(tmp_path / "test.parquet")
    files = {
        f"CogComp/trec/default/{side}/0000.parquet": (tmp_path / f"{side}.parquet").read_bytes()
        for side in ("train", "test")
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("ThisHub", (Hub,), {"files": files}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def load(port, home, task="trec", script=LOAD):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-c", script, str(task)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**clean, "HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(home)},
    )


def test_trec_is_fetched_from_the_hub_once_and_ships_no_row(hub, tmp_path):
    first = load(hub.server_port, tmp_path / "home")
    assert (first.stdout, first.returncode) == ("Who wrote book 0? ABBR 8 4 unstated\n", 0), first.stderr
    hub.shutdown()
    hub.server_close()
    assert load(hub.server_port, tmp_path / "home").stdout == first.stdout
    away = load(hub.server_port, tmp_path / "another")
    assert away.returncode == 69 and "give a folder of task folders as --data" in away.stdout


WHOLE = """
import sys
from slimtune.errors import SlimtuneError
from slimtune.tasks import get_task, inspect_task
try:
    task = get_task(sys.argv[1])
except SlimtuneError as error:
    print(type(error).__name__, error)
    sys.exit(error.exit_code)
row = task.train[0]
meta = {name: row.meta[name] for name in row.meta if name != "labels"}
sizes = [len(task.train), len(task.test)]
print(task.title, sizes, row.target, meta, row.group, inspect_task(task).errors, task.notes[0])
"""
SQUAD = {"answer_start": [3, 3], "text": ["William", "William the Conqueror"]}


@pytest.mark.parametrize(
    ("task", "rows", "expected"),
    [
        (
            "banking77",
            [{"text": "where is my card", "label": 11}, {"text": "and the refund?", "label": 51}],
            "Banking77 [2, 2] card_arrival {} None () All rows of legacy-datasets/banking77 at f54121560de4",
        ),
        (
            "clinc150",  # what is out of scope is no part of the task
            [{"text": "beats me", "intent": 42}, {"text": "my pay", "intent": 108}, {"text": "louder", "intent": 150}],
            "CLINC150 [2, 2] direct_deposit {} None () All rows of clinc/clinc_oos at 155b9c710419",
        ),
        (
            "squad2_open_book",  # nor is what its paragraph does not answer
            [
                {"id": "1", "title": "Normans", "context": "Duke William ...", "question": "Who?", "answers": SQUAD},
                {"id": "2", "title": "Normans", "context": "Duke William ...", "question": "When?"}
                | {"answers": {"answer_start": [], "text": []}},
            ],
            "SQuAD 2.0 open book [1, 1] William {'answers': ('William', 'William the Conqueror')} Normans () "
            "All rows of rajpurkar/squad_v2 at 3ffb306f725f",
        ),
    ],
)
def test_the_whole_of_a_task_is_fetched_under_its_own_columns_and_class_numbers(hub, tmp_path, task, rows, expected):
    job = next(job for job in list_tasks() if job.name == task)
    asked = job.hub["columns"].get("text", "question")
    for side in ("train", "test"):
        said = [{**row, asked: f"{row[asked]} ({side})"} for row in rows]
        pd.DataFrame(said).to_parquet(tmp_path / "side.parquet")
        name = f"{job.hub['repository']}/{job.hub[side]}"
        hub.RequestHandlerClass.files[name] = (tmp_path / "side.parquet").read_bytes()
    shown = load(hub.server_port, tmp_path / "home", f"hub:{task}", script=WHOLE)
    assert shown.stdout.startswith(expected), shown.stdout + shown.stderr
    assert len(get_task(task).test) > 2  # and the rows that come with slimtune are what the bare name means


def test_a_task_that_is_no_table_on_the_hub_says_where_more_of_its_rows_are():
    with pytest.raises(UserError, match=r"More rows come with --data DIR, made from github.com/microsoft/presidio"):
        get_task("hub:pii_redaction")
    with pytest.raises(UserError, match=r"E-commerce is not fetched .* comes whole. hub: goes before banking77"):
        get_task("hub:ecommerce")
    with pytest.raises(UserError, match=r"Did you mean 'clinc150'\?"):
        get_task("hub:clinc15")


def test_a_file_or_a_column_that_the_hub_does_not_have_is_a_sentence(hub, tmp_path):
    job = {"kind": "classification", "hub": {"repository": "CogComp/trec", "revision": REVISIONS["CogComp/trec"]}}
    job["hub"] |= {"train": "default/train/0000.parquet", "test": "nowhere.parquet", "columns": {"text": "txt"}}
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps(job))
    told = load(hub.server_port, tmp_path / "home", folder)
    assert told.returncode == 2 and "no column 'txt'. Did you mean 'text'?" in told.stdout
    job["hub"]["columns"] = {"text": "text", "label": "coarse_label"}
    (folder / "job.json").write_text(json.dumps(job))
    told = load(hub.server_port, tmp_path / "home", folder)
    assert told.returncode == 2 and "has no file nowhere.parquet" in told.stdout
    del job["hub"]["columns"]
    (folder / "job.json").write_text(json.dumps(job))
    assert "has no 'columns'" in load(hub.server_port, tmp_path / "home", folder).stdout
