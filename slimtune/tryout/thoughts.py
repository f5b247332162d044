"""A thought is shown apart from the answer: <think>...</think> at the head of what a model says, split as it comes."""

OPEN, CLOSE = "<think>", "</think>"


class Thoughts:
    """Pieces of text in, parts out: (text, is it thought). `begun`: the prompt has opened the first thought."""

    def __init__(self, *, begun: bool = False):
        self._place = "thought" if begun else "head"  # then "answer", to the end
        self._held = ""  # what may be the beginning of a tag, or white space before one
        self._thought: list[str] = []

    @property
    def text(self) -> str | None:
        """All that was thought so far; None where nothing was."""
        return "".join(self._thought).strip() or None

    def add(self, piece: str) -> list[tuple[str, bool]]:
        self._held += piece
        parts = []
        while (part := self._next()) is not None:
            parts += [part] if part[0] else []
        return parts

    def rest(self) -> list[tuple[str, bool]]:
        """What was held back, at the end."""
        thinking, held = self._place == "thought", self._held
        self._held = ""
        return [self._said(held, thinking)] if held else []

    def _next(self) -> tuple[str, bool] | None:
        """The next part of what is held, empty where a tag was read; None while that takes more text."""
        return {"head": self._head, "thought": self._inside, "answer": self._after}[self._place]()

    def _head(self) -> tuple[str, bool] | None:
        text = self._held.lstrip()
        if text.startswith(OPEN):
            self._place, self._held = "thought", text[len(OPEN) :]
        elif OPEN.startswith(text):
            return None
        else:
            self._place, self._held = "answer", text if self._thought else self._held
        return ("", False)

    def _inside(self) -> tuple[str, bool] | None:
        text, close, rest = self._held.partition(CLOSE)
        if close:
            self._place, self._held = "head", rest
            return self._said(text, True)
        torn = max(length for length in range(len(CLOSE)) if text.endswith(CLOSE[:length]))
        whole = text[: len(text) - torn]
        self._held = text[len(whole) :]
        return self._said(whole, True) if whole else None

    def _after(self) -> tuple[str, bool] | None:
        text, self._held = self._held, ""
        return (text, False) if text else None

    def _said(self, text: str, thinking: bool) -> tuple[str, bool]:
        if thinking:
            self._thought.append(text)
        return (text, thinking)
