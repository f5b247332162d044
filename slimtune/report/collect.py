"""What a run folder holds, read once, made harmless, and with a list of what is missing or damaged.

Nothing here is fatal but the folder's absence: a run killed half-way has a report too, which says what it lacks.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.errors import UserError
from slimtune.files import read_json
from slimtune.recipe import Context
from slimtune.report.beside import beside, read_interval
from slimtune.report.text import clean, number
from slimtune.stats import Interval
from slimtune.tasks.needle_check import needle_names
from slimtune.tasks.task import TEST

DOCUMENTS = ("recipe", "plan", "environment", "data", "training")
NAMES = {"base": "Base, zero-shot", "few_shot": "Base, few-shot", "tuned": "Tuned", "teacher": "Teacher"}


@dataclass(frozen=True)
class Answered:
    """One row of an evaluation. `score` None: not judged. `answer` None: nothing could be read from the output."""

    id: str
    cluster: str
    prompt: str
    prompt_sha256: str
    target: str
    output: str
    answer: str | None
    score: float | None
    why: str
    stopped: str
    label: str | None


@dataclass(frozen=True)
class Evaluated:
    """One model's answers to the test split. `also`: what stands beside the score. `facts`: evaluation.json."""

    name: str
    label: str
    score: Interval | None
    also: Mapping[str, Interval]
    facts: Mapping[str, Any]
    rows: tuple[Answered, ...]


@dataclass(frozen=True)
class RunFiles:
    """A run folder's content. A document that is missing is empty."""

    folder: Path
    recipe: Mapping[str, Any]
    plan: Mapping[str, Any]
    environment: Mapping[str, Any]
    data: Mapping[str, Any]
    training: Mapping[str, Any]
    steps: tuple[Mapping[str, Any], ...]
    evaluations: Mapping[str, Evaluated]
    needles: Mapping[str, Evaluated]  # the long-context check, where the context was stretched
    missing: tuple[str, ...]

    @property
    def name(self) -> str:
        return clean(self.folder.resolve().name)

    @property
    def model(self) -> Mapping[str, Any]:
        return section(self.environment, "model")

    @property
    def scored_on(self) -> str:
        return str(self.data.get("scored_on") or TEST)

    @property
    def note(self) -> str:
        """What must be said beside every score: "weights dequantised from a 4-bit GGUF"."""
        return str(self.model.get("note") or "")


def collect(run_dir: Path) -> RunFiles:
    """Read the folder of one run. Raises UserError where there is none."""
    if not run_dir.is_dir():
        raise UserError(f"There is no run at {run_dir}. Its folder is what `slimtune run` prints first.")
    missing: list[str] = []
    documents = {name: _document(run_dir / f"{name}.json", missing) for name in DOCUMENTS}
    shots, teacher = section(documents["recipe"], "evaluate").get("few_shot", 1), documents["recipe"].get("teacher")
    unasked = [name for name, asked in (("few_shot", shots), ("teacher", teacher)) if not asked]
    evaluations = {name: _evaluation(run_dir / name, missing, unasked) for name in NAMES}
    return RunFiles(
        folder=run_dir,
        recipe=documents["recipe"],
        plan=documents["plan"],
        environment=documents["environment"],
        data=documents["data"],
        training=documents["training"],
        steps=_steps(run_dir / "metrics.jsonl", missing),
        evaluations={name: found for name, found in evaluations.items() if found},
        needles=_needles(run_dir, documents["recipe"], missing),
        missing=tuple(missing),
    )


def section(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping under `key`; empty where there is none."""
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _document(path: Path, missing: list[str]) -> dict[str, Any]:
    where = path.name if path.parent.name not in NAMES else f"{path.parent.name}/{path.name}"
    try:
        value = clean(read_json(path))
    except FileNotFoundError:
        missing.append(f"{where} is missing")
    except ValueError:
        missing.append(f"{where} is not readable as JSON")
    else:
        if isinstance(value, dict):
            return value
        missing.append(f"{where} holds no JSON object")
    return {}


def _steps(path: Path, missing: list[str]) -> tuple[dict[str, Any], ...]:
    """One entry a step, in order. A resumed run logs a step twice: the last counts. A torn line is dropped."""
    if not path.is_file():
        missing.append("metrics.jsonl is missing")
        return ()
    found: dict[int, dict[str, Any]] = {}
    for line in path.read_bytes().split(b"\n"):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            found[entry["step"]] = clean(entry)
    return tuple(found[step] for step in sorted(found))


def _evaluation(folder: Path, missing: list[str], optional: Sequence[str]) -> Evaluated | None:
    if not folder.is_dir():
        if folder.name not in optional:
            missing.append(f"{folder.name}/ is missing: {NAMES[folder.name].lower()} was not evaluated")
        return None
    facts = _document(folder / "evaluation.json", missing)
    rows = _rows(folder / "examples.parquet", missing)
    if not facts and not rows:
        return None
    score = read_interval(facts.get("score"))
    if facts and score is None:
        missing.append(f"{folder.name}/evaluation.json holds no score with an interval")
    return Evaluated(
        folder.name, str(facts.get("label") or NAMES.get(folder.name, folder.name)), score, beside(facts), facts, rows
    )


def _needles(run_dir: Path, recipe: Mapping[str, Any], missing: list[str]) -> dict[str, Evaluated]:
    """The long-context check, the short texts first."""
    asked = section(recipe, "context")
    length = asked.get("length") if number(asked.get("length")) else 0
    context = Context.model_construct(length=length, method=asked.get("method", "none"))
    expected = {who: needle_names(context, who) for who in ("base", "tuned")}
    folders = [run_dir / expected[who][reach] for reach in expected["base"] for who in expected]
    missing += [f"{folder.name}/ is missing: the long-context check" for folder in folders if not folder.is_dir()]
    return {folder.name: found for folder in folders if (found := _evaluation(folder, missing, (folder.name,)))}


def _rows(path: Path, missing: list[str]) -> tuple[Answered, ...]:
    import pyarrow
    import pyarrow.parquet

    where = f"{path.parent.name}/{path.name}"
    try:
        rows = tuple(_answered(row) for row in pyarrow.parquet.read_table(path).to_pylist())
    except FileNotFoundError:
        missing.append(f"{where} is missing")
    except (pyarrow.ArrowException, KeyError) as error:
        missing.append(f"{where} cannot be read ({clean(str(error)).splitlines()[0][:120]})")
    else:
        if len({row.id for row in rows}) == len(rows):
            return rows
        missing.append(f"{where} has the same id twice: its rows are not used")
    return ()


def _answered(row: Mapping[str, Any]) -> Answered:
    score, group = row["score"], row["group"]
    return Answered(
        id=_text(row["id"]),
        cluster=_text(row["id"] if group is None else group),
        prompt=_text(row["prompt"]),
        prompt_sha256=_text(row["prompt_sha256"]),
        target=_text(row["target"]),
        output=_text(row["output"]),
        answer=None if row["answer"] is None else _text(row["answer"]),
        score=None if score is None or score != score else float(score),
        why=_text(row["why"]),
        stopped=_text(row["stopped"]),
        label=None if row["label"] is None else _text(row["label"]),
    )


def _text(value: Any) -> str:
    return "" if value is None else clean(str(value))
