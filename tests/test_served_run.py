"""A whole run with a judge and a teacher, killed in the middle of both: what a served model has answered is not asked
again. The real command line, a real server, real kills."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from chat_server import ChatServer, Reply, failed, said
from samples import LABELS
from test_judge import honest

from slimtune.data import Example, Message
from slimtune.evaluate import read_evaluation
from slimtune.status import read_state

ROWS = 9  # of the task's test split


class Services:
    """A judge and a teacher on one server. `events` are met in order: each says of a call, by its model and the number
    of calls of each model so far, whether it is the one at which `happens` takes the place of an answer."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.events: list[tuple[Callable[[str, Counter[str]], bool], Callable[[], Reply]]] = []
        self.unanswered: list[str] = []
        self.child: subprocess.Popen[str] | None = None

    def answer(self, body: dict, number: int) -> Reply:
        model = body["model"]
        self.calls[model] += 1
        if self.events and self.events[0][0](model, self.calls):
            self.unanswered.append(json.dumps(body))
            return self.events.pop(0)[1]()
        turns = tuple(Message(turn["role"], turn["content"]) for turn in body["messages"])
        if model == "judge":
            return said(honest(Example("", turns, "")))
        return said(next(word for word in LABELS if f"please {word} " in turns[-1].content))

    def kill(self) -> Reply:
        os.kill(self.child.pid, signal.SIGKILL)
        self.child.wait()
        return Reply(reset=True)

    def run(self, recipe: Path, out: Path) -> tuple[int, str]:
        """The command's exit code, and what it said."""
        line = [sys.executable, "-m", "slimtune.cli", "run", str(recipe), "--out", str(out)]
        environment = {**os.environ, "SLIMTUNE_CACHE": str(out.parent / "cache"), "COLUMNS": "200"}
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.child = subprocess.Popen(line, cwd=out.parent, env=environment, text=True, **pipes)
        words, _ = self.child.communicate(timeout=300)
        return self.child.returncode, words


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_is_judged_and_taught_asks_for_no_answer_twice(recipe: Path, tmp_path: Path):
    services, out = Services(), tmp_path / "run"
    with ChatServer(services.answer) as server:
        served = [
            f"{what}: {{model: {what}, base_url: {server.url}, concurrency: 1}}\n" for what in ("judge", "teacher")
        ]
        recipe.write_text(recipe.read_text().replace("few_shot: 2", "few_shot: 0") + "".join(served))

        services.events = [(lambda model, calls: model == "judge" and calls["judge"] == 9, services.kill)]
        assert services.run(recipe, out)[0] == -signal.SIGKILL
        half = [name for name in ("base", "tuned") if (out / f"{name}.journal").is_file() and not (out / name).exists()]
        assert len(half) == 1, half  # answered, and judged in part

        services.events = [(lambda model, calls: model == "teacher" and calls["teacher"] == 5, services.kill)]
        assert services.run(recipe, out)[0] == -signal.SIGKILL
        assert (out / "tuned" / "evaluation.json").is_file() and not (out / "report.html").exists()
        adapter = (out / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns

        away = failed(503, headers={"Retry-After": "900"})
        services.events = [(lambda model, calls: model == "teacher" and calls["teacher"] == 8, lambda: away)]
        code, words = services.run(recipe, out)
        assert code == 69 and "answered 503" in words and "Loading" not in words, words
        assert (out / "report.html").is_file() and read_state(out).phase == "stopped"

        services.events = [(lambda model, calls: model == "judge" and calls["teacher"] == ROWS + 2, services.kill)]
        assert services.run(recipe, out)[0] == -signal.SIGKILL  # the teacher has answered and is judged
        code, words = services.run(recipe, out)
        assert code == 0 and "Loading" not in words, words
        asked = Counter(map(json.dumps, server.asked))
        assert len(services.unanswered) == 4 == len(set(services.unanswered))
        assert {body for body, times in asked.items() if times > 1} == set(services.unanswered)
        assert set(asked.values()) == {1, 2} and services.calls["teacher"] == ROWS + 2

        code, words = services.run(recipe, out)
        assert code == 0 and "Already done" in words and len(server.asked) == sum(asked.values())
    assert (out / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == adapter
    columns = [read_evaluation(out / name) for name in ("base", "tuned", "teacher")]
    assert all(one.also("judge").n == ROWS and one.judge["canaries"] == 5 for one in columns)
    assert columns[-1].score.value == columns[-1].also("judge").value == 1.0
