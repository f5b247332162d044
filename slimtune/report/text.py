"""Words and numbers as a report shows them, and text of a model or a dataset made harmless first.

Text that came from outside is data. `clean` takes out what acts on a terminal or hides what is there; `escape_markdown`
and `fenced` keep it from acting in Markdown; in HTML, Jinja's autoescaping does that.
"""

import math
import re
from typing import Any

from slimtune.stats import Interval

_ESCAPES = re.compile(
    r"\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # operating system commands: window titles, links
    r"|[\x1b\x9b]\[?[0-?]*[ -/]*[@-~]"  # control sequences: colours, cursor, erase
)
_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_UNSEEN = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_MARKS = re.compile(r"[\\`*_~|$]|!(?=\[)|\](?=[(\[])")


def clean(value: Any) -> Any:
    """A JSON value whose texts hold no escape sequences, control or direction characters, and whose numbers are
    finite or text."""
    if isinstance(value, str):
        value = _LINE_ENDS.sub("\n", _ESCAPES.sub("", value))
        return _SURROGATES.sub("\ufffd", _UNSEEN.sub("", value))
    if isinstance(value, dict):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def escape_markdown(text: str) -> str:
    """One line that Markdown, tables included, shows as it is written."""
    line = " ".join(text.split("\n"))
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKS.sub(lambda mark: "\\" + mark.group(), line)


def fenced(text: str) -> str:
    """A code block that the text inside it cannot close."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def clip(text: str, longest: int = 600) -> str:
    """The beginning and the end of a long text, with what was left out counted between them."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters ...]\n{text[-half:]}"


def signed(interval: Interval, digits: int = 2) -> str:
    """A difference: "+0.62 [0.53, 0.70]"."""
    return f"{interval.value:+.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def p_value(p: float) -> str:
    if p < 1e-300:
        return "p < 1e-300"
    return f"p = {p:.1g}" if p < 0.001 else f"p = {p:.3f}"


def percent(share: Any) -> str:
    return f"{share:.1%}" if number(share) else "-"


def integer(value: Any) -> str:
    return f"{value:,.0f}" if number(value) else "-"


def gib(value: Any) -> str:
    return f"{value:.2f} GiB" if number(value) else "-"


def usd(value: Any) -> str:
    """Dollars; under a cent with two digits that say something."""
    if not number(value):
        return "-"
    return f"${value:,.2f}" if value >= 0.01 or value == 0 else f"${value:.2g}"


def duration(seconds: Any) -> str:
    if not number(seconds):
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def number(value: Any) -> bool:
    """A finite number, and not True or False."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as rows: ("train.lr", "0.0002")."""
    rows: list[tuple[str, str]] = []
    for key, item in value.items():
        if isinstance(item, dict):
            rows += flat(item, f"{prefix}{key}.")
        else:
            shown = ", ".join(map(str, item)) if isinstance(item, list) else str(item)
            rows.append((f"{prefix}{key}", "-" if item is None else shown))
    return rows
