"""Decode images to 8-bit RGB, masks to marks and headers to sizes, all upright and by the same formats and limits.

Whatever is wrong with one becomes an InputError of one line (`image_files.py`). The camera's orientation tag is
applied; of several frames or pages the first is read. `pixel_values.py` says how grey, deep, floating-point and
transparent images become RGB. Torch tensors are accepted without importing torch.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomalens.errors import ConfigError, InputError, one_line
from anomalens.images.image_files import MAX_PIXELS, check_picture, memory, memory_of, quoted, read_file
from anomalens.images.mask_values import is_lossy, marked
from anomalens.images.orientation import lies_on_its_side, orientation, upright
from anomalens.images.pixel_values import Channels, Rgb, array_to_rgb, picture_to_rgb, tensor_to_rgb
from anomalens.images.rare_tiff import is_misread
from anomalens.images.tiff_tags import tags_of

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

# Several locks, so that threads reading different objects seldom wait for each other. The lock of a picture is always
# taken before that of its file, which other pictures may share.
_PICTURE_LOCKS = tuple(threading.Lock() for _ in range(16))
_FILE_LOCKS = tuple(threading.Lock() for _ in range(16))


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
    truncated: bool = False,
    room: ExitStack | None = None,
) -> Decoded:
    """Read an image of any kind listed at `Source`. Files are told apart by content, never by name.

    Args:
        source: the image.
        channels: order of the colours in an array or tensor; "bgr" for frames of OpenCV. Everything else knows its
            own order, and "bgr" is an error there.
        at_least: (height, width). Lets a JPEG file be decoded at 1/2, 1/4 or 1/8 of its size, never below this size:
            much faster for large photographs, but the pixels differ slightly from a full decoding and a resize.
        max_pixels: largest file or PIL image decoded, in pixels. Sides, aspect and memory have limits of their own.
        truncated: also read a JPEG file whose end is missing; the lost part is grey, and a note says so.
        room: the memory that the image takes counts in the budget of all threads until this closes; None: until it is
            decoded.

    Raises:
        InputError: the source, which the message names, is no readable image or too large.
        ConfigError: `channels` is neither "rgb" nor "bgr".
    """
    if channels not in ("rgb", "bgr"):
        raise ConfigError(f"channels {channels!r} is unknown: use 'rgb' or 'bgr'")
    if isinstance(source, np.ndarray) and source.ndim == 0 and source.dtype.kind in "USO":
        source = source.item()
    if isinstance(source, np.ndarray):
        rgb, note = array_to_rgb(source, channels)
        return Decoded(rgb, rgb.shape[0], rgb.shape[1], note)
    # A tensor is told by an attribute that only tensors have, so that torch need not be imported.
    if hasattr(source, "requires_grad"):
        rgb, note = tensor_to_rgb(source, channels)
        return Decoded(rgb, rgb.shape[0], rgb.shape[1], note)
    name = _name(source)
    if channels == "bgr":
        raise InputError(f"{name}: channels='bgr' is for arrays and tensors; a file or PIL image states its own order")
    if isinstance(source, Image.Image):
        return _decode_object(source, name, max_pixels, room)
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = bytes(source)
    elif not isinstance(source, (str, os.PathLike)) and hasattr(source, "read"):
        source = _read(source)
    elif not isinstance(source, (str, os.PathLike)):
        hint = " (cv2.imread returns None where it cannot read a file)" if source is None else ""
        raise InputError(
            f"cannot read an image from {type(source).__name__}{hint}: give a path, the bytes of a file, an open "
            "binary file, a PIL image, a numpy array or a torch tensor"
        )

    def read(picture: Image.Image, notes: list[str]) -> Decoded:
        if getattr(picture, "is_animated", False):
            notes = [*notes, "has several frames or pages: only the first was read"]
        with _memory_for(picture, room):
            return _decode_picture(picture, name, at_least, notes)

    return read_file(source, name, read, max_pixels=max_pixels, truncated=truncated)


@contextmanager
def _memory_for(picture: Image.Image, room: ExitStack | None) -> Iterator[None]:
    """Count the memory of an opened picture in the budget within the block, and until `room` closes if that ends well.

    Raises what the block raises, after the memory was given back.
    """
    with ExitStack() as taken:
        taken.enter_context(memory.take(memory_of(picture)))
        yield
        if room is not None:
            room.enter_context(taken.pop_all())


def decode_mask(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.bool_]:
    """Read a mask file of any encoding as bool [H, W], upright, True where something is marked (`mask_values.py`).

    Raises InputError as `decode` does.
    """

    def read(picture: Image.Image, notes: list[str]) -> npt.NDArray[np.bool_]:
        with memory.take(memory_of(picture)):
            lossy = is_lossy(picture)
            picture.load()
            return upright(marked(picture, quoted(path), lossy=lossy), orientation(picture))

    name = quoted(path)
    try:
        return read_file(path, name, read, max_pixels=max_pixels)
    except InputError as error:
        reason = str(error).removeprefix(f"{name}: ")
        raise InputError(f"{name[1:-1]}: cannot be read as a mask ({reason}); replace the file") from error


def read_size(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return (width, height) of an image file as it is shown, upright, from its header alone.

    A PNG whose orientation stands behind its pixels is the exception: it is decoded.
    Raises InputError as `decode` does, as far as the header tells.
    """

    def read(picture: Image.Image, notes: list[str]) -> tuple[int, int]:
        tags = tags_of(picture)
        if tags is not None:
            # Versions of Pillow differ in whether the size of a TIFF is that of the upright picture.
            tag, width, height = tags.orientation, tags.width, tags.height
        else:
            if picture.format == "PNG" and "exif" not in picture.info and not _has_exif_behind(picture):
                return picture.size
            width, height = picture.size
            tag = orientation(picture)
        return (height, width) if lies_on_its_side(tag) else (width, height)

    return read_file(path, quoted(path), read, max_pixels=max_pixels)


def _name(source: object) -> str:
    """Return what to call a source in messages, on one line."""
    if isinstance(source, (str, os.PathLike)):
        return quoted(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "image bytes"
    picture = isinstance(source, Image.Image)
    name = getattr(source, "filename" if picture else "name", None)
    if isinstance(name, (str, bytes, os.PathLike)) and name:
        return quoted(name)
    return "PIL image" if picture else "image file"


def _lock(source: object, locks: Sequence[threading.Lock] = _FILE_LOCKS) -> threading.Lock:
    return locks[id(source) // 16 % len(locks)]


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


def _decode_object(picture: Image.Image, name: str, max_pixels: int, room: ExitStack | None) -> Decoded:
    """Decode a PIL image, which may be given several times and from several threads."""
    try:
        check_picture(picture, name, max_pixels)
        if is_misread(picture):
            raise InputError(f"{name}: Pillow scrambles TIFFs of deep channels that are stored apart; give the file")
        # Loading changes the image and moves its file's position, so two threads must not do it at once.
        with (
            _memory_for(picture, room),
            _lock(picture, _PICTURE_LOCKS),
            _lock(getattr(picture, "fp", None)),
        ):
            if getattr(picture, "tile", None) and picture.format == "TIFF":
                # Pillow maps grey TIFFs that have a name into memory, and then turns them wrongly.
                picture.filename = ""  # type: ignore[attr-defined]
            return _decode_picture(picture, name, None, [])
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{name}: damaged image ({one_line(error)})") from error


def _decode_picture(picture: Image.Image, name: str, at_least: tuple[int, int] | None, notes: list[str]) -> Decoded:
    """Decode an opened picture. Raises whatever Pillow raises for damaged pixels."""
    if at_least is not None:
        # The stored image may lie on its side.
        rows, columns = at_least[::-1] if lies_on_its_side(orientation(picture)) else at_least
        width, height = picture.size
        picture.draft(None, (max(1, columns), max(1, rows)))
        picture.load()
    else:
        # Loading turns a TIFF, and with it its size.
        picture.load()
        width, height = picture.size
    # After loading: a PNG may keep the tag behind the pixels.
    tag = orientation(picture)
    rgb, note = picture_to_rgb(picture, name)
    if lies_on_its_side(tag):
        width, height = height, width
    return Decoded(upright(rgb, tag), height, width, "; ".join([*([note] if note else []), *notes]) or None)


def _has_exif_behind(picture: Image.Image) -> bool:
    """Return whether a PNG whose header was read has an EXIF block behind its pixels, without reading these."""
    stream: IO[bytes] = picture.fp  # type: ignore[attr-defined]
    position = stream.tell()
    try:
        stream.seek(8)
        while len(head := stream.read(8)) == 8:
            if head[4:] == b"eXIf":
                return True
            stream.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
        return False
    finally:
        stream.seek(position)
