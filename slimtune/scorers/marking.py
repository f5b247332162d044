"""One answer, read and scored by all the scorers of its task, whatever they make of it.

What a reader or a scorer raises is our failure and costs that one row: it is not judged, and says why. Many such rows
are a defect that would bend the score, so nothing is made of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from slimtune.data import Completion, Example, Score
from slimtune.errors import SlimtuneError
from slimtune.models.thoughts import Split
from slimtune.scorers import Spoken, get_scorer, spoken_part
from slimtune.scorers.judge import JUDGE

MOST_RAISED = 0.01  # of the rows; a single one never ends a run


@dataclass(frozen=True)
class Marked:
    """An answer with its scores by scorer. `raised`: what broke at it; then none of its scores has a value. `endless`:
    it is a thought that never came to an answer."""

    spoken: Spoken
    scores: dict[str, Score]
    raised: Exception | None = None
    endless: bool = False

    def judged(self, verdict: Score | None) -> dict[str, Score]:
        """All scores, with a judge's where one was asked."""
        if self.raised is not None and verdict is not None:
            verdict = _unscored(self.raised, self.spoken)
        scores = self.scores if verdict is None else {**self.scores, JUDGE: verdict}
        return {name: _endless(found) for name, found in scores.items()} if self.endless else scores


def mark(completion: Completion, example: Example, scorers: Sequence[str], *, tool_format: str) -> Marked:
    """Read and score one answer. Raises nothing but SlimtuneError, which has its own sentence."""
    spoken = Spoken(completion, Split(None, completion.text, closed=True))
    try:
        spoken = spoken_part(completion, example, tool_format)
        scores = {name: get_scorer(name)(spoken.completion, example) for name in scorers}
        return Marked(spoken, scores, endless=not spoken.split.closed and completion.tool_calls is None)
    except SlimtuneError:
        raise
    except Exception as error:  # whatever an answer can set off in us, the other rows are worth having
        return Marked(spoken, dict.fromkeys(scorers, _unscored(error, spoken)), error)


def refuse_many_raised(marked: Sequence[Marked], examples: Sequence[Example], label: str) -> None:
    """Raises RuntimeError, from the first of them, where more than one row and MOST_RAISED of all broke our scoring."""
    broken = [(example.id, one.raised) for one, example in zip(marked, examples, strict=True) if one.raised]
    if len(broken) > max(1, MOST_RAISED * len(marked)):
        first, error = broken[0]
        raise RuntimeError(
            f"Scoring {label} broke on {len(broken)} of {len(marked)} answers, which is more than {MOST_RAISED:.0%}: "
            f"{_words(error)} ({first} first). The answers are kept; with the scorer mended, the same command goes on."
        ) from error


def _unscored(error: Exception, spoken: Spoken) -> Score:
    return Score(None, spoken.completion.text.strip() or None, f"our scoring broke: {_words(error)}")


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _endless(score: Score) -> Score:
    """Of an answer whose thought never ended: wrong, even where silence is right. What cannot be judged stays so."""
    return replace(score, value=None if score.value is None else 0.0, answer=None, why="its thought never ended")
