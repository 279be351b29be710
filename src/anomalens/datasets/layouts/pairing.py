"""Decide which mask belongs to which image: by name alone, never by the order of two listings."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anomalens.datasets.layouts.dataset import Fault
from anomalens.images.sources import HEIF_SUFFIXES, IMAGE_SUFFIXES, is_image_name, is_input_folder, natural_key

_MASK_WORDS = ("mask", "label", "gt", "groundtruth", "segmentation", "anno")
# "003_mask", "003-gt", "ISIC_0000003_Segmentation": the usual ways to call the mask of "003".
_MASK_ENDING = re.compile(r"[ _.-](?:mask|label|gt|ground_?truth|segmentation|anno)s?$")


def in_natural_order(paths: Iterable[Path]) -> list[Path]:
    """Return `paths` sorted: "img2" before "img10", folder by folder."""
    return sorted(paths, key=natural_key)


def images_in(folder: Path) -> list[Path]:
    """Return the image files directly in `folder` in natural order, without hidden ones; none where it is missing."""
    if not folder.is_dir():
        return []
    return in_natural_order(path for path in folder.iterdir() if is_image_name(path.name) and path.is_file())


def folders_in(folder: Path) -> list[Path]:
    """Return the subfolders of `folder` in natural order, without hidden ones, what systems make for themselves and
    results; none where it is missing."""
    if not folder.is_dir():
        return []
    return in_natural_order(path for path in folder.iterdir() if path.is_dir() and is_input_folder(path))


def masks_in(folder: Path) -> list[Path]:
    """Return the masks in `folder`: image files, and subfolders that hold the several masks of one image."""
    return in_natural_order([*images_in(folder), *(path for path in folders_in(folder) if images_in(path))])


@dataclass
class Pairing:
    """Hold masks by image, and what is left over on either side."""

    masks: dict[Path, Path] = field(default_factory=dict)
    images_left: list[Path] = field(default_factory=list)
    masks_left: list[Path] = field(default_factory=list)
    # Images that share their stem with another one.
    ambiguous: list[Path] = field(default_factory=list)


def pair(images: Sequence[Path], masks: Sequence[Path]) -> Pairing:
    """Match by stem: "003.png" takes "003_mask.*" (or _label, _gt, _segmentation ...) before "003.*" or "003/".

    Case and Unicode composition are ignored, suffixes may differ. Images that share a stem get no mask.
    """
    by_ending: dict[str, list[Path]] = defaultdict(list)
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for mask in masks:
        stem = _stem(mask)
        base = _MASK_ENDING.sub("", stem)
        if base != stem:
            by_ending[base].append(mask)
        by_stem[stem].append(mask)

    sharing: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        sharing[_stem(image)].append(image)
    result = Pairing()
    used: set[Path] = set()
    # Endings first over all images, so that an image called "a_mask" cannot steal the mask of image "a".
    for index in (by_ending, by_stem):
        for stem, group in sharing.items():
            free = [mask for mask in index.get(stem, ()) if mask not in used]
            if not free or group[0] in result.masks or group[0] in result.ambiguous:
                continue
            used.add(free[0])
            if len(group) > 1:
                result.ambiguous.extend(group)
            else:
                result.masks[group[0]] = free[0]
    settled = {*result.masks, *result.ambiguous}
    result.images_left = [image for image in images if image not in settled]
    result.masks_left = [mask for mask in masks if mask not in used]
    return result


def leftover_faults(images_left: Sequence[Path], masks_left: Sequence[Path]) -> list[Fault]:
    """Return faults for what `pair` left over: a wrong name where exactly one mask and one image resemble each other,
    otherwise a missing or an orphan mask."""
    images, masks = _by_likeness(images_left), _by_likeness(masks_left)
    faults, explained = [], set()
    for key, group in masks.items():
        candidates = images.get(key, [])
        if len(group) == 1 and len(candidates) == 1:
            mask, image = group[0], candidates[0]
            explained |= {mask, image}
            detail = f"looks like the mask of '{image.name}'; rename it to '{image.stem}_mask{mask.suffix}'"
            faults.append(Fault("wrongly_named_mask", mask, detail))
    faults += [
        Fault("missing_mask", image, f"no mask named '{image.stem}_mask.*' or '{image.stem}.*'")
        for image in images_left
        if image not in explained
    ]
    faults += [Fault("orphan_mask", mask, "no image of this name") for mask in masks_left if mask not in explained]
    return faults


def likeness(path: Path) -> tuple[str, ...]:
    """Return what is left of a name when spelling does not matter: "Mask-003" and "3" are both ("3",)."""
    words = re.findall(r"[0-9]+|[^\W\d_]+", _stem(path))
    return tuple(str(int(word)) if word.isdecimal() else word for word in words if word.rstrip("s") not in _MASK_WORDS)


def _by_likeness(paths: Sequence[Path]) -> dict[tuple[str, ...], list[Path]]:
    groups: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in paths:
        groups[likeness(path)].append(path)
    return groups


def _stem(path: Path) -> str:
    # Only image suffixes are cut: a folder of masks may be called "part.3".
    name = path.stem if path.suffix.lower() in IMAGE_SUFFIXES | HEIF_SUFFIXES else path.name
    return unicodedata.normalize("NFC", name).casefold()
