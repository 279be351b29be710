"""Number every request, time it, write a line of JSON about it, and give its answer the usual headers."""

import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from starlette.datastructures import Headers, MutableHeaders
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anomalens.serving.measures import Measures

_log = logging.getLogger("anomalens.serving.requests")
_NUMBER = re.compile(r"[\w.-]{1,64}")
_KEY = "anomalens.request"


def request_id(scope: Scope) -> str:
    """Return the number of a request."""
    return str(scope.get(_KEY, ""))


class RequestLog:
    """Log and measure requests; an ASGI middleware.

    A line has no query, header or body: these may hold names, tokens and pictures.
    """

    def __init__(self, app: ASGIApp, measures: Measures, headers: Callable[[Scope], Mapping[str, str]]) -> None:
        """Stand before `app`; `headers` says for a request what its answer gets that does not set them itself."""
        self._app, self._measures, self._headers = app, measures, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and log how it was answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("x-request-id", "")
        scope[_KEY] = asked if _NUMBER.fullmatch(asked) else uuid.uuid4().hex[:16]
        begin, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = scope[_KEY]
                for name, value in self._headers(scope).items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            seconds = time.perf_counter() - begin
            method, route = scope["method"], _route(scope)
            self._measures.request(method if route != "none" else "other", route, status, seconds)
            client = scope.get("client")
            facts = {
                "request": request_id(scope),
                "method": method,
                "path": scope["path"],
                "status": status,
                "ms": round(1000 * seconds, 1),
                "client": client[0] if client else None,
            }
            _log.info("request", extra={"facts": facts})


class JsonLines(logging.Formatter):
    """Write each record as a line of JSON: time, level, message, and the facts that it comes with."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": moment, "level": record.levelname.lower(), "message": record.getMessage()}
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _route(scope: Scope) -> str:
    """Return the pattern of a request's address, "none" where there is no such route."""
    if "endpoint" not in scope:
        return "none"
    path, parameters = str(scope["path"]), scope.get("path_params", {})
    if isinstance(scope["endpoint"], StaticFiles):
        return "/static"
    for name, value in parameters.items():
        path = path.replace(f"/{value}", f"/{{{name}}}", 1)
    return path
