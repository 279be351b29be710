"""Fixtures of a service: its settings, the service itself, and a client that speaks to it without a network."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from anomalens.serving.settings import ServeSettings
from anomalens.serving.web_app import create_app

LOCAL = "http://127.0.0.1"


@pytest.fixture
def settings(tmp_path: Path) -> ServeSettings:
    """Return settings whose store and pictures lie in a folder of the test's own."""
    return ServeSettings(store=f"sqlite:///{tmp_path / 'history.db'}")


@pytest.fixture
def client(settings: ServeSettings) -> Iterator[TestClient]:
    """Return a client of a service that runs for the test."""
    with TestClient(create_app(settings), base_url=LOCAL) as client:
        yield client
