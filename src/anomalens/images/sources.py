"""Turn what a user names (files, folders, patterns) into a list of images."""

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from PIL import Image

from anomalens.errors import InputError

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".tif", ".tiff", ".bmp", ".dib",
    ".gif", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif",
})
# fmt: on
"""Names (in lower case) that count as images inside a folder; a file named itself may be called anything."""


def list_images(inputs: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Every image that `inputs` name, in the order given.

    A file is taken as it is, whatever its suffix. A folder gives all images in it and below it, in natural order
    (`part2` before `part10`), without hidden ones; links are followed, loops are not. A pattern (`*`, `?`, `[...]`,
    `**` for any depth) gives the images and folders it matches; a name that exists is never read as a pattern.
    What is named twice comes twice.

    Raises InputError for a path that does not exist, a folder that cannot be read, and a folder or pattern without
    images.
    """
    found: list[Path] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            images = _in_folder(path)
            if not images:
                raise InputError(f"{str(path)!r}: no images in this folder or below it ({_suffixes()})")
            found += images
        elif os.path.lexists(path):  # a broken link is an input that fails on its own row
            found.append(path)
        elif glob.has_magic(str(path)):
            found += _matching(str(path))
        else:
            raise InputError(f"{str(path)!r}: no such file or folder")
    return found


def is_image_input(value: object) -> bool:
    """Whether `value` is one image (a path that is no folder or pattern, file bytes, a PIL image, an array or tensor
    of at most 3 dimensions) rather than several (a folder, a pattern, a sequence, a batch)."""
    if isinstance(value, (str, os.PathLike)):
        return not os.path.isdir(value) and (os.path.lexists(value) or not glob.has_magic(os.fspath(value)))
    dimensions = getattr(value, "ndim", None)  # arrays and tensors have it
    return isinstance(value, (bytes, Image.Image)) or (dimensions is not None and dimensions <= 3)


def _suffixes() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))


def _is_image(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


def natural_key(path: str | os.PathLike[str]) -> list[tuple[list[tuple[int, int, str]], str]]:
    """Sort key that reads runs of digits as numbers, folder by folder: `a/part2` < `a/part10` < `b`."""
    # The plain text comes last, so that `01` and `1`, `A` and `a` still have one fixed order.
    return [([_piece(run) for run in re.split(r"(\d+)", part) if run], part) for part in Path(path).parts]


def _piece(run: str) -> tuple[int, int, str]:
    return (0, int(run), "") if run.isdecimal() else (1, 0, run.casefold())  # numbers before letters


def _in_folder(folder: Path) -> list[Path]:
    images: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in seen:  # a link back up, or to a folder already listed
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # Sorted, so that of two ways to one folder always the same one counts.
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural_key)
        images += [Path(root, name) for name in names if _is_image(name)]
    return sorted(images, key=natural_key)


def _refuse(error: OSError) -> NoReturn:
    raise InputError(f"{str(error.filename)!r}: this folder cannot be read ({error.strerror})") from error


def _matching(pattern: str) -> list[Path]:
    images: list[Path] = []
    # A file under a matched folder may be matched too (`**`): once is enough.
    for match in sorted(glob.glob(pattern, recursive=True), key=natural_key):
        path = Path(match)
        images += _in_folder(path) if path.is_dir() else [path] if _is_image(path.name) else []
    if not images:
        raise InputError(f"{pattern!r}: no image matches this pattern ({_suffixes()})")
    return list(dict.fromkeys(images))
