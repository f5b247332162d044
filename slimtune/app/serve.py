"""Serves the app: to this machine alone, or to others behind a password."""

import os
import secrets
from dataclasses import dataclass

import gradio as gr
from starlette.middleware import Middleware

from slimtune.app.guard import LOOPBACK, OnlyThisMachine
from slimtune.app.look import css, theme
from slimtune.app.page import make_page
from slimtune.app.quick import later
from slimtune.draft import MOST_UPLOAD_MB
from slimtune.errors import UserError

PASSWORD = "SLIMTUNE_APP_PASSWORD"  # the variable that may hold one
USER = "slimtune"


@dataclass(frozen=True)
class Served:
    """A running app. `password` is one that was made for it, to be told once; None where it needs none, or has one
    from the environment."""

    page: gr.Blocks
    url: str
    public_url: str | None
    password: str | None

    def wait(self) -> None:
        """Until Ctrl-C."""
        self.page.block_thread()

    def close(self) -> None:
        self.page.close(verbose=False)


def serve(*, host: str, port: int | None, share: bool, inline: bool = False) -> Served:
    """Start the app over the runs of the current folder. `port` None: the first free one from 7860 on.

    Whoever is not on this machine needs the user "slimtune" and a password: from SLIMTUNE_APP_PASSWORD, or made here.
    Raises UserError where the address cannot be had.
    """
    alone = host in LOOPBACK and not share
    given = os.environ.get(PASSWORD)
    password = None if alone and not given else given or secrets.token_urlsafe(12)
    middleware = [Middleware(OnlyThisMachine)] if alone and not inline else []  # a notebook's proxy has its own names
    with later("IPython"):  # imported to be asked whether this is a notebook; in one, it is there already
        page = make_page()
        try:
            _, url, public_url = page.launch(
                server_name=host, server_port=port, share=share, auth=(USER, password) if password else None,
                inline=inline, quiet=True, show_error=False, prevent_thread_lock=True,
                max_file_size=f"{MOST_UPLOAD_MB}mb", enable_monitoring=False, run_history=False, ssr_mode=False,
                footer_links=[], css=css(), theme=theme(), app_kwargs={"middleware": middleware},
                ssl_verify=False,  # of its own address, which is http
            )  # fmt: skip
        except OSError as error:
            raise UserError(f"{host}:{port or 'any port'} cannot be had. Choose another --host or --port.") from error
    return Served(page, url, public_url, None if given else password)


def show_in_notebook() -> Served:
    """The app in a notebook's cell, over the runs of the current folder. On Colab it comes through the notebook's own
    proxy: there is no public link."""
    return serve(host="127.0.0.1", port=None, share=False, inline=True)
