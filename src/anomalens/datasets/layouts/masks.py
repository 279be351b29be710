"""Read masks of any encoding; check images and masks by their headers."""

import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalens.datasets.layouts.dataset import Dataset, Fault, Sample
from anomalens.datasets.layouts.pairing import images_in
from anomalens.errors import InputError, one_line
from anomalens.images.decoding import orientation

# What Pillow raises on damaged, truncated, foreign or absurdly large files.
_UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, OverflowError, Image.DecompressionBombError,
)  # fmt: skip


def read_mask(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.bool_]:
    """Read a mask as bool [H, W], True where anomalous.

    Any encoding: 0/1, 0/255, one value per defect, palette (by colour), RGB(A), 16 bit, float. A pixel is
    anomalous when it is not black (and not transparent); in lossy files (JPEG), whose background is not exactly
    black, when it is brighter than half of the brightest pixel. A folder gives the union of its masks.

    `size` is (H, W). Another size than the mask's own is reached as in the papers' code: antialiased bilinear,
    then above one half.

    Raises InputError when the file cannot be read or masks of one folder differ in size.
    """
    if path.is_dir():
        parts = [read_mask(part) for part in images_in(path)]
        if not parts or len({part.shape for part in parts}) > 1:
            sizes = ", ".join(str(part.shape) for part in parts) or "none"
            raise InputError(f"{path}: expected masks of one size in this folder, found {sizes}; re-export them")
        mask = np.logical_or.reduce(parts)
    else:
        try:
            with Image.open(path) as image:
                mask = _not_black(image)
        except _UNREADABLE as error:
            raise InputError(f"{path}: cannot be read as a mask ({one_line(error)}); replace the file") from error
    if size is not None and mask.shape != size:
        grey = Image.fromarray(mask.astype(np.uint8) * 255)
        mask = np.asarray(grey.resize((size[1], size[0]), Image.Resampling.BILINEAR)) > 127
    return np.ascontiguousarray(mask, dtype=np.bool_)


def read_truth(sample: Sample, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Return the ground truth of a sample as bool [H, W]: zeros for a normal image, None where nothing is known.

    An anomalous image without a mask gives None: pixel metrics must leave it out, not count it as clean.
    """
    if sample.label == 0:
        return np.zeros(size, dtype=np.bool_)
    return None if sample.mask is None else read_mask(sample.mask, size)


def check_headers(samples: Sequence[Sample]) -> tuple[list[Sample], list[Fault]]:
    """Open every image and mask without decoding; drop unreadable images and masks that do not fit.

    Returns the samples that can be used (an unusable mask becomes None) and the faults.
    """
    kept: list[Sample] = []
    faults: list[Fault] = []
    for sample in samples:
        image_size = _header(sample.image)
        if isinstance(image_size, str):
            kind = "unreadable_image" if sample.image.is_file() else "missing_image"
            faults.append(Fault(kind, sample.image, image_size))
            continue
        fault = None if sample.mask is None else _mask_fault(sample.mask, sample.image, image_size)
        if fault:
            faults.append(fault)
        kept.append(replace(sample, mask=None) if fault else sample)
    return kept, faults


def deep_check(dataset: Dataset) -> tuple[Fault, ...]:
    """Decode every mask; return a fault for each normal image whose mask marks something, and for each anomalous one
    whose mask marks nothing or cannot be read."""
    faults = []
    for sample in (sample for members in dataset.classes.values() for sample in members):
        if sample.mask is None:
            continue
        try:
            marked = int(read_mask(sample.mask).sum())
        except InputError as error:
            faults.append(Fault("unreadable_mask", sample.mask, str(error)))
            continue
        if sample.label == 0 and marked:
            detail = f"marks {marked} pixels of the normal image '{sample.id}'"
            faults.append(Fault("contradiction", sample.mask, detail))
        elif sample.label == 1 and not marked:
            faults.append(Fault("empty_mask", sample.mask, f"marks nothing in '{sample.id}'"))
    return tuple(faults)


def _mask_fault(mask: Path, image: Path, image_size: tuple[int, int]) -> Fault | None:
    for part in images_in(mask) if mask.is_dir() else [mask]:
        size = _header(part)
        if isinstance(size, str):
            return Fault("unreadable_mask" if part.exists() else "missing_mask", part, size)
        if size != image_size:
            detail = f"mask is {size[0]} x {size[1]}, image '{image.name}' is {image_size[0]} x {image_size[1]}"
            return Fault("mask_size", part, detail)
    return None


def _header(path: Path) -> tuple[int, int] | str:
    """Return (width, height) as displayed, from the header alone; or why there is none."""
    try:
        with Image.open(path) as image:
            # Pillow finds EXIF data behind a PNG's pixels by decoding it; only what stands before them is free.
            free = image.format != "PNG" or "exif" in image.info
            # These values turn the picture by a quarter, so width and height swap.
            turned = free and orientation(image) in (5, 6, 7, 8)
            return (image.height, image.width) if turned else (image.width, image.height)
    except FileNotFoundError:
        return "file does not exist"
    except _UNREADABLE as error:
        return f"cannot be opened as an image ({one_line(error)})"


def _not_black(image: Image.Image) -> NDArray[np.bool_]:
    lossy = image.format in {"JPEG", "MPO"}
    if image.mode == "P":
        index = np.asarray(image)
        colours = np.asarray(image.convert("RGBA"))
        # A label image may come with a palette that says nothing (all entries alike): then the index speaks.
        used = np.unique(index)
        distinct = len(np.unique(colours.reshape(-1, 4), axis=0))
        return index != 0 if distinct == 1 and len(used) > 1 else _coloured(colours)
    if image.mode in {"LA", "PA", "RGBA", "La", "RGBa"}:
        return _coloured(np.asarray(image.convert("RGBA")))
    if image.mode in {"CMYK", "YCbCr", "LAB", "HSV"}:
        image = image.convert("RGB")
    values = np.asarray(image)
    if values.ndim == 3:
        values = values.max(axis=2)
    marked: NDArray[np.bool_] = values > (values.max() / 2 if lossy else 0)
    return marked


def _coloured(rgba: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return where a picture [H, W, 4] is neither black nor transparent.

    A picture without any colour is drawn in its alpha channel.
    """
    colour, alpha = rgba[..., :3].max(axis=2) > 0, rgba[..., 3] > 0
    drawn_in_alpha = not (colour & alpha).any() and not alpha.all()
    return alpha if drawn_in_alpha else colour & alpha
