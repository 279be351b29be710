"""Tests of `anomalens detect --store` and `anomalens history`: runs and the service share one history."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from anomalens.serving.settings import ServeSettings
from anomalens.serving.web_app import create_app
from commands import Command, runner
from small_photos import photo


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return runner(capsys, monkeypatch)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        (folder / f"{seed}.png").write_bytes(photo(seed))
    (folder / "bad.png").write_bytes(b"no image")
    return folder


def test_a_run_is_remembered_once_and_seen_by_the_service(photos: Path, tmp_path: Path, run: Command) -> None:
    store = f"sqlite:///{tmp_path / 'h.db'}"
    command = ["detect", str(photos), "--out", str(tmp_path / "out"), "--store", store, "--together", "no"]
    assert run(*command).code == 1
    # As if it had been stopped before its last two rows.
    rows = tmp_path / "out" / "predictions.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:2]))
    assert run(*command, "--resume").code == 1
    written = [json.loads(line) for line in rows.read_text().splitlines()]
    listed = json.loads(run("history", "list", "--store", store, "--json").out)
    assert sorted(row["name"] for row in listed) == sorted(row["path"] for row in written)
    scores = {row["path"]: row.get("score") for row in written}
    assert all(row["score"] == scores[row["name"]] for row in listed)
    with TestClient(create_app(ServeSettings(store=store)), base_url="http://127.0.0.1") as client:
        answers = client.get("/api/v1/inspections").json()["inspections"]
        assert [answer["id"] for answer in answers] == [row["id"] for row in listed]
        done = next(answer for answer in answers if answer["state"] == "done")
        assert client.get(done["links"]["overlay"]).status_code == 200


def test_tables_and_pruning(photos: Path, tmp_path: Path, run: Command) -> None:
    store = f"sqlite:///{tmp_path / 'h.db'}"
    run("detect", str(photos), "--out", str(tmp_path / "out"), "--store", store, "--together", "no")
    for kind in ("csv", "parquet", "xlsx"):
        assert run("history", "export", str(tmp_path / f"t.{kind}"), "--store", store).code == 0
    with (tmp_path / "t.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 4
    pruned = run("history", "prune", "--older-than", "1h", "--store", store, "--dry-run", "--json")
    assert json.loads(pruned.out) == {"inspections": 0, "files": 0, "bytes": 0, "dry_run": True}
    assert run("history", "export", "t.txt", "--store", store).code == 2
    missing = run("history", "list", "--store", f"sqlite:///{tmp_path / 'none.db'}")
    assert missing.code == 2
    assert not (tmp_path / "none.db").exists()


def test_the_history_has_a_page_and_annotations_as_a_run_has(
    photos: Path, tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = f"sqlite:///{tmp_path / 'h.db'}"
    run("detect", "photos", "--out", "out", "--store", store, "--together", "no", "--format", "html,coco")
    # The pictures of the history are its own.
    shutil.rmtree("photos")
    assert run("report", store).code == 0
    page, same = Path("report.html").read_text(), Path("out/report.html").read_text()
    for mark in ("data-score", "data:image/webp", "<dt>failed</dt><dd>1</dd>", "is not an image", "data-name"):
        assert page.count(mark) == same.count(mark) > 0, mark
    assert "image not found" not in page
    assert "These are inspections of a history" in page
    assert "UTC" in page
    assert run("report", store, "--format", "coco", "--out", "annotated").code == 0
    regions, wanted = (
        [(part["bbox"], part["area"], part["segmentation"]) for part in json.loads(path.read_text())["annotations"]]
        for path in (Path("annotated/coco.json"), Path("out/coco.json"))
    )
    assert sorted(map(str, regions)) == sorted(map(str, wanted))
    label = "normal" if "<dt>normal</dt><dd>0</dd>" not in page else "anomalous"
    assert run("history", "export", "some.html", "--store", store, "--label", label).code == 0
    some = Path("some.html").read_text()
    assert 0 < some.count("data-score") == some.count(f'data-label="{label}"')
    for command, reason in (
        (("report", store, "--format", "csv"), "anomalens history export inspections.csv"),
        (("report", store, "--media", "none"), "no such folder of pictures"),
        (("report", "out", "--media", "none"), "sqlite:///FILE"),
        (("report", "sqlite:///none.db"), "no such history"),
    ):
        ran = run(*command)
        assert ran.code == 2
        assert reason in ran.err


def test_a_folder_of_pictures_needs_a_store(photos: Path, tmp_path: Path, run: Command) -> None:
    result = run("detect", str(photos), "--out", str(tmp_path / "out"), "--media", str(tmp_path / "m"))
    assert result.code == 2
    assert "--store" in result.err
