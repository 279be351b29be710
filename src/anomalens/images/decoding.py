"""Decode images to 8-bit RGB, safely: whatever is wrong with one becomes an InputError of one line.

The camera's orientation tag is applied; of several frames or pages the first is read. `pixel_values.py` says how grey,
deep, floating-point and transparent images become RGB. Torch tensors are accepted without importing torch.
"""

import io
import os
import re
import stat
import threading
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from anomalens.errors import ConfigError, InputError, one_line
from anomalens.images.pixel_values import Channels, Rgb, array_to_rgb, picture_to_rgb, tensor_to_rgb

if TYPE_CHECKING:
    import torch

Source: TypeAlias = Union[
    str, os.PathLike[str], bytes, bytearray, memoryview, IO[bytes], Image.Image, npt.NDArray[Any], "torch.Tensor"
]
"""Everything that can be decoded to an image:

* a path;
* the bytes of an image file (`bytes`, `bytearray`, `memoryview`);
* an open binary file or `io.BytesIO`: read from its beginning where it can seek, otherwise from where it stands, and
  left open;
* a PIL image, also one that was opened and not yet loaded; it may be given several times and from several threads;
* a numpy array [H, W] or [H, W, 1|3|4]: uint8, uint16 (of either byte order), bool, or floating point in [0, 1];
* a torch tensor [H, W] or [1|3|4, H, W]: uint8, bool, or floating point in [0, 1].
"""

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

# Several locks, so that threads reading different objects seldom wait for each other.
_LOCKS = tuple(threading.Lock() for _ in range(16))


@dataclass(frozen=True)
class Decoded:
    """Hold one decoded image."""

    # Pixels, uint8 [H, W, 3].
    rgb: Rgb
    # Rows of the upright source; larger than `rgb` has only where a smaller decoding was asked for.
    height: int
    # Columns of the upright source.
    width: int
    # A remark for the user on how the image was read.
    note: str | None = None


def decode(
    source: Source,
    *,
    channels: Channels = "rgb",
    at_least: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Decoded:
    """Read an image of any kind listed at `Source`. Files are told apart by content, never by name.

    Args:
        source: the image.
        channels: order of the colours in an array or tensor; "bgr" for frames of OpenCV. Everything else knows its
            own order, and "bgr" is an error there.
        at_least: (height, width). Lets a JPEG file be decoded at 1/2, 1/4 or 1/8 of its size, never below this size:
            much faster for large photographs, but the pixels differ slightly from a full decoding and a resize.
        max_pixels: largest file or PIL image decoded, in pixels.

    Raises:
        InputError: the source, which the message names, is no readable image or too large.
        ConfigError: `channels` is neither "rgb" nor "bgr".
    """
    if channels not in ("rgb", "bgr"):
        raise ConfigError(f"channels {channels!r} is unknown: use 'rgb' or 'bgr'")
    if isinstance(source, np.ndarray):
        rgb, note = array_to_rgb(source, channels)
        return Decoded(rgb, rgb.shape[0], rgb.shape[1], note)
    # A tensor is told by an attribute that only tensors have, so that torch need not be imported.
    if hasattr(source, "requires_grad"):
        rgb, note = tensor_to_rgb(source, channels)
        return Decoded(rgb, rgb.shape[0], rgb.shape[1], note)
    if channels == "bgr":
        raise InputError(
            f"{_name(source)}: channels='bgr' is for arrays and tensors; a file or PIL image states its own order"
        )
    if isinstance(source, (str, os.PathLike)):
        return _decode_path(source, at_least, max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode_bytes(bytes(source), _name(source), at_least, max_pixels)
    if isinstance(source, Image.Image):
        # Loading changes the image and moves its file's position, so two threads must not do it at once.
        with _lock(source):
            return _decode_picture(source, _name(source), None, max_pixels, frames=False)
    if hasattr(source, "read"):
        return _decode_bytes(_read(source), _name(source), at_least, max_pixels)
    hint = " (cv2.imread returns None where it cannot read a file)" if source is None else ""
    raise InputError(
        f"cannot read an image from {type(source).__name__}{hint}: give a path, the bytes of a file, an open binary "
        "file, a PIL image, a numpy array or a torch tensor"
    )


def _name(source: object) -> str:
    """Return what to call a source in messages, on one line: repr escapes newlines and bytes that are no text."""
    if isinstance(source, (str, os.PathLike)):
        return repr(os.fsdecode(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "image bytes"
    picture = isinstance(source, Image.Image)
    name = getattr(source, "filename" if picture else "name", None)
    if isinstance(name, (str, bytes, os.PathLike)) and name:
        return repr(os.fsdecode(name))
    return "PIL image" if picture else "image file"


def _lock(source: object) -> threading.Lock:
    return _LOCKS[id(source) // 16 % len(_LOCKS)]


def _read(stream: IO[bytes]) -> bytes:
    """Return the content of an open file. Raises InputError where it cannot be read, or was opened as text."""
    name = _name(stream)
    try:
        with _lock(stream):
            if stream.seekable():
                stream.seek(0)
            content: object = stream.read()
    except Exception as error:  # archives and network streams raise errors of their own
        raise InputError(f"{name}: cannot be read ({one_line(error)})") from error
    if not isinstance(content, bytes):
        raise InputError(f"{name}: reading it gives {type(content).__name__}, not bytes; open it with mode 'rb'")
    return content


def _decode_path(path: str | os.PathLike[str], at_least: tuple[int, int] | None, max_pixels: int) -> Decoded:
    name = _name(path)
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
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except PermissionError:
        raise InputError(f"{name}: no permission to read it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise InputError(f"{name}: cannot be read ({one_line(error)})") from error


def _decode_bytes(content: bytes, name: str, at_least: tuple[int, int] | None, max_pixels: int) -> Decoded:
    if not content:
        raise InputError(f"{name}: empty (0 bytes)")
    return _decode_stream(io.BytesIO(content), name, at_least, max_pixels)


def _decode_stream(stream: IO[bytes], name: str, at_least: tuple[int, int] | None, max_pixels: int) -> Decoded:
    # Registers the plugins, once; AVIF and JPEG 2000 are missing from some builds.
    Image.init()
    readable = [kind for kind in FORMATS if kind in Image.OPEN]
    try:
        with Image.open(stream, formats=readable) as picture:
            return _decode_picture(picture, name, at_least, max_pixels, frames=True)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        raise _too_large(name, f"{int(pixels[0]):,}" if pixels else "too many", max_pixels) from None
    except UnidentifiedImageError:
        kinds = ", ".join(readable)
        raise InputError(f"{name}: is not an image, or its header is damaged (readable: {kinds})") from None
    except Exception as error:  # plugins raise anything from SyntaxError to struct.error on damaged headers
        raise InputError(f"{name}: damaged image ({one_line(error)})") from error


def _too_large(name: str, pixels: str, max_pixels: int) -> InputError:
    return InputError(
        f"{name}: {pixels} pixels, above the limit of {max_pixels:,}; cut it into parts or shrink it first"
    )


def _decode_picture(
    picture: Image.Image, name: str, at_least: tuple[int, int] | None, max_pixels: int, *, frames: bool
) -> Decoded:
    """Decode an opened picture; everything Pillow raises becomes an InputError.

    `frames` says whether to remark that there are more frames than the first.
    """
    # The size stands in the header: nothing is decoded yet.
    if picture.width * picture.height > max_pixels:
        raise _too_large(name, f"{picture.width} x {picture.height} = {picture.width * picture.height:,}", max_pixels)
    try:
        several = frames and bool(getattr(picture, "is_animated", False))
        height, width = picture.height, picture.width
        if at_least is not None:
            # The stored image may lie on its side.
            rows, columns = at_least if orientation(picture) < 5 else at_least[::-1]
            picture.draft(None, (max(1, columns), max(1, rows)))
        picture.load()
        # After loading: a PNG may keep the tag behind the pixels.
        tag = orientation(picture)
        rgb, note = picture_to_rgb(picture, name)
        if tag in _UPRIGHT:
            rgb = rgb.transpose(_UPRIGHT[tag])
            if tag >= 5:
                height, width = width, height
        notes = [note] if note else []
        if several:
            notes.append("has several frames or pages: only the first was read")
        return Decoded(np.ascontiguousarray(np.asarray(rgb)), height, width, "; ".join(notes) or None)
    except InputError:
        raise
    except Exception as error:  # truncated or damaged data: OSError, SyntaxError, ValueError, struct.error ...
        raise InputError(f"{name}: damaged image ({one_line(error)})") from error


def orientation(picture: Image.Image) -> int:
    """Return the orientation tag, 1 (upright) where there is none or the block that holds it is damaged."""
    try:
        return int(picture.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block must not cost the user a good image
        return 1
