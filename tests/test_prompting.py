"""What a model is told is a template in a sandbox: the kind's own, or a folder's; hostile ones are refused."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimtune.data import Message
from slimtune.errors import Problems, UserError
from slimtune.tasks import get_task, task_from_files
from slimtune.tasks.job import Job
from slimtune.tasks.kinds import KINDS
from slimtune.tasks.prompting import FOLDER, MOST_SOURCE, compiled, system_turn, user_turn

ROW = {"text": "Where is my card?", "label": "card", "title": "Card"}


def folder(path, prompt="", row=ROW, **job):
    path.mkdir(parents=True, exist_ok=True)
    (path / "job.json").write_text(json.dumps({"kind": "classification", "description": "Which is it?", **job}))
    for side, said in (("train", row), ("test", {**row, "text": "Another card?"})):
        (path / f"{side}.jsonl").write_text(json.dumps(said) + "\n")
    if prompt:
        (path / "prompt.jinja").write_text(prompt)
    return path


def test_every_kind_has_a_prompt_and_no_prompt_is_of_no_kind():
    assert {file.stem for file in FOLDER.glob("*.jinja")} == set(KINDS)
    assert all(compiled(file.read_text()).turns for file in FOLDER.glob("*.jinja"))


def test_the_kinds_say_what_they_always_said():
    job = Job("x", "classification", "Sort.", labels=("a", "b"), label_descriptions={"a": "the first"})
    assert system_turn(job) == "Sort.\n\nLabels:\na: the first\nb\n\nAnswer with one of these labels and nothing else."
    assert system_turn(Job("x", "pii", entity_types=("A", "B"))) == (
        "Types: A, B.\n\nAnswer with the rewritten text and nothing else."
    )
    assert system_turn(Job("x", "text", "As it is.\n")) == "As it is.\n"
    job = Job("x", "qa")
    assert user_turn("qa", job, {"question": "Who? {{ x }}", "context": None}) == "Who? {{ x }}"
    assert user_turn("qa", job, {"question": "Who?", "context": "Ada.\n"}) == "Ada.\n\n\nQuestion: Who?"


def test_a_folder_says_either_turn_in_its_own_words(tmp_path):
    task = get_task(folder(tmp_path / "a", system="{{ title }}: {{ labels[0].name }}", user="{{ title }}\n{{ text }}"))
    assert task.train[0].messages == (Message("system", "A: card"), Message("user", "Card\nWhere is my card?"))
    own = "{% block user %}\nSubject: {{ title }}\n{{ text }}\n{% endblock %}"
    task = get_task(folder(tmp_path / "b", own))
    assert task.train[0].messages[1].content == "Subject: Card\nWhere is my card?"
    assert task.instruction.startswith("Which is it?\n\nLabels:\ncard\n")  # the block it does not say is the kind's


def test_a_row_without_a_field_that_its_template_names_is_refused_by_line(tmp_path):
    with pytest.raises(Problems) as caught:
        get_task(folder(tmp_path / "a", user="{{ subject }}"))
    assert caught.value.problems[0].where.endswith("train.jsonl:1") and "'subject' is undefined" in str(caught.value)
    with pytest.raises(UserError, match="does not fit the system template: 'tone' is undefined"):
        get_task(folder(tmp_path / "b", system="{{ tone }}"))


HOSTILE = {
    "{{ ''.__class__.__mro__ }}": "'__mro__'",
    "{{ text['__class__'] }}": "does not fit",
    "{{ text | attr('__class__') }}": "the filter 'attr'",
    "{% for x in range(10**9) %}x{% endfor %}": "",
    "{% for x in range(1000000000) %}x{% endfor %}": "calls something",
    "{{ 'a' * 1000000000 }}": "has a Mul",
    "{{ 9 ** 9 ** 9 }}": "has a Pow",
    "{{ '%01000000000d' % 1 }}": "has a Mod",
    "{{ '{:1000000000}'.format(1) }}": "calls something",
    "{{ text | center(1000000000) }}": "the filter 'center'",
    "{% set x = text %}{{ x }}": "has a Assign",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}": "",
    "{% include 'x' %}": "has a Include",
    "{% import 'os' as os %}": "has a Import",
    "{{ cycler }}": "undefined",
    "{{ text ~ text }}": "has a Concat",
    "{{ [text, text] | join(text) }}": "has a List",
    "{% for a in text %}{% endfor %}": "goes over a list",
    "{% for a in many %}{% for b in many %}{% for c in many %}{% endfor %}{% endfor %}{% endfor %}": "100,000 times",
    "{% for a in many %}{{ long }}{% endfor %}": "longer than",
    "{{ many | join(long) }}": "joins more than",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}": "",
    "{{ " + "not " * 4500 + "1 }}": "",
    "x" * (MOST_SOURCE + 1): "at most 20,000",
    "{% if %}": "line 1",
    "{% for x in many recursive %}{{ loop(many) }}{% endfor %}": "calls something",
}


@pytest.mark.parametrize("source", HOSTILE, ids=[f"{number}" for number in range(len(HOSTILE))])
def test_a_hostile_template_is_refused_with_a_sentence_within_a_second(source):
    began = time.monotonic()
    values = {**ROW, "many": ["x"] * 3000, "long": "y" * 10_000}
    with pytest.raises(ValueError) as caught:
        compiled(source)
        user_turn("classification", Job("x", "classification", user=source), values)
    assert HOSTILE[source] in str(caught.value) and len(str(caught.value)) < 500
    assert time.monotonic() - began < 1


def test_a_folder_with_a_hostile_prompt_is_no_task(tmp_path):
    with pytest.raises(Problems) as caught:
        get_task(folder(tmp_path / "a", "{% block usr %}{% endblock %}", system="{% include 'x' %}", user="{{ x() }}"))
    assert {problem.where for problem in caught.value.problems} == {
        "prompt.jinja",
        "job.json system",
        "job.json user",
    }


def test_rows_are_text_and_never_templates(tmp_path):
    row = {"text": "{{ 1 + 1 }} {% for x in y %}", "label": "a"}
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({**row, "text": f"{n} {row['text']}"}) + "\n" for n in range(4)))
    assert row["text"] in task_from_files(file, file).train[0].messages[1].content


@settings(max_examples=200, deadline=1000)
@given(st.text(alphabet=st.sampled_from("{}%|.[]()'_ abfornidtxelkq0*+~-#\n"), max_size=60))
def test_whatever_is_written_is_a_prompt_or_a_sentence(source):
    try:
        text = user_turn("classification", Job("x", "classification", user=f"{{{{ text }}}}{source}"), ROW)
    except ValueError as error:
        assert str(error)
    else:
        assert text.startswith(ROW["text"])
