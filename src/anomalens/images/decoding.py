"""Decode images to 8-bit RGB, safely.

What every decoder setting does to an image is fixed and never depends on its content:

* 16-bit grey is divided by 257 (full range to full range). A camera that leaves 10 or 12 bits in the low end of a
  16-bit file gives an almost black image; it is kept so, and a note says what to multiply by.
* Floating-point images must lie in [0, 1]; anything else is an error that names the range found.
* Transparent pixels are shown on white; CMYK and palettes become RGB; colour profiles are ignored.
* The camera's orientation tag is applied; of several frames or pages the first is read.

Torch tensors are accepted without importing torch.
"""

import io
import os
import re
import stat
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from anomalens.errors import InputError

if TYPE_CHECKING:
    import torch

Rgb: TypeAlias = npt.NDArray[np.uint8]
"""An image as uint8 [H, W, 3], sRGB."""

Source: TypeAlias = Union[str, os.PathLike[str], bytes, Image.Image, npt.NDArray[Any], "torch.Tensor"]
"""Everything that can be decoded to an image."""

MAX_PIXELS = 2**30 // 4 // 3
"""Largest image decoded by default, in pixels (about 9,459 x 9,459): the size above which Pillow itself warns."""

# Formats decoded from content. The rest of Pillow's list stays out: some start other programs (EPS), many are exotic.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "GIF", "WEBP", "PPM", "JPEG2000", "AVIF")

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TWELVE_BITS = 4096  # levels; a 16-bit image that stays below this is almost black
_FLOAT_SLACK = 1 / 512  # half an 8-bit step: resizing overshoots by less, other value ranges by far more


@dataclass(frozen=True)
class Decoded:
    """One decoded image: `rgb` uint8 [H, W, 3]; `height` and `width` of the upright source in pixels (larger than
    `rgb` only when a smaller decoding was asked for); `note` a remark for the user on what was read, or None."""

    rgb: Rgb
    height: int
    width: int
    note: str | None = None


def decode(source: Source, *, at_least: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Read an image from a path, the bytes of a file, a PIL image, a numpy array or a torch tensor.

    Arrays are [H, W] or [H, W, 1|3|4]; tensors [H, W] or [1|3|4, H, W]; uint8 or floating point in [0, 1], arrays
    also uint16 and bool. Files are told apart by content, never by name.

    `at_least=(height, width)` lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size, never below that size: much
    faster for large photographs, but the pixels differ slightly from a full decoding followed by a resize.

    Raises InputError, naming the source, for whatever is no readable image or has more than `max_pixels` pixels.
    """
    if isinstance(source, (str, os.PathLike)):
        return _decode_path(source, at_least, max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        if len(source) == 0:
            raise InputError("image bytes: empty (0 bytes)")
        return _decode_stream(io.BytesIO(source), "image bytes", at_least, max_pixels)
    if isinstance(source, Image.Image):
        name = _quoted(getattr(source, "filename", "")) if getattr(source, "filename", "") else "PIL image"
        return _guarded(source, name, None, max_pixels, frames=False)
    if isinstance(source, np.ndarray):
        return _decode_array(source, "image array")
    if hasattr(source, "detach"):  # a torch tensor, told without importing torch
        return _decode_tensor(source)
    raise InputError(
        f"cannot read an image from {type(source).__name__}: "
        "give a path, the bytes of a file, a PIL image, a numpy array or a torch tensor"
    )


def _quoted(path: str | bytes | os.PathLike[str]) -> str:
    """The name on one line whatever it contains: repr escapes newlines and bytes that are no text."""
    return repr(os.fsdecode(path))


def _decode_path(path: str | os.PathLike[str], at_least: tuple[int, int] | None, max_pixels: int) -> Decoded:
    name = _quoted(path)
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{name}: is a folder, not an image file")
        if not stat.S_ISREG(status.st_mode):  # a pipe or device could block for ever
            raise InputError(f"{name}: is not a regular file")
        if status.st_size == 0:
            raise InputError(f"{name}: is empty (0 bytes)")
        with open(path, "rb") as stream:
            return _decode_stream(stream, name, at_least, max_pixels)
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except PermissionError:
        raise InputError(f"{name}: no permission to read it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise InputError(f"{name}: cannot be read ({_reason(error)})") from error


def _decode_stream(stream: IO[bytes], name: str, at_least: tuple[int, int] | None, max_pixels: int) -> Decoded:
    Image.init()  # registers the plugins, once; AVIF and JPEG 2000 are missing from some builds
    known = [one for one in FORMATS if one in Image.OPEN]
    try:
        with Image.open(stream, formats=known) as image:
            return _guarded(image, name, at_least, max_pixels, frames=True)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        raise _too_large(name, f"{int(pixels[0]):,}" if pixels else "too many", max_pixels) from None
    except UnidentifiedImageError:
        raise InputError(f"{name}: is not an image, or its header is damaged (readable: {', '.join(known)})") from None
    except Exception as error:  # plugins raise anything from SyntaxError to struct.error on damaged headers
        raise InputError(f"{name}: damaged image ({_reason(error)})") from error


def _too_large(name: str, pixels: str, max_pixels: int) -> InputError:
    return InputError(
        f"{name}: {pixels} pixels, above the limit of {max_pixels:,}; cut it into parts or shrink it first"
    )


def _guarded(
    image: Image.Image, name: str, at_least: tuple[int, int] | None, max_pixels: int, *, frames: bool
) -> Decoded:
    """Decode an opened image; everything Pillow raises becomes an InputError."""
    if image.width * image.height > max_pixels:  # from the header: nothing is decoded yet
        raise _too_large(name, f"{image.width} x {image.height} = {image.width * image.height:,}", max_pixels)
    try:
        several = frames and bool(getattr(image, "is_animated", False))
        height, width = image.height, image.width
        if at_least is not None:
            rows, columns = at_least if _orientation(image) < 5 else at_least[::-1]  # the stored image may lie
            image.draft(None, (max(1, columns), max(1, rows)))
        image.load()
        orientation = _orientation(image)  # after loading: a PNG may keep it behind the pixels
        rgb, note = _to_rgb(image, name)
        if orientation in _UPRIGHT:
            rgb = rgb.transpose(_UPRIGHT[orientation])
            if orientation >= 5:
                height, width = width, height
        notes = [note] if note else []
        if several:
            notes.append("has several frames or pages: only the first was read")
        return Decoded(np.ascontiguousarray(np.asarray(rgb)), height, width, "; ".join(notes) or None)
    except InputError:
        raise
    except Exception as error:  # truncated or damaged data: OSError, SyntaxError, ValueError, struct.error ...
        raise InputError(f"{name}: damaged image ({_reason(error)})") from error


def _orientation(image: Image.Image) -> int:
    """The orientation tag, 1 (upright) where there is none or the block that holds it is damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block must not cost the user a good image
        return 1


def _reason(error: BaseException) -> str:
    """The first 200 characters of an error on one line, or its type where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _to_rgb(image: Image.Image, name: str) -> tuple[Image.Image, str | None]:
    """Convert any Pillow mode to RGB by the fixed rules at the head of this file."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey, note = _from_16_bit(np.asarray(image), name)
        return Image.fromarray(grey).convert("RGB"), note
    if image.mode == "F":
        return Image.fromarray(_from_float(np.asarray(image), name)).convert("RGB"), None
    if "transparency" not in image.info and not image.mode.endswith(("A", "a")):
        return image.convert("RGB"), None
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema() == (255, 255):
        return rgba.convert("RGB"), None
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB"), "has transparent pixels: shown on white"


def _from_16_bit(values: npt.NDArray[Any], name: str) -> tuple[npt.NDArray[np.uint8], str | None]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise InputError(
            f"{name}: integer pixels from {low} to {high}, expected 16 bits (0 to 65535); convert it first"
        )
    note = None
    if 0 < high < _TWELVE_BITS:
        factor = 65535 // ((1 << high.bit_length()) - 1)
        note = f"16-bit image whose largest value is {high}: almost black; if its sensor has fewer bits, " + (
            f"multiply the values by {factor} first"
        )
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8), note


def _from_float(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    values = values.astype(np.float32, copy=False)
    low, high = float(values.min()), float(values.max())  # NaN anywhere makes both NaN
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{name}: pixels contain NaN or infinity; replace them first")
    if low < -_FLOAT_SLACK or high > 1 + _FLOAT_SLACK:
        raise InputError(
            f"{name}: floating-point pixels from {low:.6g} to {high:.6g}, expected 0 to 1; rescale it first"
            " (by the range of the sensor, the same for all images)"
        )
    eight_bit: npt.NDArray[np.uint8] = np.rint(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)
    return eight_bit


def _decode_array(array: npt.NDArray[Any], name: str) -> Decoded:
    shape = array.shape
    if array.ndim not in (2, 3) or 0 in shape or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        hint = ""
        if array.ndim == 3 and shape[0] in (1, 3, 4):
            hint = "; this looks like channels first: use array.transpose(1, 2, 0)"
        elif array.ndim == 4:
            hint = "; give the images of a batch one by one"
        raise InputError(f"{name}: shape {list(shape)}, expected [H, W] or [H, W, 1|3|4]{hint}")
    note = None
    if array.dtype == np.bool_:
        pixels = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint8:
        pixels = array
    elif array.dtype == np.uint16:
        pixels, note = _from_16_bit(array, name)
    elif np.issubdtype(array.dtype, np.floating):
        pixels = _from_float(array, name)
    else:
        raise InputError(f"{name}: type {array.dtype}, expected uint8, uint16, bool or floating point in [0, 1]")
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        # A copy: a camera's buffer may be filled again while the image waits for its batch.
        return Decoded(np.array(pixels, order="C"), shape[0], shape[1], note)
    flat = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    rgb, more = _to_rgb(Image.fromarray(np.ascontiguousarray(flat)), name)
    return Decoded(np.array(rgb), shape[0], shape[1], "; ".join(filter(None, (note, more))) or None)


def _decode_tensor(tensor: "torch.Tensor") -> Decoded:
    shape = tuple(tensor.shape)
    if len(shape) not in (2, 3) or 0 in shape or (len(shape) == 3 and shape[0] not in (1, 3, 4)):
        hint = ""
        if len(shape) == 3 and shape[2] in (1, 3, 4):
            hint = "; this looks like channels last: use tensor.permute(2, 0, 1)"
        elif len(shape) == 4:
            hint = "; give the images of a batch one by one"
        raise InputError(f"image tensor: shape {list(shape)}, expected [H, W] or [1|3|4, H, W]{hint}")
    values = tensor.detach().cpu()
    array = (values.float() if values.is_floating_point() else values).numpy()  # numpy has no bfloat16
    return _decode_array(array.transpose(1, 2, 0) if array.ndim == 3 else array, "image tensor")
