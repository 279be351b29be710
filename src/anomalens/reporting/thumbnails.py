"""Draw the pictures of one image of a run small: the image, what stands out in it, its mask.

Each has a limit in bytes, so that a page of many images has one too: a picture that is too large is encoded more
coarsely, and then smaller, until it fits.
"""

import base64
from dataclasses import dataclass

from PIL import Image, ImageDraw

from anomalens.errors import InputError
from anomalens.images.decoding import decode
from anomalens.images.encoding import encode_image
from anomalens.images.image_files import MAX_PIXELS
from anomalens.images.pixel_values import Rgb
from anomalens.names import name_path
from anomalens.runs.store import Row
from anomalens.runs.stored_run import Run

# Settings of WebP's encoder, from fine to coarse.
_QUALITIES = (80, 60, 40, 20)
# What a picture is shrunk by where not even the coarsest fits.
_SHRINK = 0.75
# Shares of the bytes for an image: the image itself, the heatmap, the mask.
_IMAGE, _OVERLAY, _MASK = 0.44, 0.48, 0.08
# A row could ask for any size; this many times the largest image that is read unless a user allows more.
_LARGER = 4
# Cyan, as the contour in heatmaps.
_BOX = (0, 255, 255)


@dataclass(frozen=True)
class Thumbnails:
    """Hold the pictures of one image as data URIs (WebP); None for what there is not."""

    # The image as it was judged; None where it is not to be found any more, or has changed its size.
    image: str | None
    # The heatmap over the image; where the run drew none, the image with a box around each region.
    overlay: str | None
    mask: str | None


def draw_thumbnails(run: Run, row: Row, side: int, most_bytes: int) -> Thumbnails:
    """Return the pictures of an image that was judged, at most `side` pixels long and `most_bytes` together."""
    image = original(run, row, side)
    overlay = stored_picture(run, row, "heatmap", side)
    if overlay is None and image is not None and row["regions"]:
        overlay = with_boxes(image, row)
    mask = stored_picture(run, row, "mask", side)
    return Thumbnails(
        image=_data_uri(image, _IMAGE * most_bytes),
        overlay=_data_uri(overlay, _OVERLAY * most_bytes),
        mask=_data_uri(mask.convert("L") if mask else None, _MASK * most_bytes, lossless=True),
    )


def original(run: Run, row: Row, side: int) -> Image.Image | None:
    """Return an image as it was judged, at most `side` pixels long.

    None where its file is not there, cannot be read or has another size than the image that was judged.
    """
    size = row["width"], row["height"]
    try:
        source = run.picture(row, "image") or name_path(row["path"])
        limit = max(MAX_PIXELS, min(size[0] * size[1], _LARGER * MAX_PIXELS))
        decoded = decode(source, at_least=(side, side), max_pixels=limit, truncated=True)
    except InputError:
        return None
    return _shrunk(decoded.rgb, side) if (decoded.width, decoded.height) == size else None


def stored_picture(run: Run, row: Row, name: str, side: int) -> Image.Image | None:
    """Return a picture that the run wrote ("heatmap", "mask"), at most `side` pixels long; None where there is none."""
    try:
        picture = run.picture(row, name)
        return None if picture is None else _shrunk(decode(picture, max_pixels=_LARGER * MAX_PIXELS).rgb, side)
    except InputError:
        return None


def with_boxes(image: Image.Image, row: Row) -> Image.Image:
    """Return a copy of a shrunk image with a box around each region of its row."""
    drawn = image.copy()
    pen, scale = ImageDraw.Draw(drawn), image.width / row["width"]
    for region in row["regions"]:
        left, top, right, bottom = (round(edge * scale) for edge in region["box"])
        # A box of no width has no inside to be drawn around.
        pen.rectangle((left - 1, top - 1, max(right, left), max(bottom, top)), outline=_BOX)
    return drawn


def encoded_within(picture: Image.Image, most_bytes: float, *, lossless: bool = False) -> bytes:
    """Return a picture as WebP of at most `most_bytes` (100 or more): coarser, then smaller, until it fits."""
    while True:
        for quality in (100,) if lossless else _QUALITIES:
            content = encode_image(picture, "WEBP", quality=quality, lossless=lossless, method=2)
            if len(content) <= most_bytes or picture.size == (1, 1):
                return content
        width, height = (max(1, int(length * _SHRINK)) for length in picture.size)
        picture = picture.resize((width, height))


def _data_uri(picture: Image.Image | None, most_bytes: float, *, lossless: bool = False) -> str | None:
    if picture is None:
        return None
    content = encoded_within(picture, most_bytes, lossless=lossless)
    return f"data:image/webp;base64,{base64.b64encode(content).decode('ascii')}"


def _shrunk(rgb: Rgb, side: int) -> Image.Image:
    picture = Image.fromarray(rgb)
    picture.thumbnail((side, side), Image.Resampling.BICUBIC)
    return picture
