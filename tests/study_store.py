"""Studies as a sweep leaves them, small or large, with scores that are drawn: what a leaderboard is tested on."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from slimtune.files import digest_json, write_json, write_text
from slimtune.stats import score_interval
from slimtune.sweep.store import write_cell, write_failure, write_matrix

GROUPED = ("voice_banking", "docs_contracts")


@dataclass(frozen=True)
class Made:
    """What is in a store: how good each contestant is when tuned, and what is special about some cells."""

    contestants: Mapping[str, float]
    tasks: Sequence[str]
    seeds: Sequence[int] = (0,)
    rows: int = 60
    models: Mapping[str, str] = field(default_factory=dict)
    served: Mapping[str, float] = field(default_factory=dict)
    teacher: float | None = None
    states: Mapping[tuple[str, str, int], str] = field(default_factory=dict)  # failed | waiting
    gpu: str | None = "Tesla T4"
    why: str = "UserError: it needs 23 GiB"
    axes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def put_study(store: Path, made: Made, *, name: str = "t4-small") -> Path:
    """Write a study. The same `made` gives the same store."""
    entries = []
    names = [*((one, good, False) for one, good in made.contestants.items())]
    names += [(one, good, True) for one, good in made.served.items()]
    for (contestant, good, served), task, seed in itertools.product(names, made.tasks, made.seeds):
        cell = _cell(made, contestant, task, seed)
        entries.append({key: cell[key] for key in ("cell", "contestant", "task", "seed", "axes")})
        folder, state = write_cell(store, cell), made.states.get((contestant, task, seed), "done")
        if state == "failed":
            write_failure(folder, exit_code=2, why=made.why, attempt="attempts/box-1")
        elif state == "done":
            _finish(folder, cell, made, good, served=served)
    write_matrix(store, name, entries)
    return store


def _cell(made: Made, contestant: str, task: str, seed: int) -> dict[str, Any]:
    model = made.models.get(contestant, "smollm2-135m-instruct")
    identity = {"contestant": contestant, "task": task, "seed": seed}
    return {
        "cell": digest_json(identity)[:16], "contestant": contestant, "model": model, "task": task, "seed": seed,
        "axes": dict(made.axes.get(contestant, {"lora.r": 8})), "recipe": {}, "identity": identity,
    }  # fmt: skip


def _finish(folder: Path, cell: Mapping[str, Any], made: Made, good: float, *, served: bool) -> None:
    attempt = folder / "attempts" / "box-1"
    base = 0.35 * good  # the same for every seed: nobody trained it
    shares = {"served": good} if served else {"base": base, "few_shot": base + 0.2, "tuned": good}
    shares |= {"teacher": made.teacher} if made.teacher is not None and not served else {}
    sides = {side: _side(attempt / side, cell, made, side, share, served=served) for side, share in shares.items()}
    seconds = 60 + 400 * good + 3 * cell["seed"]
    training = None if served else {"seconds": seconds, "peak_gpu_gib": 2 + 9 * good if made.gpu else None, "steps": 90}
    environment = {"gpu": None if served else made.gpu, "precision": "fp16", "quantisation": "16bit", "versions": {}}
    write_text(attempt / "report.html", "<!doctype html><title>A run's report</title><h1>Answers</h1>")
    keys = ("cell", "contestant", "model", "task", "seed", "axes")
    write_json(
        folder / "result.json",
        {
            "schema": 1, **{key: cell[key] for key in keys}, "kind": kind_of(cell["task"]), "attempt": "attempts/box-1",
            "sides": sides, "training": training, "environment": environment,
            "seconds": {"wall": 2 * seconds, "training": None if served else seconds},
            "usd": 0.4 * 2 * seconds / 3600 if made.gpu and not served else None,
        },
    )  # fmt: skip


def kind_of(task: str) -> str:
    return {"voice_banking": "tool_calling", "docs_contracts": "qa"}.get(task, "classification")


def _side(
    folder: Path, cell: Mapping[str, Any], made: Made, side: str, share: float, *, served: bool
) -> dict[str, Any]:
    """A row has a difficulty that all contestants share, so that their answers go together as real ones do."""
    hard = np.random.default_rng(_number(cell["task"])).random(made.rows)
    luck = np.random.default_rng(
        _number(cell["task"], cell["contestant"], side, cell["seed"] if side in ("tuned", "served") else 0)
    )
    scores = ((hard + luck.normal(0, 0.12, made.rows)) < share).astype(float)
    scores[0] = np.nan if side == "tuned" else scores[0]  # one that could not be judged
    size = 4 if cell["task"] in GROUPED else 1
    groups = [f"g{row // size}" for row in range(made.rows)]
    folder.mkdir(parents=True)
    ids = [f"{cell['task']}-{row:04d}" for row in range(made.rows)]
    texts = [f"Question {row} of {cell['task']}?" for row in range(made.rows)]
    columns = {"id": ids, "group": groups, "prompt": texts, "target": texts, "output": texts, "answer": texts}
    same = {"prompt_sha256": "0" * 64, "why": "", "stopped": "stop", "label": None}
    pandas.DataFrame({**columns, "score": scores, **same}).to_parquet(folder / "examples.parquet", index=False)
    judged = ~np.isnan(scores)
    interval = score_interval(
        list(scores[judged]), list(np.array(groups)[judged]), rng=np.random.default_rng(0)
    ).as_json()
    facts = {
        "name": side, "label": "teacher, gpt-oss-120b" if side == "teacher" else side, "scorer": "exact_match",
        "n": made.rows, "score": interval, "unscored": int((~judged).sum()),
        "seconds": made.rows * (0.02 + 0.1 * share),
        "prompt_tokens": 300 * made.rows, "completion_tokens": 8 * made.rows,
        "few_shot_k": 4 if side == "few_shot" else 0,
    }  # fmt: skip
    if served or side == "teacher":
        facts["served"] = {"model": "gpt-oss-120b", "usd": 0.0002 * made.rows}
    write_json(folder / "evaluation.json", facts)
    return facts


def _number(*parts: Any) -> int:
    return int(digest_json([str(part) for part in parts])[:12], 16)
