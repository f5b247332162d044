"""One report as a page and as Markdown. Both templates see the same values, and both are safe unless told otherwise:
HTML is autoescaped, and every value put into Markdown is escaped unless a filter here already made it Markdown."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from slimtune.report import text
from slimtune.wording import counted

TEMPLATES = Path(__file__).parent / "templates"
_TICKED = re.compile(r"`([^`\n]+)`")
_FORMATS = {
    "counted": counted,
    "percent": text.percent,
    "integer": text.integer,
    "duration": text.duration,
    "gib": text.gib,
    "usd": text.usd,
    "signed": text.signed,
    "p_value": text.p_value,
    "breakable": lambda name: Markup(str(escape(name)).replace("_", "_<wbr>")),
    "code": lambda words: Markup(_TICKED.sub(r"<code>\1</code>", str(escape(words)))),
}


def as_html(values: dict[str, Any], template: str = "report.html.jinja") -> str:
    return pages().get_template(template).render(values)


def as_fragment(values: dict[str, Any]) -> str:
    """What stands in the page, for a page of somebody else's."""
    return pages().get_template("main.html.jinja").render(values)


def as_markdown(values: dict[str, Any], template: str = "report.md.jinja") -> str:
    environment = _environment((), autoescape=False)
    environment.finalize = _escaped
    environment.filters["fenced"] = lambda value: Markup(text.fenced(value))
    environment.filters["markdown"] = Markup
    return environment.get_template(template).render(values)


def pages(*folders: Path) -> Environment:
    """The templates of a report, and those of `folders` beside them, for HTML: what is put in is escaped."""
    return _environment(folders, autoescape=True)


def _environment(folders: Sequence[Path], *, autoescape: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader([TEMPLATES, *folders]),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(_FORMATS)
    return environment


def _escaped(value: Any) -> str:
    return value if isinstance(value, Markup) else text.escape_markdown(str(value))
