"""A study on one machine ends with every cell done or named, whatever is done to it: fault by fault."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from children import Leaping, until

from slimtune.errors import CannotWrite, UserError
from slimtune.files import read_json, write_json
from slimtune.recipe import Recipe
from slimtune.sweep import lease, local
from slimtune.sweep.asked import Asked
from slimtune.sweep.identity import digest_of
from slimtune.sweep.local import Limits, run_study
from slimtune.sweep.store import read_study

STUB = Path(__file__).with_name("stub_worker.py")
HOST = lease.socket.gethostname()


def ask(
    models: str = "AB", tasks: tuple[str, ...] = ("trec", "banking77"), seeds: int = 1, data: str = "d"
) -> list[Asked]:
    """Cells over nothing: their models are letters."""
    found = []
    for model in models:
        for task in tasks:
            for seed in range(seeds):
                identity = {"model": model, "task": task, "seed": seed, "data": data}
                recipe = Recipe(model=model, task=task, seed=seed)
                found.append(Asked(digest_of(identity), model, model, task, seed, {}, recipe, None, identity, None))
    return found


def run(store: Path, cells: list[Asked], words: dict[str, list[str]] | None = None, *, name: str = "stub", **more):
    """The runner in this process, its workers in theirs."""
    store.mkdir(exist_ok=True)
    plan = store.parent / f"{store.name}-plan.json"
    plan.write_text(json.dumps(words or {}))
    command = [sys.executable, str(STUB), str(plan)]
    return run_study(store, name, cells, **{"command": command, "limits": Limits(), **more})


def states(store: Path) -> dict[str, str]:
    return {f"{cell.contestant} on {cell.task}": cell.state for cell in read_study(store).cells}


def tries(store: Path) -> int:
    """How often a cell was begun, over the whole store."""
    return sum(path.read_text().count("\n") for path in store.rglob("tries.jsonl"))


def start(
    store: Path,
    words: dict[str, list[str]],
    *,
    limits: str = "t.Limits()",
    environment: dict[str, str] | None = None,
) -> subprocess.Popen:
    """The runner as a process: what `slimtune sweep run` does, over stub cells."""
    plan = store.parent / f"{store.name}-plan.json"
    plan.write_text(json.dumps(words))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import test_sweep as t; from pathlib import Path; from slimtune.jobs import stop_flag\n"
        "from slimtune.errors import SlimtuneError\n"
        "try:\n"
        "    command = [sys.executable, str(t.STUB), sys.argv[3]]\n"
        "    ended = t.run_study(Path(sys.argv[2]), 'stub', t.ask(), command=command,\n"
        f"                        limits={limits}, should_stop=stop_flag())\n"
        "except SlimtuneError as error:\n"
        "    print(error); sys.exit(error.exit_code)\n"
        "print(ended.stopped); sys.exit(ended.exit_code)\n"
    )
    command = [sys.executable, "-c", code, str(STUB.parent), str(store), str(plan)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=environment)


def test_all_cells_are_done_once_and_a_second_call_does_nothing(tmp_path):
    ended = run(tmp_path / "s", ask())
    assert (ended.exit_code, ended.done, ended.left) == (0, 4, [])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("result.json")}
    assert run(tmp_path / "s", ask()).exit_code == 0 and tries(tmp_path / "s") == 4
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("result.json")}


def test_the_cells_of_one_model_share_a_process(tmp_path):
    run(tmp_path / "s", ask())
    pids = {}
    for path in (tmp_path / "s").rglob("tries.jsonl"):
        model = read_json(path.parents[2] / "cell.json")["model"]
        pids.setdefault(model, set()).add(json.loads(path.read_text())["pid"])
    assert len(pids["A"]) == len(pids["B"]) == 1 and pids["A"] != pids["B"]


@pytest.mark.parametrize(("word", "code"), [("2", 2), ("70", 70), ("71", 71)])
def test_a_cell_that_fails_stops_no_other_and_is_final_until_the_user_says_again(tmp_path, word, code):
    store, words = tmp_path / "s", {"A on trec": [word, "ok"]}
    ended = run(store, ask(), words)
    assert (ended.exit_code, ended.done) == (code, 3) and states(store)["A on trec"] == "failed"
    (failed,) = [cell for cell in read_study(store).cells if cell.state == "failed"]
    assert ("a bug" if word == "70" else f"told to end with {word}") in failed.why
    assert run(store, ask(), words).exit_code == code and tries(store) == 4, "the same command leaves it alone"
    assert run(store, ask(), words, again=True).exit_code == 0 and set(states(store).values()) == {"done"}


def test_the_worst_failure_gives_the_exit_code(tmp_path):
    words = {"A on trec": ["2"], "A on banking77": ["71"], "B on trec": ["69"]}
    ended = run(tmp_path / "s", ask(), words)
    assert ended.exit_code == 71 and ended.done == 1 and len(ended.failed) == 3


def test_a_service_that_is_away_is_asked_again_and_its_cell_waits_for_the_next_call(tmp_path):
    store = tmp_path / "s"
    assert run(store, ask(), {"A on trec": ["69", "69", "ok"]}).exit_code == 0
    away = {"A on trec": ["69", "69", "69", "ok"]}
    assert run(tmp_path / "t", ask(), away).exit_code == 69 and states(tmp_path / "t")["A on trec"] == "waiting"
    assert run(tmp_path / "t", ask(), away).exit_code == 0


def test_a_killed_worker_is_replaced_and_its_cell_tried_again_a_few_times(tmp_path):
    store = tmp_path / "s"
    assert run(store, ask(), {"A on trec": ["kill", "kill", "ok"]}).exit_code == 0
    ended = run(tmp_path / "t", ask(), {"A on trec": ["kill"]})
    assert ended.exit_code == 2 and ended.done == 3
    failed = read_json(next((tmp_path / "t").rglob("failed.json")))
    assert failed["tries"] == 3 and "killed (SIGKILL)" in failed["why"] and "memory" in failed["why"]


@pytest.mark.slow
def test_with_77_of_135_cells_done_the_others_alone_are_run(tmp_path):
    """Also the bar: what the runner costs a cell."""
    store, tasks = tmp_path / "s", tuple("abcdefghi")
    models = "ABCDEFGHIJKLMNO"
    first = run(store, ask(models, tasks)[:77])
    assert first.done == 77
    ended = run(store, ask(models, tasks))
    assert ended.done == 135 and tries(store) == 135
    began = time.monotonic()
    assert run(tmp_path / "t", ask(models, tasks)).done == 135
    each = (time.monotonic() - began) / 135
    print(f"\n135 stub cells, 15 workers: {each:.3f} s a cell")
    assert each < 0.2


def preempted(runner: subprocess.Popen, *, notice_s: float) -> int:
    """What a cloud does to a machine that it takes back: SIGTERM, and SIGKILL to all that is left after the notice."""
    runner.send_signal(signal.SIGTERM)
    try:
        return runner.wait(notice_s)
    except subprocess.TimeoutExpired:
        os.killpg(runner.pid, signal.SIGKILL)
        return runner.wait(30)


@pytest.mark.parametrize(
    ("word", "notice_s", "code"),
    [
        ("slow", 30, 75),
        ("long", 2, -signal.SIGKILL),
        pytest.param("long", 30, -signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_a_term_is_passed_on_and_after_it_or_the_kill_that_follows_the_same_command_ends_it(
    tmp_path, word, notice_s, code
):
    store, quiet = tmp_path / "s", tmp_path / "q"
    words = {"A on trec": [word, "slow"]}
    runner = start(store, words)
    until(lambda: [path for path in store.rglob("step.json") if read_json(path) == 3])
    assert preempted(runner, notice_s=notice_s) == code
    step = read_json(next(store.rglob("step.json")))
    assert step == 3 if word == "long" else 3 <= step < 10
    until(lambda: states(store)["A on trec"] == "waiting")
    assert run(store, ask(), words).exit_code == run(quiet, ask()).exit_code == 0
    steps = [json.loads(line)["step"] for line in next(store.rglob("steps.jsonl")).read_text().splitlines()]
    assert steps == list(range(1, 11)), "it went on where it stopped"
    assert scores(store) == scores(quiet) and len(scores(store)) == 4


def scores(store: Path) -> dict[str, dict]:
    return {path.parent.name: read_json(path)["sides"] for path in store.rglob("result.json")}


def test_without_its_runner_a_worker_stops_at_the_next_step(tmp_path):
    store = tmp_path / "s"
    runner = start(store, {"A on trec": ["slow"]})
    until(lambda: list(store.rglob("steps.jsonl")))
    runner.kill()
    runner.wait()
    until(lambda: states(store)["A on trec"] != "running", seconds=10)
    assert len(next(store.rglob("steps.jsonl")).read_text().splitlines()) < 10 and run(store, ask()).exit_code == 0


def test_after_a_kill_of_runner_and_worker_the_same_command_ends_it(tmp_path):
    store = tmp_path / "s"
    words = {"A on trec": ["die", "ok"], "B on trec": ["die", "ok"]}
    assert [start(store, words).wait(30) for _ in range(2)] == [-signal.SIGKILL] * 2
    assert start(store, words).wait(30) == 0 and set(states(store).values()) == {"done"}


def test_two_runners_on_one_store_do_every_cell_once(tmp_path):
    store = tmp_path / "s"
    words = {f"{model} on {task}": ["slow"] for model in "AB" for task in ("trec", "banking77")}
    runners = [start(store, words) for _ in range(2)]
    assert [runner.wait(60) for runner in runners] == [0, 0]
    assert tries(store) == 4 and not list(store.rglob("duplicate.json")) and set(states(store).values()) == {"done"}


def foreign(store: Path, cell: Asked, *, ended: bool) -> Path:
    """What another machine left of a cell: an attempt of some steps, and its line among those who work here."""
    attempt = store / "cells" / cell.fingerprint / "attempts" / "elsewhere-1"
    write_json(attempt / "owner.json", {"pid": 1, "host": "elsewhere", "since": "2026-01-01T00:00:00+00:00"})
    write_json(attempt / "fingerprint.json", dict(cell.identity))
    write_json(attempt / "step.json", 7)
    facts = {"host": "elsewhere", "pid": 1, "beats": 3, "seconds": 3600.0, "usd": 0.5, "ended": ended}
    write_json(store / "runners" / "elsewhere-1.json", facts)
    return attempt


def test_a_machine_that_said_goodbye_leaves_its_attempt_to_the_next(tmp_path):
    store, cells = tmp_path / "s", ask("A", ("trec",))
    attempt = foreign(store, cells[0], ended=True)
    assert run(store, cells, {"A on trec": ["slow"]}).exit_code == 0
    assert not attempt.exists()
    steps = next(store.rglob("steps.jsonl")).read_text().splitlines()
    assert [json.loads(line)["step"] for line in steps] == [8, 9, 10]
    assert read_json(next(store.rglob("result.json")))["attempt"] == f"attempts/{HOST}-1"


def test_a_machine_that_stops_counting_is_gone_after_its_lease(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "LEASE_S", 1.0)
    monkeypatch.setattr(local, "WATCH_S", 3.0)
    store, cells = tmp_path / "s", ask("A")
    foreign(store, cells[0], ended=False)
    began = time.monotonic()
    assert run(store, cells, {"A on trec": ["slow"]}).exit_code == 0 and time.monotonic() - began > 1.0
    assert lease.spent_usd(store) == 0.5, "what it has cost is kept"


def test_a_machine_that_counts_on_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "LEASE_S", 1.0)
    monkeypatch.setattr(local, "WATCH_S", 2.0)
    store, cells = tmp_path / "s", ask("A")
    attempt, path = foreign(store, cells[0], ended=False), store / "runners" / "elsewhere-1.json"

    def beat() -> None:
        write_json(path, read_json(path) | {"beats": read_json(path)["beats"] + 1})

    ended = run(store, cells, on_tick=beat)
    assert (ended.exit_code, ended.done, ended.elsewhere) == (75, 1, 1) and attempt.is_dir()


def test_of_two_that_wait_for_a_gone_machine_one_takes_over_and_the_other_looks_again(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "WATCH_S", 1.0)
    store, cells = tmp_path / "s", ask("A", ("trec",))
    attempt = foreign(store, cells[0], ended=True)

    def first(others: lease.Others, host: str) -> bool:
        """Another runner takes the attempt over between our look and our rename."""
        if attempt.is_dir():
            attempt.rename(attempt.with_name("third-1"))
            return True
        return False

    monkeypatch.setattr(lease.Others, "gone", first)
    ended = run(store, cells)
    assert (ended.exit_code, ended.elsewhere, ended.failed) == (75, 1, {})


def test_a_cell_that_another_process_took_while_its_service_was_away_is_waited_for_and_left(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "WATCH_S", 1.5)
    store, cells = tmp_path / "s", [replace(cell, wrong="the hub is away") for cell in ask("A", ("trec",))]
    looks = []

    def taken(runner: object, folder: Path) -> str | None:
        looks.append(time.monotonic())
        return f"{HOST}-1" if len(looks) == 1 else None

    monkeypatch.setattr(local._Local, "_attempt", taken)
    ended = run(store, cells)
    assert (ended.exit_code, ended.elsewhere) == (75, 1) and len(looks) < 9, "it does not look without a pause"


def test_a_changed_test_set_makes_another_cell_and_the_old_result_stale(tmp_path):
    store = tmp_path / "s"
    run(store, ask())
    run(store, ask(data="other"))
    study = read_study(store)
    assert tries(store) == 8 and study.stale == 4 and {cell.state for cell in study.cells} == {"done"}


def test_over_its_hours_it_stops_what_runs_at_a_whole_step_and_says_75(tmp_path):
    store, words = tmp_path / "s", {"A on trec": ["slow"]}
    ended = run(store, ask(), words, limits=Limits(hours=0.8 / 3600))
    assert ended.exit_code == 75 and "hours are over" in ended.stopped and states(store)["A on trec"] == "waiting"
    assert run(store, ask(), words).exit_code == 0


def test_over_its_dollars_nothing_more_is_begun_and_earlier_calls_count(tmp_path):
    store = tmp_path / "s"
    limits = Limits(usd=0.001, usd_per_hour=3.6)  # a second
    ended = run(store, ask(), {"A on trec": ["slow"], "A on banking77": ["slow"]}, limits=limits)
    assert ended.exit_code == 75 and "dollars are spent" in ended.stopped
    before = tries(store)
    assert run(store, ask(), limits=limits).exit_code == 75 and tries(store) == before
    assert lease.spent_usd(store) >= 0.001


def paying(store: Path, card: str) -> subprocess.Popen:
    """A runner's lease at a dollar a second, until told to end; it says how long it had it."""
    code = (
        "import sys, time; from pathlib import Path; from slimtune.sweep import lease\n"
        "lease._BEAT_S = 0.05\n"
        "own, began = lease.Lease(Path(sys.argv[1]), usd_per_hour=3600.0), time.monotonic()\n"
        "while not Path(sys.argv[1], 'stop').exists():\n"
        "    own.beat(); time.sleep(0.02)\n"
        "own.end(); print(began, time.monotonic())\n"
    )
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": card}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(store)], stdout=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.parametrize(("cards", "prices"), [(("0", "0", "0"), 1), (("0", "1", "2"), 3)], ids=["one card", "three"])
def test_runners_that_share_a_card_pay_for_it_once_and_for_each_card_its_own(tmp_path, cards, prices):
    (tmp_path / "runners").mkdir()
    runners = [paying(tmp_path, card) for card in cards]
    until(lambda: len(list(tmp_path.glob("runners/*.json"))) == 3)
    time.sleep(2)
    (tmp_path / "stop").touch()
    spans = [[float(word) for word in runner.communicate(timeout=30)[0].split()] for runner in runners]
    (began, ended), summed = (min(spans)[0], max(end for _, end in spans)), sum(end - begin for begin, end in spans)
    due = ended - began if prices == 1 else summed
    assert lease.spent_usd(tmp_path) == pytest.approx(due, rel=0.15)
    assert summed > 2 * (ended - began), "the three were at it together"


def test_a_runner_whose_neighbour_was_killed_pays_for_the_card_alone(tmp_path):
    (tmp_path / "runners").mkdir()
    neighbour = paying(tmp_path, "0")
    until(lambda: list(tmp_path.glob("runners/*.json")))
    neighbour.kill()
    neighbour.wait()
    alone = paying(tmp_path, "0")
    until(lambda: len(list(tmp_path.glob("runners/*.json"))) == 2)
    time.sleep(1)
    (tmp_path / "stop").touch()
    began, ended = map(float, alone.communicate(timeout=30)[0].split())
    cost = read_json(tmp_path / "runners" / f"{HOST}-{alone.pid}.json")["usd"]
    assert cost == pytest.approx(ended - began, rel=0.1)


@pytest.mark.parametrize("limits", [Limits(hours=0), Limits(usd=0, usd_per_hour=1)], ids=["hours", "usd"])
def test_what_is_complete_is_done_whatever_the_limits_and_only_the_rest_is_left(tmp_path, limits):
    store, words = tmp_path / "s", {"A on trec": ["2"]}
    run(store, ask("A"), words)
    ended = run(store, ask("A"), limits=limits)
    assert (ended.exit_code, ended.done, ended.stopped, len(ended.failed)) == (2, 1, "", 1), "no call would change it"
    ended = run(store, ask("AB"), limits=limits)
    assert (ended.exit_code, ended.done, [cell.model for cell in ended.left]) == (75, 1, ["B", "B"])
    run(store, ask("AB"), again=True)
    ended = run(store, ask("AB"), limits=limits)
    assert (ended.exit_code, ended.done, ended.left) == (0, 4, [])


def test_a_budget_without_a_price_is_refused():
    with pytest.raises(UserError, match="--usd-per-hour"):
        Limits(usd=5)


def test_a_store_that_vanishes_is_said_and_not_made_anew(tmp_path):
    store = tmp_path / "s"
    gone = tmp_path / "gone"
    moved = []

    def vanish() -> None:
        if not moved and list(store.rglob("steps.jsonl")):
            moved.append(store.rename(gone))

    with pytest.raises(CannotWrite):
        run(store, ask(), {"A on trec": ["slow"]}, on_tick=vanish)
    assert run(gone, ask()).exit_code == 0, "brought back, it goes on"


def test_a_disk_that_refuses_ends_the_call_with_73(tmp_path):
    with pytest.raises(CannotWrite, match="told to end with 73"):
        run(tmp_path / "s", ask(), {"A on trec": ["73"]})
    assert set(states(tmp_path / "s").values()) == {"waiting"}


def test_cells_without_their_data_are_named_and_the_others_done(tmp_path):
    cells = ask()
    cells[0] = replace(cells[0], wrong="The hub does not answer.")
    ended = run(tmp_path / "s", cells)
    assert (ended.exit_code, ended.done) == (69, 3)
    assert [cell.why for cell in read_study(tmp_path / "s").cells if cell.state == "waiting"] == [
        "The hub does not answer."
    ]


@pytest.mark.parametrize("hours", [5, -5])
def test_a_time_of_day_that_jumps_moves_no_limit_no_price_and_no_estimate(tmp_path, hours):
    store, clock = tmp_path / "s", Leaping(tmp_path / "clock")
    limits, began = "t.Limits(hours=1, usd=1, usd_per_hour=1)", time.monotonic()
    runner = start(store, {"A on trec": ["slow"]}, limits=limits, environment=clock.environment)
    until(lambda: list(store.rglob("steps.jsonl")))
    clock.leap(hours)
    assert runner.wait(60) == 0 and set(states(store).values()) == {"done"}
    took_s = time.monotonic() - began
    began_at = [json.loads(path.read_text())["at"] - time.time() for path in store.rglob("tries.jsonl")]
    assert sum(abs(one - hours * 3600) < 99 for one in began_at) == 3, "the later cells did not see the jump"
    walls = [read_json(path)["seconds"]["wall"] for path in store.rglob("result.json")]
    (spent,) = [read_json(path) for path in (store / "runners").glob("*.json")]
    assert 1 <= max(walls) <= sum(walls) < spent["seconds"] < took_s and min(walls) >= 0
    assert 0 < spent["usd"] < 0.1


def test_a_time_of_day_that_jumps_makes_no_machine_gone(tmp_path, monkeypatch):
    write_json(tmp_path / "runners" / "far-1.json", {"host": "far", "beats": 1, "ended": False})
    others = lease.Others(tmp_path)
    assert not others.gone("far")
    real, later = (time.time(), time.monotonic()), 2 * lease.LEASE_S
    monkeypatch.setattr(time, "time", lambda: real[0] + later)
    assert not others.gone("far"), "its silence was timed by the time of day"
    monkeypatch.setattr(time, "monotonic", lambda: real[1] + later)
    assert others.gone("far")
