"""The app: what the command line does, to be seen and clicked. One file a tab; all that it knows stands in run folders,
and all that it starts are processes of their own, so closing the page stops nothing."""

import contextlib
import inspect
import os
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read at Gradio's import: nobody is told


@contextlib.contextmanager
def _without_stubs() -> Iterator[None]:
    """While Gradio is imported: it parses the source of its every component to write type stubs beside it, which takes
    half of its import. A class that is in no file has none to write (gradio/component_meta.py, 6.31)."""
    file_of = inspect.getfile

    def fileless(thing: Any) -> str:
        if getattr(thing, "__module__", "").startswith("gradio."):
            raise OSError
        return file_of(thing)

    inspect.getfile = fileless
    try:
        yield
    finally:
        inspect.getfile = file_of


with _without_stubs():
    import gradio  # noqa: F401  before the modules of this room, which use it
