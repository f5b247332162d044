"""Where a served model is, whose key opens it, and how much it may be asked.

A key is known by the name of an environment variable. Its value is read when the first call is made, and stands in no
recipe, file, message or error.
"""

import ipaddress
import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from slimtune.errors import UserError

_KEY_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
_METADATA = {"metadata", "metadata.google.internal"}  # of clouds: they hand out their machine's credentials


@dataclass(frozen=True)
class Endpoint:
    """A served model. Raises UserError for an address or a name of a key that cannot be one."""

    model: str
    base_url: str
    """Up to the version: http://127.0.0.1:8000/v1."""
    key_env: str | None = None
    """The environment variable that holds the key; None: no key is sent."""
    concurrency: int = 4
    """Requests at once; fewer while the service says that it is too much."""
    max_new_tokens: int | None = None
    """Longest answer, thoughts included; the task's own limit where it is not given."""
    budget_usd: float | None = None
    budget_tokens: int | None = None
    usd_per_m_input: float | None = None
    """Dollars per million tokens of prompts."""
    usd_per_m_output: float | None = None
    timeout_s: float = 300.0
    """Longest time for one call."""
    patience_s: float = 300.0
    """How long a service that fails or holds off is waited for before the work stops, to be gone on with later."""

    def __post_init__(self) -> None:
        for wrong in (
            wrong_address(self.base_url),
            wrong_key_name(self.key_env) if self.key_env is not None else "",
            wrong_budget(self.budget_usd, self.usd_per_m_input, self.usd_per_m_output),
        ):
            if wrong:
                raise UserError(f"The endpoint of {self.model} cannot be used: {wrong}.")

    @property
    def url(self) -> str:
        return f"{self.base_url.rstrip('/')}/chat/completions"

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).netloc


def wrong_address(base_url: str) -> str:
    """What is wrong with a base URL, as a clause; empty where nothing is. Says no secret that stands in it."""
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "base_url is no address"
    if parts.scheme not in ("http", "https") or not host:
        return "base_url must begin with http:// or https://, as in http://127.0.0.1:8000/v1"
    if parts.username or parts.password or parts.query or parts.fragment:
        return "base_url may hold no user, password or query: a key is named by key_env"
    if parts.path.rstrip("/").endswith("/chat/completions"):
        return "base_url ends before /chat/completions, most often with /v1"
    if host in _METADATA or _link_local(host):
        return f"{host} is an address of this machine's host, not of a model"
    return ""


def wrong_key_name(name: str) -> str:
    """What is wrong with the name of a key's variable, as a clause; empty where nothing is. Never says the name: it
    may be the key itself."""
    if _KEY_NAME.fullmatch(name):
        return ""
    return "key_env must be the name of an environment variable in capitals, such as OPENAI_API_KEY, and never the key"


def wrong_budget(budget_usd: float | None, *prices: float | None) -> str:
    """What is wrong with a budget in dollars, as a clause; empty where nothing is."""
    if budget_usd is not None and None in prices:
        return "budget_usd needs both prices, usd_per_m_input and usd_per_m_output (0 where it is free)"
    return ""


def key_problem(endpoint: Endpoint) -> str:
    """Why the key cannot be sent, as a sentence; empty where it can."""
    if endpoint.key_env is None:
        return ""
    value = os.environ.get(endpoint.key_env, "").strip()
    if not value:
        return (
            f"The key of {endpoint.model} is read from the environment variable {endpoint.key_env}, which is not set. "
            f"Set it: export {endpoint.key_env}=... (in a notebook: %env, or os.environ before the run)."
        )
    if not value.isascii() or not value.isprintable():
        return f"What stands in {endpoint.key_env} is no key: it holds characters that no key has."
    return ""


def read_key(endpoint: Endpoint) -> str:
    """The key, or "" where none is sent. Raises UserError where its variable is not set."""
    if problem := key_problem(endpoint):
        raise UserError(problem)
    return os.environ[endpoint.key_env].strip() if endpoint.key_env is not None else ""


def in_clear(endpoint: Endpoint) -> bool:
    """Whether the key would cross a network unencrypted."""
    return endpoint.key_env is not None and endpoint.base_url.startswith("http:") and not loopback(endpoint.base_url)


def loopback(base_url: str) -> bool:
    """Whether the address is this machine."""
    host = urlsplit(base_url).hostname or ""
    return host == "localhost" or (_address(host) or ipaddress.ip_address("0.0.0.1")).is_loopback


def _link_local(host: str) -> bool:
    address = _address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return any(one is not None and one.is_link_local for one in (address, mapped))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:  # a name
        return None
