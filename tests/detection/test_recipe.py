"""A taught part is one file: what is read is what was written, and nothing else is read."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector
from anomalens.detection.recipe import read_recipe
from anomalens.errors import ConfigError, WeightsError
from anomalens.prediction import predictions_of
from parts import faulty_part, good_parts

SIZE = 128


@pytest.fixture(scope="module")
def taught() -> Detector:
    return load_detector(size=SIZE, device="cpu", min_area=3, object_name="plate").fit(good_parts(4))


@pytest.fixture(scope="module")
def recipe(taught: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "plate.anomalens"
    taught.save(path)
    return path


def parts_of(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and tensors of a recipe."""
    raw = path.read_bytes()
    metadata = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])["__metadata__"]
    return json.loads(metadata["recipe"]), load(raw)


def written(path: Path, header: dict[str, Any], tensors: dict[str, Any]) -> Path:
    path.write_bytes(save(tensors, {"format": "anomalens-recipe", "recipe": json.dumps(header)}))
    return path


def test_a_recipe_gives_the_same_scores(taught: Detector, recipe: Path) -> None:
    again = load_detector(str(recipe))
    assert again.settings == taught.settings
    assert again.options.min_area == 3
    images = [*good_parts(2, first=9), faulty_part(5)]
    for before, after in zip(
        predictions_of(taught.predict_many(images)), predictions_of(again.predict_many(images)), strict=True
    ):
        assert (before.score, before.label, before.regions) == (after.score, after.label, after.regions)
        np.testing.assert_array_equal(before.anomaly_map, after.anomaly_map)


def test_it_is_small(recipe: Path) -> None:
    # 20 photos at 448 pixels have (448 / 128)² x 5 times as many patches, of which the memory keeps 3,000.
    patches = sum(value.nbytes for name, value in parts_of(recipe)[1].items() if ".seen." in name)
    assert patches * (448 / SIZE) ** 2 * 5 + 3000 * 168 * 2 < 9e6


def test_it_can_be_taught_more(recipe: Path, taught: Detector) -> None:
    more = load_detector(str(recipe)).fit(good_parts(2, first=20))
    assert more.lesson is not None
    assert [photo.key for photo in more.lesson.photos][:4] == [photo.key for photo in read_recipe(recipe).lesson.photos]
    assert len(more.lesson.photos) == 6


def test_thresholds_and_regions_may_be_asked_for_anew(recipe: Path) -> None:
    detector = load_detector(str(recipe), threshold=7.5, min_area=9)
    assert (detector.calibration.threshold, detector.options.min_area) == (7.5, 9)


@pytest.mark.parametrize("options", [{"size": 96}, {"object_name": "screw"}, {"tile": 64}])
def test_what_it_has_settled_cannot_be_changed(recipe: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"taught with its own {next(iter(options))}"):
        load_detector(str(recipe), **options)


def test_other_weights_are_refused(recipe: Path, tmp_path: Path) -> None:
    header, tensors = parts_of(recipe)
    header["words"]["weights"] = "0" * 64
    with pytest.raises(WeightsError, match="taught with other weights"):
        load_detector(str(written(tmp_path / "x.anomalens", header, tensors)))


def drop(name: str) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda header, tensors: header.pop(name)


def change(name: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda header, tensors: header.__setitem__(name, value)


def nan(header: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors[f"{SIZE}.seen.globals.0"][0, 0] = np.nan


@pytest.mark.parametrize(
    "harm",
    [
        *map(drop, ("schema", "sha256", "options", "words", "lesson", "sizes", "calibration", "pooling")),
        change("schema", 99),
        change("sha256", "0"),
        change("sizes", {"x": {}}),
        change("sizes", {"-1": {"fitted": {}, "limit": 1}}),
        change("options", {"method": 7}),
        change("lesson", []),
        change("calibration", {"threshold": "high"}),
        nan,
    ],
)
def test_a_changed_file_is_refused_in_one_line(
    recipe: Path, tmp_path: Path, harm: Callable[[dict[str, Any], dict[str, Any]], None]
) -> None:
    header, tensors = parts_of(recipe)
    harm(header, tensors)
    with pytest.raises(WeightsError) as error:
        load_detector(str(written(tmp_path / "x.anomalens", header, tensors)))
    assert "\n" not in str(error.value)
    assert "x.anomalens" in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\xff" * 8, b"\x10" + bytes(7) + b"{}", struct.pack("<Q", 2**63) + b"{}", b"PK\x03\x04" * 9]
)
def test_another_file_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.anomalens"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.anomalens"):
        load_detector(str(path))


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="anomalens fit"):
        load_detector(str(tmp_path / "none.anomalens"))
