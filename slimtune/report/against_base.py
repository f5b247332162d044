"""A tuned model's score on another task, beside its base's: did it forget something else?"""

from pathlib import Path

import numpy as np

from slimtune.evaluate import Evaluation, read_evaluation
from slimtune.files import damage
from slimtune.stats import Comparison, paired_difference
from slimtune.wording import counted


def against_base(tuned: Evaluation, base: Path, command: str) -> str:
    """The paired difference to the base's answers in the folder `base`, in a sentence; where they are not there, or
    were not asked the same, that it is not known yet and the `command` that scores the base there."""
    found = _difference(tuned, base)
    if found is None:
        return f"Did it forget something? Score its base on the same rows: {command}\nThen give this command again."
    sure = "clear" if found.clear else "not clear"
    return (
        f"Tuned - base: {found.difference}, {sure}, p = {found.p:.2g} ({found.test}), on the same "
        f"{counted(found.n, 'row')}: {found.wins} better, {found.losses} worse."
    )


def _difference(tuned: Evaluation, base: Path) -> Comparison | None:
    if damage(base) is not None:
        return None
    other = {record.prompt_sha256: record for record in read_evaluation(base).records}
    pairs = [(other.get(record.prompt_sha256), record) for record in tuned.records]
    if any(before is None for before, _ in pairs):
        return None
    both = [pair for pair in pairs if None not in (pair[0].score, pair[1].score)]
    a, b = ([pair[side].score for pair in both] for side in (0, 1))
    return paired_difference(a, b, [after.group for _, after in both], rng=np.random.default_rng(0)) if both else None
