"""Runs of a detector that compares the images with each other: the set is part of the run, and resume knows it."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from anomalens.errors import ConfigError
from anomalens.options import LoadOptions
from anomalens.runs.folder import JsonLines, detect_files, set_digest, stored_threshold
from anomalens.runs.ray_run import detect_scaled
from anomalens.runs.store import RunCounts
from toys import make_patches, parts

SETTINGS: dict[str, Any] = {"method": "musc"}


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "in"
    folder.mkdir()
    paths = []
    for number, image in enumerate(parts(12, faulty=[4])):
        paths.append(folder / f"{number:02d}.png")
        Image.fromarray(image).save(paths[-1])
    return paths


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_run_that_was_stopped_goes_on_with_the_scores_of_the_whole_set(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = make_patches().together(windows=(1,))
    looked: list[int] = []
    detect_files(images, tmp_path / "whole", detector, SETTINGS, looked=lambda: looked.append(1))
    assert len(looked) == 12
    real = JsonLines.append

    def stopped(self: JsonLines, items: list[dict[str, Any]]) -> RunCounts:
        if self.done().rows == 5:
            raise KeyboardInterrupt
        return real(self, items)

    monkeypatch.setattr(JsonLines, "append", stopped)
    with pytest.raises(KeyboardInterrupt):
        detect_files(images, tmp_path / "out", detector, SETTINGS)
    monkeypatch.undo()
    assert len(rows(tmp_path / "out")) == 5
    summary = detect_files(images, tmp_path / "out", detector, SETTINGS, resume=True)
    assert (summary.resumed, summary.counts.rows, summary.counts.anomalous) == (5, 12, 1)
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")
    looked.clear()
    detect_files(images, tmp_path / "out", detector, SETTINGS, resume=True, looked=lambda: looked.append(1))
    assert not looked, "a finished run has nothing to look at"
    threshold = stored_threshold(tmp_path / "out")
    assert threshold == (rows(tmp_path / "out")[0]["threshold"], rows(tmp_path / "out")[0]["threshold_source"])


def test_another_set_is_refused(images: list[Path], tmp_path: Path) -> None:
    detector = make_patches().together(windows=(1,))
    detect_files(images, tmp_path / "out", detector, SETTINGS)
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["settings"]["set"] == set_digest(images)
    for others in (images[:11], [*images, images[0]]):
        with pytest.raises(ConfigError, match="cannot resume"):
            detect_files(others, tmp_path / "out", detector, SETTINGS, resume=True)
    Image.fromarray(parts(1, seed=7)[0]).save(images[3])
    with pytest.raises(ConfigError, match="set was"):
        detect_files(images, tmp_path / "out", detector, SETTINGS, resume=True)


def test_a_set_is_what_the_files_hold_in_any_order(images: list[Path], tmp_path: Path) -> None:
    moved = images[3].rename(tmp_path / "moved.png")
    assert set_digest([moved, *images[4:]]) == set_digest([*images[4:], moved])
    assert set_digest(images[:3]) != set_digest([*images[:2], tmp_path / "missing.png"])


def test_ray_refuses_it_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"musc compares every image with others of the whole set.*--engine local"):
        detect_scaled(["in"], tmp_path / "out", LoadOptions(method="musc"), SETTINGS)
