"""A served model is asked over real sockets, through every fault a service has, and an answer is paid for once."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Reply, failed, said
from children import until
from hypothesis import given, settings
from hypothesis import strategies as st

from slimtune.data import Completion, Example, Message, ToolCall
from slimtune.endpoint import Endpoint, asking, key_problem, wrong_address, wrong_key_name
from slimtune.endpoint.wire import Unusable, read_answer, request_of
from slimtune.errors import Interrupted, ServiceAway, UserError
from slimtune.models.thoughts import split_thought

KEY = "sk-secret-0123456789"
KEY_ENV = "SLIMTUNE_TEST_KEY"
TOOL = {"name": "move", "parameters": {"type": "object", "properties": {"to": {"type": "string"}}}}


def rows(count: int) -> list[Example]:
    return [Example(f"row-{place}", (Message("user", f"question {place}"),), "yes") for place in range(count)]


def ask(
    server: ChatServer, folder: Path, examples: list[Example], **more: Any
) -> tuple[list[Completion], Any, list[str]]:
    """The answers in order, the session's facts, and what was said."""
    heard: list[str] = []
    stop = more.pop("should_stop", lambda: False)
    endpoint = Endpoint("served", server.url, **{"patience_s": 20, "timeout_s": 10, **more})
    with asking(endpoint, journal=folder / "answers.journal", say=heard.append, should_stop=stop) as session:
        found = dict(session.generate(examples, 8))
        return [found[index] for index in range(len(examples))], session.facts(), heard


def once(*first: Reply):
    """A script that begins with these replies, and then answers."""
    return lambda body, number: first[number] if number < len(first) else said()


def test_every_row_is_asked_the_same_way_and_answered_in_its_place(tmp_path: Path) -> None:
    with ChatServer(lambda body, number: said(body["messages"][-1]["content"].split()[-1])) as server:
        answers, facts, _ = ask(server, tmp_path, rows(12))
    assert [answer.text for answer in answers] == [str(place) for place in range(12)]
    assert all((body["temperature"], body["seed"], body["max_tokens"]) == (0, 17, 8) for body in server.asked)
    assert facts["answered_by"] == {"served-1": 12} and facts["prompt_tokens"] == 120 and facts["usd"] is None
    assert answers[0].seconds > 0 and server.keys == [None] * 12


def test_a_few_are_asked_at_once_and_no_more(tmp_path: Path) -> None:
    def script(body: dict[str, Any], number: int) -> Reply:
        time.sleep(0.03)
        return said()

    with ChatServer(script) as server:
        ask(server, tmp_path, rows(12), concurrency=3)
    assert server.most_at_once == 3


@pytest.mark.parametrize(
    "fault",
    [
        failed(500),
        failed(502, "<html>bad gateway</html>"),
        failed(503),
        failed(529, "overloaded"),
        failed(408),
        failed(429, headers={"Retry-After": "0"}),
        failed(429, headers={"Retry-After": "0.1"}),
        failed(429, headers={"Retry-After": "soon"}),
        failed(429, headers={"Retry-After": format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)}),
        Reply(reset=True),
        Reply(said().body, cut=30),
        Reply("<html>log in</html>"),
        Reply('{"choices": [{"index": 0, "mess'),
        Reply({"choices": []}),
        Reply({"error": {"message": "provider is down", "code": 502}}),
        Reply("[" * 100_000 + "]" * 100_000),
        Reply('{"choices": ' + "9" * 5_000 + "}"),
        Reply(b"\xff\xfe\x00 not text"),
    ],
    ids=lambda fault: f"{fault.status} {str(fault.body)[:30]!r}",
)
def test_what_may_pass_is_asked_again_and_half_an_answer_is_none(tmp_path: Path, fault: Reply) -> None:
    with ChatServer(once(fault)) as server:
        answers, facts, heard = ask(server, tmp_path, rows(2), concurrency=1)
    assert [answer.text for answer in answers] == ["yes", "yes"] and facts["answers"] == 2
    assert len(server.asked) == 3 and "asked again in" in heard[0] and "127.0.0.1" in heard[0]


@pytest.mark.parametrize("kind", ["seconds", "date"])
def test_retry_after_is_obeyed(tmp_path: Path, kind: str) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    began = time.monotonic()
    with ChatServer(once(failed(429, headers={"Retry-After": "1" if kind == "seconds" else at}))) as server:
        ask(server, tmp_path, rows(1))
    assert 0.9 < time.monotonic() - began < 3 and len(server.asked) == 2


@pytest.mark.parametrize("hours", [5, -5])
def test_a_date_to_wait_for_is_read_by_the_clock_of_the_service(tmp_path: Path, hours: int) -> None:
    """Ours may have jumped, or theirs be wrong."""
    now = datetime.now(UTC) + timedelta(hours=hours)
    headers = {"Date": now, "Retry-After": now + timedelta(seconds=2)}
    told = {name: format_datetime(at, usegmt=True) for name, at in headers.items()}
    began = time.monotonic()
    with ChatServer(once(failed(429, headers=told))) as server:
        ask(server, tmp_path, rows(1))
    assert 1.9 < time.monotonic() - began < 4 and len(server.asked) == 2


def test_after_429_fewer_are_asked_at_once(tmp_path: Path) -> None:
    seen: list[int] = []

    def script(body: dict[str, Any], number: int) -> Reply:
        if number < 4:
            time.sleep(0.05)
            return failed(429, headers={"Retry-After": "0.2"})
        seen.append(server.at_once)
        time.sleep(0.01)
        return said()

    with ChatServer(script) as server:
        ask(server, tmp_path, rows(12), concurrency=4)
    assert max(seen) == 1


def test_an_hour_is_not_waited_for_and_the_answers_so_far_are_kept(tmp_path: Path) -> None:
    calm = [said(), said(), failed(429, headers={"Retry-After": "3600"})]
    with ChatServer(once(*calm)) as server:
        with pytest.raises(ServiceAway, match=r"asks to wait 3,600 s.*2 answers so far are kept") as caught:
            ask(server, tmp_path, rows(5), concurrency=1)
        assert caught.value.exit_code == 69
        ask(server, tmp_path, rows(5), concurrency=1)
        assert len(server.asked) == 6 and len(set(server.questions(server.paid))) == 5


@pytest.mark.parametrize("fault", [failed(503), Reply(reset=True), Reply("?")], ids=["503", "reset", "no JSON"])
def test_a_service_that_is_away_is_given_up_on_in_time(tmp_path: Path, fault: Reply) -> None:
    began = time.monotonic()
    with ChatServer(lambda body, number: fault) as server, pytest.raises(ServiceAway, match="patience_s"):
        ask(server, tmp_path, rows(3), patience_s=0.5)
    assert time.monotonic() - began < 3 and len(server.asked) >= 3


def test_nobody_there_is_away_too(tmp_path: Path) -> None:
    with ChatServer(once()) as server:
        pass
    with pytest.raises(ServiceAway, match="cannot be reached"):
        ask(server, tmp_path, rows(1), patience_s=0.2)


@pytest.mark.parametrize("reply", [Reply(said().body, drip_s=0.05), Reply(said().body, wait=threading.Event())])
def test_a_body_that_never_ends_is_left_and_no_thread_stays(tmp_path: Path, reply: Reply) -> None:
    with ChatServer(once(reply)) as server:
        answers, facts, heard = ask(server, tmp_path, rows(1), timeout_s=0.4)
        assert answers[0].text == "yes" and "was not done after" in heard[0]
        assert facts["lost_calls"] == 1  # it may have been made, and so be on the bill
        assert not [one for one in threading.enumerate() if one.name == "slimtune-endpoint"]
        if reply.wait:
            reply.wait.set()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (failed(401, f"Incorrect API key provided: {KEY}"), rf"401: it refuses the key in {KEY_ENV}"),
        (failed(403), rf"refuses the key in {KEY_ENV}"),
        (failed(404, "no such model"), "for the model 'served': no such model Did you mean 'server'"),
        (failed(429, "out of credit", code="insufficient_quota"), "no credit left"),
        (failed(402), "no credit left"),
        (
            failed(400, "this prompt is too long", code="context_length_exceeded"),
            "to the row row-0: this prompt",
        ),
        (failed(413, "too large"), "413 to the row"),
        (Reply("", 302, {"Location": "http://169.254.169.254/"}), "a redirect, which is not followed"),
        (Reply({"error": {"message": "denied", "code": 403}}), "answered 403: denied"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Reply) else "",
)
def test_what_cannot_pass_ends_at_once_with_what_to_do(tmp_path, monkeypatch, fault: Reply, words: str) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    with (
        ChatServer(lambda body, number: fault, models=("server", "other")) as server,
        pytest.raises(UserError, match=words) as caught,
    ):
        ask(server, tmp_path, rows(8), key_env=KEY_ENV, concurrency=2)
    assert len(server.asked) <= 2 and caught.value.exit_code == 2
    assert KEY not in str(caught.value) and KEY not in (tmp_path / "answers.journal").read_text()


def test_a_service_that_wants_a_key_says_how_to_give_one(tmp_path: Path) -> None:
    with ChatServer(lambda body, number: failed(401)) as server, pytest.raises(UserError, match="--key-env"):
        ask(server, tmp_path, rows(1))


def test_a_key_that_is_not_set_is_missed_before_the_first_call(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv(KEY_ENV, raising=False)
    with ChatServer(once()) as server:
        with pytest.raises(UserError, match=rf"environment variable {KEY_ENV}, which is not set.*export"):
            ask(server, tmp_path, rows(1), key_env=KEY_ENV)
        for value, problem in (("  ", "not set"), ("caf\u00e9", "no key"), (f" {KEY}\n", "")):
            monkeypatch.setenv(KEY_ENV, value)
            assert problem in key_problem(Endpoint("m", server.url, KEY_ENV)) and server.asked == []
        ask(server, tmp_path, rows(1), key_env=KEY_ENV)
        assert server.keys == [f"Bearer {KEY}"]


def test_a_key_in_place_of_its_name_is_refused_and_never_repeated() -> None:
    for name in (KEY, "hf_abcDEF", "OPENAI KEY", ""):
        with pytest.raises(UserError, match="must be the name") as caught:
            Endpoint("m", "http://127.0.0.1/v1", name)
        assert not name or name not in str(caught.value)
    assert wrong_key_name("OPENAI_API_KEY") == ""


def test_the_key_is_nowhere_even_where_the_service_repeats_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    with ChatServer(once(failed(500, KEY), Reply(f"what is {KEY}?"), said(f"your key is {KEY}"))) as server:
        answers, facts, heard = ask(server, tmp_path, rows(2), key_env=KEY_ENV, concurrency=1)
    assert server.keys == [f"Bearer {KEY}"] * 4
    everything = [(tmp_path / "answers.journal").read_text(), str(answers), str(facts), *heard]
    assert not [text for text in everything if KEY in text] and f"[{KEY_ENV}]" in answers[0].text


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/v1", "begin with http"),
        ("file:///etc/passwd", "begin with http"),
        ("127.0.0.1:8000", "begin with http"),
        ("http://", "begin with http"),
        ("http://host:port/v1", "no address"),
        ("https://user:sk-1@host/v1", "no user, password or query"),
        ("https://host/v1?key=sk-1", "no user, password or query"),
        ("https://host/v1/chat/completions", "ends before"),
        ("http://169.254.169.254/latest", "address of this machine's host"),
        ("http://[fe80::1]/v1", "address of this machine's host"),
        ("http://[::ffff:169.254.169.254]/v1", "address of this machine's host"),
        ("http://metadata.google.internal/v1", "address of this machine's host"),
    ],
)
def test_an_address_that_is_none_or_leads_astray_is_refused(url: str, words: str) -> None:
    assert words in wrong_address(url) and "sk-1" not in wrong_address(url)
    with pytest.raises(UserError, match="cannot be used"):
        Endpoint("m", url)


def test_answers_that_were_cut_filtered_or_refused_are_answers_and_counted(tmp_path: Path) -> None:
    replies = [
        said("a long ans", finish="length"),
        said("I", finish="content_filter"),
        said(None, refusal="I cannot help with that."),
        failed(400, "filtered", code="content_filter"),
        said(None),
        said([{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]),
    ]
    with ChatServer(once(*replies)) as server:
        answers, facts, _ = ask(server, tmp_path, rows(6), concurrency=1)
    assert [answer.text for answer in answers] == ["a long ans", "I", "I cannot help with that.", "", "", "in parts"]
    assert [answer.stopped for answer in answers] == ["length", *["stop"] * 5]
    assert (facts["refused"], facts["filtered"], len(server.asked)) == (1, 2, 6)


def test_a_model_that_changes_under_its_name_shows_in_the_facts(tmp_path: Path) -> None:
    with ChatServer(lambda body, number: said(model=f"dated-{number // 3}")) as server:
        _, facts, _ = ask(server, tmp_path, rows(4), concurrency=1)
    assert facts["model"] == "served" and facts["answered_by"] == {"dated-0": 3, "dated-1": 1}


def test_a_service_that_refuses_a_setting_is_asked_without_it(tmp_path: Path) -> None:
    def script(body: dict[str, Any], number: int) -> Reply:
        if "max_tokens" in body:
            said_so = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
            return failed(400, said_so, param="max_tokens")
        if "temperature" in body:
            return failed(400, "temperature does not support 0")
        return failed(422, "seed: extra inputs are not permitted") if "seed" in body else said()

    with ChatServer(script) as server:
        _, facts, heard = ask(server, tmp_path, rows(5), concurrency=1)
    assert len(server.asked) == 8 and server.asked[-1]["max_completion_tokens"] == 8
    assert facts["without"] == ["max_tokens", "seed", "temperature"]
    assert [line.split(" it is")[0].split()[-1] for line in heard] == ["max_tokens;", "temperature;", "seed;"]


def test_tools_calls_and_results_go_over_the_wire_as_services_want_them(tmp_path: Path) -> None:
    call = ToolCall("move", {"to": "left"})
    turns = (
        Message("user", "go"),
        Message("assistant", "", (call, call)),
        Message("tool", "gone"),
        Message("user", "and?"),
    )
    body = request_of(Example("a", turns, (call,), (TOOL,)), url="u", model="m", max_tokens=8).body
    assert body["tools"] == [{"type": "function", "function": TOOL}]
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "tool", "tool", "user"]
    made = body["messages"][1]["tool_calls"]
    assert [one["id"] for one in made] == [turn["tool_call_id"] for turn in body["messages"][2:4]]
    assert json.loads(made[0]["function"]["arguments"]) == {"to": "left"}
    assert [turn["content"] for turn in body["messages"][2:4]] == ["gone", ""]


@pytest.mark.parametrize(
    ("arguments", "calls", "unread"),
    [
        ('{"to": "left"}', (ToolCall("move", {"to": "left"}),), ""),
        ({"to": "left"}, (ToolCall("move", {"to": "left"}),), ""),
        ("", (ToolCall("move", {}),), ""),
        ('{"to": ', None, "is not JSON"),
        ('["left"]', None, "arguments are no object"),
        ('{"to": "a", "to": "b"}', None, "twice"),
        ("[" * 5_000, None, "nested"),
        ('{"to": ' + "9" * 5_000 + "}", None, "digits"),
    ],
    ids=["text", "object", "none", "cut", "list", "twice", "deep", "digits"],
)
def test_calls_are_read_back_and_bad_ones_are_an_unreadable_answer(tmp_path, arguments, calls, unread) -> None:
    given = [{"id": "1", "type": "function", "function": {"name": "move", "arguments": arguments}}]
    example = Example("a", (Message("user", "go"),), (ToolCall("move", {"to": "left"}),), (TOOL,))
    with ChatServer(lambda body, number: said(None, finish="tool_calls", tool_calls=given)) as server:
        (answer,), _, _ = ask(server, tmp_path, [example])
        (again,), _, _ = ask(server, tmp_path, [example])
    assert answer.tool_calls == calls and unread in answer.unread and again == answer and len(server.asked) == 1
    assert "move" in answer.text


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["choices", "message", "content", "tool_calls", "function", "usage", "refusal"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_an_answer_or_unusable(value: Any) -> None:
    for body in (value, {"choices": [{"message": value}]}, {"choices": [{"message": {"tool_calls": value}}]}):
        with contextlib.suppress(Unusable):
            assert isinstance(read_answer(json.dumps(body), seconds=0.0).completion.text, str)


def test_the_budget_in_dollars_is_never_passed_and_goes_on_when_raised(tmp_path: Path) -> None:
    prices = {"usd_per_m_input": 1_000.0, "usd_per_m_output": 10_000.0}  # an answer takes 10 x 0.001 + 2 x 0.01 = 0.03
    with ChatServer(once()) as server:
        with pytest.raises(UserError, match=r"does not hold another call: \$0\.\d+ of \$0\.5") as caught:
            ask(server, tmp_path, rows(30), budget_usd=0.5, **prices)
        assert caught.value.exit_code == 2
        paid = len(server.paid)
        assert 0 < paid * 0.03 <= 0.5
        _, facts, _ = ask(server, tmp_path, rows(30), budget_usd=5.0, **prices)
        assert len(server.asked) == 30 and facts["usd"] == pytest.approx(0.9)


def test_the_budget_in_tokens_counts_what_earlier_calls_took(tmp_path: Path) -> None:
    with ChatServer(once()) as server:
        for _ in range(2):
            with pytest.raises(UserError, match="tokens are spent"):
                ask(server, tmp_path, rows(30), budget_tokens=200)
        assert 0 < len(server.paid) * 12 <= 200 and len(server.asked) == len(server.paid)


def test_a_budget_without_prices_is_refused() -> None:
    with pytest.raises(UserError, match="needs both prices"):
        Endpoint("m", "http://127.0.0.1/v1", budget_usd=1.0, usd_per_m_input=1.0)


def test_rows_that_ask_the_same_are_asked_once(tmp_path: Path) -> None:
    same = [Example(f"row-{place}", (Message("user", "again"),), "yes") for place in range(5)]
    with ChatServer(once()) as server:
        answers, _, _ = ask(server, tmp_path, same)
    assert len(server.asked) == 1 and len(answers) == 5


def test_another_model_limit_or_question_is_asked_anew(tmp_path: Path) -> None:
    (row,) = rows(1)
    keys = {
        request_of(one, url=url, model=model, max_tokens=limit).key
        for one, url, model, limit in (
            (row, "u", "m", 8),
            (row, "v", "m", 8),
            (row, "u", "n", 8),
            (row, "u", "m", 9),
            (Example("row-0", (Message("system", "s"), *row.messages), "yes"), "u", "m", 8),
        )
    }
    assert len(keys) == 5


@settings(max_examples=12, deadline=None)
@given(cut=st.integers(1, 400))
def test_a_journal_cut_anywhere_costs_the_torn_call_and_no_other(tmp_path_factory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("journal")
    with ChatServer(once()) as server:
        ask(server, folder, rows(4), concurrency=1)
        journal = folder / "answers.journal"
        whole = journal.read_bytes()
        journal.write_bytes(whole[:-cut])
        lost = 4 - sum(b'"answer"' in line for line in whole[:-cut].split(b"\n")[:-1])
        answers, _, _ = ask(server, folder, rows(4), concurrency=1)
        assert len(server.asked) == 4 + lost and [answer.text for answer in answers] == ["yes"] * 4
        assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_a_second_process_does_not_pay_for_the_same_answers(tmp_path: Path) -> None:
    endpoint = Endpoint("served", "http://127.0.0.1:1/v1")
    with (
        asking(endpoint, journal=tmp_path / "j"),
        pytest.raises(UserError, match="Another process is asking"),
        asking(endpoint, journal=tmp_path / "j"),
    ):
        pass


def test_a_stop_waits_for_what_is_paid_for_and_asks_nothing_more(tmp_path: Path) -> None:
    gate, stop = threading.Event(), threading.Event()

    def script(body: dict[str, Any], number: int) -> Reply:
        if number == 5:
            stop.set()
            threading.Timer(0.3, gate.set).start()
        return Reply(said().body, wait=gate if number >= 4 else None)

    with ChatServer(script) as server:
        with pytest.raises(Interrupted, match="Run the same command"):
            ask(server, tmp_path, rows(40), concurrency=2, should_stop=stop.is_set)
        asked = len(server.asked)
        assert asked < 10 and len(server.paid) == asked
        ask(server, tmp_path, rows(40))
        assert len(server.asked) == 40 == len(set(server.questions()))


def test_a_stop_does_not_sit_out_a_long_wait(tmp_path: Path) -> None:
    began, stop = time.monotonic(), threading.Event()

    def script(body: dict[str, Any], number: int) -> Reply:
        stop.set()
        return failed(429, headers={"Retry-After": "15"})

    with ChatServer(script) as server, pytest.raises(Interrupted):
        ask(server, tmp_path, rows(4), should_stop=stop.is_set)
    assert time.monotonic() - began < 3


CHILD = """
import sys
from pathlib import Path
from slimtune.data import Example, Message
from slimtune.endpoint import Endpoint, asking
rows = [Example(f"row-{n}", (Message("user", f"question {n}"),), "yes") for n in range(int(sys.argv[3]))]
with asking(Endpoint("served", sys.argv[1], concurrency=3), journal=Path(sys.argv[2])) as session:
    print(len(dict(session.generate(rows, 8))))
"""


@pytest.mark.parametrize("at", [pytest.param(1, marks=pytest.mark.slow), 17, pytest.param(41, marks=pytest.mark.slow)])
def test_killed_at_any_call_no_answer_is_paid_for_twice(tmp_path: Path, at: int) -> None:
    gate, reached = threading.Event(), threading.Event()

    def script(body: dict[str, Any], number: int) -> Reply:
        if number >= at and not gate.is_set():
            reached.set()
            return Reply(said().body, wait=gate)
        return said()

    command = [sys.executable, "-c", CHILD, "", str(tmp_path / "j"), "60"]
    with ChatServer(script) as server:
        command[3] = server.url
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert reached.wait(30)
        until(lambda: server.at_once == 3 and len(server.asked) == at + 3, seconds=20)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        gate.set()
        until(lambda: server.at_once == 0)
        before = list(server.asked)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == "60", done.stderr
        assert len(server.asked) == 60 + 3
        assert not set(server.questions(before[:at])) & set(server.questions(server.asked[len(before) :]))


@pytest.mark.parametrize(
    ("text", "details", "begun", "tokens"),
    [
        ("Paris", {"reasoning_tokens": 30}, False, 30),
        ("The capital.</think>\nParis", {}, True, 0),  # the service's template had opened the thought
        ("<think>The capital.</think>\nParis", None, False, 0),
        ("Paris", {"reasoning_tokens": "many"}, False, 0),
        ("Paris", [], False, 0),
    ],
)
def test_a_thought_is_counted_where_the_server_counts_it_and_taken_off_where_it_stands(text, details, begun, tokens):
    body = said(text).body
    body["usage"]["completion_tokens_details"] = details
    completion = read_answer(json.dumps(body), seconds=0.0).completion
    assert (completion.thought_begun, completion.thinking_tokens, completion.completion_tokens) == (begun, tokens, 2)
    assert split_thought(completion.text, begun=completion.thought_begun).answer == "Paris"
