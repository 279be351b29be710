"""Decide who may ask: a token or a signed-in browser, from pages of this service alone, under an address it knows.

A request without a browser's marks (`Origin`, `Sec-Fetch-Site`) comes from a program and needs the token at most. One
of a browser that changes something must come from a page of this service and carry the page's token (`csrf_token`), so
that no other site can have a visitor's browser send it.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from anomalens.errors import InputError
from anomalens.files import atomic_write
from anomalens.serving.request_log import request_id
from anomalens.serving.settings import is_loopback
from anomalens.untrusted import read_bytes

COOKIE = "anomalens_session"
# What needs no token: signs of life for a supervisor, and what the page to sign in consists of.
_OPEN = ("/healthz", "/readyz", "/login")
_OPEN_BELOW = ("/static/",)
_SAFE = ("GET", "HEAD", "OPTIONS")
_WEEK = 7 * 24 * 3600  # seconds that a browser stays signed in

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "font-src 'self'; media-src 'self' blob:; manifest-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}
# Browsers heed it only where nobody can change a page on its way, and complain of it elsewhere.
_SECURE_HEADERS = _HEADERS | {"cross-origin-opener-policy": "same-origin"}


def answer_headers(scope: Scope) -> Mapping[str, str]:
    """Return what the answer to a request tells a browser.

    That is: load nothing from elsewhere, run no script of a page's text, guess no types; and, over HTTPS or on this
    machine alone, share no window with pages from elsewhere.
    """
    host = _host_of(Headers(scope=scope).get("host", ""))
    return _SECURE_HEADERS if scope["scheme"] == "https" or is_loopback(host) else _HEADERS


class Doorkeeper:
    """Know the token, and the marks that follow from it."""

    def __init__(self, token: str | None, key: bytes) -> None:
        """Keep a token, None where none is needed, and a secret key of this service."""
        self.token = token
        secret = key + (token or "").encode()
        self._session = hmac.new(secret, b"session", hashlib.sha256).hexdigest()
        self.form = hmac.new(secret, b"form", hashlib.sha256).hexdigest()

    def has_token(self, headers: Headers) -> bool:
        """Return whether a request shows the token as a bearer."""
        kind, _, shown = headers.get("authorization", "").partition(" ")
        return self.token is not None and kind.lower() == "bearer" and _same(shown.strip(), self.token)

    def is_signed_in(self, connection: HTTPConnection) -> bool:
        """Return whether a browser has signed in."""
        return _same(connection.cookies.get(COOKIE, ""), self._session)

    def sign_in(self, response: Response, token: str, *, secure: bool) -> bool:
        """Have a browser remembered where the token is right; return whether it is."""
        if self.token is None or not _same(token.strip(), self.token):
            return False
        response.set_cookie(
            COOKIE, self._session, max_age=_WEEK, httponly=True, samesite="strict", secure=secure, path="/"
        )
        return True


def _same(shown: str, secret: str) -> bool:
    """Compare in a time that says nothing about where two texts differ."""
    return hmac.compare_digest(shown.encode("utf-8", "surrogatepass"), secret.encode())


def form_key(folder: Path) -> bytes:
    """Return a secret key that lies in a folder; made at first."""
    path = folder / "form.key"
    if not path.exists():
        atomic_write(path, secrets.token_bytes(32))
        path.chmod(0o600)
    return read_bytes(path, named="key", most_bytes=64)


def csrf_token(request: Request) -> str:
    """Return what a page shows in its forms and sends in the header `X-CSRF-Token`."""
    return str(request.app.state.door.form)


def check_form(request: Request, shown: str) -> None:
    """Raise InputError unless a form shows the token of this service's pages."""
    if not _same(shown, request.app.state.door.form):
        raise InputError("this form was not sent from a page of this service, or is too old; load the page again")


def sign_in(request: Request, response: Response, token: str) -> bool:
    """Have a browser remembered where the token is right; return whether it is."""
    door: Doorkeeper = request.app.state.door
    return door.sign_in(response, token, secure=request.url.scheme == "https")


def sign_out(response: Response) -> None:
    """Have a browser forgotten."""
    response.delete_cookie(COOKIE, path="/")


class Door:
    """Let requests in that may come in; an ASGI middleware."""

    def __init__(self, app: ASGIApp, door: Doorkeeper) -> None:
        """Stand before `app`."""
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401, 403 or a way to the page to sign in."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(HTTPConnection(scope), scope["method"], scope["path"])
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, connection: HTTPConnection, method: str, path: str) -> Response | None:
        headers = connection.headers
        if self._door.token is None and not is_loopback(_host_of(headers.get("host", ""))):
            # Another name for this machine, by which a page from elsewhere would count as one of ours.
            return _refused(connection, 403, "without a token this service answers to localhost alone")
        bearer = self._door.has_token(headers)
        allowed = self._door.token is None or bearer or self._door.is_signed_in(connection)
        if not allowed and path not in _OPEN and not path.startswith(_OPEN_BELOW):
            if method == "GET" and "text/html" in headers.get("accept", "") and not path.startswith("/api/"):
                return RedirectResponse("/login", 303)
            return _refused(connection, 401, "show the token: Authorization: Bearer TOKEN")
        if method in _SAFE or bearer or not _from_browser(headers):
            return None
        if not _same_site(headers):
            return _refused(connection, 403, "a page from elsewhere may not send this")
        if path.startswith("/api/") and not _same(headers.get("x-csrf-token", ""), self._door.form):
            return _refused(connection, 403, "the header X-CSRF-Token is missing or too old; load the page again")
        return None


def _refused(connection: HTTPConnection, status: int, reason: str) -> JSONResponse:
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"detail": reason, "request": request_id(connection.scope)}, status, headers)


def _from_browser(headers: Headers) -> bool:
    return "origin" in headers or "sec-fetch-site" in headers


def _same_site(headers: Headers) -> bool:
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def _host_of(value: str) -> str:
    """Return the host in a Host header, without its port."""
    return urlsplit(f"//{value}").hostname or ""
