"""Tests of the service as a process: it starts, is killed, starts again, stops in order; nothing accepted is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from anomalens.serving.database import Database
from anomalens.serving.history import Filters, History
from anomalens.serving.media import MediaFolder
from anomalens.serving.stored_predictions import prediction_of
from small_photos import photo

ROUTE = "/api/v1/inspections"


@contextmanager
def running(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `anomalens serve` in a folder; give the process and its address."""
    command = [sys.executable, "-m", "anomalens", "serve", "--port", "0", "--json", *options]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=(folder / "log").open("a"), text=True, env=os.environ
    )
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            assert line, (folder / "log").read_text()
            text += line
        address = json.loads(text)["address"]
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{address}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process, address
    finally:
        process.kill()
        process.wait()


def send(address: str, seed: int) -> str:
    """Send an image without waiting for its answer; return its id."""
    response = httpx.post(f"{address}{ROUTE}", params={"wait": "false", "name": f"{seed}.png"}, content=photo(seed))
    assert response.status_code in (200, 202)
    return str(response.json()["inspections"][0]["id"])


@pytest.mark.slow
def test_a_killed_service_answers_what_it_had_accepted(tmp_path: Path) -> None:
    with running(tmp_path) as (process, address):
        ids = [send(address, seed) for seed in range(12)]
        process.send_signal(signal.SIGKILL)
        process.wait()
    with running(tmp_path) as (process, address):
        deadline = time.monotonic() + 120
        while httpx.get(f"{address}{ROUTE}", params={"state": "waiting"}).json()["inspections"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        rows = httpx.get(f"{address}{ROUTE}", params={"limit": 100}).json()["inspections"]
        assert sorted(row["id"] for row in rows) == sorted(ids)
        assert {row["state"] for row in rows} == {"done"}
        for row in rows[:3]:
            assert httpx.get(f"{address}{row['links']['overlay']}").status_code == 200
        # A stop in order answers what was accepted before.
        more = [send(address, seed) for seed in range(20, 24)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    database, media = Database(f"sqlite:///{tmp_path / 'history.db'}"), MediaFolder(tmp_path / "history_media")
    stored = {row.id: row for row in History(database).each(Filters())}
    assert set(stored) == {*ids, *more}
    for row in stored.values():
        assert row.state == "done"
        assert media.path(row.original).exists()
        assert prediction_of(row, media).label == row.label
    database.close()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if line.startswith("{")]
    requests = [line for line in lines if line["message"] == "request"]
    assert len(requests) > 20
    assert all({"time", "level", "request", "method", "path", "status", "ms"} <= set(line) for line in requests)


@pytest.mark.slow
def test_wrong_settings_are_one_line(tmp_path: Path) -> None:
    for options, part in (
        (["--host", "0.0.0.0"], "--token-file"),
        (["--store", "mysql://a"], "postgresql+psycopg"),
        (["--retention", "soon"], "90d"),
    ):
        command = [sys.executable, "-m", "anomalens", "serve", "--port", "0", *options]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 2, result.stderr
        assert part in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
        assert "Traceback" not in result.stderr
