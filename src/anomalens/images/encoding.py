"""Encode pictures as the bytes of an image file."""

import io
from typing import Any, Literal

from PIL import Image


def encode_image(picture: Image.Image, kind: Literal["PNG", "JPEG", "WEBP"] = "PNG", **settings: Any) -> bytes:
    """Return the bytes of `picture` as a file of `kind`; `settings` go to Pillow's encoder (quality, optimize)."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return buffer.getvalue()
