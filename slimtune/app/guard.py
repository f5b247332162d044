"""Between the app and whoever calls it: errors become sentences, and pages from elsewhere are turned away."""

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from slimtune.errors import SlimtuneError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_BUG = "This is a bug in slimtune. What happened stands in the terminal that runs the app."


def guard(page: gr.Blocks) -> None:
    """Let no handler of the page end in silence: what goes wrong is shown there, as a sentence."""
    for event in page.fns.values():
        if event.fn is not None:
            event.fn = _guarded(event.fn)


def _guarded(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    def answer(*values: Any) -> Any:
        try:
            return handler(*values)
        except Exception as error:  # the boundary: nothing above it speaks to a person
            raise _shown(error) from error

    @functools.wraps(handler)
    def answers(*values: Any) -> Iterator[Any]:
        try:
            yield from handler(*values)
        except Exception as error:  # the boundary, as above
            raise _shown(error) from error

    return answers if inspect.isgeneratorfunction(handler) else answer


def _shown(error: Exception) -> gr.Error:
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, SlimtuneError):
        return gr.Error(str(error), print_exception=False)
    logging.getLogger("slimtune").exception(_BUG, exc_info=error)
    return gr.Error(_BUG, print_exception=False)


class OnlyThisMachine:
    """Answers pages of this machine's own addresses and no others. A page from elsewhere can send a browser here, under
    a name of its own that it points at this machine, or with a form; without a password it would be let in."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope.get("headers", ())}
        asked, origin = headers.get("host", ""), headers.get("origin")
        foreign = not _is_here(f"//{asked}") or (origin is not None and not _is_here(origin))
        if scope["type"] == "http" and foreign:
            await PlainTextResponse("This app is for its own machine.", status_code=403)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _is_here(url: str) -> bool:
    try:
        return urlsplit(url).hostname in LOOPBACK
    except ValueError:
        return False
