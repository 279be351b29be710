"""Convert pixel values of any kind to 8-bit RGB, by rules that never depend on what an image shows.

* 16-bit grey is divided by 257 (full range to full range). A camera that leaves 10 or 12 bits in the low end of a
  16-bit file gives an almost black image; it is kept so, and a note says what to multiply by.
* Floating-point images must lie in [0, 1]; anything else is an error that names the range.
* Transparent pixels are shown on white; CMYK and palettes become RGB; colour profiles are ignored.
"""

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomalens.errors import InputError

Rgb: TypeAlias = npt.NDArray[np.uint8]
"""An image as uint8 [H, W, 3], sRGB."""

Channels: TypeAlias = Literal["rgb", "bgr"]
"""Order of the colours in an array or tensor; OpenCV's frames are "bgr"."""

# A 16-bit image whose values stay below this (12 bits) is almost black.
_TWELVE_BITS = 4096
# Half an 8-bit step: resizing overshoots [0, 1] by less, images of other ranges by far more.
_FLOAT_SLACK = 1 / 512

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
    note = None
    if array.dtype == np.bool_:
        values = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint8:
        values = array
    elif array.dtype.type is np.uint16:
        values, note = _from_16_bit(array, name)
    elif np.issubdtype(array.dtype, np.floating):
        values = _from_float(array, name)
    else:
        raise InputError(f"{name}: type {array.dtype}, expected uint8, uint16, bool or floating point in [0, 1]")
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim == 3 and channels == "bgr":
        values = values[:, :, [2, 1, 0, 3][: values.shape[2]]]
    if values.ndim == 3 and values.shape[2] == 3:
        # A copy: a camera's buffer may be filled again while the image waits for its batch.
        return np.array(values, order="C"), note
    image, further = picture_to_rgb(Image.fromarray(np.ascontiguousarray(values)), name)
    return np.array(image), "; ".join(filter(None, (note, further))) or None


def tensor_to_rgb(tensor: Any, channels: Channels) -> tuple[Rgb, str | None]:
    """Return a torch tensor [H, W] or [1|3|4, H, W] as an RGB image [H, W, 3], by the rules of `array_to_rgb`."""
    _require_shape(tuple(tensor.shape), 0, "image tensor")
    values = tensor.detach().cpu()
    # numpy has no bfloat16
    array = (values.float() if values.is_floating_point() else values).numpy()
    return array_to_rgb(array.transpose(1, 2, 0) if array.ndim == 3 else array, channels, "image tensor")


def picture_to_rgb(picture: Image.Image, name: str) -> tuple[Image.Image, str | None]:
    """Return a picture of any Pillow mode in mode RGB, and a note for the user or None.

    Raises InputError, which begins with `name`, for values that no rule covers.
    """
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        grey, note = _from_16_bit(np.asarray(picture), name)
        return Image.fromarray(grey).convert("RGB"), note
    if picture.mode == "F":
        return Image.fromarray(_from_float(np.asarray(picture), name)).convert("RGB"), None
    if "transparency" not in picture.info and not picture.mode.endswith(("A", "a")):
        return picture.convert("RGB"), None
    rgba = picture.convert("RGBA")
    if rgba.getchannel("A").getextrema() == (255, 255):
        return rgba.convert("RGB"), None
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB"), "has transparent pixels: shown on white"


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


def _from_16_bit(values: npt.NDArray[Any], name: str) -> tuple[npt.NDArray[np.uint8], str | None]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise InputError(
            f"{name}: integer pixels from {low} to {high}, expected 16 bits (0 to 65535); convert it first"
        )
    note = None
    if 0 < high < _TWELVE_BITS:
        factor = 65535 // ((1 << high.bit_length()) - 1)
        note = (
            f"16-bit image whose largest value is {high}: almost black; if its sensor has fewer bits, "
            f"multiply the values by {factor} first"
        )
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8), note


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
