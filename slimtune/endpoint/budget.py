"""What was spent and what may be: a call is made only where the budget holds its worst case too.

The worst case of a call is its prompt, guessed on the high side, and the longest answer it asks for. What it really
took replaces that when the answer is there; of a call that was lost, the worst case stays.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from slimtune.endpoint.settings import Endpoint
from slimtune.endpoint.wire import Answer, Request


@dataclass
class Budget:
    """Tokens spent, and reserved by the calls under way."""

    endpoint: Endpoint
    prompt_tokens: int = 0
    answer_tokens: int = 0
    reserved: dict[int, tuple[int, int]] = field(default_factory=dict)  # by the call's own number
    _calls: int = 0

    def spend(self, tokens: Iterable[tuple[int, int]]) -> None:
        """Count (prompt, answer) tokens as spent."""
        for prompt, answer in tokens:
            self.prompt_tokens += prompt
            self.answer_tokens += answer

    def holds(self, request: Request) -> bool:
        """Whether this call too can be made, whatever those under way come to."""
        reserved = [*self.reserved.values(), (request.prompt_tokens, request.max_tokens)]
        prompt = self.prompt_tokens + sum(one for one, _ in reserved)
        answer = self.answer_tokens + sum(one for _, one in reserved)
        limit, usd = self.endpoint.budget_tokens, self.endpoint.budget_usd
        return (limit is None or prompt + answer <= limit) and (usd is None or self._usd(prompt, answer) <= usd)

    def reserve(self, request: Request) -> int:
        """Set aside what the call may cost; the number to settle it by."""
        self._calls += 1
        self.reserved[self._calls] = (request.prompt_tokens, request.max_tokens)
        return self._calls

    def settle(self, number: int, *, free: bool = False, answer: Answer | None = None) -> None:
        """Replace what was set aside by what it took: nothing, the answer's tokens, or all of it."""
        worst = self.reserved.pop(number)
        if not free:
            self.spend([taken(answer, worst) if answer is not None else worst])

    @property
    def usd(self) -> float | None:
        """Dollars spent; None without prices."""
        prices = (self.endpoint.usd_per_m_input, self.endpoint.usd_per_m_output)
        return None if None in prices else self._usd(self.prompt_tokens, self.answer_tokens)

    @property
    def spent(self) -> str:
        """ "$0.42" or "12,345 tokens"."""
        if self.endpoint.budget_usd is not None:
            return f"${self.usd:,.4f}"
        return f"{self.prompt_tokens + self.answer_tokens:,} tokens"

    @property
    def limit(self) -> str:
        if self.endpoint.budget_usd is not None:
            return f"${self.endpoint.budget_usd:,.4f}"
        return f"{self.endpoint.budget_tokens:,} tokens"

    def _usd(self, prompt_tokens: int, answer_tokens: int) -> float:
        return (prompt_tokens * self.endpoint.usd_per_m_input + answer_tokens * self.endpoint.usd_per_m_output) / 1e6


def taken(answer: Answer, worst: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """(prompt, answer) tokens of an answer; the worst case where the service did not count them."""
    counted = (answer.completion.prompt_tokens, answer.completion.completion_tokens)
    return counted if any(counted) else worst
