"""How the app looks: its theme, its style sheet, and HTML made of templates. What came from a model or from data is
escaped by the templates, as in a report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from slimtune.report.render import TEMPLATES, pages

_HERE = Path(__file__).parent / "templates"
_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
SORT = (_HERE / "sort.js").read_text(encoding="utf-8")  # a click on a heading sorts its table
CELLS = (_HERE / "cells.js").read_text(encoding="utf-8")  # a click on a score opens its cell below
_PAGES = pages(_HERE)


def html(template: str, values: Mapping[str, Any]) -> str:
    """A fragment of the page, from templates/TEMPLATE.html.jinja."""
    return _PAGES.get_template(f"{template}.html.jinja").render(values)


def sentence(text: str, kind: str = "soft") -> str:
    """One paragraph: `kind` "soft" for what is empty yet, "bad" for what went wrong, "good" for what went well."""
    return html("sentence", {"text": text, "kind": kind})


def css() -> str:
    """The app's own rules, and a report's and a leaderboard's for those that stand inside the page."""
    report = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "board.css"))
    return (_HERE / "app.css").read_text(encoding="utf-8") + f".slim-report {{\n{report}\n}}\n"


def theme() -> gr.themes.Base:
    """Quiet, with fonts of the system: nothing is fetched."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.indigo, neutral_hue=gr.themes.colors.slate, font=_FONTS, font_mono=_MONO,
        radius_size=gr.themes.sizes.radius_md, text_size=gr.themes.sizes.text_md,
    ).set(
        body_background_fill="#ffffff", body_background_fill_dark="#12161c",
        block_background_fill="#ffffff", block_background_fill_dark="#1a2029",
        button_primary_background_fill="#4263eb", button_primary_background_fill_hover="#3552d1",
        button_primary_background_fill_dark="#4263eb", button_primary_background_fill_hover_dark="#5474f5",
        button_primary_text_color="#ffffff", button_primary_text_color_dark="#ffffff",
        block_label_text_color="#3b4454", block_label_text_color_dark="#c3cad6",
        block_title_text_color="#1f2733", block_title_text_color_dark="#dfe4ec",
        block_info_text_color="#5c6675", block_info_text_color_dark="#98a2b3",
    )  # fmt: skip
