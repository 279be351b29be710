"""Turn what a user names (files, folders, patterns) into a list of images; tell one image from several."""

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
"""Suffixes (in lower case) that count as images inside a folder; a file named itself may be called anything."""


def is_image_input(value: object) -> bool:
    """Return whether `value` is one image rather than several (a folder, a pattern, a sequence, a batch).

    One image is a path that is no folder or pattern, the bytes of a file, an open file, a PIL image, and an array or
    tensor of at most 3 dimensions, unless it holds names.
    """
    if isinstance(value, (str, os.PathLike)):
        return not os.path.isdir(value) and (os.path.lexists(value) or not glob.has_magic(os.fspath(value)))
    if isinstance(value, (bytes, bytearray, memoryview, Image.Image)) or hasattr(value, "read"):
        return True
    # Arrays and tensors have `ndim`; an array of text or objects is a list of paths.
    dimensions = getattr(value, "ndim", None)
    holds_names = getattr(getattr(value, "dtype", None), "kind", "") in ("U", "S", "O")
    return dimensions is not None and dimensions <= 3 and not (holds_names and dimensions > 0)


def list_images(inputs: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return every image that `inputs` name, in the order given.

    A file is taken as it is, whatever its suffix. A folder gives all images in it and below it, in natural order
    (`part2` before `part10`), without hidden ones; links are followed, loops are not. A pattern (`*`, `?`, `[...]`,
    `**` for any depth) gives the images and folders it matches; a name that exists is never read as a pattern.
    What is named twice comes twice.

    Raises InputError for a path that does not exist, a folder that cannot be read, and a folder or pattern without
    images.
    """
    images: list[Path] = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            inside = _in_folder(path)
            if not inside:
                raise InputError(f"{str(path)!r}: no images in this folder or below it ({_suffixes()})")
            images += inside
        elif os.path.lexists(path):
            # Also a broken link: it fails on its own row when it is decoded.
            images.append(path)
        elif glob.has_magic(str(path)):
            images += _matching(str(path))
        else:
            raise InputError(f"{str(path)!r}: no such file or folder")
    return images


def is_image_name(name: str) -> bool:
    """Return whether a file name is visible and has an image's suffix, whatever its case."""
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


def natural_key(path: str | os.PathLike[str]) -> list[tuple[list[tuple[int, int, str]], str]]:
    """Return a sort key that reads runs of digits as numbers, folder by folder: `a/part2` < `a/part10` < `b`."""
    # The plain text comes last, so that `01` and `1`, `A` and `a` still have one fixed order.
    return [([_piece(run) for run in re.split(r"(\d+)", part) if run], part) for part in Path(path).parts]


def _piece(run: str) -> tuple[int, int, str]:
    # Numbers come before letters.
    return (0, int(run), "") if run.isdecimal() else (1, 0, run.casefold())


def _suffixes() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))


def _in_folder(folder: Path) -> list[Path]:
    images: list[Path] = []
    visited: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        status = os.stat(root)
        # A link back up, or to a folder already listed.
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        # Sorted, so that of two ways to one folder always the same one counts.
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural_key)
        images += [Path(root, name) for name in names if is_image_name(name)]
    return sorted(images, key=natural_key)


def _refuse(error: OSError) -> NoReturn:
    raise InputError(f"{str(error.filename)!r}: this folder cannot be read ({error.strerror})") from error


def _matching(pattern: str) -> list[Path]:
    images: list[Path] = []
    # A file under a matched folder may be matched too (`**`): once is enough.
    for match in sorted(glob.glob(pattern, recursive=True), key=natural_key):
        path = Path(match)
        images += _in_folder(path) if path.is_dir() else [path] if is_image_name(path.name) else []
    if not images:
        raise InputError(f"{pattern!r}: no image matches this pattern ({_suffixes()})")
    return list(dict.fromkeys(images))
