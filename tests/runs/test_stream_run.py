"""Runs over videos and over folders in which images arrive: rows in order, resume, endless sources that are stopped."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalens.backbones.tower import Clip
from anomalens.detection.detector import Detector
from anomalens.errors import ConfigError, InputError
from anomalens.images.video import Video
from anomalens.reporting.formats import write_formats
from anomalens.reporting.overlay_video import write_overlay_video
from anomalens.runs import arriving
from anomalens.runs.arriving import arriving_images
from anomalens.runs.stored_run import read_run
from anomalens.runs.stream_run import Arrival, detect_arrivals, detect_videos
from clips import write_clip
from stored_runs import Shot, write_run
from toys import make, speckled

SETTINGS: dict[str, Any] = {"method": "brightness", "every": "200ms"}


@pytest.fixture
def detector(tiny_clip: Clip) -> Detector:
    return make(tiny_clip)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


# ---------------------------------------------------------------- videos


def test_a_row_a_frame_numbered_and_timed(detector: Detector, tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / name, 10) for name in ("a.mp4", "b é.mp4")]
    steps: list[tuple[int, int]] = []
    summary = detect_videos(
        [Video(str(clip), 0.2) for clip in clips],
        tmp_path / "out",
        detector,
        SETTINGS,
        maps="npy",
        progress=lambda summary: steps.append((summary.counts.rows, summary.total)),
    )
    written = rows(tmp_path / "out")
    assert [(row["path"], row["frame"]) for row in written] == [
        (str(clip), frame) for clip in clips for frame in (0, 5)
    ]
    assert [row["time"] for row in written] == pytest.approx([0, 0.2, 0, 0.2], abs=1e-3)
    assert (summary.total, summary.counts.rows, steps[-1]) == (4, 4, (4, 4))
    frames = list(Video(str(clips[0]), 0.2).frames())
    for row, frame in zip(written, frames, strict=False):
        kept = np.asarray(Image.open(tmp_path / "out" / row["image"]))
        assert np.array_equal(kept, frame.rgb), "the pixels that were judged"
        assert row["score"] == pytest.approx(detector.predict(frame.rgb).score, abs=1e-5)
        assert all((tmp_path / "out" / row[name]).is_file() for name in ("heatmap", "mask", "map"))
    assert json.loads((tmp_path / "out" / "run.json").read_text())["finished"] is True


def test_a_run_over_a_video_goes_on_where_it_stopped(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = Video(str(write_clip(tmp_path / "a.mp4", 30)), 0.2)
    detect_videos([video], tmp_path / "whole", detector, SETTINGS)

    def stop(summary: Any) -> None:
        if summary.counts.rows == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detect_videos([video], tmp_path / "out", detector, SETTINGS, progress=stop)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["finished"] is False
    with pytest.raises(ConfigError, match="--resume"):
        detect_videos([video], tmp_path / "out", detector, SETTINGS)
    with pytest.raises(ConfigError, match="every"):
        detect_videos([video], tmp_path / "out", detector, SETTINGS | {"every": "1s"}, resume=True)
    summary = detect_videos([video], tmp_path / "out", detector, SETTINGS, resume=True)
    assert (summary.resumed, summary.counts.rows) == (2, 6)
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")


def test_live_sources_end_when_they_are_stopped(detector: Detector, tmp_path: Path) -> None:
    def camera() -> Iterator[Arrival]:
        for number in range(3):
            yield Arrival(speckled(10), "camera", {"frame": number, "time": number / 25})
        raise KeyboardInterrupt

    told: list[int] = []
    summary = detect_arrivals(
        camera(), tmp_path / "out", detector, SETTINGS, live=True, answered=lambda row: told.append(row["frame"])
    )
    assert (summary.total, summary.counts.rows, told) == (3, 3, [0, 1, 2])
    assert json.loads((tmp_path / "out" / "run.json").read_text())["finished"] is True
    live = Video("rtsp://127.0.0.1:1/none")
    with pytest.raises(ConfigError, match="never ends"):
        detect_videos([live, live], tmp_path / "other", detector, SETTINGS)
    with pytest.raises(ConfigError, match="cannot be resumed"):
        detect_videos([live], tmp_path / "other", detector, SETTINGS, resume=True)
    assert not (tmp_path / "other").exists()


def test_its_page_its_tables_and_its_video(detector: Detector, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    clips = [write_clip(tmp_path / name, 25) for name in ("a.mp4", "b.mp4")]
    detect_videos([Video(str(clip), 0.4) for clip in clips], tmp_path / "out", detector, SETTINGS)
    for clip in clips:
        clip.unlink()
    run = read_run(tmp_path / "out")
    write_formats(run, ["html", "csv", "parquet", "coco", "mp4"], run.folder)
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "a.mp4, frame 10 at 0.40 s" in page
    assert "image not found" not in page
    table = (run.folder / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert table[2].startswith(f"{clips[0]},10,0.4,")
    files = [image["file_name"] for image in json.loads((run.folder / "coco.json").read_text())["images"]]
    assert files == [str(run.folder / row["image"]) for row in rows(run.folder)]
    with av.open(str(run.folder / "overlay.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([0, 0.4, 0.8, 0.84, 1.24, 1.64], abs=2e-3)


def test_frames_and_files_are_kept_before_their_rows(detector: Detector, tmp_path: Path) -> None:
    video = Video(str(write_clip(tmp_path / "a.mp4", 10)), 0.2)
    kept: list[tuple[int, Path, bool]] = []

    def keep(index: int, path: Path, result: object) -> None:
        kept.append((index, path, path.is_file()))

    detect_videos([video], tmp_path / "out", detector, SETTINGS, keep=keep)
    assert sorted(kept) == [(n, tmp_path / "out" / row["image"], True) for n, row in enumerate(rows(tmp_path / "out"))]


def test_no_video_is_made_of_photographs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not about a video"):
        write_overlay_video(read_run(write_run(tmp_path, [Shot("a.png")])), tmp_path)


# ---------------------------------------------------------------- folders


class Folder:
    """Hold a folder that changes at every look: `steps` are what happens after the first look, the second, ..."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *steps: Any) -> None:
        self.folder, self.steps, self.monkeypatch = folder, list(steps), monkeypatch
        folder.mkdir(exist_ok=True)

    def write(self, name: str, content: bytes | None = None, time: int = 1) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        if content is None:
            Image.fromarray(speckled(10)).save(path)
        else:
            path.write_bytes(content)
        os.utime(path, (time, time))

    def arrivals(self, **more: Any) -> list[str]:
        """Return the names that arrive until nothing happens any more and two further looks are over."""

        def sleep(seconds: float) -> None:
            if not self.steps:
                raise StopWatching
            self.steps.pop(0)()

        self.monkeypatch.setattr(arriving, "sleep", sleep)
        names: list[str] = []
        with pytest.raises(StopWatching):
            names.extend(Path(arrival.path).name for arrival in arriving_images(self.folder, interval=9, **more))
        return names


class StopWatching(Exception):
    """Ends a test of what never ends."""


def nothing() -> None:
    """Stand for a look at which nothing has changed."""


def test_images_arrive_once_they_have_stopped_growing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path / "in", monkeypatch)
    folder.write("old.png", time=5)
    folder.write("older.png", time=4)
    folder.steps = [
        nothing,
        lambda: folder.write("grows.png", b"half", time=6),
        lambda: folder.write("grows.png", b"half and more", time=7),
        nothing,
        lambda: folder.write("below/new.png", time=8),
        nothing,
        lambda: folder.write("notes.txt", b"no image"),
        lambda: folder.write("old.png", time=9),
        nothing,
        lambda: (folder.folder / "older.png").unlink(),
        nothing,
    ]
    assert folder.arrivals() == ["older.png", "old.png", "grows.png", "new.png", "old.png"]


def test_what_was_judged_arrives_only_when_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path / "in", monkeypatch, nothing, nothing)
    folder.write("a.png")
    folder.write("b.png")
    folder.steps += [lambda: folder.write("a.png", time=3), nothing]
    assert folder.arrivals(judged=[str(folder.folder / "a.png")]) == ["b.png", "a.png"]


def test_results_and_what_is_excluded_never_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path / "in", monkeypatch, nothing, nothing)
    folder.write("a.png")
    folder.write("a_mask.png")
    shutil.copytree(write_run(tmp_path, [Shot("x.png")]), folder.folder / "run")
    (folder.folder / "out").mkdir()
    folder.write("out/x.png")
    assert folder.arrivals(exclude=["*_mask.png"], out=folder.folder / "out") == ["a.png"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        next(arriving_images(tmp_path / "nowhere", interval=1))


def test_watching_ends_after_its_time(tmp_path: Path) -> None:
    assert list(arriving_images(tmp_path, interval=1, until=0)) == []
