"""Fixtures of a service: the store, its settings, a toy that judges, and a client that needs no network."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import toys
from anomalens.backbones.tower import Clip
from anomalens.decision.calibration import Calibration
from anomalens.serving.database import Database
from anomalens.serving.settings import ServeSettings
from anomalens.serving.web_app import create_app
from plant_database import new_database, plant_database

LOCAL = "http://127.0.0.1"


@pytest.fixture(scope="session")
def plant() -> Iterator[str]:
    """Return the address of a PostgreSQL server without a database of its own."""
    with plant_database() as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of an empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'history.db'}"
    return new_database(request.getfixturevalue("plant"))


@pytest.fixture
def database(address: str) -> Iterator[Database]:
    """Return an empty store, of each kind."""
    database = Database(address)
    yield database
    database.close()


@pytest.fixture
def settings(tmp_path: Path) -> ServeSettings:
    """Return settings whose store and pictures lie in a folder of the test's own."""
    return ServeSettings(store=f"sqlite:///{tmp_path / 'history.db'}")


@pytest.fixture
def toy(tiny_clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a toy judge where no recipe does: the score is the mean of the red channel, and above 0.5 anomalous."""
    calibration = Calibration(0.5, 0.6, (0.0, 1.0), "by hand", tuple(value / 20 for value in range(10)))
    detector = toys.make(tiny_clip, calibration)
    monkeypatch.setattr("anomalens.serving.service.load_detector", lambda options: detector)


@pytest.fixture
def client(settings: ServeSettings, toy: None) -> Iterator[TestClient]:
    """Return a client of a service in which the toy judges."""
    with TestClient(create_app(settings), base_url=LOCAL, raise_server_exceptions=False) as client:
        yield client
