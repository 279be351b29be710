"""Hold the result for one image: score, decision, map, mask and regions, with the numbers they came from."""

import json
import math
import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomalens.errors import ConfigError, InputError, one_line
from anomalens.files import atomic_write
from anomalens.images.connected import Runs, find_runs
from anomalens.images.decoding import Source, decode
from anomalens.images.encoding import encode_image
from anomalens.images.image_files import MAX_PIXELS, memory
from anomalens.images.maps import Box, Map, bands, reach_of, resize_map, write_map
from anomalens.images.overlay import OPACITY, draw_heatmap, draw_overlay
from anomalens.images.pixel_values import Channels
from anomalens.names import name_text

Label: TypeAlias = Literal["normal", "anomalous", "unusable"]
"""A decision; "unusable" is an image that cannot be judged, which is never called normal."""

Bits: TypeAlias = npt.NDArray[np.uint8]
"""A mask [H, W] of which each byte holds eight neighbours in a row, as `numpy.packbits` does: [H, (W + 7) // 8]."""

SURE = 80
"""Confidence from which a decision counts as sure."""

# Longest side, in pixels, of the picture shown in a notebook.
_NOTEBOOK_SIDE = 800
# Where between the coldest colour and a map's largest value the mask of an anomalous image begins at the latest.
_STANDING_OUT = 0.7


@dataclass(frozen=True)
class Region:
    """Describe a connected part of the mask, in pixels of the source image."""

    # Left, top, right, bottom in pixels; right and bottom lie just outside.
    box: tuple[int, int, int, int]
    # Pixels.
    area: int
    # Largest value of the anomaly map inside.
    peak: float
    # x, y of that value, in pixels.
    peak_at: tuple[int, int]
    # Millimetres a pixel; None where the scale is not known.
    mm_per_px: float | None = None

    @property
    def width_mm(self) -> float | None:
        """Return the width of the box in millimetres; None where the scale is not known."""
        return None if self.mm_per_px is None else (self.box[2] - self.box[0]) * self.mm_per_px

    @property
    def height_mm(self) -> float | None:
        """Return the height of the box in millimetres; None where the scale is not known."""
        return None if self.mm_per_px is None else (self.box[3] - self.box[1]) * self.mm_per_px

    @property
    def area_mm2(self) -> float | None:
        """Return the area in square millimetres; None where the scale is not known."""
        return None if self.mm_per_px is None else self.area * self.mm_per_px**2

    def to_dict(self) -> dict[str, Any]:
        """Return the region ready for JSON; with sizes in millimetres where the scale is known."""
        row: dict[str, Any] = {
            "box": list(self.box),
            "area": self.area,
            "peak": self.peak,
            "peak_at": list(self.peak_at),
        }
        if self.mm_per_px is not None:
            row |= {"width_mm": self.width_mm, "height_mm": self.height_mm, "area_mm2": self.area_mm2}
        return row


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """Hold the result for one image, checked when it is made. It can be pickled.

    Map and `method_score` are raw: no threshold, smoothing or scaling is hidden in them. To decide by another number,
    use `dataclasses.replace(prediction, threshold=..., threshold_source=...)`.

    Raises InputError when a score or the map is NaN or infinite (broken weights or overflow), ValueError when the
    values cannot belong together.
    """

    # Where the image came from; None for images given as pixels.
    path: str | None
    # Of the source image, in pixels.
    width: int
    height: int
    # Image score that decides, larger is more anomalous: the method's own, pooled with the map where the detector's
    # score pooling says so.
    score: float
    # The image is anomalous where score > threshold.
    threshold: float
    # Where the threshold comes from, in words.
    threshold_source: str
    # The mask of an anomalous image is map > pixel_threshold; see `mask_threshold`.
    pixel_threshold: float
    # float32 [h, w] at the size the model worked at; a read-only copy.
    anomaly_map: Map
    # Map values of the coldest and the hottest colour, fixed for the model.
    heat_range: tuple[float, float]
    # What the prompts called the object.
    object_name: str | None
    method: str
    backbone: str
    # A remark on how the image was read.
    note: str | None = None
    # How rare so high a score is among the normal images calibrated with; None without such a calibration.
    p_value: float | None = None
    # The method's own image score before score pooling; `score` unless given.
    method_score: float | None = None
    # A difference of scores that counts as large, above 0: what `confidence` is measured in. Unless given, a quarter of
    # the heat range.
    score_scale: float | None = None
    # Why the image cannot be judged, in words; None where it can.
    unusable: str | None = None
    # Regions of fewer pixels count nowhere.
    min_area: int = 0
    # Millimetres a pixel; None where the scale is not known.
    mm_per_px: float | None = None

    def __post_init__(self) -> None:
        # A copy: a view would keep the whole batch alive.
        values = np.array(self.anomaly_map, np.float32)
        name = "image" if self.path is None else repr(self.path)
        if values.ndim != 2 or values.size == 0:
            raise ValueError(f"{name}: an anomaly map is [h, w], not of shape {list(values.shape)}")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"{name}: an image of {self.width} x {self.height} pixels")
        method_score = self.score if self.method_score is None else self.method_score
        for part, numbers in (("score", self.score), ("method's score", method_score), ("anomaly map", values)):
            if not np.isfinite(numbers).all():
                raise InputError(f"{name}: the {part} is not finite; check the weights, or use dtype float32")
        low, high = self.heat_range
        if not (math.isfinite(self.threshold) and math.isfinite(self.pixel_threshold)):
            raise ValueError(f"{name}: thresholds {self.threshold} and {self.pixel_threshold} must be finite")
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"{name}: heat range {self.heat_range} must rise from cold to hot")
        values.flags.writeable = False
        object.__setattr__(self, "anomaly_map", values)
        # Scalars of numpy and torch are no JSON.
        object.__setattr__(self, "method_score", float(method_score))
        object.__setattr__(self, "score_scale", float(self.score_scale or (high - low) / 4))
        for number in ("score", "threshold", "pixel_threshold"):
            object.__setattr__(self, number, float(getattr(self, number)))
        object.__setattr__(self, "heat_range", (float(low), float(high)))

    @property
    def label(self) -> Label:
        """Return the decision.

        "unusable" where the image cannot be judged; "anomalous" where score > threshold and, with `min_area`, a region
        is large enough; else "normal".
        """
        if self.unusable is not None:
            return "unusable"
        if not self._exceeds or (self.min_area and not self.regions):
            return "normal"
        return "anomalous"

    @property
    def _exceeds(self) -> bool:
        return self.unusable is None and self.score > self.threshold

    @property
    def confidence(self) -> int:
        """Return how clear the decision is, 50 (a toss-up) to 100, by the distance of the score to the threshold.

        It is a reading aid, no probability: 100 / (1 + exp(-4 d)) with d the distance in units of `score_scale`.
        """
        assert self.score_scale is not None
        distance = abs(self.score - self.threshold) / self.score_scale
        return round(100 / (1 + math.exp(-4 * min(distance, 20))))

    @property
    def sure(self) -> bool:
        """Return whether the decision is clear: a confidence of at least 80, and an image that can be judged."""
        return self.unusable is None and self.confidence >= SURE

    @property
    def reason(self) -> str:
        """Return the reason for the decision as a sentence."""
        if self.unusable is not None:
            return f"Not judged: {self.unusable}."
        if self.label == "normal":
            if self._exceeds:
                return f"No region of at least {self.min_area} pixels stands out."
            return "Nothing stands out."
        largest = max(self.regions, key=lambda region: region.area)
        left, top, right, bottom = largest.box
        size = f"{right - left} x {bottom - top} pixels"
        if largest.mm_per_px is not None:
            size = f"{largest.width_mm:.3g} x {largest.height_mm:.3g} mm"
        count = "1 region stands out" if len(self.regions) == 1 else f"{len(self.regions)} regions stand out"
        return f"{count}, the largest {size} at x {left}, y {top}."

    def map_at_source(self) -> Map:
        """Return the anomaly map at the size of the source image, float32 [H, W]; computed at every call."""
        return resize_map(self.anomaly_map, (self.height, self.width))

    @cached_property
    def mask_threshold(self) -> float:
        """Return the map value above which pixels of an anomalous image are in the mask.

        It is `pixel_threshold`, or 0.7 of the way from the coldest colour to the map's own largest value where that is
        less: an anomalous image shows where.
        """
        low, peak = self.heat_range[0], float(self.anomaly_map.max())
        threshold = min(self.pixel_threshold, low + _STANDING_OUT * (peak - low)) if peak > low else peak
        size = (self.height, self.width)
        reach = reach_of(self.anomaly_map > threshold, size)
        if reach is not None and self._largest(reach) > threshold:
            return threshold
        # Shrunk to a smaller image, or constant: nothing stands out but the largest value there is.
        largest = self._largest(Box(0, 0, self.width, self.height))
        return float(np.nextafter(np.float32(largest), np.float32(-np.inf)))

    def _largest(self, box: Box) -> float:
        """Return the largest value of the map at source size in a rectangle."""
        size = (self.height, self.width)
        return max(float(resize_map(self.anomaly_map, size, band).max()) for band in bands(box))

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Return where the defects are, bool [H, W]: all False unless the image is anomalous; computed at every use."""
        return self._unpacked(self._regions_and_mask[1])

    def _unpacked(self, bits: Bits | None) -> npt.NDArray[np.bool_]:
        if bits is None:
            return np.zeros((self.height, self.width), bool)
        return np.unpackbits(bits, axis=1, count=self.width).view(np.bool_)

    @property
    def regions(self) -> tuple[Region, ...]:
        """Return the connected parts of the mask (corners connect), highest peak first; none unless anomalous."""
        return self._regions_and_mask[0]

    @cached_property
    def _regions_and_mask(self) -> tuple[tuple[Region, ...], Bits | None]:
        """Return the regions and the mask; None where nothing is marked."""
        if not self._exceeds:
            return (), None
        size, threshold = (self.height, self.width), self.mask_threshold
        # Only this part of a large image is worked on: everywhere else the map cannot exceed the threshold.
        reach = reach_of(self.anomaly_map > threshold, size)
        if reach is None:
            return (), None
        # The mask takes a byte a pixel; so does each of the three steps from it to its runs.
        with memory.take(4 * self.height * self.width):
            mask = np.zeros(size, bool)
            for band in bands(reach):
                mask[band.slices] = resize_map(self.anomaly_map, size, band) > threshold
            inside = mask[reach.slices]
            runs = find_runs(inside)
            areas, boxes = runs.areas, runs.boxes + (reach.left, reach.top) * 2
            peaks = self._peaks(inside, runs, reach)
            large = areas >= self.min_area
            inside[inside] = runs.of_pixels(large[runs.regions])
            regions = []
            for index in np.flatnonzero(large):
                left, top, right, bottom = (int(side) for side in boxes[index])
                box = (left, top, right, bottom)
                regions.append(Region(box, int(areas[index]), *peaks[index], mm_per_px=self.mm_per_px))
            regions.sort(key=lambda region: (-region.peak, region.box))
            return tuple(regions), np.packbits(mask, axis=1)

    def _peaks(self, mask: npt.NDArray[np.bool_], runs: Runs, reach: Box) -> list[tuple[float, tuple[int, int]]]:
        """Return, for every region, the map's largest value at source size, with its x and y; `mask` fills `reach`."""
        highest, places = np.empty(runs.rows.size, np.float32), np.empty(runs.rows.size, np.int64)
        for band in bands(reach):
            rows = slice(band.top - reach.top, band.bottom - reach.top)
            some = slice(*np.searchsorted(runs.rows, (rows.start, rows.stop)))
            lengths = runs.lengths[some]
            if not lengths.size:
                continue
            values = resize_map(self.anomaly_map, (self.height, self.width), band)[mask[rows]]
            begins = np.cumsum(lengths) - lengths
            highest[some] = np.maximum.reduceat(values, begins)
            # The first pixel of each run that reaches its largest value.
            reached = np.flatnonzero(values == np.repeat(highest[some], lengths))
            first = reached[np.searchsorted(reached, begins)]
            places[some] = runs.starts[some] + first - begins
        # Of each region the run with the largest value, the first of equal ones.
        order = np.lexsort((-highest, runs.regions))
        best = order[np.searchsorted(runs.regions[order], np.arange(runs.areas.size))]
        return [(float(highest[run]), (reach.left + int(places[run]), reach.top + int(runs.rows[run]))) for run in best]

    def heatmap(self) -> Image.Image:
        """Return the map alone in the model's fixed colours, RGB at source size."""
        return draw_heatmap(self.map_at_source(), self.heat_range)

    def overlay(
        self, image: Source | None = None, alpha: float = OPACITY, *, channels: Channels = "rgb"
    ) -> Image.Image:
        """Return the heatmap over the image and the mask's contour, RGB at source size.

        `image` is the source (anything `decode` takes, with its `channels`); None reads it again from `path`. `alpha`
        in [0, 1] is the largest opacity. Raises InputError when the image cannot be read, is missing where there is no
        path, or has another size; ValueError for another `alpha`.
        """
        with ExitStack() as room:
            return self._drawn(image, alpha, channels, room)

    def _drawn(self, image: Source | None, alpha: float, channels: Channels, room: ExitStack) -> Image.Image:
        """Draw the overlay; its memory counts in the budget of all threads until `room` closes."""
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha {alpha} must lie in [0, 1]")
        source = self.path if image is None else image
        if source is None:
            raise InputError("this prediction has no path to read the image from: give it, as overlay(image)")
        # Before the image is read: whoever holds memory must not wait for more.
        bits = self._regions_and_mask[1]
        # What was predicted was accepted, so that it is read again whatever its size.
        limit = max(MAX_PIXELS, self.width * self.height)
        rgb = decode(source, channels=channels, max_pixels=limit, truncated=True, room=room).rgb
        if rgb.shape[:2] != (self.height, self.width):
            raise InputError(
                f"the image is {rgb.shape[1]} x {rgb.shape[0]} pixels, the prediction is for "
                f"{self.width} x {self.height}: give the image that was predicted"
            )
        return draw_overlay(rgb, self.anomaly_map, self.heat_range, self._unpacked(bits), alpha)

    def save(self, folder: str | os.PathLike[str], name: str | None = None) -> Path:
        """Write `NAME_overlay.png`, `NAME_mask.png` and `NAME.json` into `folder`, made if need be; return it.

        `name` is the image's file name without suffix unless given; give one where images of different folders share
        a name. Without a path to read the image from, the heatmap takes the overlay's place.
        Raises ConfigError for a name with folders in it, InputError when the image cannot be read any more, OSError
        when the folder cannot be written.
        """
        target = Path(folder)
        stem = name or (Path(self.path).stem if self.path else "image")
        if Path(stem).name != stem or "\0" in stem:
            raise ConfigError(
                f"{stem!r} is no file name: choose the folder by save(folder), and a name without folders"
            )
        target.mkdir(parents=True, exist_ok=True)
        if self.path:
            self.save_overlay(target / f"{stem}_overlay.png")
        else:
            atomic_write(target / f"{stem}_overlay.png", _png(self.heatmap()), durable=False)
        self.save_mask(target / f"{stem}_mask.png")
        # Escaped, so that a path that is no UTF-8 can be written.
        atomic_write(target / f"{stem}.json", json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")
        return target

    def save_overlay(
        self, path: str | os.PathLike[str], image: Source | None = None, *, channels: Channels = "rgb"
    ) -> None:
        """Write the overlay as PNG. Raises as `overlay` does, and OSError when the file cannot be written."""
        with ExitStack() as room:
            atomic_write(path, _png(self._drawn(image, OPACITY, channels, room)), durable=False)

    def save_mask(self, path: str | os.PathLike[str]) -> None:
        """Write the mask as PNG at source size: 255 in the mask, 0 elsewhere."""
        bits = self._regions_and_mask[1]
        with memory.take(4 * self.height * self.width):
            levels = self._unpacked(bits).view(np.uint8) * np.uint8(255)
            atomic_write(path, _png(Image.fromarray(levels)), durable=False)

    def save_map(self, path: str | os.PathLike[str], *, at_source: bool = False) -> None:
        """Write the raw map as `.npy` (exact) or 16-bit `.png`, at working size or at source size.

        The PNG's scale is fixed for the model: it begins one width of the heat range below the coldest colour and ends
        one width above the hottest. It stands in the file, and `anomalens.images.maps.read_map` applies it.
        Raises ConfigError for another suffix, OSError when the file cannot be written.
        """
        low, high = self.heat_range
        span = high - low
        write_map(path, self.map_at_source() if at_source else self.anomaly_map, (low - span, high + span))

    def to_dict(self) -> dict[str, Any]:
        """Return the result ready for JSON: every number is finite; pictures and maps are not in it."""
        row: dict[str, Any] = {
            "path": None if self.path is None else name_text(self.path),
            "score": self.score,
            "label": self.label,
            "confidence": self.confidence,
            "reason": self.reason,
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
        """Return what a notebook shows: the overlay, or the heatmap where the image cannot be read."""
        try:
            picture = self.overlay()
        except InputError:
            picture = self.heatmap()
        picture.thumbnail((_NOTEBOOK_SIDE, _NOTEBOOK_SIDE))
        return _png(picture)


@dataclass(frozen=True)
class Failure:
    """Describe an input that gave no prediction, and why in one line."""

    # None for images given as pixels.
    path: str | None
    error: str
    # Name of the error's class.
    kind: str = "InputError"

    def __post_init__(self) -> None:
        object.__setattr__(self, "error", " ".join(self.error.split()) or "unknown error")

    @classmethod
    def of(cls, path: str | None, error: BaseException) -> "Failure":
        """Return the failure that an exception describes."""
        return cls(path, one_line(error), type(error).__name__)

    def to_dict(self) -> dict[str, Any]:
        """Return the failure ready for JSON."""
        return {"path": None if self.path is None else name_text(self.path), "error": self.error, "kind": self.kind}


def _png(picture: Image.Image) -> bytes:
    # The lowest level: half the time of the default on photographs for a few per cent more bytes.
    return encode_image(picture, compress_level=1)


Result: TypeAlias = Prediction | Failure
"""The result for one image."""


def predictions_of(results: Iterable[Result]) -> list[Prediction]:
    """Collect results of which none may have failed. Raises InputError with the reason of the first that did."""
    predictions = []
    for result in results:
        if isinstance(result, Failure):
            raise InputError(result.error)
        predictions.append(result)
    return predictions
