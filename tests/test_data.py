"""JSON Lines are read whole or refused by file and line: nothing is lost, guessed or doubled in silence."""

import json
import os
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slimtune.data import MAX_DEPTH, listed, read_jsonl, strict_json
from slimtune.errors import Problem, Problems, UserError

ROWS = [{"text": "Wo ist meine Karte? ž €"}, {"text": "one\u2028two\u0085three"}, {"n": [1, 2.5, None, True]}]


def write(path, *rows, end=b"\n"):
    path.write_bytes(b"".join(json.dumps(row, ensure_ascii=False).encode() + end for row in rows))
    return path


def only_problem(path, **knobs):
    with pytest.raises(Problems) as caught:
        read_jsonl(path, **knobs)
    (problem,) = caught.value.problems
    return problem


def test_rows_come_back_with_their_line_numbers(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n  \n{"b": 2}')
    assert read_jsonl(path).rows == ((1, {"a": 1}), (4, {"b": 2}))


def test_a_line_separator_inside_a_string_does_not_end_the_row(tmp_path):
    assert [row for _, row in read_jsonl(write(tmp_path / "rows.jsonl", *ROWS)).rows] == ROWS


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path):
    path = write(tmp_path / "rows.jsonl", *ROWS, end=b"\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [row for _, row in read_jsonl(path).rows] == ROWS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_encodings_are_refused_with_their_name_and_the_cure(tmp_path, encoding):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"text": "Where is my card?"}\n'.encode(encoding))
    with pytest.raises(UserError, match=rf"is {encoding[:6].upper()}.*iconv"):
        read_jsonl(path, skip_bad=True)


@pytest.mark.parametrize(("encoding", "guess"), [("latin-1", "Latin-1"), ("cp1252", "Windows-1252")])
def test_one_byte_encodings_are_refused_with_a_guess(tmp_path, encoding, guess):
    path = tmp_path / "rows.jsonl"
    text = {"latin-1": "café", "cp1252": "5 €"}[encoding]
    path.write_bytes(b'{"a": 1}\n' + f'{{"text": "{text}"}}\n'.encode(encoding))
    problem = only_problem(path)
    assert problem.where == "rows.jsonl:2" and guess in problem.what


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"label": "a", "label": "b"}', "'label' twice"),
        (b'{"in": {"x": 1, "x": 1}}', "'x' twice"),
        (b'{"n": NaN}', "NaN"),
        (b'{"n": -Infinity}', "-Infinity"),
        (b'{"n": 1e999}', "too large"),
        (b'{"n": ' + b"9" * 5000 + b"}", "5,000 digits"),
        (b'{"text": "\\ud83d"}', "surrogate"),
        (b'{"text": "a\0b"}', "NUL"),
        (b"[1, 2]", "a list, not an object"),
        (b'"text"', "a string, not an object"),
        (b"{'text': 1}", "not JSON"),
        (b'{"a": 1} {"b": 2}', "follows"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "nested"),
        (b'{"a":' * 100_000, "nested"),
    ],
)
def test_what_json_lets_through_is_refused_by_file_and_line(tmp_path, line, reason):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"fine": 1}\n' + line + b"\n")
    problem = only_problem(path)
    assert problem.where == "rows.jsonl:2" and reason in problem.what


def test_a_whole_surrogate_pair_and_allowed_depth_are_fine():
    assert strict_json('"\\ud83d\\ude00"') == "😀"
    assert strict_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(ValueError, match="nested"):
        strict_json("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2))


json_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
json_rows = st.dictionaries(json_texts, json_texts | st.integers() | st.lists(st.booleans(), max_size=2), max_size=2)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(json_rows, min_size=1, max_size=3))
def test_a_file_cut_at_any_byte_gives_whole_rows_or_is_refused(tmp_path, rows):
    whole = write(tmp_path / "whole.jsonl", *rows).read_bytes()
    path = tmp_path / "cut.jsonl"
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        only_line_end_lost = whole[cut : cut + 1] == b"\n"
        kept = whole[:cut].count(b"\n") + only_line_end_lost
        torn = not only_line_end_lost and not whole[:cut].endswith(b"\n") and cut > 0
        found = read_jsonl(path, skip_bad=True)
        assert [row for _, row in found.rows] == rows[:kept]
        assert len(found.skipped) == torn
        if torn:
            problem = only_problem(path)
            assert problem.where == f"cut.jsonl:{kept + 1}" and "cut off" in problem.what


def test_every_bad_line_is_told_at_once_and_a_flood_is_counted(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"nonsense\n" * 50 + b'{"a": 1}\n')
    with pytest.raises(Problems) as caught:
        read_jsonl(path)
    assert "rows.jsonl:20:" in str(caught.value) and "and 30 more" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 22
    skipping = read_jsonl(path, skip_bad=True)
    assert len(skipping.skipped) == 50 and len(skipping.rows) == 1


def test_a_short_list_of_problems_is_shown_in_full():
    problems = [Problem(f"x:{n}", "is bad") for n in range(20)]
    assert listed(problems) == tuple(problems)


def test_a_line_above_the_cap_is_named_and_the_lines_after_it_are_read(tmp_path):
    path = write(tmp_path / "rows.jsonl", {"text": "x" * 100}, {"a": 1})
    assert "longer than 64 bytes" in only_problem(path, line_cap_bytes=64).what
    assert read_jsonl(path, skip_bad=True, line_cap_bytes=64).rows == ((2, {"a": 1}),)
    exact = len(path.read_bytes().split(b"\n")[0])
    assert len(read_jsonl(path, line_cap_bytes=exact).rows) == 2
    assert only_problem(path, line_cap_bytes=exact - 1).where == "rows.jsonl:1"


def test_a_line_of_a_hundred_megabytes_is_refused_in_little_memory(tmp_path):
    path = tmp_path / "sparse.jsonl"
    with path.open("wb") as file:
        file.write(b'{"a": 1}\n{"text": "')
        file.write(b" " * 2000)
        os.truncate(file.fileno(), 100 << 20)
    tracemalloc.start()
    problem = only_problem(path, line_cap_bytes=1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert problem.where == "sparse.jsonl:2" and "longer than" in problem.what
    assert peak < 8 << 20


def test_a_missing_file_is_a_user_error_that_names_the_nearest(tmp_path):
    write(tmp_path / "train.jsonl", {"a": 1})
    with pytest.raises(UserError, match=r"Did you mean 'train.jsonl'\?"):
        read_jsonl(tmp_path / "trian.jsonl")
    with pytest.raises(UserError, match="Cannot read"):
        read_jsonl(tmp_path)
