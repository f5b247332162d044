"""A query is right when it gives what the gold query gives; what harms, hangs or lies is stopped and scores 0."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import example as also
from hypothesis import given, settings
from hypothesis import strategies as st
from sql_mutants import columns_of, measure

from slimtune.data import Completion, Example, Score
from slimtune.scorers.sql import sql_execution
from slimtune.scorers.sql.compare import difference, in_blocks
from slimtune.scorers.sql.databases import judges_for
from slimtune.scorers.sql.fill import fill
from slimtune.scorers.sql.hints import Table, read_hints
from slimtune.scorers.sql.order import break_ties, orders
from slimtune.scorers.sql.process import SQL_PROCESS, SqlProcess
from slimtune.scorers.sql.text import extract_query

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data" / "text2sql"
SCHEMA = """CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, country TEXT, age REAL, born TEXT);
CREATE TABLE song (id INTEGER PRIMARY KEY, singer_id INTEGER NOT NULL, title TEXT UNIQUE, sales INTEGER,
  FOREIGN KEY (singer_id) REFERENCES singer(id));"""
JOIN = "FROM singer AS s JOIN song AS g ON s.id = g.singer_id"
NAMES = "SELECT name FROM singer"


def score(answer, gold=NAMES, *, schema=SCHEMA, stopped="stop"):
    return sql_execution(Completion(answer, stopped=stopped), Example("1", (), gold, meta={"schema": schema}))


def rows_of(folder, side):
    if not folder.exists():
        pytest.skip(f"no {folder}: the text2sql rows are not here")
    lines = (folder / f"{side}.jsonl").read_text(encoding="utf-8").splitlines()
    return list(dict.fromkeys((row["schema"], row["sql"]) for row in map(json.loads, lines)))


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (NAMES, "select Name as n from SINGER"),  # case and column names do not count
        (NAMES, "SELECT name FROM singer ORDER BY age DESC"),  # nor an order that was not asked for
        (NAMES, 'SELECT "name" FROM singer -- all of them'),
        ("SELECT name FROM singer WHERE country = 'France'", "SELECT name FROM singer WHERE 'France' LIKE country AND 1"
         " AND country = 'France'"),
        ("SELECT count(*) FROM singer", "SELECT count(id) FROM singer"),
        ("SELECT avg(age) FROM singer", "SELECT sum(age) * 1.0 / count(*) FROM singer"),  # the last bits may differ
        ("SELECT max(age) FROM singer", "SELECT age FROM singer ORDER BY age DESC LIMIT 1"),
        ("SELECT name FROM singer WHERE id NOT IN (SELECT singer_id FROM song)",
         "SELECT s.name FROM singer s LEFT JOIN song g ON s.id = g.singer_id WHERE g.id IS NULL"),
        (f"SELECT s.name {JOIN} WHERE g.sales > 100", "SELECT s.name FROM song g, singer s WHERE 100 < g.sales AND "
         "g.singer_id = s.id"),
        ("SELECT id FROM singer WHERE age BETWEEN 20 AND 30", "SELECT id FROM singer WHERE age >= 20 AND age <= 30"),
        ("SELECT country, count(*) FROM singer GROUP BY country ORDER BY count(*)",
         "SELECT country, count(*) AS n FROM singer GROUP BY 1 ORDER BY n, country DESC"),  # ties as they come
        ("SELECT name FROM singer WHERE age IS NULL", "SELECT name FROM singer WHERE NOT age IS NOT NULL"),
        ("SELECT id FROM song WHERE sales = 3", "SELECT id FROM song WHERE sales = '3'"),  # the column's affinity
        ("SELECT 2 FROM singer", "SELECT 2.0 FROM singer"),
    ],
)  # fmt: skip
def test_another_way_to_say_the_same_is_right(gold, answer):
    assert score(answer, gold) == Score(1.0, answer)


@pytest.mark.parametrize(
    ("gold", "answer", "why"),
    [
        (NAMES, "SELECT DISTINCT name FROM singer", "rows against"),
        (NAMES, "SELECT name, id FROM singer", "2 columns against 1"),
        ("SELECT name, country FROM singer", "SELECT country, name FROM singer", "differ"),  # column order counts
        ("SELECT name FROM singer ORDER BY age", "SELECT name FROM singer ORDER BY age DESC", "in another order"),
        ("SELECT name FROM singer ORDER BY age", NAMES, "in another order"),
        ("SELECT name FROM singer WHERE country = 'France'", "SELECT name FROM singer WHERE country = 'france'", "row"),
        ("SELECT name FROM singer WHERE age > 30", "SELECT name FROM singer WHERE age >= 30", "rows against"),
        ("SELECT id FROM singer WHERE country LIKE '%land%'", "SELECT id FROM singer WHERE country LIKE 'land%'", ""),
        (f"SELECT s.id {JOIN} GROUP BY 1 HAVING count(*) > 2", f"SELECT s.id {JOIN} GROUP BY 1 HAVING count(*) > 3",
         "row"),
        ("SELECT name FROM singer WHERE age IS NULL", "SELECT name FROM singer WHERE age = NULL", "0 rows against"),
        ("SELECT avg(age) FROM singer", "SELECT round(avg(age)) FROM singer", "1 of 1 row differs"),
        ("SELECT id FROM singer", "SELECT CAST(id AS TEXT) FROM singer", "differ"),  # '3' is not 3
        (NAMES, "SELECT nam FROM singer", "SQLite: no such column: nam"),
        (NAMES, "SELECT FROM singer", 'near "FROM": syntax error'),
        (NAMES, "SELECT name FROM singers", "no such table: singers"),
    ],
)  # fmt: skip
def test_a_wrong_query_is_0_and_says_what_is_wrong(gold, answer, why):
    result = score(answer, gold)
    assert result.value == 0.0 and result.answer == answer and why in result.why and result.why


@pytest.mark.parametrize(
    ("answer", "query"),
    [
        ("SELECT 1", "SELECT 1"),
        ("  SELECT 1 ;\n", "SELECT 1"),
        ("```sql\nSELECT 1;\n```", "SELECT 1;"),
        ("Here it is:\n```sqlite\nSELECT 1\n```\nIt counts.", "SELECT 1"),
        ("```SQL SELECT 1```", "SELECT 1"),
        ("```sql\nSELECT 1", "SELECT 1"),  # the fence was never closed
        ("```\n1 | 2\n```\n```sql\nSELECT 1\n```", "SELECT 1"),  # the other block holds no SQL
        ("`SELECT 1`", "SELECT 1"),
        ("SQL: SELECT 1", "SELECT 1"),
        ("The tables join on id.\nSELECT 1;\nThis is the answer.", "SELECT 1"),
        ("SELECT 1\n\nThis gives one.", "SELECT 1"),
        ("With the tables given:\nWITH a AS (SELECT 1) SELECT * FROM a", "WITH a AS (SELECT 1) SELECT * FROM a"),
        ("SELECT ';' -- a; b\n, 2; so", "SELECT ';' -- a; b\n, 2"),
        ("SELECT 1; DROP TABLE t", "SELECT 1; DROP TABLE t"),  # whole, so that it is refused
        ("DROP TABLE t;\nSELECT 1", "DROP TABLE t;\nSELECT 1"),
        ("DROP TABLE t", "DROP TABLE t"),
        ("", None),
        ("I do not know.", None),
        ("```sql\nSELECT 1\n```\nor\n```sql\nSELECT 2\n```", None),  # which one?
    ],
)  # fmt: skip
def test_the_query_of_an_answer_is_read_predictably(answer, query):
    reading = extract_query(answer)
    assert reading.query == query and bool(reading.why) is (query is None)


def test_an_answer_without_a_query_is_unparseable_and_a_cut_one_says_so():
    assert score("I do not know.").answer is None and "no query" in score("I do not know.").why
    assert "cut off" in score("SELECT name FR", stopped="length").why


HOSTILE = {
    "DROP TABLE singer": "not authorized",
    "INSERT INTO singer (id) VALUES (999) RETURNING id": "not authorized",
    "ATTACH 'stolen.db' AS x": "not authorized",
    "PRAGMA query_only = OFF": "not authorized",
    "SELECT * FROM pragma_table_info('singer')": "not authorized",
    "VACUUM INTO 'stolen.db'": "authoriz",
    "CREATE TEMP TABLE x AS SELECT 1": "not authorized",
    f"{NAMES}; DROP TABLE singer": "one statement at a time",
    f"DROP TABLE singer;\n{NAMES}": "authorized",
    "SELECT load_extension('x.so')": "not authorized",
    "SELECT name FROM singer ORDER BY random()": "not authorized",
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c": "too long",
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c": "larger than 10,000 rows",
    "WITH RECURSIVE c(n) AS (SELECT 'x' UNION ALL SELECT n || n FROM c) SELECT n FROM c": "too big",
    f"SELECT count(*) FROM {', '.join(['singer'] * 12)}": "too long",
    "SELECT a.name FROM singer a, singer b, singer c, singer d, singer e, singer f": "larger than",
    "SELECT hex(zeroblob(400000000))": "too big",
    "SELECT randomblob(1000000000)": "not authorized",
    "SELECT printf('%.*c', 1000000000, 'x')": "stopped",  # one opcode: only the timer ends it
    "SELECT name FROM singer WHERE printf('%.*c', 300000000, 'x') IS NULL": "stopped",  # as is half a second each time
    "SELECT group_concat(a.name || zeroblob(90000)) FROM singer a, singer b": "too big",
    "SELECT zeroblob(90000) FROM singer a, singer b": "larger than",
    "SELECT count(*) FROM (SELECT zeroblob(99000) z FROM singer a, singer b, singer c, singer d ORDER BY z)": "memory",
    "SELECT printf('%.*c', 90000, 'a') LIKE '%" + "a%" * 200 + "b'": "too complex",
    "SELECT 'a' REGEXP '(a+)+$'": "no such function",
    "SELECT " + "(" * 5000 + "1" + ")" * 5000: "stack overflow",
    "SELECT 1" + " + 1" * 3000: "too large",
    "SELECT 1" + " UNION SELECT 1" * 400: "too many terms",
    "SELECT '" + "x" * 30_000 + "'": "longer than 20,000 bytes",
    "SELECT '\x00'": "null",
    "SELECT '\ud800'": "surrogates",
}


@pytest.mark.parametrize("answer", HOSTILE, ids=lambda answer: ascii(answer[:40]))
def test_what_harms_or_hangs_is_stopped_within_2_s_and_scores_0(answer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert score(NAMES).value == 1.0
    start = time.monotonic()
    result = score(answer)
    assert time.monotonic() - start < 2.0 + 0.5  # half a second for a busy machine
    assert result.value == 0.0 and HOSTILE[answer] in result.why
    assert score(NAMES).value == 1.0 and list(tmp_path.iterdir()) == []


def test_the_child_gets_no_keys_and_no_open_files_and_starts_quickly(monkeypatch, tmp_path):
    monkeypatch.setenv("SOME_API_KEY", "secret")
    before = set(psutil.Process().children())
    with (tmp_path / "mine").open("w") as mine:
        os.set_inheritable(mine.fileno(), True)
        process = SqlProcess()
        start = time.monotonic()
        assert process.ask({"do": "describe", "ddl": SCHEMA})["tables"].keys() == {"singer", "song"}
        seconds = time.monotonic() - start
        (child,) = set(psutil.Process().children()) - before
        assert "SOME_API_KEY" not in child.environ() and child.open_files() == []
        assert child.memory_info().rss < 40 << 20
    process.close()
    assert not child.is_running() and seconds < 0.3 + 0.7  # 0.03 s when the machine is idle


def test_a_killed_child_is_no_answers_fault_is_begun_again_and_what_it_held_built_again():
    assert score(NAMES).value == 1.0
    SQL_PROCESS._process.send_signal(signal.SIGKILL)
    SQL_PROCESS._process.wait()
    assert score(NAMES).value == 1.0


def test_the_child_ends_with_its_parent_even_when_that_is_killed():
    code = (
        "import sys, time; from slimtune.scorers.sql.process import SQL_PROCESS; SQL_PROCESS.ask({'do': 'describe', "
        "'ddl': ''}); print(SQL_PROCESS._process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_gold_query_or_schema_that_fails_makes_the_item_unscored():
    for result in (
        score(NAMES, "SELECT nothing FROM singer"),
        score(NAMES, "SELECT a FROM"),
        score("", "DROP TABLE x"),
    ):
        assert result.value is None and result.why.startswith("the gold query fails: ")
    assert score(NAMES, schema="CREATE TABLE (").why.startswith("the schema does not build: ")
    assert score(NAMES, schema=f"{SCHEMA} ATTACH 'x.db' AS x;").value is None
    assert sql_execution(Completion(NAMES), Example("1", (), NAMES)).value is None


def test_a_tie_at_a_limit_decides_nothing():
    """Where many are tied for first place, databases in which they are do not judge."""
    gold = "SELECT country FROM singer GROUP BY country ORDER BY count(*) DESC LIMIT 1"
    other = "SELECT country FROM singer GROUP BY country ORDER BY count(*) DESC, country DESC LIMIT 1"
    judges = judges_for(SCHEMA, gold)
    assert judges.settled and len(judges.databases) == 8 and score(other, gold).value == 1.0


def test_rows_are_the_same_for_the_same_seed_and_keep_their_keys():
    person = Table("p", ("id", "name"), {"id": "INTEGER", "name": "TEXT"}, frozenset({"id"}), (("id",),), ())
    columns = ("person", "day", "hours")
    types = {"person": "INTEGER", "day": "DATE", "hours": "REAL"}
    shift = Table("s", columns, types, frozenset(), (("person", "day"),), (("person", "P", None),))
    hints = read_hints(
        "SELECT name FROM p JOIN s ON p.id = s.person WHERE name = 'Ann' AND hours > 7.5", [person, shift]
    )
    filled = [fill([person, shift], hints, seed) for seed in range(6)]
    assert filled[3] == fill([person, shift], hints, 3) and filled[0] != filled[1]
    for rows in filled:
        ids = [row[0] for row in rows["p"]]
        assert len(set(ids)) == len(ids) and {row[0] for row in rows["s"]} <= set(ids)
        assert len({(row[0], row[1]) for row in rows["s"]}) == len(rows["s"])
    names = {row[1] for rows in filled for row in rows["p"]}
    hours = {row[2] for rows in filled for row in rows["s"]}
    assert {"Ann", "aNN"} <= names and {7.5, 7.6} <= hours and None not in names | hours


def test_order_is_read_from_the_outermost_query_only():
    inner = "SELECT a FROM (SELECT a FROM t ORDER BY b LIMIT 3)"
    assert not orders(inner) and orders(f"{inner} ORDER BY a") and not orders("SELECT 'ORDER BY' FROM t -- order by x")
    assert break_ties(inner, 2, "ASC") == "SELECT a FROM (SELECT a FROM t ORDER BY b, 1 ASC  LIMIT 3)"
    assert break_ties("SELECT a, b FROM t ORDER BY a;", 2, "DESC") == "SELECT a, b FROM t ORDER BY a, 1 DESC, 2 DESC ;"


def test_rows_are_compared_as_multisets_in_blocks_with_a_tolerance():
    assert in_blocks([["a"], ["b"], ["c"]], [["b"], ["a"], ["c"]]) == [2, 3]
    assert in_blocks([["a"], ["b"]], [["a"], ["c"]]) is None
    assert difference([[2], [1], [3]], [[1], [2], [3]], [2, 3]) == ""
    assert difference([[1], [3], [2]], [[1], [2], [3]], [2, 3]) == "the right 3 rows in another order"
    assert difference([[0.1 + 0.2], [None]], [[None], [0.3]], [2]) == ""
    assert difference([[2**53 + 1]], [[2**53]], [1]) == "1 of 1 row differs"
    assert difference([[1.0], [1.0]], [[1], [2]], [2]) == "1 of 2 rows differs"
    assert difference([["1"]], [[1]], [1]) and difference([[{"blob": "31"}]], [["1"]], [1])
    assert difference([[float("nan")]], [[float("inf")]], [1]) and not difference([], [], [])


PIECES = """SELECT name FROM singer song WHERE AND OR NOT ( ) , ; * = < > 'a' " ' ` [ ] -- /* */ ``` sql count sum JOIN
ON GROUP BY ORDER LIMIT 1 -1 1e9 UNION EXCEPT WITH RECURSIVE AS VALUES NULL || zeroblob printf DROP PRAGMA"""
WORDS = st.sampled_from([*PIECES.split(), "\n", "\x00", "\ud800", "é"])
ANSWERS = st.one_of(
    st.text(), st.lists(WORDS, max_size=60).map(" ".join), WORDS.flatmap(lambda word: st.just(word * 999))
)


def scores_without_harm(answer, stopped):
    start = time.monotonic()
    result = score(answer, stopped=stopped)
    assert result.value in (0.0, 1.0) and bool(result.why) is (result.value == 0.0)
    assert time.monotonic() - start < 1.0


@settings(max_examples=200, deadline=None)
@given(answer=ANSWERS, stopped=st.sampled_from(["stop", "length"]))
@also("[" * 100_000, "stop")
@also("SELECT " + "[" * 100_000, "stop")
@also("SELECT 1;" * 100_000, "stop")
@also("```" * 30_000, "stop")
@also("WITH\n" * 20_000, "stop")
def test_any_answer_is_0_or_1_within_a_second(answer, stopped):
    scores_without_harm(answer, stopped)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(answer=ANSWERS, stopped=st.sampled_from(["stop", "length"]))
def test_any_of_10_000_answers_is_0_or_1_within_a_second(answer, stopped):
    scores_without_harm(answer, stopped)


def gold_scores_1(pairs):
    for schema, gold in pairs:
        result = score(f"```sql\n{gold}\n```", gold, schema=schema)
        assert result.value == 1.0, (gold, result.why)


def test_gold_scores_1_on_a_sample_and_a_cached_query_takes_under_10_ms():
    pairs = rows_of(DATA, "test")[::25]
    gold_scores_1(pairs)
    start = time.perf_counter()
    gold_scores_1(pairs)
    each_ms = (time.perf_counter() - start) / len(pairs) * 1000
    print(f"{each_ms:.1f} ms a query")
    assert each_ms < 10


@pytest.mark.slow
@pytest.mark.parametrize("side", ["test", "train"])
def test_gold_scores_1_on_every_row_and_says_something_on_nearly_all(side):
    pairs = rows_of(DATA, side)
    gold_scores_1(pairs)
    silent = [gold for schema, gold in pairs if not judges_for(schema, gold).tell]
    print(f"{side}: {len(silent)} of {len(pairs)} gold queries find nothing, or ties, in every database")
    assert len(silent) <= 0.005 * len(pairs), silent


def passing(found, *left_out):
    kinds = [pairs for kind, pairs in found.items() if kind not in left_out]
    passed = sum(len(pairs["passed"]) for pairs in kinds)
    return passed / (passed + sum(len(pairs["caught"]) for pairs in kinds))


def test_few_changed_gold_queries_pass():
    rows_of(DATA, "test")
    assert passing(measure(DATA / "test.jsonl", every=20), "DISTINCT added") < 0.04


@pytest.mark.slow
def test_of_all_changed_gold_queries_at_most_2_in_100_pass():
    rows_of(DATA, "test")
    assert passing(measure(DATA / "test.jsonl"), "DISTINCT added") < 0.02


def test_columns_of_a_schema_are_told_by_sqlite():
    assert columns_of(SCHEMA)["song"] == ["id", "singer_id", "title", "sales"]
