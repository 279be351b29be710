"""Draw the good photographs of a taught part as one picture, each with its name below."""

import math
import os
from collections.abc import Sequence
from pathlib import PurePath

from PIL import Image, ImageDraw

from anomalens.detection.observing import Photo
from anomalens.files import atomic_write
from anomalens.images.decoding import decode
from anomalens.images.encoding import encode_image

# Pixels: a photograph's place, the line of its name, the space around both.
_SIDE, _LINE, _MARGIN = 96, 14, 8
# Characters of a name that fit below a photograph.
_LETTERS = 16


def write_contact_sheet(photos: Sequence[Photo], path: str | os.PathLike[str]) -> None:
    """Write the picture as PNG, atomically.

    Raises InputError where a small picture in the file cannot be read, OSError where `path` cannot be written.
    """
    atomic_write(path, encode_image(contact_sheet(photos)))


def contact_sheet(photos: Sequence[Photo]) -> Image.Image:
    """Return the photographs in rows, about as many rows as columns, on white; at least one photograph."""
    columns = math.ceil(math.sqrt(len(photos)))
    rows = math.ceil(len(photos) / columns)
    width, height = _SIDE + _MARGIN, _SIDE + _LINE + _MARGIN
    sheet = Image.new("RGB", (columns * width + _MARGIN, rows * height + _MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for number, photo in enumerate(photos):
        left, top = _MARGIN + number % columns * width, _MARGIN + number // columns * height
        picture = Image.fromarray(decode(photo.thumbnail).rgb)
        picture.thumbnail((_SIDE, _SIDE))
        sheet.paste(picture, (left + (_SIDE - picture.width) // 2, top + (_SIDE - picture.height) // 2))
        # The font that Pillow brings has no other letters.
        name = PurePath(photo.name).name.encode("latin-1", "replace").decode("latin-1")
        pen.text((left, top + _SIDE), name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}.", fill="black")
    return sheet
