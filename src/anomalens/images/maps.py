"""Resize anomaly maps, cut images into tiles and join the tiles' maps, write and read map files.

A map is float32 [h, w]; larger means more anomalous. Nothing here rescales its values.
"""

import io
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from anomalens.errors import ConfigError, InputError, one_line
from anomalens.files import atomic_write
from anomalens.images.encoding import encode_image
from anomalens.images.image_files import quoted, read_file

Map: TypeAlias = npt.NDArray[np.float32]
"""An anomaly map, float32 [h, w]."""


# Pixels of a part of an image that is worked on at a time.
_BAND = 2**20


class Box(NamedTuple):
    """Describe a rectangle of pixels: columns left <= x < right, rows top <= y < bottom."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Return the index of the rectangle: `image[box.slices]` is [bottom - top, right - left, ...]."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def resize_map(values: Map, size: tuple[int, int], part: Box | None = None) -> Map:
    """Return a map [h, w] resized to `size` = (H, W), or the rectangle `part` of it: a new array.

    Bilinear with half-pixel centres, filtered when it shrinks. Enlarging equals torch's
    `interpolate(mode="bilinear", align_corners=False)`; a constant map stays constant. A part of a large image is
    computed without the rest, and may differ from the whole by rounding (1e-6).
    """
    height, width = size
    if values.shape == (height, width):
        return np.array(values if part is None else values[part.slices], np.float32)
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    if part is not None and width * height <= _BAND:
        return np.array(image.resize((width, height), Image.Resampling.BILINEAR).crop(part), np.float32)
    left, top, right, bottom = part or Box(0, 0, width, height)
    rows, columns = values.shape
    # In cells of the map. The filter also reaches what lies outside of it.
    cells = (left * columns / width, top * rows / height, right * columns / width, bottom * rows / height)
    resized = image.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=cells)
    return np.array(resized, np.float32)


def bands(box: Box) -> Iterator[Box]:
    """Yield a rectangle in parts of whole rows, from the top, of about a million pixels each.

    What goes band by band takes the memory of one band, however large the image is.
    """
    height = max(1, _BAND // max(1, box.right - box.left))
    for top in range(box.top, box.bottom, height):
        yield Box(box.left, top, box.right, min(top + height, box.bottom))


def reach_of(cells: npt.NDArray[np.bool_], size: tuple[int, int]) -> Box | None:
    """Return a rectangle of a map resized to `size` = (H, W) that holds all pixels that `cells` [h, w] contribute to.

    Pixels outside it are means of other cells alone. None where no cell is set.
    """
    if not cells.any():
        return None
    (top, bottom), (left, right) = (
        _reach(np.flatnonzero(cells.any(axis=1 - axis)), cells.shape[axis], size[axis]) for axis in (0, 1)
    )
    return Box(left, top, right, bottom)


def _reach(cells: npt.NDArray[np.intp], count: int, length: int) -> tuple[int, int]:
    """Return the span of `length` pixels that the first to the last of `cells`, of `count`, contribute to."""
    scale = length / count
    # The filter reaches one cell to either side, or one pixel where the map shrinks; one pixel more for rounding.
    support = max(1.0, 1 / scale)
    start = math.floor((cells[0] + 0.5 - support) * scale) - 1
    stop = math.ceil((cells[-1] + 0.5 + support) * scale) + 1
    return max(0, start), min(length, stop)


def tiles(height: int, width: int, tile: int, overlap: float) -> list[Box]:
    """Return the fewest boxes of at most `tile` x `tile` pixels that cover [height, width], row by row.

    Neighbours share at least the part `overlap` of a tile's side; the first and last touch the border and the others
    are spread evenly between them. A side no longer than `tile` is one box long.

    Raises ConfigError unless 0 <= overlap < 1 and all sides are at least one pixel.
    """
    if tile < 1 or height < 1 or width < 1:
        raise ConfigError(f"{width} x {height} pixels in tiles of {tile}: every side must be at least 1 pixel")
    if not 0 <= overlap < 1:
        raise ConfigError(f"overlap {overlap}: it is a share of the tile, from 0 to less than 1")
    shared = min(math.ceil(overlap * tile), tile - 1)
    return [
        Box(left, top, min(left + tile, width), min(top + tile, height))
        for top in _starts(height, tile, shared)
        for left in _starts(width, tile, shared)
    ]


def _starts(length: int, tile: int, shared: int) -> list[int]:
    if length <= tile:
        return [0]
    steps = -(-(length - tile) // (tile - shared))
    # Whole-number division never makes a step longer than tile - shared, so the overlap is kept.
    return [step * (length - tile) // steps for step in range(steps + 1)]


def merge_tiles(maps: Iterable[Map], boxes: Sequence[Box], size: tuple[int, int]) -> Map:
    """Blend one map per box into a map of `size` = (H, W), each resized to its box first.

    Weights fall smoothly (sin^2 along each side) from the middle of a tile to its edge, so that no seam shows where
    tiles disagree. The mean is a running one: maps may come from a generator, and equal values stay equal exactly.

    Raises ValueError when maps and boxes differ in number or the boxes leave a pixel uncovered.
    """
    merged = np.zeros(size, np.float32)
    total = np.zeros(size, np.float32)
    for values, box in zip(maps, boxes, strict=True):
        height, width = box.bottom - box.top, box.right - box.left
        weight = np.outer(_window(height), _window(width)).astype(np.float32)
        total[box.slices] += weight
        merged[box.slices] += (resize_map(values, (height, width)) - merged[box.slices]) * (weight / total[box.slices])
    if not total.all():
        raise ValueError(f"the {len(boxes)} tiles do not cover all of {size[1]} x {size[0]} pixels")
    return merged


def _window(length: int) -> npt.NDArray[np.float64]:
    # Above 0 everywhere, so that nothing is divided by zero.
    return np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 2


def write_map(path: str | os.PathLike[str], values: Map, scale: tuple[float, float]) -> None:
    """Write a map as `.npy` (exact) or as 16-bit grey `.png`, by the suffix of `path`; the file is replaced atomically.

    In a PNG, code c stands for `low + c / 65535 * (high - low)` with `scale` = (low, high). The scale and the number
    of values that lie outside it (and were cut to it) stand in the file's text fields; `read_map` applies them.

    Raises ConfigError for another suffix, OSError when the folder cannot be written.
    """
    if _kind(path) == "npy":
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(values, np.float32), allow_pickle=False)
        content = buffer.getvalue()
    else:
        low, high = scale
        relative = (values.astype(np.float64) - low) / (high - low)
        text = PngImagePlugin.PngInfo()
        text.add_text("anomalens:low", repr(float(low)))
        text.add_text("anomalens:high", repr(float(high)))
        text.add_text("anomalens:value", "low + code / 65535 * (high - low)")
        text.add_text("anomalens:cut", str(int(np.count_nonzero((relative < 0) | (relative > 1)))))
        codes = np.rint(np.clip(relative, 0, 1) * 65535).astype(np.uint16)
        content = encode_image(Image.fromarray(codes), pnginfo=text)
    atomic_write(path, content, durable=False)


def read_map(path: str | os.PathLike[str]) -> Map:
    """Return a map written by `write_map`: float32 [h, w].

    Raises InputError for a file that is damaged or was not written as a map, ConfigError for another suffix.
    """
    kind = _kind(path)
    try:
        if kind == "npy":
            return np.asarray(np.load(path, allow_pickle=False), np.float32)
        low, high, codes = read_file(path, quoted(path), _scale_and_codes, formats=("PNG",))
    except InputError as error:
        reason = str(error).removeprefix(f"{quoted(path)}: ")
        raise InputError(f"{quoted(path)}: not a readable anomaly map ({reason})") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{os.fspath(path)!r}: not a readable anomaly map ({one_line(error)})") from error
    return (low + codes / 65535 * (high - low)).astype(np.float32)


def _scale_and_codes(picture: Image.Image, _: list[str]) -> tuple[float, float, npt.NDArray[np.float64]]:
    picture.load()
    try:
        low, high = (float(picture.info[f"anomalens:{end}"]) for end in ("low", "high"))
    except KeyError:
        raise InputError("a PNG without the scale of an anomaly map") from None
    return low, high, np.asarray(picture, np.float64)


def _kind(path: str | os.PathLike[str]) -> Literal["npy", "png"]:
    suffix = Path(path).suffix.lower()
    if suffix == ".npy":
        return "npy"
    if suffix == ".png":
        return "png"
    raise ConfigError(f"{os.fspath(path)!r}: an anomaly map is written as .npy or .png, not '{suffix}'")
