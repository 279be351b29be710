"""Tests of recipes: taught in the background, kept in versions, improved from reviews, begun again after a stop."""

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from sqlalchemy.exc import OperationalError

from anomalens.detection.recipe import read_recipe
from anomalens.options import LoadOptions
from anomalens.serving.settings import ServeSettings
from anomalens.serving.teaching_jobs import TeachingJobs
from anomalens.serving.web_app import create_app
from small_photos import photo

ROUTE = "/api/v1/recipes"
SMALL = LoadOptions(size=112, extra_sizes=())
GOOD = [("images", (f"good {seed}.png", photo(seed))) for seed in range(4)]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Return a client of a service with the recipe "part", taught from four photos; tests add versions and others."""
    settings = ServeSettings(store=f"sqlite:///{tmp_path_factory.mktemp('taught') / 'h.db'}", options=SMALL)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        job = finished(client, client.post(ROUTE, data={"name": "part"}, files=GOOD))
        assert job["state"] == "done", job
        yield client


def finished(client: TestClient, response: Any) -> dict[str, Any]:
    """Wait for a job that was accepted; return it."""
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()["job"]
    deadline = time.monotonic() + 120
    while job["state"] in ("waiting", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        job = client.get(f"/api/v1/jobs/{job['id']}").json()
    return job


def versions(client: TestClient, name: str = "part") -> dict[str, Any]:
    """Return a recipe as the service lists it."""
    recipe: dict[str, Any] = next(recipe for recipe in client.get(ROUTE).json()["recipes"] if recipe["name"] == name)
    return recipe


def test_a_recipe_says_what_it_was_taught_from(taught: TestClient) -> None:
    first = versions(taught)["versions"][-1]
    assert [photo["name"] for photo in first["photos"]] == [name for _, (name, _) in GOOD]
    assert first["promised"] == pytest.approx(0.2)
    assert "4 good photos" in first["threshold_source"]
    assert len(first["normal_scores"]) == 4
    assert first["left_out"] == []


def test_a_recipe_judges_and_can_be_taken_home(taught: TestClient, tmp_path: Path) -> None:
    response = taught.post("/api/v1/inspections", data={"recipe": "part"}, files=[("images", ("x.png", photo(50)))])
    answer = response.json()["inspections"][0]
    assert answer["recipe"] == {"name": "part", "version": versions(taught)["active"]}
    assert 0 < answer["p_value"] <= 1
    file = tmp_path / "part.anomalens"
    file.write_bytes(taught.get(f"{ROUTE}/part/1.anomalens").content)
    assert len(read_recipe(file).lesson.photos) == 4


def test_reviewed_images_make_a_version_that_is_compared_and_can_be_rolled_back(taught: TestClient) -> None:
    files = [("images", (f"{seed}.png", photo(seed))) for seed in (60, 61)]
    files.append(("images", ("bright.png", photo(62, bright=True))))
    rows = taught.post("/api/v1/inspections", data={"recipe": "part"}, files=files).json()["inspections"]
    for row in rows:
        good = "right" if row["label"] == "normal" else "false alarm"
        taught.post(f"/api/v1/inspections/{row['id']}/review", json={"verdict": good})
    before = versions(taught)["active"]
    fields = {"name": "part", "base": "active", "reviewed": "true", "activate": "false"}
    job = finished(taught, taught.post(ROUTE, data=fields, files=[]))
    assert job["state"] == "done", job
    assert versions(taught)["active"] == before
    newest = versions(taught)["versions"][0]
    assert newest["version"] == job["recipe"]["version"] > before
    assert len(newest["photos"]) + len(newest["left_out"]) >= 5
    judged = [row["id"] for row in rows if row["label"] != "unusable"]
    assert {entry["id"] for entry in job["comparison"]} <= set(judged)
    assert all(entry["truth"] == "normal" for entry in job["comparison"])
    assert taught.post(f"{ROUTE}/part/activate", json={"version": newest["version"]}).status_code == 200
    assert versions(taught)["active"] == newest["version"]
    assert taught.delete(f"{ROUTE}/part/{newest['version']}").status_code == 409
    taught.post(f"{ROUTE}/part/activate", json={"version": before})
    assert taught.delete(f"{ROUTE}/part/{newest['version']}").status_code == 204
    assert versions(taught)["active"] == before


def test_a_region_of_interest(taught: TestClient) -> None:
    mask = io.BytesIO()
    picture = Image.new("L", (96, 80), 0)
    picture.paste(255, (0, 0, 48, 80))
    picture.save(mask, "PNG")
    job = finished(
        taught, taught.post(ROUTE, data={"name": "half"}, files=[*GOOD, ("roi", ("roi.png", mask.getvalue()))])
    )
    assert job["state"] == "done", job
    assert versions(taught, "half")["versions"][0]["roi"] == pytest.approx(0.5)


def test_photos_may_be_inspections(taught: TestClient) -> None:
    files = [("images", (f"{seed}.png", photo(seed))) for seed in range(70, 74)]
    rows = taught.post("/api/v1/inspections", files=files).json()["inspections"]
    job = finished(taught, taught.post(ROUTE, data={"name": "kept", "inspections": [row["id"] for row in rows]}))
    assert job["state"] == "done", job
    assert [photo["name"] for photo in versions(taught, "kept")["versions"][0]["photos"]] == [
        row["name"] for row in rows
    ]


def test_what_cannot_be_learned_fails_with_a_reason(taught: TestClient) -> None:
    black = io.BytesIO()
    Image.new("RGB", (64, 64)).save(black, "PNG")
    job = finished(
        taught, taught.post(ROUTE, data={"name": "dark"}, files=[("images", ("dark.png", black.getvalue()))])
    )
    assert job["state"] == "failed"
    assert "dark.png" in job["error"]
    assert "media" not in job["error"]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 422),
        ({"name": "../x"}, 422),
        ({"name": ""}, 422),
        ({"name": "x", "fpr": "0.001"}, 422),
        ({"name": "x", "fpr": "nan"}, 422),
        ({"name": "x", "fpr": "2"}, 422),
        ({"name": "x", "mixed": "true", "fpr": "0.5"}, 422),
        ({"name": "none", "base": "active"}, 404),
        ({"name": "part", "base": "77"}, 404),
        ({"name": "part", "base": "old"}, 422),
        ({"name": "part", "base": "active", "object": "nut"}, 422),
        ({"name": "x", "inspections": "none"}, 404),
    ],
)
def test_wishes_that_cannot_be_met(taught: TestClient, fields: dict[str, str], status: int) -> None:
    response = taught.post(ROUTE, data=fields, files=GOOD)
    assert response.status_code == status, response.text


def test_no_photo_and_no_image(taught: TestClient) -> None:
    assert taught.post(ROUTE, data={"name": "x"}).status_code == 422
    response = taught.post(ROUTE, data={"name": "x"}, files=[("images", ("notes.txt", b"hello"))])
    assert response.status_code == 422
    assert "notes.txt" in response.json()["detail"]


def test_a_file_becomes_a_recipe_once(taught: TestClient, tmp_path: Path) -> None:
    file = tmp_path / "nut.anomalens"
    file.write_bytes(taught.get(f"{ROUTE}/part/1.anomalens").content)
    settings = ServeSettings(store=f"sqlite:///{tmp_path / 'h.db'}", recipes=(file,), options=SMALL)
    for _ in range(2):
        with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
            assert [version["version"] for version in versions(client, "nut")["versions"]] == [1]


def test_a_stopped_teaching_goes_on_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ServeSettings(store=f"sqlite:///{tmp_path / 'h.db'}", options=SMALL)
    with monkeypatch.context() as context:
        # As if the process ended before the worker came to it.
        context.setattr("anomalens.serving.teaching_jobs.TeachingJobs._run", lambda self, id: None)
        with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
            job = client.post(ROUTE, data={"name": "part"}, files=GOOD).json()["job"]
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        deadline = time.monotonic() + 60
        while client.get(f"/api/v1/jobs/{job['id']}").json()["state"] != "done":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert versions(client)["active"] == 1


@pytest.mark.parametrize("failing", ["get", "_update"])
def test_what_the_store_interrupts_is_taught_once_it_answers(
    taught: TestClient, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    monkeypatch.setattr("anomalens.serving.teaching_jobs._PAUSE", 0.01)
    plain = getattr(TeachingJobs, failing)
    calls = []

    def sometimes(self: TeachingJobs, *args: Any, **values: Any) -> Any:
        # Only what happens in the background fails, five times in a row.
        if threading.current_thread().name.startswith("anomalens-teach"):
            calls.append(args)
            if 1 < len(calls) < 7:
                raise OperationalError("", {}, Exception("connection refused"))
        return plain(self, *args, **values)

    monkeypatch.setattr(TeachingJobs, failing, sometimes)
    if failing == "get":
        calls.append(())
    job = finished(taught, taught.post(ROUTE, data={"name": f"after {failing}"}, files=GOOD))
    assert (job["state"], job["error"]) == ("done", None)
    assert len(calls) >= 7
    assert len(versions(taught, f"after {failing}")["versions"]) == 1
