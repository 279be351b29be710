"""Tell which pixels of a mask picture are marked, whatever its encoding.

Any encoding: 0/1, 0/255, one value per defect, palette (by colour), RGB(A), 16 bit, float. A pixel is marked where it
is not black (and not transparent). In files of lossy compression the background is not exactly black: there a pixel is
marked where it is brighter than half of the brightest one, and a picture that is almost black marks nothing.
"""

import os
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomalens.errors import InputError
from anomalens.images.pixel_values import deep_bands, has_deep_values, to_rgba

_LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "AVIF", "HEIF")
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp", "jpeg2000")
# Of 255: a lossy picture that is nowhere brighter is black with noise.
_NOISE = 8

Marks = npt.NDArray[np.bool_]


def is_lossy(picture: Image.Image) -> bool:
    """Return whether an opened picture, not loaded yet, comes from a file whose compression changes values."""
    if picture.format == "TIFF":
        return picture.info.get("compression") in _LOSSY_TIFF
    if picture.format == "WEBP":
        return not _is_lossless_webp(picture)
    return picture.format in _LOSSY_FORMATS


def marked(picture: Image.Image, name: str, *, lossy: bool) -> Marks:
    """Return where a loaded picture is marked, bool [H, W]; `name` is for messages.

    Raises InputError for values that are no numbers.
    """
    if has_deep_values(picture):
        values = np.concatenate([part for _, part in deep_bands(picture, name)])
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InputError(f"{name}: pixels contain NaN or infinity; replace them first")
        if not lossy:
            # Signed values may be 255 written as -1.
            return values > 0 if values.dtype.kind == "f" else values != 0
        return _bright(values, 256 * _NOISE)
    if picture.mode == "P":
        return _by_palette(picture)
    if picture.mode.endswith(("A", "a")):
        rgba = np.asarray(to_rgba(picture))
        return _coloured(rgba[..., :3].max(axis=2), rgba[..., 3], lossy)
    if picture.mode not in ("1", "L", "RGB"):
        picture = picture.convert("RGB")
    values = np.asarray(picture)
    if values.ndim == 3:
        values = values.max(axis=2)
    return _bright(values, _NOISE) if lossy else _without_noise(values)


def _bright(values: npt.NDArray[Any], noise: float) -> Marks:
    marks: Marks = values > max(values.max() / 2, noise)
    return marks


def _without_noise(values: npt.NDArray[Any]) -> Marks:
    """Return where exact values are not black; where a lossy mask was saved again without loss, as in lossy files.

    Such a mask is known by its background: faint values of several sizes are more frequent in it than black.
    """
    if values.dtype == np.bool_:
        return values
    counts = np.bincount(values.ravel(), minlength=256)
    faint = counts[1:_NOISE]
    noisy = np.count_nonzero(counts[128:]) and np.count_nonzero(faint) > 1 and faint.sum() > counts[0]
    return _bright(values, _NOISE) if noisy else values > 0


def _by_palette(picture: Image.Image) -> Marks:
    """Return where a picture of indices has a colour; where its palette says nothing, where its index is not 0."""
    index: npt.NDArray[np.uint8] = np.asarray(picture)
    # A picture of all indices: its colours are the palette, transparency included.
    every = picture.crop((0, 0, 1, 1)).resize((256, 1))
    every.putdata(range(256))
    colours = np.asarray(every.convert("RGBA"))[0]
    used = np.unique(index)
    if len(used) > 1 and len(np.unique(colours[used], axis=0)) == 1:
        marks: Marks = index != 0
        return marks
    rgb, alpha = colours[:, :3].max(axis=1), colours[:, 3]
    return _coloured(rgb[index], alpha[index], lossy=False)


def _coloured(brightness: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8], lossy: bool) -> Marks:
    """Return where a picture is neither black nor transparent.

    A picture without any colour is drawn in its alpha channel; one that is transparent everywhere, in its colours.
    """
    colour, visible = _bright(brightness, _NOISE) if lossy else brightness > 0, alpha > 0
    if not visible.any():
        return colour
    drawn_in_alpha = not (colour & visible).any() and not visible.all()
    return visible if drawn_in_alpha else colour & visible


def _is_lossless_webp(picture: Image.Image) -> bool:
    """Return whether the first image of an opened WebP file is stored without loss (as VP8L rather than VP8)."""
    stream: IO[bytes] = picture.fp  # type: ignore[attr-defined]
    position = stream.tell()
    stream.seek(12)
    kind, size = stream.read(4), stream.read(4)
    while len(size) == 4 and kind not in (b"VP8L", b"VP8 "):
        # A frame of an animation holds its image behind 16 bytes; everything else is skipped.
        length = 16 if kind == b"ANMF" else int.from_bytes(size, "little")
        stream.seek(length + length % 2, os.SEEK_CUR)
        kind, size = stream.read(4), stream.read(4)
    stream.seek(position)
    return kind == b"VP8L"
