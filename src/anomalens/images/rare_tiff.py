"""Read the kinds of TIFF that Pillow does not read, with the package tifffile; name those that are no images."""

from collections.abc import Callable
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from anomalens.errors import InputError, MissingExtraError, one_line
from anomalens.extras import optional
from anomalens.images.orientation import upright
from anomalens.images.pixel_values import to_8_bit
from anomalens.images.tiff_tags import FLOAT, UNSIGNED, TiffTags, tags_of


def is_tiff(prefix: bytes) -> bool:
    """Return whether a file that begins with `prefix` (at least 4 bytes) is a TIFF."""
    return prefix[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_misread(picture: Image.Image) -> bool:
    """Return whether Pillow opens a TIFF and yet scrambles it: one of deep channels, each stored by itself."""
    tags = tags_of(picture)
    return tags is not None and tags.planar and tags.samples > 1 and tags.bits > 8


def open_rare(stream: IO[bytes], name: str, check: Callable[[tuple[int, int]], None]) -> Image.Image:
    """Return the first page of a TIFF that Pillow does not read, decoded by tifffile, upright: grey, RGB or RGBA.

    `check` is called with (width, height) before anything is decoded, and raises what it likes.
    Raises InputError, which says what kind of TIFF it is, where it cannot be shown or tifffile is not installed.
    """
    try:
        header = stream.read(8)
        if header[2:3] == b"+" or header[3:4] == b"+":
            header += stream.read(8)
        directory = TiffImagePlugin.ImageFileDirectory_v2(header)
        stream.seek(directory.next)
        directory.load(stream)
        tags = TiffTags.of(directory)
    except Exception as error:  # a damaged directory raises anything
        raise InputError(f"{name}: damaged TIFF ({one_line(error)})") from error
    if tags.width < 1 or tags.height < 1:
        raise InputError(f"{name}: damaged TIFF (it says no size)")
    check((tags.width, tags.height))
    kind = f"{name}: is {tags}"
    if tags.samples not in (1, 3, 4):
        raise InputError(f"{kind}; only 1, 3 or 4 channels can be shown: choose three of them first")
    deepest = 32 if tags.samples == 1 and not tags.white_is_zero else 16
    if tags.format != FLOAT and not (tags.format == UNSIGNED and tags.bits in (8, 16, deepest)):
        raise InputError(f"{kind}, which is no kind of image; convert it to 8 or 16 bits first")
    try:
        reader = optional("tifffile", "tiff")
    except MissingExtraError:
        raise InputError(
            f"{kind}, which Pillow does not read: pip install 'anomalens[tiff]', or convert it to 8 or 16 bits"
        ) from None
    try:
        stream.seek(0)
        with reader.TiffFile(stream) as file:
            values = file.pages[0].asarray()
    except Exception as error:
        raise InputError(f"{kind}, and cannot be read ({one_line(error)})") from error
    if tags.samples > 1:
        values, _ = to_8_bit(values.transpose(1, 2, 0) if tags.planar else values, name)
    else:
        values = _grey(values.reshape(tags.height, tags.width), tags, name)
    picture = Image.fromarray(upright(values, tags.orientation))
    picture.format = "TIFF"
    picture.is_animated = directory.next != 0  # type: ignore[attr-defined]
    return picture


def _grey(values: npt.NDArray[Any], tags: TiffTags, name: str) -> npt.NDArray[Any]:
    """Return grey values as Pillow holds them: float32, uint8 or uint16, black being 0."""
    if tags.format == FLOAT:
        grey = values.astype(np.float32)
        return 1 - grey if tags.white_is_zero else grey
    if int(values.max()) > 65535:
        raise InputError(
            f"{name}: integer pixels from {int(values.min())} to {int(values.max())}, expected 16 bits (0 to 65535);"
            " convert it first"
        )
    white = 255 if tags.bits == 8 else 65535
    whole = values.astype(np.uint8 if tags.bits == 8 else np.uint16)
    return white - whole if tags.white_is_zero else whole
