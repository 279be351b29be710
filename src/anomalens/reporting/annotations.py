"""Write the regions of a run as annotations: COCO for training, Label Studio to be corrected by people.

Outlines follow the edges of the mask's pixels. Where a run has no masks, a region is its box.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from anomalens.errors import InputError
from anomalens.files import atomic_write
from anomalens.images.connected import find_runs
from anomalens.images.decoding import decode
from anomalens.images.image_files import MAX_PIXELS
from anomalens.images.outlines import Polygon, outlines, simplified
from anomalens.names import name_text
from anomalens.reporting.rendering import Progress
from anomalens.runs.store import Row
from anomalens.runs.stored_run import Run
from anomalens.threads import map_or_raise

CATEGORY = "anomaly"
"""The one class of regions."""

# How far an outline to be corrected by people may lie from the pixels, in pixels: fewer corners are easier to move.
_TOLERANCE = 1.0
# Where Label Studio serves files of its own disk.
_LOCAL_FILES = "/data/local-files/?d="


@dataclass(frozen=True)
class _Shape:
    """Hold one region of an image: what the row says of it, and its outline."""

    # As `Region.to_dict`.
    region: dict[str, Any]
    outline: Polygon
    # Run lengths of the mask [H, W] column by column, outside first; None where the outline says everything.
    run_lengths: list[int] | None


def write_coco(run: Run, folder: Path, progress: Progress | None = None) -> list[Path]:
    """Write coco.json into `folder`, atomically: every image that was judged, every region with outline, box and score.

    A region with holes is written as run lengths, any other as a polygon. `progress` is called with the number of
    images done. Raises OSError.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for row, shapes in _shapes(run, progress):
        size = {"width": row["width"], "height": row["height"]}
        images.append({"id": len(images) + 1, "file_name": _file(run, row), **size, "label": row["label"]})
        for shape in shapes:
            left, top, right, bottom = shape.region["box"]
            outline: Any = [[length for corner in shape.outline for length in corner]]
            if shape.run_lengths is not None:
                outline = {"size": [row["height"], row["width"]], "counts": shape.run_lengths}
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": shape.region["area"],
                    "segmentation": outline,
                    "iscrowd": 0,
                    "score": shape.region["peak"],
                }
            )
    content = {
        "info": {"description": f"regions found by anomalens, method {run.settings.get('method', 'unknown')}"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": CATEGORY, "supercategory": "defect"}],
    }
    return [_written(folder / "coco.json", content)]


def write_label_studio(run: Run, folder: Path, progress: Progress | None = None) -> list[Path]:
    """Write label-studio.json into `folder`, atomically: a task for each image that was judged, regions as predictions.

    Arguments and errors as for `write_coco`.
    """
    version = f"anomalens {run.settings.get('method', '')} {run.settings.get('backbone', '')}".strip()
    tasks = []
    for row, shapes in _shapes(run, progress):
        results = [_polygon_result(number, shape, row) for number, shape in enumerate(shapes, start=1)]
        prediction = {"model_version": version, "score": row["score"], "result": results}
        data = {"image": _address(_file(run, row)), "label": row["label"], "path": row["path"]}
        tasks.append({"data": data, "predictions": [prediction]})
    return [_written(folder / "label-studio.json", tasks)]


def _polygon_result(number: int, shape: _Shape, row: Row) -> dict[str, Any]:
    """Return a region as Label Studio takes it: corners in per cent of the image."""
    corners = simplified(shape.outline, _TOLERANCE)
    points = [[100 * x / row["width"], 100 * y / row["height"]] for x, y in corners]
    return {
        "id": f"region-{number}",
        "type": "polygonlabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": row["width"],
        "original_height": row["height"],
        "image_rotation": 0,
        "score": shape.region["peak"],
        "value": {"points": points, "closed": True, "polygonlabels": [CATEGORY]},
    }


def _file(run: Run, row: Row) -> str:
    """Return the file of an image: where the run had it from, or the frame that the run kept."""
    image = run.picture(row, "image")
    return name_text(image) if isinstance(image, Path) else row["path"]


def _address(path: str) -> str:
    """Return where Label Studio finds an image: its own address, or a file below the root of Label Studio's files."""
    if re.match(r"[a-z][a-z0-9+.-]+://", path):
        return path
    return _LOCAL_FILES + quote(path.replace("\\", "/").lstrip("/"))


def _shapes(run: Run, progress: Progress | None) -> Iterator[tuple[Row, Sequence[_Shape]]]:
    """Yield the rows of images that were judged, each with its regions; outlines are traced in background threads."""
    total = run.total
    judged = (row for row in run.rows() if row.get("label") in ("normal", "anomalous"))
    for number, (row, shapes) in enumerate(map_or_raise(judged, lambda row: _traced(run, row)), start=1):
        if progress:
            progress(number, max(number, total))
        yield row, shapes


def _traced(run: Run, row: Row) -> list[_Shape]:
    """Return the regions of a row with their outlines; boxes where there is no mask that fits the row."""
    mask = _mask(run, row) if row["regions"] else None
    regions = {} if mask is None else _regions_of(mask)
    shapes = []
    for region in row["regions"]:
        inside = regions.get((*region["box"], region["area"]))
        left, top, right, bottom = region["box"]
        if inside is None:
            shapes.append(_Shape(region, [(left, top), (right, top), (right, bottom), (left, bottom)], None))
            continue
        [outer], holes = outlines(inside)
        run_lengths = None
        if holes:
            alone = np.zeros((row["height"], row["width"]), bool)
            alone[top:bottom, left:right] = inside
            run_lengths = _run_lengths(alone)
        shapes.append(_Shape(region, [(x + left, y + top) for x, y in outer], run_lengths))
    return shapes


def _regions_of(mask: npt.NDArray[np.bool_]) -> dict[tuple[int, ...], npt.NDArray[np.bool_]]:
    """Return the pixels of each region of a mask [H, W] within its box; keys are box and area, as rows have them."""
    runs = find_runs(mask)
    regions: dict[tuple[int, ...], npt.NDArray[np.bool_]] = {}
    for number, (box, area) in enumerate(zip(runs.boxes.tolist(), runs.areas.tolist(), strict=True)):
        left, top, right, bottom = box
        inside = np.zeros((bottom - top, right - left), bool)
        own = runs.regions == number
        for y, start, stop in zip(runs.rows[own], runs.starts[own], runs.stops[own], strict=True):
            inside[y - top, start - left : stop - left] = True
        regions[left, top, right, bottom, area] = inside
    return regions


def _mask(run: Run, row: Row) -> npt.NDArray[np.bool_] | None:
    most = max(MAX_PIXELS, row["width"] * row["height"])
    try:
        picture = run.picture(row, "mask")
        mask = None if picture is None else decode(picture, max_pixels=most).rgb[..., 0] > 127
    except InputError:
        return None
    return mask if mask is not None and mask.shape == (row["height"], row["width"]) else None


def _run_lengths(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Return how many pixels outside, inside, outside, ... follow each other, column by column from the left."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    lengths: list[int] = np.diff([0, *changes.tolist(), flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths


def _written(path: Path, content: Any) -> Path:
    atomic_write(path, json.dumps(content, ensure_ascii=False, allow_nan=False))
    return path
