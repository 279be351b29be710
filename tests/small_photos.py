"""Draw small pictures for tests in which it does not matter what they show."""

import io

import numpy as np
from PIL import Image


def photo(seed: int = 0, *, bright: bool = False, size: tuple[int, int] = (96, 80), form: str = "PNG") -> bytes:
    """Return a sharp picture that differs by its seed, as a file.

    Its red channel has a mean of about 0.3, or of 0.7 where it is `bright`; the toy method takes that for its score.
    """
    noise = np.random.default_rng(seed).integers(0, 120, (size[1], size[0], 3))
    buffer = io.BytesIO()
    Image.fromarray((noise + (120 if bright else 20)).astype(np.uint8)).save(buffer, form)
    return buffer.getvalue()
