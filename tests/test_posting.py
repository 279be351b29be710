"""Post JSON to a server of the test's own."""

import http.server
import threading
from collections.abc import Iterator

import pytest

from anomalens.posting import post_json


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Run a server; give its address and what it was sent. /moved leads elsewhere, /full refuses."""
    received: list[tuple[str, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response({"/moved": 302, "/full": 503}.get(self.path, 204))
            self.send_header("Location", "/")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    server.server_close()


def test_what_arrives_and_what_does_not(receiver: tuple[str, list[tuple[str, bytes]]]) -> None:
    address, received = receiver
    assert post_json(f"{address}/", b"{}", seconds=5) is None
    assert post_json(f"{address}/full", b"{}", seconds=5) == "answered 503"
    # A redirect is not followed.
    assert post_json(f"{address}/moved", b"{}", seconds=5) == "answered 302"
    assert received == [("/", b"{}"), ("/full", b"{}"), ("/moved", b"{}")]
    assert post_json("http://127.0.0.1:1/", b"{}", seconds=5)
