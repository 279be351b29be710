"""Open image files: the one place where it is done, with the same formats and limits for images, masks and headers.

Only the header is read when a picture is handed on. Whatever is wrong with a file becomes an InputError of one line.
"""

import io
import math
import os
import re
import stat
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, TypeVar

from PIL import Image, UnidentifiedImageError

from anomalens.errors import InputError, MissingExtraError, one_line
from anomalens.extras import optional
from anomalens.images.memory_budget import MemoryBudget
from anomalens.images.rare_tiff import is_misread, is_tiff, open_rare
from anomalens.names import at_home, name_text

# Formats told by their content. The rest of Pillow's list stays out: some start other programs (EPS), many are exotic.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "GIF", "WEBP", "PPM", "JPEG2000", "AVIF")

MAX_PIXELS = 2**30 // 4 // 3
"""Largest image decoded by default, in pixels (about 9,459 x 9,459): the size above which Pillow itself warns."""
MAX_SIDE = 100_000
"""Longest side of an image, in pixels: each row costs memory beside its pixels."""
MAX_ASPECT = 1_000
"""Largest ratio of the sides of an image."""
MAX_SCANS = 50
"""Most scans of a progressive JPEG: each costs the time of a whole decoding; encoders write about ten."""
MEMORY = 10**9
"""Bytes that decoding may take for one image of at most MAX_PIXELS."""

# Pixels of the formats that Pillow decodes in Python, at some 2 microseconds a pixel.
_MAX_SLOW_PIXELS = 2_000_000
_SLOW_DECODERS = ("ppm", "ppm_plain")
# Bytes that a pixel takes while its image is decoded, measured with 16 megapixels; the RGB result is among them.
_BYTES = {"WEBP": 16, "JPEG2000": 30, "AVIF": 12, "HEIF": 12, "TIFF": 12}
_BYTES_PROGRESSIVE, _BYTES_ELSE = 13, 8

_ADVICE = "cut it into parts or shrink it first"
# Beginnings of HEIC files, by the name that stands after "ftyp".
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_HEIF_EXTRA = "is a HEIC photo, which needs a further package: pip install 'anomalens[heif]', or save it as JPEG"

# Where the next marker of a JPEG stands behind the pixels of a scan.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
CUT_OFF = "its end is missing: what is lost is grey"
"""The remark on a JPEG that was read although it is truncated."""

Value = TypeVar("Value")
Reader = Callable[[Image.Image, list[str]], Value]
"""Makes something of an opened picture that nobody has loaded; adds remarks for the user to the list."""

memory = MemoryBudget(MEMORY * 4 // 5)
"""Shared by everything that decodes or draws; less than one image may take alone, because each thread also holds the
part of an image that it works on."""


def read_file(
    source: str | os.PathLike[str] | bytes,
    name: str,
    read: Reader[Value],
    *,
    max_pixels: int = MAX_PIXELS,
    truncated: bool = False,
    formats: Sequence[str] = FORMATS,
) -> Value:
    """Open an image file and return what `read` makes of it.

    Args:
        source: a path, or a file's bytes.
        name: what to call it in messages.
        read: is called with the opened picture; may be called again with a repaired one.
        max_pixels: largest image accepted. Sides, aspect, scans and memory have limits of their own.
        truncated: also read a JPEG whose end is missing.
        formats: names of Pillow's formats that may be read, told by content.

    Raises InputError, which names the file, where it is no regular file, no image, damaged, or above a limit.
    """
    rules = _Rules(name, max_pixels, truncated, formats)
    if isinstance(source, bytes):
        if not source:
            raise InputError(f"{name}: empty (0 bytes)")
        return _read_stream(io.BytesIO(source), read, rules)
    if not os.fspath(source):
        raise InputError(f"{name}: an empty name names no file")
    try:
        source = at_home(source)
        status = os.stat(source)
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{name}: is a folder, not an image file")
        if not stat.S_ISREG(status.st_mode):  # a pipe or device could block for ever
            raise InputError(f"{name}: is not a regular file")
        if status.st_size == 0:
            raise InputError(f"{name}: is empty (0 bytes)")
        with open(source, "rb") as stream:
            return _read_stream(stream, read, rules)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except PermissionError:
        raise InputError(f"{name}: no permission to read it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise InputError(f"{name}: cannot be read ({one_line(error)})") from error


@dataclass(frozen=True)
class _Rules:
    """Hold the arguments of `read_file` that are about one file."""

    name: str
    max_pixels: int
    truncated: bool
    formats: Sequence[str]


def quoted(path: str | bytes | os.PathLike[str]) -> str:
    """Return a path for a message, on one line whatever characters it has."""
    return repr(name_text(path))


def readable(formats: Sequence[str] = FORMATS) -> list[str]:
    """Return those of `formats` that can be read here; AVIF and JPEG 2000 are missing from some builds of Pillow."""
    # Registers Pillow's plugins, once.
    Image.init()
    return [kind for kind in formats if kind in Image.OPEN]


def memory_of(picture: Image.Image) -> int:
    """Return how many bytes decoding an opened picture takes at its peak, the RGB result included."""
    return picture.width * picture.height * _bytes_each(picture.format or "", picture.info)


def _bytes_each(kind: str, info: Mapping[Any, Any]) -> int:
    return _BYTES_PROGRESSIVE if info.get("progressive") else _BYTES.get(kind, _BYTES_ELSE)


def check_picture(picture: Image.Image, name: str, max_pixels: int) -> None:
    """Raise InputError where an opened picture is above a limit; only its header is looked at."""
    kind = picture.format or ""
    check_size(picture.size, name, max_pixels, kind, _bytes_each(kind, picture.info))
    tile = getattr(picture, "tile", None)
    if tile and tile[0][0] in _SLOW_DECODERS and picture.width * picture.height > _MAX_SLOW_PIXELS:
        raise InputError(
            f"{name}: {picture.width} x {picture.height} pixels, above the limit of {_MAX_SLOW_PIXELS:,} for this kind"
            f" of {kind}, which is slow to read; save it as PNG or TIFF"
        )


def check_size(
    size: tuple[int, int], name: str, max_pixels: int = MAX_PIXELS, kind: str = "", bytes_each: int = _BYTES_ELSE
) -> None:
    """Raise InputError where an image of `size` = (width, height) may not be decoded.

    `bytes_each` is what a pixel takes while a file of the format `kind` is decoded.
    """
    width, height = size
    pixels = f"{width} x {height} = {width * height:,} pixels"
    if width * height > max_pixels:
        raise InputError(f"{name}: {pixels}, above the limit of {max_pixels:,}; {_ADVICE}, or raise max_pixels")
    if max(size) > MAX_SIDE:
        raise InputError(f"{name}: {width} x {height} pixels, above the limit of {MAX_SIDE:,} a side; {_ADVICE}")
    if max(size) > MAX_ASPECT * min(size):
        ratio = f"one side is more than {MAX_ASPECT:,} times the other"
        raise InputError(f"{name}: {width} x {height} pixels, {ratio}; {_ADVICE}")
    most = math.floor(MEMORY * max(1.0, max_pixels / MAX_PIXELS) / bytes_each)
    if width * height > most:
        raise InputError(
            f"{name}: {pixels}, above the limit of {most:,} for this kind of {kind}, which takes more memory than"
            f" others; {_ADVICE}, save it in another format, or raise max_pixels"
        )


def _read_stream(stream: IO[bytes], read: Reader[Value], rules: _Rules) -> Value:
    try:
        return _attempt(stream, read, rules, [])
    except InputError:
        raise
    except UnidentifiedImageError as error:
        detail = f"; {error}" if str(error) else ""
        kinds = ", ".join(readable(rules.formats))
        raise InputError(
            f"{rules.name}: is not an image, or its header is damaged (readable: {kinds}{detail})"
        ) from None
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        number = f"{int(pixels[0]):,}" if pixels else "too many"
        raise InputError(f"{rules.name}: {number} pixels, above the limit of {rules.max_pixels:,}; {_ADVICE}") from None
    except Exception as error:  # plugins raise anything from SyntaxError to struct.error on damaged files
        failure = error
    repaired = _repaired(stream, failure, rules.truncated)
    try:
        if repaired is None:
            raise failure
        content, remark = repaired
        return _attempt(io.BytesIO(content), read, rules, [remark] if remark else [])
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{rules.name}: damaged image ({one_line(error)})") from error


def _attempt(stream: IO[bytes], read: Reader[Value], rules: _Rules, notes: list[str]) -> Value:
    """Raise InputError for what is above a limit, and whatever Pillow raises for what is damaged."""
    with _identify(stream, rules) as picture:
        check_picture(picture, rules.name, rules.max_pixels)
        if picture.info.get("progressive") and _scans(stream) > MAX_SCANS:
            raise InputError(f"{rules.name}: a progressive JPEG of more than {MAX_SCANS} scans; save it again")
        return read(picture, notes)


def _identify(stream: IO[bytes], rules: _Rules) -> Image.Image:
    """Return the picture in `stream`, its header read.

    Plugins are called directly, as `Image.open` does it, because that has a limit for the whole process.
    Raises UnidentifiedImageError whose text says what is known of the file, or "".
    """
    stream.seek(0)
    prefix = stream.read(16)
    reasons = []
    for kind in readable(rules.formats):
        factory, accept = Image.OPEN[kind]
        verdict = accept(prefix) if accept else True
        if isinstance(verdict, str):
            reasons.append(verdict)
        elif verdict:
            stream.seek(0)
            try:
                picture = factory(stream, "")
                if not is_misread(picture):
                    return picture
            except (SyntaxError, IndexError, TypeError, struct.error) as error:
                reasons.append(one_line(error))
    if prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIF_BRANDS:
        return _identify_heif(stream, rules.name)
    if "TIFF" in rules.formats and is_tiff(prefix):
        stream.seek(0)
        return open_rare(
            stream, rules.name, lambda size: check_size(size, rules.name, rules.max_pixels, "TIFF", _BYTES["TIFF"])
        )
    raise UnidentifiedImageError(reasons[0] if reasons else "")


def _identify_heif(stream: IO[bytes], name: str) -> Image.Image:
    try:
        heif = optional("pillow_heif", "heif")
    except MissingExtraError:
        raise InputError(f"{name}: {_HEIF_EXTRA}") from None
    stream.seek(0)
    picture: Image.Image = heif.HeifImageFile(stream)
    return picture


def _repaired(stream: IO[bytes], error: Exception, truncated: bool) -> tuple[bytes, str] | None:
    """Return the content of a file that can be read in another way, and a remark or ""; None where there is no way."""
    stream.seek(0)
    start = stream.read(4)
    if start == b"\x89PNG" and isinstance(error, ValueError) and re.search("too large|text chunks", str(error)):
        stream.seek(0)
        return _without_texts(stream.read()), ""
    if start[:2] == b"\xff\xd8" and truncated and "truncated" in str(error):
        stream.seek(0)
        return stream.read() + 2 * _END_OF_IMAGE, CUT_OFF
    return None


def _without_texts(content: bytes) -> bytes:
    """Return a PNG without its texts and colour profile: Pillow refuses images whose texts are large."""
    kept, position = [content[:8]], 8
    while position + 8 <= len(content):
        end = position + 12 + int.from_bytes(content[position : position + 4], "big")
        if content[position + 4 : position + 8] not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            kept.append(content[position:end])
        position = end
    return b"".join(kept)


def _scans(stream: IO[bytes]) -> int:
    """Count the scans of a JPEG, one more than MAX_SCANS at most."""
    position = stream.tell()
    stream.seek(0)
    content = stream.read()
    stream.seek(position)
    scans, place = 0, 2
    while scans <= MAX_SCANS and (marker := _JPEG_MARKER.search(content, place)):
        if marker[0] == _END_OF_IMAGE:
            break
        scans += marker[0] == _START_OF_SCAN
        # What a segment holds, such as a thumbnail, is not looked at.
        place = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2], "big")
    return scans
