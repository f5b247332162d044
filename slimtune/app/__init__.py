"""The app: what the command line does, to be seen and clicked. One file a tab; all that it knows stands in run folders,
and all that it starts are processes of their own, so closing the page stops nothing."""

import contextlib
import gc
import inspect
import os
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read at Gradio's import: nobody is told


@contextlib.contextmanager
def _quick_import() -> Iterator[None]:
    """While Gradio is imported, in half the time. It parses the source of its every component to write type stubs
    beside it; a class that is in no file has none to write (gradio/component_meta.py, 6.31). And nothing of a thousand
    modules is garbage yet."""
    file_of = inspect.getfile

    def fileless(thing: Any) -> str:
        if getattr(thing, "__module__", "").startswith("gradio."):
            raise OSError
        return file_of(thing)

    inspect.getfile = fileless
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        inspect.getfile = file_of


with _quick_import():
    import gradio  # noqa: F401  before the modules of this room, which use it
