"""A served teacher beside a finished run: the same rows, prompts, parser and scorer, paired row by row.

    python examples/teacher_column.py runs/smollm2-banking77-demo-... gpt-oss-120b http://127.0.0.1:8000/v1

No torch, no GPU: a large model behind an OpenAI-compatible address answers what base and tuned answered. Its column
goes beside the run's folder, its answers into a journal, so that stopping costs nothing. A key: put the name of its
variable last.
"""

import sys
from pathlib import Path

import numpy as np

from slimtune.answering import score_served
from slimtune.check import read_rows
from slimtune.endpoint import Endpoint
from slimtune.errors import SlimtuneError
from slimtune.evaluate import Evaluation, read_evaluation
from slimtune.runs import recipe_of
from slimtune.stats import paired_difference


class Plain:
    """Says what happens, one line each."""

    def say(self, text: str) -> None:
        print(text)

    def progress(self, stage: str, done: int, total: int, detail: str = "") -> None:
        if done == total:
            print(f"{stage}: {done} of {total}")


def teacher_column(run: Path, endpoint: Endpoint) -> Evaluation:
    """Let the teacher answer the run's test rows. Its own folder is made beside the run's."""
    task, _ = read_rows(recipe_of(run))
    out = run.with_name(f"{run.name}-teacher")
    return score_served(endpoint, task, few_shot=0, out=out, listener=Plain())[1]


def difference(other: Evaluation, tuned: Evaluation) -> str:
    """Tuned minus another on the rows that both have a score for."""
    known = {record.id: record.score for record in other.records if record.score is not None}
    both = [record for record in tuned.records if record.score is not None and record.id in known]
    before, after = [known[record.id] for record in both], [record.score for record in both]
    found = paired_difference(before, after, [record.group for record in both], rng=np.random.default_rng(0))
    change = found.difference
    word = "clear" if found.clear else "not clear"
    return f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}], {found.n} rows, p = {found.p:.2g}: {word}"


def main(run: Path, model: str, base_url: str, key_env: str | None = None) -> None:
    sides = {name: read_evaluation(run / name) for name in ("base", "tuned")}
    sides["teacher"] = teacher_column(run, Endpoint(model, base_url, key_env))
    print()
    for name, side in sides.items():
        print(f"{name:8} {side.score}, {side.score.n} rows")
    print(f"tuned - base:    {difference(sides['base'], sides['tuned'])}")
    print(f"tuned - teacher: {difference(sides['teacher'], sides['tuned'])}")


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit("Name a run's folder, a served model, its address, and the variable with its key if it needs one.")
    try:
        main(Path(sys.argv[1]), *sys.argv[2:])
    except SlimtuneError as error:
        sys.exit(str(error))
