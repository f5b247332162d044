"""The app: what the command line does, to be seen and clicked. One file a tab; all that it knows stands in run folders,
and all that it starts are processes of their own, so closing the page stops nothing."""

import os

from slimtune.app.quick import quick_import

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read at Gradio's import: nobody is told

with quick_import():
    import gradio  # noqa: F401  before the modules of this room, which use it
