"""Read masks, and bring them to a size; check images and masks by their headers, and masks against labels."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalens.datasets.layouts.dataset import Dataset, Fault, Sample
from anomalens.datasets.layouts.pairing import images_in
from anomalens.errors import InputError
from anomalens.images.decoding import decode_mask, read_size
from anomalens.images.image_files import MAX_PIXELS, quoted

USUAL_SIZE = 518
"""Side in pixels at which an evaluation compares masks unless it is told another."""


class Truth(NamedTuple):
    """Hold the ground truth of an image at the size of an evaluation."""

    # bool [H, W], True where anomalous.
    marks: NDArray[np.bool_]
    # The mask would have vanished at this size, and was reduced so that its area stays.
    tiny: bool


def read_mask(path: Path, size: tuple[int, int] | None = None, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """Read a mask of any encoding as bool [H, W], upright, True where anomalous; a folder gives the union of its masks.

    `size` is (H, W), reached as `reduce_mask` says. `max_pixels` is the limit of `anomalens.images.decoding.decode`.
    Raises InputError when the file cannot be read or masks of one folder differ in size.
    """
    if path.is_dir():
        parts = [decode_mask(part, max_pixels=max_pixels) for part in images_in(path)]
        if not parts or len({part.shape for part in parts}) > 1:
            sizes = ", ".join(str(part.shape) for part in parts) or "none"
            raise InputError(f"{path}: expected masks of one size in this folder, found {sizes}; re-export them")
        mask = np.logical_or.reduce(parts)
    else:
        mask = decode_mask(path, max_pixels=max_pixels)
    return mask if size is None else reduce_mask(mask, size).marks


def reduce_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> Truth:
    """Bring a mask [h, w] to `size` = (H, W) as the papers' code does: antialiased bilinear, then above one half.

    A thin scratch can vanish by that, and its image would count as clean. A mask of which nothing is left is reduced to
    the pixels that hold most of its marks instead, as many as its share of the area asks for, at least one.
    """
    if mask.shape == size:
        return Truth(np.ascontiguousarray(mask, np.bool_), False)
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    small = np.asarray(grey.resize((size[1], size[0]), Image.Resampling.BILINEAR)) > 127
    if small.any() or not mask.any():
        return Truth(small, False)
    rows, columns = np.nonzero(mask)
    cells = rows * size[0] // mask.shape[0] * size[1] + columns * size[1] // mask.shape[1]
    marks = np.bincount(cells, minlength=size[0] * size[1])
    count = min(max(1, round(len(rows) * small.size / mask.size)), np.count_nonzero(marks))
    kept = np.zeros(small.size, np.bool_)
    kept[np.argsort(-marks, kind="stable")[:count]] = True
    return Truth(kept.reshape(size), True)


def read_truth(sample: Sample, size: tuple[int, int], *, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_] | None:
    """Return the ground truth of a sample as bool [H, W]: zeros for a normal image, None where nothing is known.

    An anomalous image without a mask gives None: pixel metrics must leave it out, not count it as clean.
    """
    truth = truth_at(sample, size, max_pixels=max_pixels)
    return None if truth is None else truth.marks


def truth_at(sample: Sample, size: tuple[int, int], *, max_pixels: int = MAX_PIXELS) -> Truth | None:
    """Return what `read_truth` returns, and whether the mask would have vanished at this size."""
    if sample.label == 0:
        return Truth(np.zeros(size, dtype=np.bool_), False)
    return None if sample.mask is None else reduce_mask(read_mask(sample.mask, max_pixels=max_pixels), size)


def check_headers(samples: Sequence[Sample], *, max_pixels: int = MAX_PIXELS) -> tuple[list[Sample], list[Fault]]:
    """Open every image and mask without decoding; drop unreadable images and masks that do not fit.

    Returns the samples that can be used (an unusable mask becomes None) and the faults.
    """
    kept: list[Sample] = []
    faults: list[Fault] = []
    for sample in samples:
        try:
            image_size = read_size(sample.image, max_pixels=max_pixels)
        except InputError as error:
            kind = "unreadable_image" if sample.image.exists() else "missing_image"
            faults.append(Fault(kind, sample.image, _reason(error, sample.image)))
            continue
        fault = None if sample.mask is None else _mask_fault(sample.mask, sample.image, image_size, max_pixels)
        if fault:
            faults.append(fault)
        kept.append(replace(sample, mask=None) if fault else sample)
    return kept, faults


def deep_check(dataset: Dataset, *, max_pixels: int = MAX_PIXELS) -> tuple[Fault, ...]:
    """Decode every mask; return a fault for each normal image whose mask marks something, and for each anomalous one
    whose mask marks nothing or cannot be read."""
    return examine(dataset, max_pixels=max_pixels)[0]


def examine(dataset: Dataset, *, max_pixels: int = MAX_PIXELS) -> tuple[tuple[Fault, ...], tuple[Sample, ...]]:
    """Return the faults of `deep_check`, and the samples whose mask is tiny at USUAL_SIZE, which is no fault."""
    faults, tiny = [], []
    for sample in (sample for members in dataset.classes.values() for sample in members):
        if sample.mask is None:
            continue
        try:
            mask = read_mask(sample.mask, max_pixels=max_pixels)
        except InputError as error:
            faults.append(Fault("unreadable_mask", sample.mask, str(error)))
            continue
        marked = int(mask.sum())
        if sample.label == 0 and marked:
            detail = f"marks {marked} pixels of the normal image '{sample.id}'"
            faults.append(Fault("contradiction", sample.mask, detail))
        elif sample.label == 1 and not marked:
            faults.append(Fault("empty_mask", sample.mask, f"marks nothing in '{sample.id}'"))
        elif sample.label == 1 and reduce_mask(mask, (USUAL_SIZE, USUAL_SIZE)).tiny:
            tiny.append(sample)
    return tuple(faults), tuple(tiny)


def _mask_fault(mask: Path, image: Path, image_size: tuple[int, int], max_pixels: int) -> Fault | None:
    for part in images_in(mask) if mask.is_dir() else [mask]:
        try:
            size = read_size(part, max_pixels=max_pixels)
        except InputError as error:
            return Fault("unreadable_mask" if part.exists() else "missing_mask", part, _reason(error, part))
        if size != image_size:
            detail = f"mask is {size[0]} x {size[1]}, image '{image.name}' is {image_size[0]} x {image_size[1]}"
            return Fault("mask_size", part, detail)
    return None


def _reason(error: InputError, path: Path) -> str:
    """Return an error's text without the file's name, which a fault gives anyway."""
    return str(error).removeprefix(f"{quoted(path)}: ")
