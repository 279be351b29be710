"""Runs on disk: rows in order, pictures, resume, and faults in the middle."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalens.backbones.tower import Clip
from anomalens.detection.detector import Detector
from anomalens.errors import ConfigError
from anomalens.images.maps import read_map
from anomalens.prediction import Prediction
from anomalens.runs.folder import JsonLines, detect_files, file_stem
from anomalens.runs.store import RunCounts, RunSummary
from toys import grey, make, speckled, toy_of

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
        Image.fromarray(speckled(40 * i, 30, 40)).save(path)
    (tmp_path / "in" / "broken.png").write_bytes(b"")
    return [tmp_path / "in" / name for name in names]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


def record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return content


def test_a_whole_run(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    seen: list[int] = []
    summary = detect_files(
        images, out, detector, SETTINGS, maps="npy", progress=lambda summary: seen.append(summary.counts.rows)
    )
    assert seen == [0, 1, 2, 3, 4, 5]
    counts = summary.counts
    assert (counts.rows, counts.failed, counts.anomalous, counts.unusable, counts.lowest) == (5, 1, 1, 0, 0.0)
    assert counts.highest == pytest.approx(160 / 255)
    assert counts.worst == ((counts.highest, str(images[4])),)
    written = rows(out)
    assert [row["path"] for row in written] == [str(path) for path in images]
    assert set(written[3]) == {"path", "error", "kind"}
    # Readers of these files rely on the names and on their order.
    keys = (
        "path score label confidence reason threshold threshold_source pixel_threshold width height "
        "object regions method backbone heatmap mask map"
    )
    for row in (written[0], written[4]):
        assert list(row) == keys.split()
        assert Image.open(out / row["heatmap"]).size == Image.open(out / row["mask"]).size == (40, 30)
        assert read_map(out / row["map"]).shape == (64, 64)
    assert len({row["heatmap"] for row in written if "heatmap" in row}) == 4
    run = record(out)
    assert run["counts"] == {"inputs": 5, "done": 5, "failed": 1, "anomalous": 1, "normal": 3, "unusable": 0}
    assert run["finished"] is True
    assert run["settings"] == SETTINGS
    assert run["images_per_second"] > 0
    assert not list(out.rglob(".writing-*"))


def test_an_interrupted_run_goes_on(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    detect_files(images, whole, detector, SETTINGS)

    def interrupt(summary: RunSummary) -> None:
        if summary.counts.rows == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detect_files(images, out, detector, SETTINGS, progress=interrupt)
    assert len(rows(out)) == 2
    assert record(out)["finished"] is False
    with (out / "predictions.jsonl").open("ab") as stream:
        stream.write(b'{"path": "half a r')
    for folder in (out, out / "heatmaps"):
        (folder / ".writing-abc").write_bytes(b"left by a process that was killed")
    summary = detect_files(images, out, detector, SETTINGS, resume=True)
    assert (summary.resumed, summary.counts.rows, summary.counts.failed) == (2, 5, 1)
    assert rows(out) == rows(whole)
    assert not list(out.rglob(".writing-*"))


def test_resuming_a_finished_run_does_nothing(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    first = detect_files(images, tmp_path / "out", detector, SETTINGS)
    before = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    batches = len(toy_of(detector).batches)
    summary = detect_files(images, tmp_path / "out", detector, SETTINGS, resume=True)
    assert summary.resumed == 5
    assert summary.counts == first.counts  # with the range of scores of the rows that were there
    assert summary.rate is None
    assert record(tmp_path / "out")["images_per_second"] is None
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == before
    assert len(toy_of(detector).batches) == batches


def test_resume_into_an_empty_folder_starts(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    assert detect_files(images, tmp_path / "new", detector, SETTINGS, resume=True).counts.rows == 5


def test_results_are_never_overwritten(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    detect_files(images, out, detector, SETTINGS)
    before = (out / "run.json").read_bytes()
    with pytest.raises(ConfigError, match="--resume"):
        JsonLines(out, SETTINGS, images)
    with pytest.raises(ConfigError, match=r"threshold was 0\.5 then, 0\.7 now"):
        JsonLines(out, SETTINGS | {"threshold": 0.7}, images, resume=True)
    with pytest.raises(ConfigError, match="5 rows for 2 inputs"):
        JsonLines(out, SETTINGS, images[:2], resume=True)
    with pytest.raises(ConfigError, match="where there is"):
        JsonLines(out, SETTINGS, images[::-1], resume=True)
    assert (out / "run.json").read_bytes() == before


def test_settings_that_differ_are_told_in_words(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    out, scores = tmp_path / "out", [i / 100 for i in range(99)]
    calibration = {"threshold": 0.5, "heat_range": [0.0, 1.0], "normal_scores": scores}
    detect_files(images, out, detector, {"extra_sizes": None, "fast_jpeg": False, "calibration": calibration})
    changed = {"threshold": 0.7, "heat_range": [0.0, 1.0], "normal_scores": [0.5, *scores]}
    with pytest.raises(ConfigError) as caught:
        JsonLines(out, {"extra_sizes": [320], "fast_jpeg": True, "calibration": changed}, images, resume=True)
    assert told(caught.value) == ["--extra-size was not given then, 320 now", "--fast-jpeg was off then, on now"]
    with pytest.raises(ConfigError) as caught:
        JsonLines(out, {"extra_sizes": None, "fast_jpeg": False, "calibration": changed}, images, resume=True)
    reasons = told(caught.value)
    assert reasons[0].startswith("calibration normal_scores was 99 values (")
    assert reasons[1:] == ["calibration threshold was 0.5 then, 0.7 now"]


def told(error: ConfigError) -> list[str]:
    """Return the reasons why a run is not resumed."""
    return str(error).split("settings: ")[1].split(". Use")[0].split("; ")


def test_a_run_of_an_older_version_goes_on(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    """Before options were renamed, run.json held them under their old names."""
    out = tmp_path / "out"
    detect_files(images, out, detector, {"also": [320], "draft": True, "object": "nut", "tile": None})
    named_anew = {"extra_sizes": [320], "fast_jpeg": True, "object_name": "nut", "tile": None}
    assert detect_files(images, out, detector, named_anew, resume=True).resumed == 5
    assert record(out)["settings"] == named_anew
    with pytest.raises(ConfigError, match="--extra-size was 320 then, 640 now"):
        JsonLines(out, named_anew | {"extra_sizes": [640]}, images, resume=True)


def test_damaged_records_are_named(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    detect_files(images, out, detector, SETTINGS)
    for content in ("{", "[]", "{}"):
        (out / "run.json").write_text(content)
        with pytest.raises(ConfigError, match=r"run\.json is missing or damaged"):
            JsonLines(out, SETTINGS, images, resume=True)
    for content in ("nonsense\n", "[]\n", "{}\n"):
        (out / "predictions.jsonl").write_text(content)
        with pytest.raises(ConfigError, match=r"predictions\.jsonl is damaged"):
            JsonLines(out, SETTINGS, images, resume=True)


def test_a_folder_that_cannot_be_made(images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        JsonLines(tmp_path / "file" / "out", SETTINGS, images)


def test_a_disk_too_full_for_a_picture_loses_nothing(
    detector: Detector, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    real_mask = Prediction.save_mask

    def full(self: Prediction, path: Path) -> None:
        if path.name.startswith("000002"):
            raise OSError(28, "no space left on device")
        real_mask(self, path)

    monkeypatch.setattr(Prediction, "save_mask", full)
    with pytest.raises(OSError, match="no space"):
        detect_files(images, out, detector, SETTINGS)
    monkeypatch.undo()
    assert len(rows(out)) == 2
    assert len(list((out / "heatmaps").iterdir())) >= 2
    assert detect_files(images, out, detector, SETTINGS, resume=True).counts.rows == 5
    assert [row["path"] for row in rows(out)] == [str(path) for path in images]


def test_a_disk_too_full_for_a_row_keeps_whole_rows(images: list[Path], tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")  # not on Windows
    store = JsonLines(tmp_path, SETTINGS, images)
    written = [{"path": str(path), "score": 0.5} for path in images]
    store.append(written[:2])
    size = (tmp_path / "predictions.jsonl").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
    try:
        with pytest.raises(OSError, match=r".+"):
            store.append([written[2]])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert rows(tmp_path) == written[:2]
    assert store.done().rows == 2
    store.append(written[2:])
    assert rows(tmp_path) == written


def test_an_image_that_vanishes_meanwhile_is_a_row(
    detector: Detector, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Prediction.save_overlay

    def gone(self: Prediction, path: Path) -> None:
        if path.name.startswith("000001"):
            images[1].unlink()
        real(self, path)

    monkeypatch.setattr(Prediction, "save_overlay", gone)
    assert detect_files(images, tmp_path / "out", detector, SETTINGS).counts.failed == 2
    assert "error" in rows(tmp_path / "out")[1]


def test_names_that_are_no_text_survive_a_resume(tmp_path: Path) -> None:
    paths = [Path("a\udcff.png"), Path("b.png")]
    JsonLines(tmp_path, SETTINGS, paths).append([{"path": str(paths[0]), "score": 0.5}])
    assert JsonLines(tmp_path, SETTINGS, paths, resume=True).done() == RunCounts(1, 0, 0, 0.5, 0.5)


def test_counts_add_up() -> None:
    rows: list[dict[str, Any]] = [
        {"path": "a", "score": 0.2, "label": "normal"},
        {"path": "b", "error": "gone"},
        {"path": "c", "score": 0.9, "label": "anomalous", "confidence": 60},
        {"path": "d", "score": 0.9, "label": "unusable", "reason": "Not judged: the image is black.", "confidence": 50},
    ]
    counts = RunCounts.of(*rows)
    reasons = {"Not judged: the image is black.": 1}
    assert counts == RunCounts(4, 1, 1, 0.2, 0.9, unsure=1, unusable_reasons=reasons, worst=((0.9, "c"),))
    assert (counts.normal, counts.unusable) == (1, 1)
    assert RunCounts() + counts == counts == RunCounts.of(*rows[:2]) + RunCounts.of(*rows[2:])
    assert RunCounts(**json.loads(json.dumps(vars(counts)))) == counts
    assert (counts + counts).unusable_reasons == {"Not judged: the image is black.": 2}


def test_the_images_that_stand_out_most_are_kept_by_name() -> None:
    rows = [{"path": f"{number}", "score": number % 7, "label": "anomalous"} for number in range(20)]
    worst = RunCounts.of(*rows).worst
    assert worst == ((6, "13"), (6, "6"), (5, "12"), (5, "19"), (5, "5"))
    assert RunCounts.of(*rows[:9]) + RunCounts.of(*rows[9:]) == RunCounts.of(*rows)


def test_an_image_that_cannot_be_judged_is_counted_and_has_its_reason(detector: Detector, tmp_path: Path) -> None:
    paths = [tmp_path / "black.png", tmp_path / "good.png"]
    Image.fromarray(grey(0)).save(paths[0])
    Image.fromarray(speckled(200)).save(paths[1])
    counts = detect_files(paths, tmp_path / "out", detector, SETTINGS).counts
    assert (counts.unusable, counts.anomalous, counts.normal) == (1, 1, 0)
    black, _ = rows(tmp_path / "out")
    assert (black["label"], black["reason"], black["regions"]) == ("unusable", "Not judged: the image is black.", [])
    assert record(tmp_path / "out")["unusable_reasons"] == {"Not judged: the image is black.": 1}
    assert detect_files(paths, tmp_path / "out", detector, SETTINGS, resume=True).counts == counts


def test_file_names_suit_every_file_system() -> None:
    assert file_stem(7, Path('a/ü:*?"<>|\n .jpg')) == "000007"
    assert file_stem(7, Path("a/con.tar.gz")) == "000007-con.tar"
    assert len(file_stem(0, Path("x" * 300 + ".png"))) < 100
    assert file_stem(1, Path("x.png")) != file_stem(2, Path("x.png"))


def test_rows_hold_only_numbers(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(speckled(255)).save(path)
    detect_files([path], tmp_path / "out", detector, SETTINGS)
    (row,) = rows(tmp_path / "out")
    assert row["label"] == "anomalous"
    assert row["regions"][0]["area"] == 64 * 64
    assert isinstance(row["score"], float)
    assert not np.isnan(row["score"])
