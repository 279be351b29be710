"""Regions as annotations: outlines that are exactly the mask, in the terms of COCO and of Label Studio."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from anomalens.images.decoding import decode_mask
from anomalens.reporting.annotations import write_coco, write_label_studio
from anomalens.runs.stored_run import StoredRun, read_run
from stored_runs import Shot, write_run


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    shots = [Shot("a.png", 0.9), Shot("b.png", 0.1), Shot("c.png", error="x"), Shot("d.png", unusable="black")]
    return read_run(write_run(tmp_path, shots))


def with_mask(run: StoredRun, mask: npt.NDArray[np.bool_], regions: list[dict[str, Any]]) -> StoredRun:
    """Give the first image of a run another mask [40, 60] and other regions."""
    Image.fromarray(mask.astype(np.uint8) * 255).save(run.folder / "masks" / "000000-a.png")
    lines = (run.folder / "predictions.jsonl").read_text().splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {"regions": regions})
    (run.folder / "predictions.jsonl").write_text("\n".join(lines) + "\n")
    return run


def region(box: list[int], area: int) -> dict[str, Any]:
    return {"box": box, "area": area, "peak": 0.9, "peak_at": box[:2]}


def coco(run: StoredRun, folder: Path) -> dict[str, Any]:
    [path] = write_coco(run, folder)
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def test_coco(run: StoredRun, tmp_path: Path) -> None:
    content = coco(run, tmp_path)
    # What could not be read or judged is no training data.
    assert [(Path(image["file_name"]).name, image["id"], image["label"]) for image in content["images"]] == [
        ("a.png", 1, "anomalous"),
        ("b.png", 2, "normal"),
    ]
    [annotation] = content["annotations"]
    mask = decode_mask(run.folder / "masks" / "000000-a.png")
    x, y, width, height = annotation["bbox"]
    assert mask.sum() == mask[y : y + height, x : x + width].sum() == annotation["area"]
    assert (annotation["image_id"], annotation["category_id"], annotation["iscrowd"]) == (1, 1, 0)
    assert content["categories"] == [{"id": 1, "name": "anomaly", "supercategory": "defect"}]
    drawn = Image.new("1", (60, 40))
    [corners] = annotation["segmentation"]
    # A polygon of Pillow covers its right and lower edge too.
    ImageDraw.Draw(drawn).polygon(
        [(x - (x > 20), y - (y > 10)) for x, y in zip(corners[::2], corners[1::2], strict=True)], 1
    )
    assert np.array_equal(np.asarray(drawn), mask)


def test_a_region_with_a_hole_is_run_lengths(run: StoredRun, tmp_path: Path) -> None:
    mask = np.zeros((40, 60), bool)
    mask[0:6, 0:7] = True
    mask[2:4, 2:5] = False
    mask[30:32, 50:52] = True
    changed = with_mask(run, mask, [region([0, 0, 7, 6], 36), region([50, 30, 52, 32], 4)])
    ring, square = coco(changed, tmp_path)["annotations"]
    assert ring["segmentation"]["size"] == [40, 60]
    values = [np.full(count, number % 2) for number, count in enumerate(ring["segmentation"]["counts"])]
    alone = np.concatenate(values).reshape(60, 40).T.astype(bool)
    mask[30:32, 50:52] = False
    assert np.array_equal(alone, mask)
    assert square["segmentation"] == [[50, 30, 52, 30, 52, 32, 50, 32]]


@pytest.mark.parametrize("damage", ["gone", "size", "others"])
def test_without_a_mask_that_fits_a_region_is_its_box(run: StoredRun, tmp_path: Path, damage: str) -> None:
    path = run.folder / "masks" / "000000-a.png"
    if damage == "gone":
        path.unlink()
    else:
        Image.new("L", (60, 40) if damage == "others" else (5, 5)).save(path)
    [annotation] = coco(run, tmp_path)["annotations"]
    x, y, width, height = annotation["bbox"]
    assert annotation["segmentation"] == [[x, y, x + width, y, x + width, y + height, x, y + height]]


def test_label_studio(run: StoredRun, tmp_path: Path) -> None:
    lines = (run.folder / "predictions.jsonl").read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | {"path": "s3://bucket/b é.png"})
    (run.folder / "predictions.jsonl").write_text("\n".join(lines) + "\n")
    [path] = write_label_studio(run, tmp_path)
    first, second = json.loads(path.read_text(encoding="utf-8"))
    assert first["data"]["image"] == f"/data/local-files/?d={str(tmp_path / 'photos' / 'a.png').lstrip('/')}"
    assert second["data"]["image"] == "s3://bucket/b é.png"
    assert second["predictions"][0]["result"] == []
    [result] = first["predictions"][0]["result"]
    assert (result["original_width"], result["original_height"]) == (60, 40)
    assert (result["type"], result["from_name"], result["to_name"]) == ("polygonlabels", "label", "image")
    assert result["value"]["polygonlabels"] == ["anomaly"]
    box = json.loads(lines[0])["regions"][0]["box"]
    x, y = np.array(result["value"]["points"]).T
    assert [x.min() * 0.6, y.min() * 0.4, x.max() * 0.6, y.max() * 0.4] == pytest.approx(box)
