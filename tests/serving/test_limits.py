"""Tests of limits: bytes, pixels, images, the queue; each is said in the answer, and nothing fails inside."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

import odd_files
from anomalens.detection.session import Session
from anomalens.options import LoadOptions
from anomalens.serving.settings import ServeSettings
from anomalens.serving.web_app import create_app
from small_photos import photo

ROUTE = "/api/v1/inspections"


def files(count: int) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", (f"{seed}.png", photo(seed))) for seed in range(count)]


@pytest.fixture
def small(settings: ServeSettings, toy: None) -> Iterator[TestClient]:
    """Return a client of a service with small limits."""
    options = LoadOptions(max_pixels=20_000)
    narrow = replace(settings, max_bytes=60_000, max_images=3, max_queue=4, options=options, patience=30.0)
    with TestClient(create_app(narrow), base_url="http://127.0.0.1") as client:
        yield client


def test_limits_are_stated(small: TestClient) -> None:
    limits = small.get("/api/v1/limits").json()
    assert {name: limits[name] for name in ("bytes", "pixels", "images", "queue")} == {
        "bytes": 60_000, "pixels": 20_000, "images": 3, "queue": 4,
    }  # fmt: skip


def test_too_many_bytes(small: TestClient) -> None:
    large = b"\x89PNG\r\n\x1a\n" + bytes(60_001)
    for response in (
        small.post(ROUTE, content=large),
        small.post(ROUTE, files=[("images", ("a.png", large))]),
        small.post(ROUTE, files=[("images", ("a.png", photo())), ("images", ("b.png", large))]),
    ):
        assert response.status_code == 413
        assert "60,000" in response.json()["detail"]


def test_a_request_that_is_too_large_is_refused_before_it_is_read(small: TestClient) -> None:
    limit = small.get("/api/v1/limits").json()["request_bytes"]
    response = small.post(ROUTE, content=b"", headers={"Content-Length": str(limit + 1)})
    assert response.status_code == 413
    assert f"{limit:,}" in response.json()["detail"]

    def endless() -> Iterator[bytes]:
        for _ in range(limit // 1000 + 2):
            yield bytes(1000)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert small.post(ROUTE, content=endless(), headers=headers).status_code in (413, 422)
    assert small.post("/api/v1/webhooks", content=endless()).status_code == 413


def test_too_many_pixels(small: TestClient) -> None:
    response = small.post(ROUTE, content=photo(size=(200, 101)))
    assert response.status_code == 422
    assert "20,000" in response.json()["detail"]


def test_too_many_images(small: TestClient) -> None:
    response = small.post(ROUTE, files=files(4))
    assert response.status_code == 422
    assert "limit of 3" in response.json()["detail"]
    assert small.post(ROUTE, files=files(40)).status_code == 422


def test_a_full_queue_says_when_to_come_back_and_recovers(small: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, submit = threading.Event(), Session.submit

    def held(self: Session, *arguments: Any, **options: Any) -> Any:
        gate.wait(30)
        return submit(self, *arguments, **options)

    monkeypatch.setattr(Session, "submit", held)
    assert small.post(ROUTE, files=files(3), data={"wait": "false"}).status_code == 202
    refused = small.post(ROUTE, files=files(2), data={"wait": "false"})
    assert refused.status_code == 503
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "4 at most" in refused.json()["detail"]
    assert small.post(ROUTE, files=files(1), data={"wait": "false"}).status_code == 202
    assert "anomalens_queue_images 4.0" in small.get("/metrics").text
    gate.set()
    deadline = time.monotonic() + 30
    while small.post(ROUTE, files=files(3)).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    states = [row["state"] for row in small.get(ROUTE).json()["inspections"]]
    assert states.count("done") == len(states) == 7
    assert "anomalens_refused_total" in small.get("/metrics").text


def test_many_clients_lose_and_double_nothing(client: TestClient) -> None:
    def send(seed: int) -> str:
        response = client.post(ROUTE, params={"name": f"{seed}.png"}, content=photo(seed))
        assert response.status_code == 200
        return str(response.json()["inspections"][0]["id"])

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(send, range(48)))
    rows = client.get(ROUTE, params={"limit": 500}).json()["inspections"]
    assert sorted(row["id"] for row in rows) == sorted(ids)
    assert sorted(row["name"] for row in rows) == sorted(f"{seed}.png" for seed in range(48))


def test_odd_images_are_judged_or_refused_and_nothing_fails_inside(client: TestClient) -> None:
    odd = odd_files.odd_files()
    for begin in range(0, len(odd), 40):
        part = odd[begin : begin + 40]
        response = client.post(ROUTE, files=[("images", (file.name, file.content)) for file in part])
        assert response.status_code in (200, 422)
        if response.status_code == 422:
            assert all(file.pixels is None for file in part)
            continue
        for file, answer in zip(part, response.json()["inspections"], strict=True):
            assert answer["name"] == file.name
            if file.pixels is None:
                assert answer["state"] == "failed", file.name
                assert repr(file.name) in answer["error"]
                assert "media" not in answer["error"]
            else:
                assert answer["state"] == "done", (file.name, answer["error"])
                assert client.get(answer["links"]["overlay"], params={"side": 16}).status_code == 200


def test_forms_that_are_none(client: TestClient) -> None:
    for content, kind in (
        (b"", "multipart/form-data"),
        (b"--x", "multipart/form-data; boundary=x"),
        (b"garbage", "multipart/form-data; boundary=x"),
        (b"--x\r\n\r\n\r\n--x--", "multipart/form-data; boundary=x"),
        (b"\xff" * 100, "multipart/form-data; boundary=\xff"),
        (b"x", "image/png"),
        (b"{}", "application/json"),
    ):
        response = client.post(ROUTE, content=content, headers={b"content-type": kind.encode("latin-1")})
        assert response.status_code in (400, 413, 422), (content, kind, response.text)
        assert isinstance(response.json()["detail"], str)


def test_wrong_values_of_fields(client: TestClient) -> None:
    for fields in ({"wait": "perhaps"}, {"recipe": "a", "method": "auto"}):
        assert client.post(ROUTE, files=files(1), data=fields).status_code == 422
    assert client.post(ROUTE, content=photo(), headers={"Idempotency-Key": "x" * 201}).status_code == 422
    for route in ("/api/v1/recipes", "/api/v1/webhooks"):
        assert client.post(route, data={"name": "\x00"}).status_code == 422


def test_a_full_disk_is_an_answer(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr("anomalens.serving.media.atomic_write", full)
        response = client.post(ROUTE, content=photo(77))
        assert response.status_code == 503
        assert response.headers["retry-after"]
    assert client.get(ROUTE).json()["inspections"] == []
    assert client.post(ROUTE, content=photo(77)).status_code == 200


def test_only_one_service_uses_a_media_folder(client: TestClient, settings: ServeSettings, tmp_path: Path) -> None:
    from anomalens.errors import ConfigError

    with pytest.raises(ConfigError, match="another run"):
        create_app(replace(settings, store=f"sqlite:///{tmp_path / 'other.db'}", media=settings.media_folder))
