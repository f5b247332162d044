"""Gradio in half the time. What its import and its `Blocks` do for others, and an app that is served once has no use
for, is left out while they last, and then put back. Seen in Gradio 6.31."""

import contextlib
import functools
import importlib
import inspect
import ssl
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import jinja2


@contextlib.contextmanager
def quick_import() -> Iterator[None]:
    """While Gradio is imported. It parses the source of its every component to write type stubs beside it (a class that
    is in no file has none to write), compiles a docstring as a template for each of 216 events, reads the world's
    certificates for each of three clients, and imports pandas and IPython for caches, tables and notebooks."""
    file_of = inspect.getfile

    def fileless(thing: Any) -> str:
        if getattr(thing, "__module__", "").startswith("gradio."):
            raise OSError
        return file_of(thing)

    with (
        _instead(inspect, "getfile", fileless),
        _instead(jinja2, "Template", functools.cache(jinja2.Template)),
        _instead(ssl, "create_default_context", functools.cache(ssl.create_default_context)),
        later("pandas", "IPython"),
    ):
        yield


@contextlib.contextmanager
def unserved() -> Iterator[None]:
    """While a page is made. Its `Blocks` makes a server of 80 routes when it begins and another when it ends; `launch`
    makes the one that serves it."""
    from gradio.routes import App

    with _instead(App, "create_app", lambda *_, **__: None):
        yield


@contextlib.contextmanager
def later(*names: str) -> Iterator[None]:
    """While others import these, they get what stands for them, or an ImportError where they ask for a part of one."""
    absent = {name: _Later(name) for name in names if name not in sys.modules}
    sys.modules.update(absent)
    try:
        yield
    finally:
        for name, module in absent.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


class _Later(ModuleType):
    """Stands for a module until something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks for them, to see what a module is
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def _instead(owner: Any, name: str, thing: Any) -> Iterator[None]:
    was = vars(owner)[name]  # as it stands there: a static method stays one
    setattr(owner, name, thing)
    try:
        yield
    finally:
        setattr(owner, name, was)
