"""What a detector says about one image: score, decision, map, mask and regions, with the numbers they came from."""

import io
import json
import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomalens.errors import InputError
from anomalens.files import atomic_write
from anomalens.images.decoding import Source, decode
from anomalens.images.maps import Map, resize_map, write_map
from anomalens.images.overlay import draw_heatmap, draw_overlay

_NOTEBOOK_SIDE = 800  # pixels; longest side of the picture shown in a notebook


@dataclass(frozen=True)
class Region:
    """A connected part of the mask, in pixels of the source image."""

    box: tuple[int, int, int, int]  # left, top, right, bottom; right and bottom just outside
    area: int  # pixels
    peak: float  # largest value of the anomaly map inside
    peak_at: tuple[int, int]  # x, y of that value

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"box": list(self.box), "area": self.area, "peak": self.peak, "peak_at": list(self.peak_at)}


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The result for one image, checked when it is made.

    Scores and maps are raw: no threshold, smoothing or scaling is hidden in them. To decide by another number, use
    `dataclasses.replace(prediction, threshold=..., threshold_source=...)`.

    Raises InputError when score or map is NaN or infinite (broken weights or overflow), ValueError when the values
    cannot belong together.
    """

    path: str | None  # where the image came from; None for images given as pixels
    width: int  # pixels of the source image
    height: int  # pixels of the source image
    score: float  # raw image-level anomaly score, larger is more anomalous
    threshold: float  # anomalous means score > threshold
    threshold_source: str  # where the threshold comes from, in words
    pixel_threshold: float  # the mask is map > pixel_threshold
    anomaly_map: Map  # float32 [h, w] at the size the model worked at; a read-only copy
    heat_range: tuple[float, float]  # map values of the coldest and the hottest colour, fixed for the model
    object_name: str | None  # what the prompts called the object
    method: str
    backbone: str
    note: str | None = None  # a remark on how the image was read
    p_value: float | None = None  # how rare so high a score is among the normal images calibrated with; None without

    def __post_init__(self) -> None:
        values = np.array(self.anomaly_map, np.float32)  # a copy: a view would keep the whole batch alive
        name = "image" if self.path is None else repr(self.path)
        if values.ndim != 2 or values.size == 0:
            raise ValueError(f"{name}: an anomaly map is [h, w], not of shape {list(values.shape)}")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"{name}: an image of {self.width} x {self.height} pixels")
        if not math.isfinite(self.score) or not np.isfinite(values).all():
            raise InputError(
                f"{name}: the {'score' if not math.isfinite(self.score) else 'anomaly map'} is not finite; "
                "check the weights, or use dtype float32"
            )
        low, high = self.heat_range
        if not (math.isfinite(self.threshold) and math.isfinite(self.pixel_threshold)):
            raise ValueError(f"{name}: thresholds {self.threshold} and {self.pixel_threshold} must be finite")
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"{name}: heat range {self.heat_range} must rise from cold to hot")
        values.flags.writeable = False
        object.__setattr__(self, "anomaly_map", values)
        for number in ("score", "threshold", "pixel_threshold"):  # numpy and torch scalars are no JSON
            object.__setattr__(self, number, float(getattr(self, number)))
        object.__setattr__(self, "heat_range", (float(low), float(high)))

    @property
    def label(self) -> Literal["normal", "anomalous"]:
        """The decision: "anomalous" where score > threshold."""
        return "anomalous" if self.score > self.threshold else "normal"

    def map_at_source(self) -> Map:
        """The anomaly map at the size of the source image, float32 [H, W]; computed at every call, not kept."""
        return resize_map(self.anomaly_map, (self.height, self.width))

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Where the map at source size exceeds `pixel_threshold`, bool [H, W]; computed at every use, not kept."""
        above: npt.NDArray[np.bool_] = self.map_at_source() > self.pixel_threshold
        return above

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The connected parts of the mask (corners connect), highest peak first."""
        from scipy import ndimage

        values = self.map_at_source()
        labels, _ = ndimage.label(values > self.pixel_threshold, structure=np.ones((3, 3), bool))
        found = []
        for index, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            inside = labels[rows, columns] == index
            part = np.where(inside, values[rows, columns], -np.inf)
            y, x = np.unravel_index(int(part.argmax()), part.shape)
            found.append(
                Region(
                    box=(columns.start, rows.start, columns.stop, rows.stop),
                    area=int(np.count_nonzero(inside)),
                    peak=float(part[y, x]),
                    peak_at=(columns.start + int(x), rows.start + int(y)),
                )
            )
        return tuple(sorted(found, key=lambda region: (-region.peak, region.box)))

    def heatmap(self) -> Image.Image:
        """The map alone in the model's fixed colours, RGB at source size."""
        return draw_heatmap(self.map_at_source(), self.heat_range)

    def overlay(self, image: Source | None = None, alpha: float = 0.6) -> Image.Image:
        """The heatmap over the image and the mask's contour, RGB at source size.

        `image` is the source (anything `decode` takes); None reads it again from `path`. `alpha` in [0, 1] is the
        largest opacity. Raises InputError when the image cannot be read, is not given where there is no path, or has
        another size.
        """
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha {alpha} must lie in [0, 1]")
        source = self.path if image is None else image
        if source is None:
            raise InputError("this prediction has no path to read the image from: give it, as overlay(image)")
        rgb = decode(source).rgb
        if rgb.shape[:2] != (self.height, self.width):
            raise InputError(
                f"the image is {rgb.shape[1]} x {rgb.shape[0]} pixels, the prediction is for "
                f"{self.width} x {self.height}: give the image that was predicted"
            )
        values = self.map_at_source()
        return draw_overlay(rgb, values, self.heat_range, values > self.pixel_threshold, alpha)

    def save(self, folder: str | os.PathLike[str], name: str | None = None) -> Path:
        """Write `NAME_overlay.png`, `NAME_mask.png` and `NAME.json` into `folder`, made if need be; returns it.

        `name` is the image's file name without suffix unless given; give one where images of different folders share
        a name. Without a path to read the image from, the heatmap stands for the overlay.
        Raises InputError when the image cannot be read any more, OSError when the folder cannot be written.
        """
        target = Path(folder)
        stem = name or (Path(self.path).stem if self.path else "image")
        target.mkdir(parents=True, exist_ok=True)
        picture = self.overlay() if self.path else self.heatmap()
        atomic_write(target / f"{stem}_overlay.png", _png(picture))
        self.save_mask(target / f"{stem}_mask.png")
        atomic_write(target / f"{stem}.json", json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")
        return target

    def save_overlay(self, path: str | os.PathLike[str], image: Source | None = None) -> None:
        """Write the overlay as PNG. Raises as `overlay` does, and OSError when the file cannot be written."""
        atomic_write(path, _png(self.overlay(image)))

    def save_mask(self, path: str | os.PathLike[str]) -> None:
        """Write the mask as PNG at source size: 255 in the mask, 0 elsewhere."""
        atomic_write(path, _png(Image.fromarray(self.mask.astype(np.uint8) * np.uint8(255))))

    def save_map(self, path: str | os.PathLike[str], *, at_source: bool = False) -> None:
        """Write the raw map as `.npy` (exact) or 16-bit `.png`, at working size or at source size.

        The PNG's scale is fixed for the model: from one heat range below the coldest colour to one above the hottest.
        It stands in the file, and `anomalens.images.maps.read_map` applies it. Raises ConfigError for another suffix.
        """
        low, high = self.heat_range
        span = high - low
        write_map(path, self.map_at_source() if at_source else self.anomaly_map, (low - span, high + span))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: every number is finite; pictures and maps are not in it."""
        row: dict[str, Any] = {
            "path": self.path,
            "score": self.score,
            "label": self.label,
            **({} if self.p_value is None else {"p_value": self.p_value}),
            "threshold": self.threshold,
            "threshold_source": self.threshold_source,
            "pixel_threshold": self.pixel_threshold,
            "width": self.width,
            "height": self.height,
            "object": self.object_name,
            "regions": [region.to_dict() for region in self.regions],
            "method": self.method,
            "backbone": self.backbone,
        }
        return row | ({"note": self.note} if self.note else {})

    def __repr__(self) -> str:
        return (
            f"Prediction({self.path!r}, {self.label}, score={self.score:.4f}, threshold={self.threshold:.4f}, "
            f"{self.width}x{self.height}, method={self.method!r})"
        )

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the overlay, or the heatmap where the image cannot be read."""
        try:
            picture = self.overlay()
        except InputError:
            picture = self.heatmap()
        picture.thumbnail((_NOTEBOOK_SIDE, _NOTEBOOK_SIDE))
        return _png(picture)


@dataclass(frozen=True)
class Failure:
    """An input that gave no prediction, and why in one line."""

    path: str | None  # None for images given as pixels
    error: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "error", " ".join(self.error.split()) or "unknown error")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"path": self.path, "error": self.error}


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # The lowest level: half the time of the default on photographs for a few per cent more bytes.
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
