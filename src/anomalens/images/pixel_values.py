"""Convert pixel values of any kind to 8-bit RGB, by rules that never depend on what an image shows.

* 16-bit grey is divided by 257 (full range to full range). A camera that leaves 10 or 12 bits in the low end of a
  16-bit file gives an almost black image; it is kept so, and a note says what to multiply by.
* Floating-point images must lie in [0, 1]; anything else is an error that names the range.
* A TIFF's tags say whether values are signed and whether white is 0.
* Transparent pixels are shown on white, unless all of them are; CMYK and palettes become RGB; colour profiles are
  ignored.
"""

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomalens.errors import InputError, one_line
from anomalens.images.tiff_tags import SIGNED, UNSIGNED, TiffTags, tags_of

Rgb: TypeAlias = npt.NDArray[np.uint8]
"""An image as uint8 [H, W, 3], sRGB."""

Channels: TypeAlias = Literal["rgb", "bgr"]
"""Order of the colours in an array or tensor; OpenCV's frames are "bgr"."""

# A 16-bit image whose values stay below this (12 bits) is almost black.
_TWELVE_BITS = 4096
# Half an 8-bit step: resizing overshoots [0, 1] by less, images of other ranges by far more.
_FLOAT_SLACK = 1 / 512
# Pixels of a band.
_BAND = 1_000_000

# By the axis of the channels: the layout in words, and the likely mistake where the channels are at the other end.
_LAYOUTS = {
    2: ("[H, W, 1|3|4]", "channels first: use array.transpose(1, 2, 0)"),
    0: ("[1|3|4, H, W]", "channels last: use tensor.permute(2, 0, 1)"),
}


def array_to_rgb(array: npt.NDArray[Any], channels: Channels, name: str = "image array") -> tuple[Rgb, str | None]:
    """Return an array [H, W] or [H, W, 1|3|4] as a new RGB image [H, W, 3], and a note for the user or None.

    Values are uint8, uint16, bool or floating point in [0, 1]; `channels` is the order of 3 or 4 channels.
    Raises InputError, which begins with `name`, for any other shape, type or range.
    """
    _require_shape(array.shape, 2, name)
    values, note = to_8_bit(array, name)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim == 3 and channels == "bgr":
        values = values[:, :, [2, 1, 0, 3][: values.shape[2]]]
    if values.ndim == 3 and values.shape[2] == 3:
        # A copy: a camera's buffer may be filled again while the image waits for its batch.
        return np.array(values, order="C"), note
    rgb, further = picture_to_rgb(Image.fromarray(np.ascontiguousarray(values)), name)
    return rgb, "; ".join(filter(None, (note, further))) or None


def to_8_bit(array: npt.NDArray[Any], name: str) -> tuple[npt.NDArray[np.uint8], str | None]:
    """Return values of any shape as uint8, perhaps the same array, and a note for the user or None.

    Raises InputError, which begins with `name`, for a type or range that `array_to_rgb` does not list.
    """
    note = None
    if array.dtype == np.bool_:
        values = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint8:
        values = array
    elif array.dtype.type is np.uint16:
        whole = _Range()
        values = _deep_to_8_bit(array, name, whole)
        note = whole.note
    elif np.issubdtype(array.dtype, np.floating):
        values = _from_float(array, name)
    else:
        raise InputError(f"{name}: type {array.dtype}, expected uint8, uint16, bool or floating point in [0, 1]")
    return values, note


def tensor_to_rgb(tensor: Any, channels: Channels) -> tuple[Rgb, str | None]:
    """Return a torch tensor [H, W] or [1|3|4, H, W] as an RGB image [H, W, 3], by the rules of `array_to_rgb`."""
    _require_shape(tuple(tensor.shape), 0, "image tensor")
    try:
        values = tensor.detach().cpu()
        # numpy has no bfloat16
        array = (values.float() if values.is_floating_point() else values).numpy()
    except (RuntimeError, TypeError) as error:  # sparse, quantised or without data
        raise InputError(f"image tensor: cannot be read ({one_line(error)})") from error
    return array_to_rgb(array.transpose(1, 2, 0) if array.ndim == 3 else array, channels, "image tensor")


def picture_to_rgb(picture: Image.Image, name: str) -> tuple[Rgb, str | None]:
    """Return a loaded picture of any Pillow mode as a new RGB image [H, W, 3], and a note for the user or None.

    It goes band by band, so that hardly more memory is taken than the picture and the result.
    Raises InputError, which begins with `name`, for values that no rule covers.
    """
    rgb = np.empty((picture.height, picture.width, 3), np.uint8)
    if has_deep_values(picture):
        whole = _Range()
        for rows, values in deep_bands(picture, name):
            rgb[rows] = _deep_to_8_bit(values, name, whole)[:, :, np.newaxis]
        return rgb, whole.note
    if "transparency" not in picture.info and not picture.mode.endswith(("A", "a")):
        for rows, part in _bands(picture):
            rgb[rows] = np.asarray(part.convert("RGB"))
        return rgb, None
    lowest, highest = 255, 0
    for rows, part in _bands(picture):
        rgba = to_rgba(part)
        alpha = np.asarray(rgba.getchannel("A"))
        lowest, highest = min(lowest, int(alpha.min())), max(highest, int(alpha.max()))
        if alpha.min() < 255:
            rgba = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
        rgb[rows] = np.asarray(rgba.convert("RGB"))
    if highest == 0:
        for rows, part in _bands(picture):
            rgb[rows] = np.asarray(to_rgba(part).convert("RGB"))
        return rgb, "is transparent everywhere: shown as if it were opaque"
    return rgb, "has transparent pixels: shown on white" if lowest < 255 else None


def to_rgba(picture: Image.Image) -> Image.Image:
    """Return a picture with transparency in mode RGBA."""
    # Pillow does not convert premultiplied grey in one step.
    return (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")


def has_deep_values(picture: Image.Image) -> bool:
    """Return whether a picture is grey of more than 8 bits, floating point, or of signed values."""
    tags = tags_of(picture)
    signed = tags is not None and picture.mode == "L" and tags.format == SIGNED
    return picture.mode in ("I", "F") or picture.mode.startswith("I;16") or signed


def deep_bands(picture: Image.Image, name: str) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
    """Yield a picture's deep grey values, band by band, as its tags say they are meant: rows, values [h, W].

    A TIFF whose values are signed, whose white is 0 or which has 12 bits says so in tags that Pillow passes over.
    Raises InputError, which begins with `name`, where a tag makes no sense.
    """
    tags = tags_of(picture)
    for rows, part in _bands(picture):
        values = np.asarray(part)
        if tags is not None:
            values = _as_tagged(values, tags, name)
        yield rows, values


def _as_tagged(values: npt.NDArray[Any], tags: TiffTags, name: str) -> npt.NDArray[Any]:
    if tags.format == UNSIGNED and tags.bits == 32 and values.dtype == np.int32:
        values = values.view(np.uint32)
    elif tags.format == SIGNED and tags.bits == 8:
        values = values.view(np.int8)
    elif tags.bits == 12:
        values = ((values.astype(np.uint32) * 65535 + 2047) // 4095).astype(np.uint16)
    if not tags.white_is_zero:
        return values
    if values.dtype.kind == "f":
        return 1 - values
    if values.dtype.itemsize != 2 or tags.format == SIGNED:
        raise InputError(f"{name}: is {tags} whose white is 0: nobody can tell its black; convert it to 16 bits first")
    return 65535 - values


def _bands(picture: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Yield a picture in parts of about a million pixels: the rows, and their picture."""
    height = max(1, _BAND // picture.width)
    if picture.height <= height:
        yield slice(0, picture.height), picture
        return
    for top in range(0, picture.height, height):
        bottom = min(top + height, picture.height)
        yield slice(top, bottom), picture.crop((0, top, picture.width, bottom))


def _require_shape(shape: tuple[int, ...], axis: int, name: str) -> None:
    """Raise InputError unless `shape` is that of an image whose channels, if any, are on `axis`."""
    sides = (1, 3, 4)
    if 0 not in shape and (len(shape) == 2 or (len(shape) == 3 and shape[axis] in sides)):
        return
    layout, mistake = _LAYOUTS[axis]
    hint = ""
    if len(shape) == 3 and shape[2 - axis] in sides:
        hint = f"; this looks like {mistake}"
    elif len(shape) == 4:
        hint = "; give the images of a batch one by one"
    raise InputError(f"{name}: shape {list(shape)}, expected [H, W] or {layout}{hint}")


class _Range:
    """Keep the largest value of a deep picture, which is seen band by band."""

    def __init__(self) -> None:
        self.highest: int | None = None

    def add(self, highest: int) -> None:
        """Take in the largest value of a band of whole numbers."""
        self.highest = max(highest, self.highest or 0)

    @property
    def note(self) -> str | None:
        """Remark on an almost black image."""
        if self.highest is None or not 0 < self.highest < _TWELVE_BITS:
            return None
        factor = 65535 // ((1 << self.highest.bit_length()) - 1)
        return (
            f"16-bit image whose largest value is {self.highest}: almost black; if its sensor has fewer bits, "
            f"multiply the values by {factor} first"
        )


def _deep_to_8_bit(values: npt.NDArray[Any], name: str, whole: _Range) -> npt.NDArray[np.uint8]:
    if values.dtype.kind == "f":
        return _from_float(values, name)
    low, high = int(values.min()), int(values.max())
    if values.dtype.itemsize == 1 and low >= 0:
        return values.astype(np.uint8)
    if low < 0 or high > 65535:
        expected = "8 or 16 bits without a sign" if values.dtype.itemsize < 4 else "16 bits (0 to 65535)"
        raise InputError(f"{name}: integer pixels from {low} to {high}, expected {expected}; convert it first")
    whole.add(high)
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_float(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    values = values.astype(np.float32, copy=False)
    # NaN anywhere makes both NaN.
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{name}: pixels contain NaN or infinity; replace them first")
    if low < -_FLOAT_SLACK or high > 1 + _FLOAT_SLACK:
        raise InputError(
            f"{name}: floating-point pixels from {low:.6g} to {high:.6g}, expected 0 to 1; rescale it first"
            " (by the range of the sensor, the same for all images)"
        )
    eight_bit: npt.NDArray[np.uint8] = np.rint(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)
    return eight_bit
