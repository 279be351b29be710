"""Predictions: checked at birth, raw numbers, calm at the edges, pictures on one fixed scale."""

import io
import json
import pickle
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import measure

from anomalens.errors import ConfigError, InputError
from anomalens.images.maps import read_map
from anomalens.images.overlay import COLOURS
from anomalens.prediction import Failure, Prediction, Region

MAP = np.zeros((4, 6), np.float32)
MAP[0, 0], MAP[1, 1], MAP[3, 5] = 0.7, 0.6, 0.9


def make(**changes: Any) -> Prediction:
    fields: dict[str, Any] = {
        "path": None,
        "width": 6,
        "height": 4,
        "score": 0.8,
        "threshold": 0.5,
        "threshold_source": "test",
        "pixel_threshold": 0.5,
        "anomaly_map": MAP,
        "heat_range": (0.2, 0.8),
        "object_name": "nut",
        "method": "anoclip",
        "backbone": "bundled",
    }
    return Prediction(**(fields | changes))


@pytest.fixture
def on_disk(tmp_path: Path) -> Prediction:
    path = tmp_path / "Muster 1.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    return make(path=str(path), width=60, height=40)


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"anomaly_map": np.full((2, 2), np.nan)}, InputError, "anomaly map is not finite"),
        ({"anomaly_map": np.array([[0, np.inf]])}, InputError, "anomaly map is not finite"),
        ({"score": float("nan"), "path": "a\nb.png"}, InputError, r"'a\\nb.png': the score is not finite"),
        ({"method_score": float("inf")}, InputError, "the method's score is not finite"),
        ({"anomaly_map": np.zeros((1, 2, 2))}, ValueError, r"\[1, 2, 2\]"),
        ({"anomaly_map": np.zeros((0, 2))}, ValueError, "shape"),
        ({"width": 0}, ValueError, "0 x 4"),
        ({"threshold": float("nan")}, ValueError, "finite"),
        ({"pixel_threshold": float("inf")}, ValueError, "finite"),
        ({"heat_range": (0.5, 0.5)}, ValueError, "rise"),
        ({"heat_range": (0.0, float("nan"))}, ValueError, "rise"),
    ],
)
def test_what_cannot_be_is_refused_at_birth(changes: dict[str, Any], error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        make(**changes)


def test_label_follows_score_and_threshold() -> None:
    assert make().label == "anomalous"
    assert make(score=0.5).label == "normal"  # equal is not above
    moved = replace(make(), threshold=0.9, threshold_source="given by the user")
    assert (moved.label, moved.score, moved.threshold_source) == ("normal", 0.8, "given by the user")


def test_the_methods_own_score_is_kept() -> None:
    assert make().method_score == 0.8
    pooled = make(method_score=np.float32(0.25))
    assert (pooled.score, pooled.method_score) == (0.8, 0.25)
    assert type(pooled.method_score) is float
    assert replace(pooled, score=0.7).method_score == 0.25


def test_map_is_a_frozen_copy() -> None:
    batch = MAP.copy()
    prediction = make(anomaly_map=batch)
    batch[:] = 0
    assert prediction.anomaly_map.max() == np.float32(0.9)
    with pytest.raises(ValueError, match="read-only"):
        prediction.anomaly_map[0, 0] = 1
    with pytest.raises(FrozenInstanceError):
        prediction.score = 1.0  # type: ignore[misc]


def test_regions_by_hand() -> None:
    assert make().regions == (
        Region((5, 3, 6, 4), 1, float(np.float32(0.9)), (5, 3)),
        Region((0, 0, 2, 2), 2, float(np.float32(0.7)), (0, 0)),  # touching corners connect
    )
    assert make().mask.sum() == 3


def test_regions_are_at_source_size(on_disk: Prediction) -> None:
    assert on_disk.map_at_source().shape == on_disk.mask.shape == (40, 60)
    assert sum(region.area for region in on_disk.regions) == on_disk.mask.sum() > 10
    for region in on_disk.regions:
        left, top, right, bottom = region.box
        x, y = region.peak_at
        assert left <= x < right
        assert top <= y < bottom
        assert region.peak == on_disk.map_at_source()[y, x]


def regions_by_scanning(prediction: Prediction) -> list[Region]:
    """Return the regions found on the whole map at source size, without leaving any part out."""
    values = prediction.map_at_source()
    labels = measure.label(values > prediction.mask_threshold, connectivity=2)
    regions = []
    for label in range(1, labels.max() + 1):
        rows, columns = np.nonzero(labels == label)
        y, x = max(zip(rows, columns, strict=True), key=lambda place: values[place])
        box = int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1
        regions.append(Region(box, len(rows), float(values[y, x]), (int(x), int(y))))
    return sorted(regions, key=lambda region: (-region.peak, region.box))


@pytest.mark.parametrize("size", [(97, 211), (40, 40), (13, 17), (7, 300)], ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_regions_are_those_of_the_whole_map(size: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.random((31, 23), np.float32) * np.float32(0.5)
    values[rng.integers(0, 31, 3), rng.integers(0, 23, 3)] += np.float32(0.5)
    prediction = make(anomaly_map=values, height=size[0], width=size[1], pixel_threshold=rng.choice([0.3, 0.45, 0.6]))
    assert list(prediction.regions) == regions_by_scanning(prediction)


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 1), (1, 1)), ((1, 1), (9, 5)), ((37, 37), (1, 1)), ((3, 3), (7, 200))]
)
@pytest.mark.parametrize("value", [0.0, 0.9])
def test_constant_and_tiny_maps_are_calm(shape: tuple[int, int], size: tuple[int, int], value: float) -> None:
    prediction = make(anomaly_map=np.full(shape, value), height=size[0], width=size[1])
    assert (prediction.map_at_source() == np.float32(value)).all()
    image = np.full((*size, 3), 120, np.uint8)
    picture = np.asarray(prediction.overlay(image))
    # The image is anomalous and no place of it stands out, so all of it is the region.
    assert [region.area for region in prediction.regions] == [size[0] * size[1]]
    assert picture.shape == image.shape
    json.dumps(prediction.to_dict(), allow_nan=False)


def test_colours_do_not_depend_on_the_rest_of_the_map() -> None:
    other = MAP.copy()
    other[2, 2] = 50.0
    plain, changed = np.asarray(make().heatmap()), np.asarray(make(anomaly_map=other).heatmap())
    np.testing.assert_array_equal(plain[0], changed[0])
    np.testing.assert_array_equal(changed[2, 2], COLOURS[255])
    np.testing.assert_array_equal(changed[2, 0], COLOURS[0])


def test_overlay_tints_what_is_hot_and_draws_round_the_mask() -> None:
    values = np.zeros((40, 40), np.float32)
    values[10:20, 10:20] = 0.9
    image = np.full((40, 40, 3), 100, np.uint8)
    prediction = make(anomaly_map=values, width=40, height=40)
    picture = np.asarray(prediction.overlay(image, alpha=0.5)).astype(int)
    np.testing.assert_allclose(picture[15, 15], (COLOURS[255] + 100.0) / 2, atol=1)
    np.testing.assert_array_equal(picture[9, 15], [0, 255, 255])  # just outside the mask
    np.testing.assert_array_equal(picture[30, 30], [100, 100, 100])
    np.testing.assert_array_equal(np.asarray(prediction.overlay(image, alpha=0))[15, 15], [100, 100, 100])


def test_overlay_reads_its_image_and_says_when_it_cannot(on_disk: Prediction) -> None:
    assert on_disk.overlay().size == (60, 40)
    with pytest.raises(InputError, match="give the image that was predicted"):
        on_disk.overlay(np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(InputError, match=r"overlay\(image\)"):
        make().overlay()
    with pytest.raises(ValueError, match="alpha"):
        on_disk.overlay(alpha=1.5)
    Path(on_disk.path or "").unlink()
    with pytest.raises(InputError, match="no such file"):
        on_disk.overlay()


def test_to_dict_is_plain_json() -> None:
    prediction = make(score=np.float32(0.8), threshold=torch.tensor(0.5), path="x.png", note="read so")
    row = json.loads(json.dumps(prediction.to_dict(), allow_nan=False))
    assert {"path", "score", "label", "threshold", "threshold_source", "width", "height", "method", "backbone"} <= set(
        row
    )
    assert row["regions"][0] == {"box": [5, 3, 6, 4], "area": 1, "peak": float(np.float32(0.9)), "peak_at": [5, 3]}
    assert row["note"] == "read so"
    assert "note" not in make().to_dict()


def test_repr_is_one_short_line() -> None:
    assert repr(make(path="a.png")) == (
        "Prediction('a.png', anomalous, score=0.8000, threshold=0.5000, 6x4, method='anoclip')"
    )


def test_save_writes_overlay_mask_and_numbers(on_disk: Prediction, tmp_path: Path) -> None:
    folder = on_disk.save(tmp_path / "deep" / "out")
    assert sorted(path.name for path in folder.iterdir()) == [
        f"Muster 1{end}" for end in (".json", "_mask.png", "_overlay.png")
    ]
    assert json.loads((folder / "Muster 1.json").read_text()) == on_disk.to_dict()
    with Image.open(folder / "Muster 1_mask.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), on_disk.mask * np.uint8(255))
    make().save(folder, "second")
    assert (folder / "second_overlay.png").exists()


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "sub/out", "sub/"])
def test_a_name_cannot_leave_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no file name"):
        make().save(tmp_path / "results", name)
    assert not list(tmp_path.iterdir())


def test_overlay_of_a_frame_of_opencv() -> None:
    frame = np.random.default_rng(3).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    expected = np.asarray(make().overlay(frame))
    np.testing.assert_array_equal(np.asarray(make().overlay(frame[:, :, ::-1], channels="bgr")), expected)


def test_files_one_by_one(on_disk: Prediction, tmp_path: Path) -> None:
    on_disk.save_overlay(tmp_path / "o.png")
    assert Image.open(tmp_path / "o.png").size == (60, 40)
    on_disk.save_map(tmp_path / "m.npy")
    np.testing.assert_array_equal(read_map(tmp_path / "m.npy"), MAP)
    on_disk.save_map(tmp_path / "m.png", at_source=True)
    np.testing.assert_allclose(read_map(tmp_path / "m.png"), on_disk.map_at_source(), atol=1.8 / 65535)
    with pytest.raises(ConfigError, match=r"npy or \.png"):
        on_disk.save_map(tmp_path / "m.tiff")
    with pytest.raises(FileNotFoundError):
        on_disk.save_mask(tmp_path / "absent" / "m.png")


def test_notebook_picture_never_fails(on_disk: Prediction) -> None:
    for prediction in (on_disk, make(), make(path="gone.png"), make(width=3000, height=20)):
        with Image.open(io.BytesIO(prediction._repr_png_())) as picture:
            assert max(picture.size) <= 800


def test_failure_is_one_line_and_keeps_the_kind_of_error() -> None:
    assert Failure("a.png", "first\n  second").to_dict() == {
        "path": "a.png", "error": "first second", "kind": "InputError",
    }  # fmt: skip
    assert Failure(None, "").error == "unknown error"
    assert Failure.of("a.png", InputError("'a.png': no such\nfile")) == Failure("a.png", "'a.png': no such file")
    assert Failure.of(None, ZeroDivisionError("division by zero")) == Failure(
        None, "ZeroDivisionError: division by zero", "ZeroDivisionError"
    )


def test_results_can_be_pickled(on_disk: Prediction) -> None:
    assert on_disk.regions
    again = pickle.loads(pickle.dumps(on_disk))
    assert again.to_dict() == on_disk.to_dict()
    np.testing.assert_array_equal(again.anomaly_map, on_disk.anomaly_map)
    assert pickle.loads(pickle.dumps(Failure("a.png", "why", "WeightsError"))) == Failure(
        "a.png", "why", "WeightsError"
    )


def test_lightness_of_the_colours_rises() -> None:
    from skimage.color import rgb2lab

    assert (np.diff(rgb2lab(COLOURS[None])[0, :, 0]) > 0).all()
