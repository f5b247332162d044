"""What can go wrong, and whether trying again can help: one class a kind, one exit code a class.

Exit codes: 0 done or already done, 2 user error, 69 a service is away, 70 our bug, 71 diverged, 73 cannot write,
75 interrupted and resumable. People see the message; only exit code 70 comes with a traceback.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


class SlimtuneError(Exception):
    """A failure with a sentence for the person at the keyboard. Its class says whether a retry can help."""

    exit_code = 70


class UserError(SlimtuneError):
    """The recipe, the data, a key or the machine must change first: the same command fails the same way."""

    exit_code = 2


class DoesNotFit(UserError):
    """What is asked needs more memory than the card has: on a larger one it may fit."""


class ServiceAway(SlimtuneError):
    """A hub, teacher or judge did not answer. Retry later."""

    exit_code = 69


class Diverged(SlimtuneError):
    """Loss, gradients or weights are not finite, or the loss exploded. The same settings do it again."""

    exit_code = 71


class CannotWrite(SlimtuneError):
    """The disk is full, read-only or gone."""

    exit_code = 73


class Interrupted(SlimtuneError):
    """Stopped on request with a whole checkpoint behind it. Run the same command to go on."""

    exit_code = 75


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe or a data file."""

    where: str  # "recipe.yaml:12 train.lr" or "train.jsonl:7"
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" {self.fix}" if self.fix else "")


def by_line(problems: Iterable[Problem]) -> list[Problem]:
    """Each once, in the order of the file's lines; what stands in no line comes last."""

    def line(problem: Problem) -> float:
        found = re.search(r"\.ya?ml:(\d+)\b", problem.where)
        return int(found[1]) if found else math.inf

    return sorted(dict.fromkeys(problems), key=line)


class Problems(UserError):
    """Everything wrong with one input, all at once."""

    def __init__(self, subject: str, problems: Iterable[Problem]):
        self.subject, self.problems = subject, tuple(problems)
        super().__init__(f"{subject} cannot be used:\n" + "\n".join(f"  {problem}" for problem in self.problems))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known word that a name is closest to; None where none is close."""
    lowered = {word.lower(): word for word in sorted(known)}
    near = get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    return lowered[near[0]] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known word, or lists what there is."""
    known = sorted(known)
    if (near := nearest(name, known)) is not None:
        return f"Did you mean {near!r}?"
    return f"Known: {', '.join(known)}." if known else ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """A model, task, scorer or GPU that does not exist."""
    return UserError(f"There is no {kind} named {name!r}. {did_you_mean(name, known)}".rstrip())
