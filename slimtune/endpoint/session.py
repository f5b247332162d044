"""Many requests to one endpoint, a few at once. A session answers examples like any model: `Session.generate`.

The calls are made in a thread with an event loop of its own, so that a notebook's loop is not in the way, and what has
come in is kept before anybody here has seen it.
"""

import asyncio
import contextlib
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimtune.data import Completion, Example
from slimtune.endpoint.budget import Budget, taken
from slimtune.endpoint.journal import Journal, open_journal
from slimtune.endpoint.settings import Endpoint, loopback, read_key
from slimtune.endpoint.wire import Answer, Request, request_of
from slimtune.errors import Interrupted

if TYPE_CHECKING:
    import httpx

    from slimtune.endpoint.call import Caller

_LOOK_S = 0.05  # how often it is looked whether to stop
_GRACE_S = 20.0  # for calls under way when the work stops: they are paid for


@contextlib.contextmanager
def asking(
    endpoint: Endpoint,
    *,
    journal: Path,
    say: Callable[[str], None] = lambda text: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator["Session"]:
    """A session with an endpoint, whose answers are kept in `journal`. `say` hears of waits and refusals.

    Raises UserError where the key is not set, or where another process has the journal.
    """
    key = read_key(endpoint)
    with open_journal(journal) as kept:
        session = Session(endpoint, key, kept, say=say, should_stop=should_stop)
        try:
            yield session
        finally:
            session.end()


class Session:
    """Opened by `asking`."""

    def __init__(
        self,
        endpoint: Endpoint,
        key: str,
        journal: Journal,
        *,
        say: Callable[[str], None],
        should_stop: Callable[[], bool],
    ):
        self.endpoint, self._key, self._journal = endpoint, key, journal
        self._say, self._should_stop = say, should_stop
        self._budget = Budget(endpoint)
        self._budget.spend(taken(answer) for answer in journal.answers.values())
        self._budget.spend(journal.lost)
        self._crew: _Crew | None = None
        self._asked: dict[str, None] = {}

    def forget(self) -> None:
        """Use no answer so far again; what they took stays spent."""
        self._journal.forget()

    def generate(self, examples: Sequence[Example], limit: int) -> Iterator[tuple[int, Completion]]:
        """Answers as they come, those known first: the `Generate` of slimtune.evaluate. `limit` is the longest answer
        in tokens, unless the endpoint has a limit of its own.

        Raises UserError for what must change first (key, model, budget), ServiceAway, and Interrupted when asked to
        stop; the answers so far are kept each time.
        """
        limit = self.endpoint.max_new_tokens or limit
        requests = [
            request_of(example, url=self.endpoint.url, model=self.endpoint.model, max_tokens=limit)
            for example in examples
        ]
        places: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            places.setdefault(request.key, []).append(index)
        self._asked |= dict.fromkeys(places)
        waiting = [requests[same[0]] for key, same in places.items() if key not in self._journal.answers]
        for key, same in places.items():
            if key in self._journal.answers:
                yield from ((index, self._journal.answers[key].completion) for index in same)
        for key, answer in self._come(waiting):
            yield from ((index, answer.completion) for index in places[key])

    def facts(self) -> dict[str, Any]:
        """What answered the examples asked so far: the model, by its own word, and what it took. `lost_calls` were made
        and never answered; `usd` is None without prices, and holds the answers only."""
        answers = [self._journal.answers[key] for key in self._asked if key in self._journal.answers]
        prompt, answer = (sum(counts) for counts in zip(*map(taken, answers), strict=True)) if answers else (0, 0)
        paid = Budget(self.endpoint, prompt, answer)
        return {
            "model": self.endpoint.model,
            "base_url": self.endpoint.base_url,
            "answered_by": dict(Counter(answer.model for answer in answers if answer.model)),
            "answers": len(answers),
            "refused": sum(answer.status == "refused" for answer in answers),
            "filtered": sum(answer.status == "filtered" for answer in answers),
            "without": sorted({key for answer in answers for key in answer.without}),
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "usd": paid.usd,
            "lost_calls": len(self._journal.lost),
        }

    def end(self) -> None:
        """Leave no call and no thread behind."""
        if self._crew is not None:
            self._crew.end()
            self._crew = None

    def _come(self, waiting: Sequence[Request]) -> Iterator[tuple[str, Answer]]:
        """The answers of the endpoint, as they come."""
        if not waiting:
            return
        self._crew = crew = _Crew(self._caller, waiting, self.endpoint)
        crew.start()
        while True:
            if self._should_stop():
                crew.wind_down()
                raise Interrupted(
                    f"Stopped while asking {self.endpoint.model}; the answers so far are kept. Run the same command."
                )
            match crew.next():
                case None:
                    continue
                case str(text):
                    self._say(text)
                case Exception() as error:
                    raise error
                case _End():
                    break
                case (key, answer):
                    yield key, answer
        self.end()

    def _caller(self, say: Callable[[str], None], stopping: Callable[[], bool]) -> "Caller":
        from slimtune.endpoint.call import Caller

        return Caller(self.endpoint, self._key, self._journal, self._budget, say=say, stopping=stopping)


class _End:
    """Everything was asked."""


class _Crew:
    """The thread that calls. What comes of it is read with `next`: an answer, a sentence, an error, or the end."""

    def __init__(
        self,
        caller: Callable[[Callable[[str], None], Callable[[], bool]], "Caller"],
        requests: Sequence[Request],
        endpoint: Endpoint,
    ):
        self._came: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._requests, self._endpoint = iter(requests), endpoint
        self._stopping = threading.Event()
        self._caller = caller(self._came.put, self._stopping.is_set)
        self._work: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="slimtune-endpoint", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def next(self) -> Any:
        """What came next; None where nothing has for a moment."""
        try:
            return self._came.get(timeout=_LOOK_S)
        except queue.Empty:
            return None

    def wind_down(self) -> None:
        """Make no more calls, and give those under way a while to be answered: they are paid for."""
        self._stopping.set()
        self._thread.join(_GRACE_S)

    def end(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has just ended
                self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join(_GRACE_S)

    def _cancel(self) -> None:
        if self._work is not None:
            self._work.cancel()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._work = self._loop.create_task(self._all())
            self._loop.run_until_complete(self._work)
            self._came.put(_End())
        except asyncio.CancelledError:
            self._came.put(_End())
        except Exception as error:  # handed to whoever reads; nothing is hidden
            self._came.put(error)
        finally:
            self._loop.close()

    async def _all(self) -> None:
        async with self._http() as http:
            workers = [asyncio.create_task(self._one_by_one(http)) for _ in range(self._endpoint.concurrency)]
            try:
                ended = await asyncio.gather(*workers, return_exceptions=True)
            except asyncio.CancelledError:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
                raise
        errors = [error for error in ended if isinstance(error, Exception)]
        real = [error for error in errors if not isinstance(error, Interrupted)]
        if errors:
            raise (real or errors)[0]

    async def _one_by_one(self, http: "httpx.AsyncClient") -> None:
        """Ask what is next until nothing is, or something is wrong: then nobody begins another."""
        for request in self._requests:
            if self._stopping.is_set():
                return
            try:
                answer = await self._caller.ask(http, request)
            except Exception:
                self._stopping.set()
                raise
            self._came.put((request.key, answer))

    def _http(self) -> "httpx.AsyncClient":
        import httpx

        key = self._caller.key
        return httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(self._endpoint.timeout_s, connect=min(15.0, self._endpoint.timeout_s), pool=None),
            limits=httpx.Limits(max_connections=None),
            follow_redirects=False,
            trust_env=not loopback(self._endpoint.base_url),  # a proxy has no way to this machine's own ports
        )
