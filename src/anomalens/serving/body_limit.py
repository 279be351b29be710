"""Refuse bodies that are larger than the service takes, before they are read."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anomalens.serving.request_log import request_id


class BodyLimit:
    """Limit the bytes of a request's body; an ASGI middleware."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        """Stand before `app`; `most` is the largest number of bytes."""
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        reason = f"the request is larger than the limit of {self._most:,} bytes; send fewer or smaller images"
        if length.isdigit() and int(length) > self._most:
            await JSONResponse({"detail": reason, "request": request_id(scope)}, 413)(scope, receive, send)
            return
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                # Of this class, because everything else that stops the reading of a body is answered as 400.
                raise HTTPException(413, reason)
            return message

        await self._app(scope, limited, send)
