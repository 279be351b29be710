"""Draw small pictures for tests in which it does not matter what they show."""

import io

from PIL import Image, ImageDraw


def photo(seed: int = 0, size: tuple[int, int] = (96, 80), form: str = "PNG") -> bytes:
    """Return a small picture that differs by its seed, as a file."""
    picture = Image.effect_noise(size, 40).convert("RGB")
    ImageDraw.Draw(picture).rectangle((8 + seed % 40, 8, 30 + seed % 40, 30), (200, seed % 256, 90))
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()
