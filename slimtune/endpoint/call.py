"""One request until it is answered: what is waited for, what is tried again, and what ends the work at once.

Tried again, later each time and never all at the same moment: 408, 409, 425, 429 and 5xx, broken connections, bodies
that come too slowly, are cut off, or are no chat completion. Ends at once: a refused key, an unknown model, an account
without credit, a request that cannot be right. Retry-After is obeyed, and 429 lowers the number of calls at once.
"""

import asyncio
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from slimtune.data import strict_json
from slimtune.endpoint.budget import Budget
from slimtune.endpoint.journal import Journal
from slimtune.endpoint.settings import Endpoint
from slimtune.endpoint.wire import (
    Answer,
    Request,
    Unusable,
    body_without,
    filtered_answer,
    read_answer,
    read_error,
    refused_key,
)
from slimtune.errors import Interrupted, ServiceAway, SlimtuneError, UserError, nearest

MOST_BYTES = 16 << 20
_TRIES = 8  # of one call, 429 not counted
_LONGEST_WAIT_S = 60.0
_AGAIN = {408, 409, 425, 429}
_NO_CREDIT = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_GROWS_AFTER = 20  # answers without a 429
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class Trouble(Exception):
    """A try that failed and may be made again. `free`: nothing was made, so nothing is to be paid."""

    def __init__(self, why: str, *, free: bool, too_much: bool = False, after_s: float | None = None):
        super().__init__(why)
        self.free, self.too_much, self.after_s = free, too_much, after_s


@dataclass
class Reply:
    """A response, read whole."""

    status: int
    text: str
    headers: Any


class Pace:
    """How many calls may be under way, and from when on. A service that says 429 gets half as many, and after twenty
    answers one more again."""

    def __init__(self, most: int, stopping: Callable[[], bool]):
        self.most = self.allowed = most
        self.stopping = stopping
        self.busy = self.quiet = 0
        self.from_s = 0.0

    async def __aenter__(self) -> None:
        while self.busy >= self.allowed or time.monotonic() < self.from_s:
            if self.stopping():
                raise Interrupted("Stopped.")
            await asyncio.sleep(0.01)
        self.busy += 1

    async def __aexit__(self, *_: object) -> None:
        self.busy -= 1

    def slower(self, wait_s: float) -> None:
        self.allowed, self.quiet = max(1, self.allowed // 2), 0
        self.from_s = max(self.from_s, time.monotonic() + wait_s)

    def answered(self) -> None:
        self.quiet += 1
        if self.quiet % _GROWS_AFTER == 0:
            self.allowed = min(self.most, self.allowed + 1)


class Caller:
    """Asks one endpoint. `say` hears of waits; `stopping` ends them."""

    def __init__(
        self,
        endpoint: Endpoint,
        key: str,
        journal: Journal,
        budget: Budget,
        *,
        say: Callable[[str], None],
        stopping: Callable[[], bool],
    ):
        self.endpoint, self.key, self.journal, self.budget = endpoint, key, journal, budget
        self.say, self.stopping = say, stopping
        self.pace = Pace(endpoint.concurrency, stopping)
        self.without: tuple[str, ...] = ()
        self.last_answer = time.monotonic()

    async def ask(self, http: httpx.AsyncClient, request: Request) -> Answer:
        """The answer to a request, kept in the journal. Raises UserError, ServiceAway, or Interrupted when stopping."""
        tries = waits = 0
        while True:
            try:
                async with self.pace:
                    answer = await self._try(http, request)
                self.last_answer = time.monotonic()
                self.pace.answered()
                return answer
            except Trouble as trouble:
                waits += 1
                tries += not trouble.too_much
                wait_s = self._wait_s(trouble, request, waits, given_up=tries >= _TRIES)
                if trouble.too_much:
                    self.pace.slower(wait_s)
                self.say(f"{self.endpoint.host} {trouble}; asked again in {wait_s:.0f} s.")
                await self._sleep(wait_s)

    async def _try(self, http: httpx.AsyncClient, request: Request) -> Answer:
        await self._afford(request)
        number, free = self.budget.reserve(request), False
        self.journal.sent(request)
        try:
            answer = await self._answer(http, request)
        except (Trouble, SlimtuneError) as error:
            free = not isinstance(error, Trouble) or error.free
            self.journal.failed(request, self._redacted(str(error)), free=free)
            self.budget.settle(number, free=free)
            raise
        self.journal.answered(request, answer)
        self.budget.settle(number, answer=answer)
        return answer

    async def _afford(self, request: Request) -> None:
        while not self.budget.holds(request):
            if self.stopping():
                raise Interrupted("Stopped.")
            if not self.budget.reserved:
                raise UserError(
                    f"The budget for {self.endpoint.model} does not hold another call: {self.budget.spent} of "
                    f"{self.budget.limit} are spent on {len(self.journal.answers):,} answers, which are kept. Raise "
                    "the budget and give the same command: only the others are asked for."
                )
            await asyncio.sleep(0.02)  # those under way will take less than was set aside

    async def _answer(self, http: httpx.AsyncClient, request: Request) -> Answer:
        """One try, and more at once where the service refuses a key of the request that can be left out."""
        began = time.monotonic()
        while True:
            without = self.without
            body = body_without(request.body, without)
            reply = await self._post(http, body)
            if reply.status == 200:
                try:
                    answer = read_answer(reply.text, seconds=time.monotonic() - began)
                except Unusable as error:
                    raise self._of_body(reply, error) from error
                return Answer(answer.completion, answer.status, answer.model, without)
            error = read_error(reply.text)
            if reply.status == 400 and error.get("code") == "content_filter":
                return filtered_answer(seconds=time.monotonic() - began)
            refused = refused_key(error, body) if reply.status in (400, 422) else None
            if refused is None:
                raise await self._refusal(http, request, reply, error)
            self.without = tuple(sorted({*self.without, refused}))
            self.say(f"{self.endpoint.host} does not take {refused}; it is asked without.")

    async def _post(self, http: httpx.AsyncClient, body: dict[str, Any]) -> Reply:
        try:
            async with (
                asyncio.timeout(self.endpoint.timeout_s),
                http.stream("POST", self.endpoint.url, json=body) as response,
            ):
                return Reply(response.status_code, self._redacted(await _whole(response)), response.headers)
        except TimeoutError as error:
            raise Trouble(f"was not done after {self.endpoint.timeout_s:.0f} s", free=False) from error
        except httpx.ConnectError as error:
            raise Trouble(f"cannot be reached ({self._redacted(str(error))})", free=True) from error
        except httpx.RequestError as error:
            said = str(error) or type(error).__name__
            raise Trouble(f"broke off ({self._redacted(said)})", free=False) from error

    async def _refusal(
        self, http: httpx.AsyncClient, request: Request, reply: Reply, error: dict[str, Any]
    ) -> Exception:
        """What an error means: to be tried again, or the end."""
        where, said = f"{self.endpoint.host} answered {reply.status}", _clipped(error["message"])
        if error.get("code") in _NO_CREDIT or error.get("type") in _NO_CREDIT or reply.status == 402:
            return UserError(f"{where}: the account has no credit left. The answers so far are kept.")
        if reply.status in _AGAIN or reply.status >= 500:
            return Trouble(
                f"answered {reply.status}", free=True, too_much=reply.status == 429, after_s=_retry_after(reply.headers)
            )
        if reply.status in (401, 403):
            return UserError(f"{where}: {self._about_key()}")
        if reply.status == 404:
            return UserError(f"{where} for the model {self.endpoint.model!r}: {said} {await self._models(http)}")
        if 300 <= reply.status < 400:
            return UserError(f"{where}, a redirect, which is not followed with a key. Give the address it leads to.")
        return UserError(f"{where} to the row {request.id}: {said}")

    def _of_body(self, reply: Reply, error: Unusable) -> Exception:
        """A body that came with 200 and holds no answer: some services report their failures so."""
        found = read_error(reply.text)
        code = found.get("code")
        if isinstance(code, int) and 400 <= code < 500 and code not in _AGAIN:
            return UserError(f"{self.endpoint.host} answered {code}: {_clipped(found['message'])}")
        return Trouble(str(error), free=isinstance(code, int))

    def _about_key(self) -> str:
        if self.endpoint.key_env is None:
            return "it wants a key. Name the environment variable that holds it: key_env in a recipe, --key-env here."
        return f"it refuses the key in {self.endpoint.key_env}. Set the variable to a valid one; nothing was asked."

    async def _models(self, http: httpx.AsyncClient) -> str:
        """What to say of the models that there are, where the service lists them."""
        try:
            reply = await http.get(f"{self.endpoint.base_url.rstrip('/')}/models", timeout=10)
            names = [entry["id"] for entry in strict_json(reply.text)["data"]] if reply.status_code == 200 else []
        except (httpx.RequestError, ValueError, KeyError, TypeError):  # a hint, and no more
            names = []
        if not names:
            return "Is base_url right? It ends before /chat/completions, most often with /v1."
        near = nearest(self.endpoint.model, names)
        return f"Did you mean {near!r}?" if near else f"Served there: {', '.join(map(str, names[:10]))}."

    def _wait_s(self, trouble: Trouble, request: Request, waits: int, *, given_up: bool) -> float:
        """Seconds until the next try. Raises ServiceAway where that is beyond patience."""
        jitter = random.Random(f"{request.key} {waits}")
        wait_s = trouble.after_s
        if wait_s is None:
            wait_s = jitter.uniform(0.05, min(_LONGEST_WAIT_S, 2.0 ** (waits - 2)))
        left_s = self.endpoint.patience_s - (time.monotonic() - self.last_answer)
        if given_up or wait_s > left_s:
            asks = f" and asks to wait {wait_s:,.0f} s" if trouble.after_s else ""
            raise ServiceAway(
                f"{self.endpoint.host} {trouble}{asks}: given up on row {request.id} after {waits} tries. The "
                f"{len(self.journal.answers):,} answers so far are kept. Give the same command later. It waits "
                f"{self.endpoint.patience_s:.0f} s at most (`patience_s` in a recipe)."
            ) from trouble
        return wait_s

    async def _sleep(self, wait_s: float) -> None:
        end = time.monotonic() + wait_s
        while (left := end - time.monotonic()) > 0:
            if self.stopping():
                raise Interrupted("Stopped.")
            await asyncio.sleep(min(left, 0.05))

    def _redacted(self, text: str) -> str:
        return text.replace(self.key, f"[{self.endpoint.key_env}]") if self.key else text


async def _whole(response: httpx.Response) -> str:
    """The body. Raises Trouble where it is larger than any answer."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MOST_BYTES:
            raise Trouble(f"answered with more than {MOST_BYTES >> 20} MiB", free=False)
    return body.decode("utf-8", "replace")


def _retry_after(headers: Any) -> float | None:
    """Seconds that a service asks to wait: Retry-After in seconds, or as a date by the service's own clock where it
    tells that; None where it says nothing usable."""
    given = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(given):
        return float(given)
    try:
        now = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
        return max(0.0, (parsedate_to_datetime(given) - now).total_seconds())
    except (ValueError, TypeError):
        return None


def _clipped(text: Any) -> str:
    """What a service says, short and on one line."""
    line = " ".join("".join(char if char.isprintable() else " " for char in str(text)).split())
    return line if len(line) <= 300 else f"{line[:300]}..."
