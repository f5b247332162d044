"""What a finished run changed, row by row, with pandas: what tuning mended, what it broke, what is still wrong.

    python examples/02_read_a_run.py runs/smollm2-banking77-demo-...

Every answer of every model is in the run's folder as Parquet, so that no score has to be taken on trust.
"""

import sys
from pathlib import Path

import pandas as pd

from slimtune.report import read_report


def answers(run: Path) -> pd.DataFrame:
    """One line a test row: the question, the target, and what base and tuned made of it."""
    base, tuned = (pd.read_parquet(run / side / "examples.parquet").set_index("id") for side in ("base", "tuned"))
    said = ["output", "score"]
    return tuned[["prompt", "target"]].join(base[said].add_suffix("_base")).join(tuned[said].add_suffix("_tuned"))


def main(run: Path) -> None:
    rows = answers(run)
    change = rows.score_tuned - rows.score_base
    print(read_report(run).verdict.sentence)
    print(f"\nMended {(change > 0).sum()}, broken {(change < 0).sum()}, as before {(change == 0).sum()}.")
    for title, some in (("Broken", rows[change < 0]), ("Still wrong", rows[rows.score_tuned < 1])):
        print(f"\n{title}: {len(some)}")
        if len(some):
            print(some[["prompt", "target", "output_tuned"]].head(5).to_string(index=False, max_colwidth=40))
    print("\nTargets most often missed:")
    print(rows[rows.score_tuned < 1].target.value_counts().head(5).to_string())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Name a run's folder: python examples/02_read_a_run.py runs/...")
    main(Path(sys.argv[1]))
