"""Kill it anywhere, run the same command again: it goes on and ends with the same bytes.

Every run here is the real command line in a process of its own (see children.py), over a tiny model of random weights.
"""

import contextlib
import json
import os
import pickle
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from children import STRACE_CALLS, Child, Leaping, Nursery, until
from samples import make_task, write_rows

from slimtune.engine.checkpoint import checkpoints, newest_whole
from slimtune.evaluate import read_evaluation
from slimtune.files import damage, digest_file
from slimtune.gpus import detect_gpu
from slimtune.report import read_report
from slimtune.runs import read_metrics, training_seconds

pytestmark = [
    pytest.mark.xdist_group("survival"),  # in one process: they share what takes long to make
    pytest.mark.skipif(detect_gpu() is not None, reason="the same bytes are promised on the CPU"),
]
KILLS, LANES = 22, 2
STEPS = 6


@dataclass(frozen=True)
class Field:
    """A recipe, what starts runs of it, and one that nobody disturbed."""

    nursery: Nursery
    recipe: Path
    quiet: Path
    cache: Path
    seconds: float

    def start(self, at: Path, *more: object, cache: Path | None = None, gate: tuple[str, int] | None = None) -> Child:
        return self.nursery.start(
            at, "run", self.recipe, "--out", at / "run", *more, cache=cache or self.cache, gate=gate
        )

    def finish(self, at: Path, *more: object, cache: Path | None = None) -> Child:
        child = self.start(at, *more, cache=cache)
        assert child.wait() == 0, child.said
        return child

    def stopped(self, at: Path, gate: tuple[str, int], *, cache: Path | None = None) -> Child:
        """A run that waits at a place of its progress."""
        child = self.start(at, cache=cache, gate=gate)
        until(lambda: (at / "reached").exists() or child.code is not None)
        assert (at / "reached").exists(), child.said
        return child


def write_recipe(folder: Path, model: Path, *, test: int = 9) -> Path:
    task = make_task(folder / "actions", test=test)
    (folder / "tiny.yaml").write_text(f"""model: {model}
task: {task}
lora: {{r: 4, alpha: 8, dropout: 0.1}}
train: {{epochs: 2, lr: 5e-2, batch: 8, checkpoint_steps: 1}}
evaluate: {{few_shot: 2, max_new_tokens: 4}}
context: 256
""")
    return folder / "tiny.yaml"


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(scope="module")
def field(nursery: Nursery, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Field:
    folder = tmp_path_factory.mktemp("field")
    recipe = write_recipe(folder, tiny_model)
    nursery.run(folder / "first", "run", recipe, "--out", folder / "first" / "run", cache=folder / "first" / "cache")
    began = time.monotonic()
    at = folder / "quiet"
    nursery.run(at, "run", recipe, "--out", at / "run", cache=at / "cache")
    assert ending(folder / "first" / "run") == ending(at / "run"), "two quiet runs differ: nothing here can hold"
    return Field(nursery, recipe, at / "run", at / "cache", time.monotonic() - began)


def ending(run: Path) -> dict[str, Any]:
    """All of a finished run that must not depend on what happened to it: bytes, answers, scores, words, file names."""
    columns = {name: read_evaluation(run / name) for name in ("base", "few_shot", "tuned")}
    return {
        "adapter": digest_file(run / "adapter" / "adapter_model.safetensors"),
        "answers": {name: [(r.id, r.output, r.answer, r.score) for r in one.records] for name, one in columns.items()},
        "scores": {name: one.score.as_json() for name, one in columns.items()},
        "losses": [(step["step"], step["loss"]) for step in read_metrics(run)],
        "verdict": read_report(run).verdict.sentence,
        "files": sorted(str(path.relative_to(run)) for path in run.rglob("*") if "damaged-" not in str(path)),
        "damage": [damage(run / name) for name in ("base", "few_shot", "tuned", "adapter")],
    }


def contents(folder: Path) -> dict[str, str]:
    return {str(file): digest_file(file) for file in sorted(folder.rglob("*")) if file.is_file()}


def stage(run: Path) -> str:
    """How far a killed run had come."""
    done = {
        "loading": "environment.json",
        "base": "base",
        "few-shot": "few_shot",
        "training": "training.json",
        "tuned": "tuned",
        "report": "report.html",
    }
    return next((name for name, file in done.items() if not (run / file).exists()), "done")


def test_the_quiet_run_has_something_to_lose(field: Field) -> None:
    quiet = ending(field.quiet)
    assert quiet["answers"]["base"] != quiet["answers"]["tuned"] and quiet["damage"] == [None] * 4
    assert len(quiet["losses"]) == STEPS and quiet["losses"][-1][1] < quiet["losses"][0][1]


# what a run puts into its folder, one after the other: a kill comes a random while after one of them
LANDMARKS = (
    ".",
    "fingerprint.json",
    "environment.json",
    "base",
    "few_shot",
    *(f"checkpoints/step-{step:08d}" for step in range(1, STEPS + 1)),
    "adapter",
    "training.json",
    "tuned",
    "plots",
)


def kill_after(child: Child, landmark: Path, seconds: float) -> bool:
    """Kill a run a while after a file is there. Whether that came in time."""
    until(lambda: landmark.exists() or child.code is not None)
    time.sleep(seconds)
    child.kill()
    return child.wait() == -signal.SIGKILL


@pytest.mark.timeout(900)
def test_killed_at_random_moments_the_same_command_ends_with_the_same_bytes(field: Field, tmp_path: Path) -> None:
    rng, marks = random.Random(20), (*LANDMARKS, *LANDMARKS[:9])
    plan = [(number, mark, rng.random() * field.seconds / 20) for number, mark in enumerate(marks)]

    def kill_and_finish(kill: tuple[int, str, float]) -> str:
        number, landmark, seconds = kill
        at = tmp_path / str(number)
        killed = kill_after(field.start(at, cache=at / "cache"), at / "run" / landmark, seconds)
        where = stage(at / "run") if killed else "too late"
        field.finish(at, cache=at / "cache")
        assert ending(at / "run") == ending(field.quiet), f"killed {seconds:.3f} s after {landmark} ({where})"
        assert not list((at / "cache").rglob(".*.tmp"))
        return where

    with ThreadPoolExecutor(LANES) as pool:
        found = Counter(pool.map(kill_and_finish, plan))
    print(f"{field.seconds:.1f} s a run; killed in {dict(found)}")
    assert found.total() - found["too late"] >= 20 and len(found - Counter({"too late": 99})) >= 4, found


@pytest.mark.slow
def test_killed_again_and_again_one_run_still_ends_with_the_same_bytes(field: Field, tmp_path: Path) -> None:
    for landmark in LANDMARKS[::2]:
        kill_after(field.start(tmp_path, cache=tmp_path / "cache"), tmp_path / "run" / landmark, 0.1)
    field.finish(tmp_path, cache=tmp_path / "cache")
    assert ending(tmp_path / "run") == ending(field.quiet)


def attach(child: Child, log: Path, *options: str) -> subprocess.Popen[bytes]:
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", "-p", str(child.pid), "-o", log, "-e", f"trace={STRACE_CALLS}", *options]
    )
    status = Path(f"/proc/{child.pid}/status")
    until(lambda: "TracerPid:\t0" not in status.read_text() or tracer.poll() is not None)
    if tracer.poll() is not None:
        child.kill()
        child.wait()
        pytest.skip("strace may not attach to a process here")
    time.sleep(0.1)  # the other threads
    return tracer


def calls_of_a_checkpoint(field: Field, at: Path) -> list[tuple[str, int]]:
    """(system call, its number) of what the main thread changes between the ends of steps 3 and 4; of the many
    parts in which torch writes a file, every eighth."""
    child = field.stopped(at, ("Fine-tune", 3))
    tracer = attach(child, at / "log")
    (at / "open").touch()
    assert child.wait() == 0 and tracer.wait() is not None
    seen, found = Counter(), []
    for line in (at / "log").read_text().splitlines():
        if "Fine-tune 4" in line:
            return found
        match = re.match(rf"{child.pid} +([a-z0-9]+)\(", line)
        if match:
            seen[match[1]] += 1
            if "O_RDONLY" not in line and (match[1] != "writev" or seen["writev"] % 8 == 1):
                found.append((match[1], seen[match[1]]))
    raise AssertionError("the checkpoint was not seen")


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_killed_at_every_system_call_of_a_real_checkpoint_it_ends_with_the_same_bytes(
    field: Field, tmp_path: Path
) -> None:
    def kill_at(call: tuple[str, int]) -> str:
        at = tmp_path / f"{call[0]}-{call[1]}"
        child = field.stopped(at, ("Fine-tune", 3))
        tracer = attach(child, at / "log", "-e", f"inject={call[0]}:signal=KILL:when={call[1]}")
        (at / "open").touch()
        assert child.wait() == -signal.SIGKILL, f"{call}: {child.said}"
        tracer.wait()
        newest, notes = newest_whole(at / "run" / "checkpoints")
        assert notes == [] and all(damage(path) is None for path in checkpoints(newest.parent))
        field.finish(at)
        assert ending(at / "run") == ending(field.quiet), call
        return newest.name

    calls = calls_of_a_checkpoint(field, tmp_path / "plain")
    with ThreadPoolExecutor(LANES) as pool:
        found = Counter(pool.map(kill_at, calls))
    print(len(calls), dict(found))
    assert len(calls) > 30 and found["step-00000002"] > 10 and found["step-00000003"] > 5


def test_sigterm_in_training_finishes_the_step_saves_and_exits_75(field: Field, tmp_path: Path) -> None:
    child = field.stopped(tmp_path, ("Fine-tune", 3))
    child.kill(signal.SIGTERM)
    (tmp_path / "open").touch()
    assert child.wait() == 75 and "Stopped after step" in child.said and "run the same command" in child.said
    newest, _ = newest_whole(tmp_path / "run" / "checkpoints")
    assert newest.name in ("step-00000003", "step-00000004")
    again = field.finish(tmp_path)
    assert "Going on from step" in again.said and ending(tmp_path / "run") == ending(field.quiet)


@pytest.mark.parametrize("notice_s", [5, pytest.param(30, marks=pytest.mark.slow)])
def test_a_step_longer_than_the_notice_is_killed_in_it_and_the_checkpoint_before_it_stands(
    field: Field, tmp_path: Path, notice_s: float
) -> None:
    child = field.stopped(tmp_path, ("Fine-tune", 4))
    child.kill(signal.SIGTERM)
    time.sleep(notice_s)
    assert child.code is None, "it ended before the notice did: nothing was killed"
    child.kill(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    newest, notes = newest_whole(tmp_path / "run" / "checkpoints")
    assert (newest.name, notes) == ("step-00000003", [])
    again = field.finish(tmp_path)
    assert f"Going on from step 3 of {STEPS}" in again.said and ending(tmp_path / "run") == ending(field.quiet)


@pytest.mark.parametrize(("times", "code"), [(2, 75), pytest.param(3, 130, marks=pytest.mark.slow)])
def test_ctrl_c_twice_saves_and_a_third_ends_it_and_neither_tears(field: Field, tmp_path: Path, times, code) -> None:
    child = field.stopped(tmp_path, ("Fine-tune", 3))
    for _ in range(times):
        child.kill(signal.SIGINT)
        time.sleep(0.1)  # the same signal twice at once is one signal
    (tmp_path / "open").touch()
    assert child.wait() == code
    assert all(damage(path) is None for path in checkpoints(tmp_path / "run" / "checkpoints"))
    field.finish(tmp_path)
    assert ending(tmp_path / "run") == ending(field.quiet)


def test_the_typed_command_stopped_in_a_bare_locale_goes_on_to_the_same_bytes(field: Field, tmp_path: Path) -> None:
    bare = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "SLIMTUNE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "slimtune.cli", "run", field.recipe, "--out", tmp_path / "run"]
    environment = {**os.environ, **bare}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until(lambda: (tmp_path / "run" / "metrics.jsonl").exists() or child.poll() is not None)
    child.send_signal(signal.SIGTERM)
    said = child.communicate(timeout=120)[0].decode()
    assert child.returncode == 75, said
    field.finish(tmp_path, cache=tmp_path / "cache")
    assert ending(tmp_path / "run") == ending(field.quiet)
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0 and "Already done" in again.stdout, again.stderr


def test_a_time_of_day_that_jumps_both_ways_in_training_changes_no_byte_and_no_duration(
    field: Field, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "slimtune.cli", "run", field.recipe, "--out", tmp_path / "run"]
    clock, run = Leaping(tmp_path / "clock"), tmp_path / "run"
    began = time.monotonic()
    child = subprocess.Popen(command, env={**clock.environment, "SLIMTUNE_CACHE": str(tmp_path / "cache")})
    for landmark, hours in (("environment.json", 5), ("metrics.jsonl", -5), ("training.json", 7)):
        until(lambda landmark=landmark: (run / landmark).exists() or child.poll() is not None)
        clock.leap(hours)
    assert child.wait(120) == 0
    took_s, told = time.monotonic() - began, json.loads((run / "status.json").read_text())
    assert told["updated"] - time.time() > 6 * 3600, "the run did not see the jump"
    lived = [step["seconds"] for step in read_metrics(run)]
    assert lived == sorted(lived) and 0 < lived[0] <= lived[-1] == training_seconds(run) < took_s
    assert all(0 <= stage["seconds"] < took_s for stage in told["stages"])
    assert ending(run) == ending(field.quiet)


def test_scoring_that_is_stopped_keeps_its_answers_and_ends_with_each_row_once(
    field: Field, tmp_path: Path, tiny_model: Path
) -> None:
    recipe = write_recipe(tmp_path, tiny_model, test=130)
    many = Field(field.nursery, recipe, field.quiet, tmp_path / "cache", field.seconds)
    child = many.stopped(tmp_path, ("Score base, zero-shot", 70))
    child.kill(signal.SIGTERM)
    (tmp_path / "open").touch()
    assert child.wait() == 75 and "answers so far are kept" in child.said
    assert len((tmp_path / "run" / "base.journal").read_bytes().splitlines()) == 70
    again = many.finish(tmp_path, "--set", "train.checkpoint_minutes=7")
    assert "zero-shot: 70 of 130" in again.said and "zero-shot: 0 of 130" not in again.said
    for name in ("base", "few_shot", "tuned"):
        ids = [record.id for record in read_evaluation(tmp_path / "run" / name).records]
        assert len(ids) == len({*ids}) == 130
    assert not list((tmp_path / "run").glob("*.journal"))
    other = many.finish(tmp_path / "other", cache=tmp_path / "other-cache")
    assert "zero-shot: 0 of 130" in other.said
    assert ending(tmp_path / "run") == ending(tmp_path / "other" / "run")


def test_a_second_process_is_told_who_owns_the_run_and_a_dead_owner_is_succeeded_at_once(
    field: Field, tmp_path
) -> None:
    owner = field.stopped(tmp_path, ("Fine-tune", 2))
    second = field.start(tmp_path)
    assert second.wait() == 2
    said = " ".join(second.said.split())
    assert f"owned by process {owner.pid} on {socket.gethostname()} since 20" in said
    owner.kill()
    owner.wait()
    field.finish(tmp_path)
    assert ending(tmp_path / "run") == ending(field.quiet)


@pytest.fixture(scope="module")
def broken_off(field: Field, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed after step 5, with checkpoints of steps 3 and 4."""
    at = tmp_path_factory.mktemp("broken")
    child = field.stopped(at, ("Fine-tune", 5))
    child.kill()
    child.wait()
    assert [path.name for path in checkpoints(at / "run" / "checkpoints")] == ["step-00000003", "step-00000004"]
    return at / "run"


def harm(file: Path, how: int) -> None:
    data = file.read_bytes()
    flipped = bytes([*data[: len(data) // 2], data[len(data) // 2] ^ 1, *data[len(data) // 2 + 1 :]])
    if how == 3:
        file.unlink()
    else:
        file.write_bytes([b"", data[: len(data) // 2], flipped][how])


@pytest.mark.parametrize(
    "names",
    [
        ("adapter_model.safetensors", "optimizer.pt"),
        pytest.param(("README.md", "adapter_config.json", "rng_state.pth", "scheduler.pt"), marks=pytest.mark.slow),
        pytest.param(("trainer_state.json", "manifest.json"), marks=pytest.mark.slow),
    ],
)
def test_a_run_with_a_damaged_checkpoint_says_so_and_ends_with_the_same_bytes(
    field: Field, broken_off: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    known = {path.name for path in (broken_off / "checkpoints" / "step-00000004").iterdir()}
    assert {*names} < known and len(known) == 8

    def go_on(number: int) -> str:
        at = tmp_path / str(number)
        shutil.copytree(broken_off, at / "run")
        harm(at / "run" / "checkpoints" / "step-00000004" / names[number], (number + 2) % 4)
        said = " ".join(field.finish(at).said.split())
        assert "step-00000004 is damaged" in said and "set aside as damaged-step-00000004" in said
        assert "Going on from step 3 of 6" in said and (at / "run" / "checkpoints" / "damaged-step-00000004").is_dir()
        assert ending(at / "run") == ending(field.quiet), names[number]
        return names[number]

    with ThreadPoolExecutor(LANES) as pool:
        assert [*pool.map(go_on, range(len(names)))] == [*names]


def test_a_run_that_goes_on_with_other_versions_says_so_and_its_report_too(
    field, broken_off: Path, tmp_path: Path
) -> None:
    shutil.copytree(broken_off, tmp_path / "run")
    place = tmp_path / "run" / "environment.json"
    began = json.loads(place.read_text())
    real = began["versions"]
    place.write_text(json.dumps(began | {"versions": real | {"trl": "0.1"}}))
    assert "goes on with other versions" in field.finish(tmp_path).said
    ended = json.loads(place.read_text())
    assert ended["versions"]["trl"] == "0.1" and ended["went_on_with"] == [real]
    assert "Went on with" in (tmp_path / "run" / "report.md").read_text()


def test_an_adapter_is_loaded_by_peft_alone_and_names_no_place_of_this_machine(field: Field, tiny_model: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = field.quiet / "adapter"
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        before = base(ids).logits
        after = PeftModel.from_pretrained(base, adapter)(ids).logits
    assert (before - after).abs().max() > 0.01, "the adapter does something"
    assert not (adapter / "README.md").exists()


class Trap:
    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


def test_bytes_that_nobody_vouches_for_are_never_unpickled(field: Field, broken_off: Path, tmp_path: Path) -> None:
    shutil.copytree(broken_off, tmp_path / "run")
    found = checkpoints(tmp_path / "run" / "checkpoints")
    for checkpoint, name in zip(found, ("rng_state.pth", "scaler.pt"), strict=True):
        (checkpoint / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    said = " ".join(field.finish(tmp_path).said.split())
    assert said.count("is damaged") == 2 and "Going on from" not in said and not (tmp_path / "sprung").exists()
    assert ending(tmp_path / "run") == ending(field.quiet)


def test_killed_between_the_adapter_and_the_word_that_training_is_done_no_step_is_trained_twice(
    field, tmp_path
) -> None:
    shutil.copytree(field.quiet, tmp_path / "run")
    for name in ("training.json", "report.html"):
        (tmp_path / "run" / name).unlink()
    shutil.rmtree(tmp_path / "run" / "tuned")
    (tmp_path / "run" / "few_shot.journal").touch()  # as a kill right after its step leaves it
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    field.finish(tmp_path)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    assert ending(tmp_path / "run") == ending(field.quiet)


def test_another_recipe_or_other_rows_never_go_on_with_this_run(field: Field, tmp_path: Path, tiny_model: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model)
    run = ("run", recipe)
    field.nursery.run(tmp_path, *run, cache=field.cache)
    first = next((tmp_path / "runs").iterdir())
    before = contents(first)
    child = field.nursery.start(tmp_path, *run, "--out", first, "--set", "train.lr=1e-3", cache=field.cache)
    assert child.wait() == 2 and "another recipe" in child.said
    same = field.nursery.run(
        tmp_path, *run, "--out", first, "--set", "train.checkpoint_minutes=1", "--set", "train.keep_checkpoints=3",
        cache=field.cache,
    )  # fmt: skip
    assert "Already done" in same.said
    rows = [json.loads(line) for line in (tmp_path / "actions" / "train.jsonl").read_text().splitlines()]
    write_rows(tmp_path / "actions" / "train.jsonl", [{**rows[0], "text": "pay it today"}, *rows[1:]])
    child = field.nursery.start(tmp_path, *run, "--out", first, cache=field.cache)
    assert child.wait() == 2 and "another data" in child.said
    after = contents(first)
    assert {name for name in before if before[name] != after[name]} <= {
        str(first / "owner.json"),
        str(first / "engine.log"),
    }
    field.nursery.run(tmp_path, *run, cache=field.cache)
    assert len([*(tmp_path / "runs").iterdir()]) == 2


NO_TORCH = """
import sys
class Trap:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("torch", "transformers", "unsloth", "datasets", "peft", "trl"):
            raise SystemExit("imported " + name)
sys.meta_path.insert(0, Trap())
"""


def test_a_finished_run_says_so_in_seconds_without_torch_and_changes_nothing(field: Field, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_TORCH)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    before, began = contents(field.quiet), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "slimtune.cli", "run", field.recipe, "--out", field.quiet],
        env={**os.environ, "PYTHONPATH": path, "SLIMTUNE_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and "Already done" in done.stdout, done.stdout + done.stderr
    assert time.monotonic() - began < 15
    changed = {Path(name).name for name, digest in contents(field.quiet).items() if before.get(name) != digest}
    assert changed <= {"owner.json", "engine.log"} and before.keys() == contents(field.quiet).keys()


@pytest.mark.parametrize("lost", [("adapter",), ("adapter", "checkpoints"), ("tuned",), ("base", "few_shot")])
def test_what_is_taken_out_of_a_finished_run_is_done_again_and_said(field: Field, tmp_path: Path, lost: tuple) -> None:
    run = tmp_path / "run"
    shutil.copytree(field.quiet, run)
    for name in lost:
        shutil.rmtree(run / name)
    child = field.finish(tmp_path)
    assert "Already done" not in child.said and f"{lost[0]}/ is no longer whole (it is not there)" in child.said
    assert ("Fine-tune: 6 of 6" in child.said) == ("checkpoints" in lost), "the last whole checkpoint is gone on from"
    assert ending(run) == ending(field.quiet)
    assert "Already done" in field.finish(tmp_path).said


def test_scores_of_an_adapter_that_came_out_another_are_made_anew(field: Field, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(field.quiet, run)
    shutil.rmtree(run / "adapter")
    training = json.loads((run / "training.json").read_text())
    (run / "training.json").write_text(json.dumps(training | {"adapter_sha256": "0" * 64}))
    child = field.finish(tmp_path)
    assert "Score tuned: 9 of 9" in child.said and "Score base" not in child.said
    assert ending(run) == ending(field.quiet)


def test_what_others_put_into_an_adapters_folder_does_it_no_harm(field: Field, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(field.quiet, run)
    (run / "adapter" / "README.md").write_text("My adapter.")
    assert "Already done" in field.finish(tmp_path).said
    (run / "adapter" / "adapter_model.safetensors").write_bytes(b"torn")
    child = field.nursery.start(tmp_path, "evaluate", run, cache=field.cache)
    assert child.wait() == 2 and "adapter_model.safetensors has changed" in child.said


def test_a_choice_that_this_machine_has_no_use_for_is_said_by_run_plan_and_report(field: Field, tmp_path: Path) -> None:
    said = "4-bit weights are for GPUs; here they are 16-bit weights held in fp32."
    child, run = field.finish(tmp_path, "--set", "train.quantisation=4bit"), tmp_path / "run"
    assert said in " ".join(child.said.split()) and said in json.loads((run / "plan.json").read_text())["notes"]
    assert all(said in (run / f"report.{form}").read_text() for form in ("md", "html"))


def test_a_base_is_scored_once_for_all_its_runs(field: Field, tmp_path: Path) -> None:
    child = field.finish(tmp_path, "--set", "train.lr=1e-3")
    assert child.said.count("taken from the cache") == 2 and "Score base" not in child.said
    other, quiet = ending(tmp_path / "run"), ending(field.quiet)
    assert other["answers"]["base"] == quiet["answers"]["base"] and other["adapter"] != quiet["adapter"]


@pytest.mark.parametrize(
    ("change", "known"),
    [
        pytest.param("data.test_rows=6", 0, marks=pytest.mark.slow),
        pytest.param("evaluate.max_new_tokens=3", 0, marks=pytest.mark.slow),
        pytest.param("evaluate.few_shot=5", 1, marks=pytest.mark.slow),
    ],
)
def test_a_score_of_other_questions_is_not_taken(field: Field, tmp_path: Path, change: str, known: int) -> None:
    shutil.copytree(field.cache, tmp_path / "cache")
    child = field.finish(tmp_path, "--set", change, cache=tmp_path / "cache")
    assert child.said.count("taken from the cache") == known


def test_a_damaged_score_in_the_cache_is_made_anew(field: Field, tmp_path: Path) -> None:
    shutil.copytree(field.cache, tmp_path / "cache")
    entries = [*(tmp_path / "cache" / "scores").iterdir()]
    for entry in entries:
        harm(entry / "examples.parquet", 2)
    child = field.finish(tmp_path, cache=tmp_path / "cache")
    assert "taken from the cache" not in child.said and ending(tmp_path / "run") == ending(field.quiet)
    assert sum(damage(entry) is None for entry in entries) == 2


def test_two_models_through_one_cache_get_their_own_answers(field: Field, tmp_path: Path, tiny_model: Path) -> None:
    from safetensors.numpy import load_file, save_file

    shutil.copytree(tiny_model, tmp_path / "model")
    weights = load_file(tiny_model / "model.safetensors")
    weights["model.norm.weight"] *= -1  # the least likely token is now the likeliest
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    change = ("--set", f"model={tmp_path / 'model'}")
    shared = field.finish(tmp_path / "shared", *change)
    field.finish(tmp_path / "own", *change, cache=tmp_path / "cache")
    assert "taken from the cache" not in shared.said
    answers = [ending(run)["answers"]["base"] for run in (tmp_path / "shared/run", tmp_path / "own/run", field.quiet)]
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize("out", ["file/run", "file", "/proc/nothing/run", "/proc/nothing"])
def test_a_folder_that_cannot_be_is_a_sentence_and_73(field: Field, tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("a file")
    child = field.nursery.start(tmp_path, "run", field.recipe, "--out", tmp_path / out, cache=field.cache)
    assert child.wait() == 73 and "Cannot write" in child.said and "Traceback" not in child.said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_a_sentence_and_73_and_with_room_the_same_command_goes_on(
    field: Field, small_disk: Path
) -> None:
    at, found = small_disk.parent, []
    for size in (20, 400, 3000, 50_000):
        subprocess.run(["mount", "-o", f"remount,size={size}k", small_disk], check=True)
        child = field.nursery.start(at, "run", field.recipe, "--out", small_disk / "run", cache=field.cache)
        found.append(code := child.wait())
        assert code in (0, 73) and "Traceback" not in child.said, f"{size} KiB: {child.said}"
        assert code == 0 or ("Cannot write" in child.said and "space" in child.said), child.said
    assert found.count(73) >= 3 and found[-1] == 0
    assert ending(small_disk / "run") == ending(field.quiet)


def test_a_disk_that_is_full_for_a_while_costs_a_checkpoint_and_a_warning_not_the_run(
    field: Field, small_disk: Path
) -> None:
    """There is room for the lines of the log all the while, and for a checkpoint after the first one was refused."""
    subprocess.run(["mount", "-o", "remount,size=50000k", small_disk], check=True)
    at, ballast = small_disk.parent, small_disk / "ballast"
    child = field.nursery.start(
        at, "run", field.recipe, "--out", small_disk / "run", cache=field.cache, gate=("Fine-tune", 2)
    )
    until(lambda: (at / "reached").exists() or child.code is not None)
    stands = checkpoints(small_disk / "run" / "checkpoints")
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(ballast, ballast.stat().st_size - (64 << 10))
    (at / "open").touch()
    told = small_disk / "run" / "engine.log"  # what the gate hears while the libraries' output goes there
    until(lambda: "No checkpoint was written" in told.read_text(), seconds=20)
    ballast.unlink()
    assert child.wait() == 0 and "are free there" in told.read_text(), child.said
    assert stands and ending(small_disk / "run") == ending(field.quiet)


@pytest.mark.parametrize(
    "gate",
    [
        ("Fine-tune", 3),
        *(pytest.param((f"Score {who}", 4), marks=pytest.mark.slow) for who in ("base, zero-shot", "tuned")),
    ],
)
def test_a_folder_that_goes_away_ends_it_with_73_and_brought_back_the_same_command_goes_on(
    field: Field, tmp_path: Path, gate: tuple[str, int]
) -> None:
    """As a network drive does: its place is empty, and nothing may be begun anew there."""
    (tmp_path / "drive").mkdir()
    out, away = tmp_path / "drive" / "run", tmp_path / "away"
    cache = tmp_path / "cache"
    child = field.nursery.start(tmp_path, "run", field.recipe, "--out", out, cache=cache, gate=gate)
    until(lambda: (tmp_path / "reached").exists() or child.code is not None)
    out.rename(away)
    (tmp_path / "open").touch()
    assert child.wait() == 73 and "Traceback" not in child.said, child.said
    assert not list((tmp_path / "drive").iterdir())
    away.rename(out)
    again = field.nursery.run(tmp_path, "run", field.recipe, "--out", out, cache=cache)
    assert ("Going on from step" in again.said) == (gate[0] == "Fine-tune")
    assert ending(out) == ending(field.quiet)
