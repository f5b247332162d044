"""A thought is told from the answer: <think>...</think> at the head of what a model says, whole or as it comes."""

import re
from dataclasses import dataclass

OPEN, CLOSE = "<think>", "</think>"
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Split:
    """What a model said, in two. `thought` None: it did not think. Not `closed`: it never came to an answer."""

    thought: str | None
    answer: str
    closed: bool


def opens_thought(prompt: str) -> bool:
    """Whether a prompt ends in a thought that the model goes on with."""
    return prompt.rstrip().endswith(OPEN)


def split_thought(text: str, *, begun: bool = False) -> Split:
    """The thought and the answer in the whole of an output. `begun`: the prompt has opened the first thought."""
    thoughts = Thoughts(begun=begun)
    parts = [*thoughts.add(text), *thoughts.rest()]
    return Split(thoughts.text, "".join(part for part, thought in parts if not thought), thoughts.closed)


class Thoughts:
    """Pieces of text in, parts out: (text, is it thought). `begun`: the prompt has opened the first thought."""

    def __init__(self, *, begun: bool = False):
        self._place = "thought" if begun else "head"  # then "answer", to the end
        self._held, self._at = "", 0  # from there on, what may be the beginning of a tag, or white space before one
        self._thought: list[str] = []

    @property
    def text(self) -> str | None:
        """All that was thought so far; None where nothing was."""
        return "".join(self._thought).strip() or None

    @property
    def closed(self) -> bool:
        """No thought is open."""
        return self._place != "thought"

    def add(self, piece: str) -> list[tuple[str, bool]]:
        self._held, self._at = self._held[self._at :] + piece, 0
        parts = []
        while (part := self._next()) is not None:
            parts += [part] if part[0] else []
        return parts

    def rest(self) -> list[tuple[str, bool]]:
        """What was held back, at the end."""
        held, self._at = self._held[self._at :], len(self._held)
        return [self._said(held, self._place == "thought")] if held else []

    def _next(self) -> tuple[str, bool] | None:
        """The next part of what is held, empty where a tag was read; None while that takes more text."""
        return {"head": self._head, "thought": self._inside, "answer": self._after}[self._place]()

    def _head(self) -> tuple[str, bool] | None:
        at = _SPACE.match(self._held, self._at).end()
        if self._held.startswith(OPEN, at):
            self._place, self._at = "thought", at + len(OPEN)
        elif OPEN.startswith(self._held[at : at + len(OPEN)]):
            return None
        else:
            self._place, self._at = "answer", at if self._thought else self._at
        return ("", False)

    def _inside(self) -> tuple[str, bool] | None:
        start, end = self._at, self._held.find(CLOSE, self._at)
        if end >= 0:
            self._place, self._at = "head", end + len(CLOSE)
            return self._said(self._held[start:end], True)
        torn = max(length for length in range(len(CLOSE)) if self._held.endswith(CLOSE[:length], start))
        self._at = len(self._held) - torn
        return self._said(self._held[start : self._at], True) if self._at > start else None

    def _after(self) -> tuple[str, bool] | None:
        text, self._at = self._held[self._at :], len(self._held)
        return (text, False) if text else None

    def _said(self, text: str, thinking: bool) -> tuple[str, bool]:
        if thinking:
            self._thought.append(text)
        return (text, thinking)
