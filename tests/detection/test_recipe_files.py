"""Files of taught parts that are damaged or made to do harm: refused in one line, and nothing is run."""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from anomalens.detection.loading import load_detector
from anomalens.detection.recipe import _digest, read_recipe
from anomalens.errors import ConfigError, WeightsError
from parts import faulty_part, good_part


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    path = tmp_path_factory.mktemp("part") / "nut.anomalens"
    detector = load_detector("anoclip", str(tiny_weights), size=64)
    detector.fit([good_part(number) for number in range(4)]).save(path)
    return path


def changed(
    part: Path,
    target: Path,
    edit: Callable[[dict[str, Any]], object] = lambda header: None,
    tensors: Callable[[dict[str, Any]], object] = lambda tensors: None,
    honest: bool = True,
) -> Path:
    """Write a copy with another header or other tensors, whose digest is right unless it shall not be."""
    raw = part.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["recipe"])
    arrays = load(raw)
    tensors(arrays)
    if honest:
        header["sha256"] = _digest(arrays)
    edit(header)
    target.write_bytes(save(arrays, {"format": "anomalens-recipe", "recipe": json.dumps(header)}))
    return target


def refused(path: Path, reason: str) -> None:
    with pytest.raises(WeightsError) as caught:
        read_recipe(path)
    message = str(caught.value)
    assert path.name in message
    assert reason in message, message
    assert "\n" not in message


def test_an_unchanged_copy_is_read(part: Path, tmp_path: Path) -> None:
    recipe = read_recipe(changed(part, tmp_path / "a.anomalens"))
    assert len(recipe.lesson.photos) == 4


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cut off"),
        (b"\x00" * 7, "cut off"),
        (b"\xff" * 64, "cut off"),
        ((2**62).to_bytes(8, "little") + b"{}" * 40, "cut off"),
        ((5 * 2**20).to_bytes(8, "little") + b" " * (6 * 2**20), "cut off"),
        ((2).to_bytes(8, "little") + b"[]", "header"),
        ((2).to_bytes(8, "little") + b"{}", "another kind of file"),
        (pickle.dumps({"a": np.zeros(3)}), "cut off"),
    ],
    ids=["empty", "short", "noise", "huge", "large header", "list", "no recipe", "pickle"],
)
def test_files_that_are_no_recipe(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.anomalens"
    path.write_bytes(content)
    refused(path, reason)


def test_a_zip_and_a_folder_and_nothing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.anomalens", "w") as archive:
        archive.writestr("data.pkl", b"cos\nsystem\n(S'true'\ntR.")
    refused(tmp_path / "a.anomalens", "no recipe")
    (tmp_path / "b.anomalens").mkdir()
    refused(tmp_path / "b.anomalens", "folder")
    refused(tmp_path / "c.anomalens", "anomalens fit")


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.999])
def test_a_file_that_was_cut_off(part: Path, tmp_path: Path, kept: float) -> None:
    raw = part.read_bytes()
    (tmp_path / "a.anomalens").write_bytes(raw[: int(kept * len(raw))])
    refused(tmp_path / "a.anomalens", "damaged")


def test_a_changed_byte(part: Path, tmp_path: Path) -> None:
    raw = bytearray(part.read_bytes())
    raw[-5] ^= 1
    (tmp_path / "a.anomalens").write_bytes(raw)
    refused(tmp_path / "a.anomalens", "do not match its header")


def put(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    """Return an edit that sets header[keys[0]][keys[1]]... to a value."""

    def edit(header: dict[str, Any]) -> None:
        table: Any = header
        for key in keys[:-1]:
            table = table[key]
        table[keys[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (put("schema", value=2), "schema 2"),
        (put("sha256", value=7), "do not match"),
        (put("lesson", value=[]), "lesson"),
        (put("lesson", "method", value="nonsense"), "nonsense"),
        (put("lesson", "method", value={"a": 1}), "method"),
        (put("lesson", "options", "turns", value=-3), "turns"),
        (put("lesson", "options", "rows", value="many"), "rows"),
        (put("lesson", "options", "more", value=1), "more"),
        (put("lesson", "photos", value=[]), "photos"),
        (put("lesson", "photos", 0, "name", value=3), "name"),
        (put("lesson", "photos", 0, "capture", "brightness", value="dark"), "brightness"),
        (put("lesson", "scores", value=[1.0]), "4 photos and 1 scores"),
        (put("lesson", "scores", 0, value=float("nan")), "finite"),
        (put("lesson", "fpr", value=-0.5), "false-alarm rate"),
        (put("lesson", "seed", value=-1), "seed"),
        (put("lesson", "seed", value=10**30), "64 bits"),
        (put("lesson", "turn_ratio", value="wide"), "turn_ratio"),
        (put("sizes", value={}), "nothing was taught"),
        (put("sizes", "64", "limit", value=-1.0), "limit"),
        (put("sizes", "64", "fitted", value={"score_mean": "high"}), "score_mean"),
        (put("calibration", "threshold", value=float("inf")), "finite"),
        (put("calibration", "heat_range", value=[1.0, 0.0]), "heat range"),
        (put("pooling", "top", value=0), "top"),
        (put("capture", "sharpness", value=None), "sharpness"),
        (put("options", "size", value=-64), "size"),
        (put("options", "nonsense", value=1), "nonsense"),
        (put("options", "roi", value="/etc/passwd"), "roi"),
        (put("words", "weights", value=None), "weights"),
        (put("words", "trained_images", value=[]), "trained_images"),
        (put("version", value=1), "version"),
    ],
)
def test_headers_that_do_not_fit(
    part: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], object], reason: str
) -> None:
    refused(changed(part, tmp_path / "a.anomalens", edit), reason)


def test_a_header_that_is_too_deep(part: Path, tmp_path: Path) -> None:
    nested: Any = 1
    for _ in range(40):
        nested = [nested]
    refused(changed(part, tmp_path / "a.anomalens", put("words", value=nested)), "within each other")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("64.seen.globals.0", lambda values: values * np.nan, "not finite"),
        ("64.remembered.rows", lambda values: values * np.float16(np.inf), "not finite"),
        ("64.remembered.rows", lambda values: values[:0], "empty"),
        ("64.seen.descriptors.0", lambda values: values[:2], "different lengths"),
        ("64.seen.descriptors.0", lambda values: values[..., 0], "dimensions"),
        ("64.seen.photo.0", lambda values: values * 0, "not every photo"),
        ("64.seen.photo.0", lambda values: values + 2, "not every photo"),
        ("64.seen.view.0", lambda values: values.astype(np.float32), "not whole"),
        ("thumbnail_ends", lambda values: values[::-1].copy(), "small pictures"),
        ("thumbnail_ends", lambda values: values + 10**9, "small pictures"),
        ("thumbnail_ends", lambda values: -values, "small pictures"),
    ],
)
def test_tensors_that_do_not_fit(
    part: Path, tmp_path: Path, name: str, change: Callable[[Any], Any], reason: str
) -> None:
    def edit(arrays: dict[str, Any]) -> None:
        arrays[name] = np.ascontiguousarray(change(arrays[name]))

    refused(changed(part, tmp_path / "a.anomalens", tensors=edit), reason)


def test_tensors_that_are_missing_or_too_many(part: Path, tmp_path: Path) -> None:
    for name in ("64.remembered.rows", "64.seen.globals.0", "thumbnails"):
        refused(changed(part, tmp_path / "a.anomalens", tensors=lambda arrays, name=name: arrays.pop(name)), "damaged")  # type: ignore[misc]
    empty = np.zeros((4, 4), np.uint8)
    edit = {"roi": empty}.items()
    refused(changed(part, tmp_path / "a.anomalens", tensors=lambda arrays: arrays.update(edit)), "region of interest")


def test_other_weights_are_refused_with_the_reason(part: Path, tmp_path: Path) -> None:
    other = changed(part, tmp_path / "a.anomalens", put("words", "weights", value="0" * 64))
    with pytest.raises(WeightsError, match="taught with other weights"):
        load_detector(str(other))
    learned = changed(part, tmp_path / "b.anomalens", put("words", "learned", value="other"))
    with pytest.raises(WeightsError, match="learned prompts"):
        load_detector(str(learned))


def test_a_part_survives_its_file(part: Path, tiny_weights: Path) -> None:
    taught = load_detector("anoclip", str(tiny_weights), size=64).fit([good_part(number) for number in range(4)])
    loaded = load_detector(str(part))
    for image in (good_part(1), good_part(9), faulty_part(3)):
        before, after = taught.predict(image), loaded.predict(image)
        assert after.score == pytest.approx(before.score, abs=1e-5)
        assert np.allclose(after.anomaly_map, before.anomaly_map, atol=1e-5)
        assert (after.label, after.threshold) == (before.label, before.threshold)
    assert loaded.lesson is not None
    with pytest.raises(ConfigError, match="keeps its options"):
        loaded.fit([good_part(7)], turns=2)
