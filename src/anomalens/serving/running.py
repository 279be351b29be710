"""Listen on a socket and answer until the process is asked to stop."""

import logging
import signal
import socket
from contextlib import closing
from typing import TYPE_CHECKING, TextIO

from anomalens.errors import ConfigError
from anomalens.serving.request_log import JsonLines

if TYPE_CHECKING:
    from fastapi import FastAPI

# Seconds that open requests may take to end when the service stops.
_GRACE = 60


def bind(host: str, port: int) -> "closing[socket.socket]":
    """Return a socket that listens on an interface. Raises ConfigError where that is not possible."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(256)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"cannot listen on {host}, port {port}: {reason}; choose another --port or --host") from error
    return closing(listener)


def log_to(stream: TextIO, level: int) -> None:
    """Write the log of the service and of the HTTP server as lines of JSON."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    for name, least in (("anomalens.serving", level), ("uvicorn.error", logging.WARNING)):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(max(level, least))


def run(app: "FastAPI", listener: socket.socket) -> None:
    """Answer requests until SIGINT or SIGTERM; then answer what was accepted, and return."""
    import uvicorn

    for number in (signal.SIGINT, signal.SIGTERM):
        # The server handles both, and raises them again at its end, when all is done.
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
        timeout_keep_alive=30,
        lifespan="on",
    )
    uvicorn.Server(config).run(sockets=[listener])
