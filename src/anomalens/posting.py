"""Post JSON to an address, and say in words why it did not arrive."""

from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from anomalens._version import __version__
from anomalens.errors import ConfigError, one_line

_LONGEST_ADDRESS = 2000


def checked_address(url: str) -> str:
    """Return an address. Raises ConfigError where it is no http or https address without a password in it."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or len(url) > _LONGEST_ADDRESS or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(f"{url!r:.100} is no address to call: use https://HOST/PATH")
    if parts.username or parts.password:
        raise ConfigError(
            "an address with a name or password in it would be shown to others; use a secret path instead"
        )
    return url


def post_json(url: str, body: bytes, *, seconds: float, headers: Mapping[str, str] | None = None) -> str | None:
    """Post `body`; return why it did not arrive, or None.

    seconds: how long the receiver may be silent.
    """
    shown = {"Content-Type": "application/json", "User-Agent": f"anomalens/{__version__}", **(headers or {})}
    try:
        with build_opener(_NoRedirects()).open(Request(url, body, shown), timeout=seconds) as answer:
            return None if 200 <= answer.status < 300 else f"answered {answer.status}"
    except HTTPError as error:
        error.close()
        return f"answered {error.code}"
    except Exception as error:
        return one_line(error)


class _NoRedirects(HTTPRedirectHandler):
    """Follow no redirect: what is sent goes to the address that was named, or nowhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Return that there is nothing to follow."""
        return
