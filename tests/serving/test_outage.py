"""Stop the database under a running service, and start it again."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from anomalens.serving.settings import ServeSettings
from anomalens.serving.web_app import create_app
from plant_database import Plant, new_database, plant_server
from small_photos import photo

ROUTE = "/api/v1/inspections"
PAGES = ("/", "/teach", "/history", "/watch")


@pytest.fixture(scope="module")
def plant() -> Iterator[Plant]:
    """Run a database server that may be stopped."""
    with plant_server() as plant:
        yield plant


def test_while_the_database_is_away_everything_says_so_and_afterwards_goes_on(
    plant: Plant, toy: None, tmp_path: Path
) -> None:
    settings = ServeSettings(store=new_database(plant.address), media=tmp_path / "media")
    app = create_app(settings)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        before = client.post(ROUTE, params={"wait": "true"}, content=photo()).json()["inspections"][0]
        plant.stop()
        for path in (ROUTE, f"{ROUTE}/{before['id']}", "/api/v1/statistics", "/api/v1/recipes", "/readyz"):
            answer = client.get(path)
            assert answer.status_code == 503, path
            assert answer.json()["detail"].startswith("the store does not answer")
            assert answer.json()["request"] == answer.headers["x-request-id"]
        answer = client.post(ROUTE, content=photo())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        for path in PAGES:
            answer = client.get(path, headers={"Accept": "text/html"})
            assert answer.status_code == 503, path
            assert "The store does not answer" in answer.text
        assert client.get("/healthz").status_code == 200
        plant.start()
        assert client.get("/readyz").status_code == 200
        assert all(client.get(path, headers={"Accept": "text/html"}).status_code == 200 for path in PAGES)
        after = client.post(ROUTE, params={"wait": "true"}, content=photo()).json()["inspections"][0]
        assert after["score"] == before["score"]
        assert len(client.get(ROUTE).json()["inspections"]) == 2


def test_what_was_accepted_is_answered_though_the_database_fails_meanwhile(
    plant: Plant, toy: None, tmp_path: Path
) -> None:
    app = create_app(ServeSettings(store=new_database(plant.address), media=tmp_path / "media"))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        files = [("images", (f"{number}.png", photo())) for number in range(20)]
        accepted = client.post(ROUTE, files=files, data={"wait": "false"})
        plant.stop()
        assert accepted.status_code in (200, 202)
        plant.start()
        until = time.monotonic() + 60
        while time.monotonic() < until:
            inspections = client.get(ROUTE, params={"limit": 50}).json()["inspections"]
            if all(inspection["state"] == "done" for inspection in inspections):
                break
            time.sleep(0.2)
        assert [inspection["state"] for inspection in inspections] == ["done"] * 20
