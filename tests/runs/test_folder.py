"""Runs on disk: rows in order, pictures, resume, and faults in the middle."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalens.backbones.tower import Clip
from anomalens.detection.detector import Detector
from anomalens.errors import ConfigError
from anomalens.images.maps import read_map
from anomalens.runs import folder as runs
from anomalens.runs.folder import RunFolder, file_stem
from toys import grey, make

SETTINGS: dict[str, Any] = {"method": "brightness", "threshold": 0.5}


@pytest.fixture
def detector(tiny_clip: Clip) -> Detector:
    return make(tiny_clip)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    names = ["a/x.png", "b/x.png", "ü mlaut\nnewline.png", "broken.png", "z.png"]
    for i, name in enumerate(names):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey(40 * i, 30, 40)).save(path)
    (tmp_path / "in" / "broken.png").write_bytes(b"")
    return [tmp_path / "in" / name for name in names]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_whole_run(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    seen: list[int] = []
    summary = RunFolder(out, SETTINGS, images).write(detector, "npy", lambda s: seen.append(s.done))
    assert seen == [1, 2, 3, 4, 5]
    assert (summary.done, summary.failed, summary.anomalous) == (5, 1, 1)
    found = rows(out)
    assert [row["path"] for row in found] == [str(path) for path in images]
    assert set(found[3]) == {"path", "error"}
    wanted = {
        "score",
        "label",
        "threshold",
        "width",
        "height",
        "regions",
        "heatmap",
        "mask",
        "map",
        "method",
        "backbone",
    }
    for row in (found[0], found[4]):
        assert wanted <= set(row)
        assert Image.open(out / row["heatmap"]).size == Image.open(out / row["mask"]).size == (40, 30)
        assert read_map(out / row["map"]).shape == (64, 64)
    assert len({row["heatmap"] for row in found if "heatmap" in row}) == 4
    run = json.loads((out / "run.json").read_text())
    assert run["counts"] == {"inputs": 5, "done": 5, "failed": 1, "anomalous": 1, "normal": 3}
    assert run["finished"] is True
    assert run["settings"] == SETTINGS
    assert not list(out.rglob(".writing-*"))


def test_an_interrupted_run_goes_on(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    RunFolder(whole, SETTINGS, images).write(detector)

    def interrupt(summary: runs.RunSummary) -> None:
        if summary.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RunFolder(out, SETTINGS, images).write(detector, progress=interrupt)
    assert len(rows(out)) == 2
    assert json.loads((out / "run.json").read_text())["finished"] is False
    with (out / "predictions.jsonl").open("ab") as stream:
        stream.write(b'{"path": "half a r')
    run = RunFolder(out, SETTINGS, images, resume=True)
    assert len(run.rows) == 2
    summary = run.write(detector)
    assert (summary.resumed, summary.done, summary.failed) == (2, 5, 1)
    assert rows(out) == rows(whole)


def test_resuming_a_finished_run_does_nothing(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    RunFolder(tmp_path / "out", SETTINGS, images).write(detector)
    before = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    batches = len(detector.engine.method.batches)
    summary = RunFolder(tmp_path / "out", SETTINGS, images, resume=True).write(detector)
    assert summary.done == summary.resumed == 5
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == before
    assert len(detector.engine.method.batches) == batches


def test_resume_into_an_empty_folder_starts(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    assert RunFolder(tmp_path / "new", SETTINGS, images, resume=True).write(detector).done == 5


def test_results_are_never_overwritten(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    RunFolder(tmp_path / "out", SETTINGS, images).write(detector)
    with pytest.raises(ConfigError, match="--resume"):
        RunFolder(tmp_path / "out", SETTINGS, images)
    with pytest.raises(ConfigError, match=r"threshold was 0\.5"):
        RunFolder(tmp_path / "out", SETTINGS | {"threshold": 0.7}, images, resume=True)
    with pytest.raises(ConfigError, match="5 rows for 2 inputs"):
        RunFolder(tmp_path / "out", SETTINGS, images[:2], resume=True)
    with pytest.raises(ConfigError, match="where there is"):
        RunFolder(tmp_path / "out", SETTINGS, images[::-1], resume=True)


def test_damaged_records_are_named(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    RunFolder(out, SETTINGS, images).write(detector)
    (out / "run.json").write_text("{")
    with pytest.raises(ConfigError, match=r"run\.json"):
        RunFolder(out, SETTINGS, images, resume=True)
    (out / "predictions.jsonl").write_text("nonsense\n")
    with pytest.raises(ConfigError, match="damaged"):
        RunFolder(out, SETTINGS, images, resume=True)


def test_a_folder_that_cannot_be_made(images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        RunFolder(tmp_path / "file" / "out", SETTINGS, images)


@pytest.mark.parametrize("where", ["picture", "row"])
def test_a_full_disk_loses_nothing(
    detector: Detector, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    out = tmp_path / "out"
    calls = 0
    real_write, real_mask = os.write, runs.Prediction.save_mask

    def full_mask(self: runs.Prediction, path: Path) -> None:
        if path.name.startswith("000002"):
            raise OSError(28, "no space left on device")
        real_mask(self, path)

    def short_write(handle: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        return real_write(handle, data[: len(data) // 2] if calls == 3 else data)

    if where == "picture":
        monkeypatch.setattr(runs.Prediction, "save_mask", full_mask)
    else:
        monkeypatch.setattr(runs.os, "write", short_write)
    with pytest.raises(OSError, match="no space"):
        RunFolder(out, SETTINGS, images).write(detector)
    monkeypatch.undo()
    assert len(rows(out)) == 2
    assert len(list((out / "heatmaps").iterdir())) >= 2
    assert RunFolder(out, SETTINGS, images, resume=True).write(detector).done == 5
    assert [row["path"] for row in rows(out)] == [str(path) for path in images]


def test_an_image_that_vanishes_meanwhile_is_a_row(
    detector: Detector, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = runs.RunFolder._pictures

    def gone(self: RunFolder, found: runs.Prediction, stem: str, maps: runs.MapFormat) -> dict[str, str | None]:
        if stem.startswith("000001"):
            images[1].unlink()
        return real(self, found, stem, maps)

    monkeypatch.setattr(runs.RunFolder, "_pictures", gone)
    assert RunFolder(tmp_path / "out", SETTINGS, images).write(detector).failed == 2
    assert "error" in rows(tmp_path / "out")[1]


def test_file_names_suit_every_file_system() -> None:
    assert file_stem(7, Path('a/ü:*?"<>|\n .jpg')) == "000007"
    assert file_stem(7, Path("a/con.tar.gz")) == "000007-con.tar"
    assert len(file_stem(0, Path("x" * 300 + ".png"))) < 100
    assert file_stem(1, Path("x.png")) != file_stem(2, Path("x.png"))


def test_rows_hold_only_numbers(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(grey(255)).save(path)
    RunFolder(tmp_path / "out", SETTINGS, [path]).write(detector)
    (row,) = rows(tmp_path / "out")
    assert row["label"] == "anomalous"
    assert row["regions"][0]["area"] == 64 * 64
    assert isinstance(row["score"], float)
    assert not np.isnan(row["score"])
