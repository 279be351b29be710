"""Check what is uploaded before anything is stored: how many, how large, and whether the header is that of an image."""

from dataclasses import dataclass
from pathlib import Path

from anomalens.errors import InputError
from anomalens.images.image_files import read_file
from anomalens.names import name_text, on_one_line
from anomalens.serving.settings import ServeSettings

_LONGEST_NAME = 200  # characters that are kept of an image's name
# Types that browsers show; what else is stored is handed out as bytes to be saved.
TYPES = {
    "PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp", "BMP": "image/bmp",
    "AVIF": "image/avif", "TIFF": "image/tiff", "MPO": "image/jpeg",
}  # fmt: skip


class TooLargeError(InputError):
    """Say that a request has more bytes than the service takes."""


@dataclass(frozen=True)
class UploadedImage:
    """Hold the bytes of an image, as they were sent, and its name for people."""

    name: str
    content: bytes


def clean_name(name: str | None) -> str:
    """Return a file name for people: on one line, without folders, in text form, cut to 200 characters."""
    plain = on_one_line(name_text((name or "").replace("\\", "/").rsplit("/", 1)[-1])).strip()
    return plain[:_LONGEST_NAME] or "image"


def check_count(count: int, settings: ServeSettings) -> None:
    """Raise InputError for no image, or more than a request may have."""
    if count == 0:
        raise InputError("no image was sent: send files in the form field 'images', or the bytes of one as the body")
    if count > settings.max_images:
        raise InputError(f"{count} images, above the limit of {settings.max_images} a request; send them in parts")


def check_size(name: str, size: int, settings: ServeSettings) -> None:
    """Raise TooLargeError where an image has more bytes than it may have."""
    if size > settings.max_bytes:
        raise TooLargeError(f"{name!r}: {size:,} bytes, above the limit of {settings.max_bytes:,} an image")


def problem_of(image: UploadedImage, settings: ServeSettings) -> str | None:
    """Return why an upload cannot be inspected, by its header alone; None where it can."""
    try:
        picture_size(image.content, image.name, settings)
    except InputError as error:
        return str(error)
    return None


def picture_size(content: bytes, name: str, settings: ServeSettings) -> tuple[int, int]:
    """Return the width and height in an image's header. Raises InputError where it is no image, or above a limit."""
    return read_file(
        content, repr(name), lambda picture, _: picture.size, max_pixels=settings.max_pixels, truncated=True
    )


def media_type(path: Path) -> str:
    """Return the type of a stored image, by its content; that of unknown bytes where a browser would not show it."""
    try:
        kind = read_file(path, "image", lambda picture, _: picture.format or "", max_pixels=2**40, truncated=True)
    except InputError:
        kind = ""
    return TYPES.get(kind, "application/octet-stream")
