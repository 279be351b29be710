"""Tests of messages to webhooks: signed, sent again, kept when they never arrive."""

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from anomalens.errors import ConfigError
from anomalens.posting import checked_address
from anomalens.serving.webhooks import Messenger
from small_photos import photo

ROUTE = "/api/v1/webhooks"


class Receiver:
    """Hold a server that takes messages, and answers as it is told."""

    def __init__(self) -> None:
        self.messages: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.messages.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(outer.statuses.pop(0) if outer.statuses else 204)
                self.send_header("location", "http://127.0.0.1:9/elsewhere")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


def until(condition: Callable[[], object]) -> None:
    """Wait until something holds, 20 seconds at most."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def inspect(client: TestClient, seed: int, *, bright: bool = True) -> dict[str, Any]:
    answer: dict[str, Any] = client.post("/api/v1/inspections", content=photo(seed, bright=bright)).json()[
        "inspections"
    ][0]
    return answer


def test_a_message_is_signed_and_tells_of_the_anomalous_image_alone(client: TestClient, receiver: Receiver) -> None:
    hook = client.post(ROUTE, json={"url": receiver.url}).json()
    inspect(client, 1, bright=False)
    answer = inspect(client, 2)
    until(lambda: receiver.messages)
    headers, body = receiver.messages[0]
    message = json.loads(body)
    assert message["event"] == "anomalous"
    assert message["inspection"] == answer
    moment, _, shown = headers["x-anomalens-signature"].removeprefix("t=").partition(",v1=")
    expected = hmac.new(hook["secret"].encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    assert shown == expected
    assert abs(time.time() - int(moment)) < 60

    def deliveries() -> Any:
        return client.get(f"{ROUTE}/{hook['id']}/deliveries").json()["deliveries"]

    until(lambda: deliveries()[0]["state"] == "delivered")
    assert len(deliveries()) == 1
    assert "secret" not in client.get(ROUTE).text


def test_a_message_that_did_not_arrive_is_sent_again_and_kept_when_it_never_does(
    client: TestClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anomalens.serving.webhooks.PAUSES", (0, 0))
    receiver.statuses = [500, 302, 404]
    hook = client.post(ROUTE, json={"url": receiver.url}).json()
    inspect(client, 1)
    link = f"{ROUTE}/{hook['id']}/deliveries"
    until(lambda: client.get(link, params={"state": "dead"}).json()["deliveries"])
    dead = client.get(link, params={"state": "dead"}).json()["deliveries"][0]
    assert (dead["attempts"], dead["error"]) == (3, "answered 404")
    assert len(receiver.messages) == 3
    assert client.post(f"{link}/{dead['id']}/retry").json()["state"] == "waiting"
    until(lambda: client.get(link, params={"state": "delivered"}).json()["deliveries"])
    assert client.post(f"{link}/999/retry").status_code == 404


def test_messages_wait_while_nobody_listens(client: TestClient) -> None:
    hook = client.post(ROUTE, json={"url": "http://127.0.0.1:9/none"}).json()
    inspect(client, 1)

    def first() -> Any:
        return client.get(f"{ROUTE}/{hook['id']}/deliveries").json()["deliveries"][0]

    until(lambda: first()["attempts"] == 1)
    assert first()["state"] == "waiting"
    assert first()["due"] > first()["created"]
    assert client.delete(f"{ROUTE}/{hook['id']}").status_code == 204
    assert client.get(ROUTE).json()["webhooks"] == []
    assert client.delete(f"{ROUTE}/{hook['id']}").status_code == 404


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "ftp://a/b",
        "file:///etc/passwd",
        "http://",
        "http://u:p@a/",
        "http://a b/",
        "http://[::1",
        "http://ü/",
        "//a",
    ],
)
def test_what_is_no_address_is_refused(client: TestClient, url: str) -> None:
    with pytest.raises(ConfigError):
        checked_address(url)
    assert client.post(ROUTE, json={"url": url}).status_code == 422


def test_a_store_that_does_not_answer_is_asked_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing = [True] * 8 + [False] * 2
    pauses: list[float] = []

    class Stopping:
        def is_set(self) -> bool:
            return len(pauses) == 10

        def wait(self, seconds: float) -> None:
            pauses.append(seconds)

    def claim(_: Messenger) -> list[Any]:
        if failing.pop(0):
            raise OperationalError("", {}, Exception("connection refused"))
        return []

    monkeypatch.setattr(Messenger, "_claim", claim)
    messenger = Messenger.__new__(Messenger)
    monkeypatch.setattr(messenger, "_stopping", Stopping(), raising=False)
    messenger._run()
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30, 0.5, 0.5]
    assert len(caplog.records) == 8
