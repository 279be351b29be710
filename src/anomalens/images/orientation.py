"""Turn pictures as their orientation tag says."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

_TAG = 0x0112

# What each tag does to an array whose first two axes are rows and columns.
_TURNS = {
    2: lambda array: array[:, ::-1],
    3: lambda array: array[::-1, ::-1],
    4: lambda array: array[::-1],
    5: lambda array: array.swapaxes(0, 1),
    6: lambda array: array.swapaxes(0, 1)[:, ::-1],
    7: lambda array: array.swapaxes(0, 1)[::-1, ::-1],
    8: lambda array: array.swapaxes(0, 1)[::-1],
}


def orientation(picture: Image.Image) -> int:
    """Return the orientation tag, 1 (upright) where there is none or the block that holds it is damaged."""
    try:
        tag = int(picture.getexif().get(_TAG, 1))
    except Exception:  # a damaged EXIF block must not cost the user a good image
        return 1
    return tag if tag in _TURNS else 1


def lies_on_its_side(tag: int) -> bool:
    """Return whether width and height of the stored picture are those of the upright one, swapped."""
    return tag >= 5


def upright(array: npt.NDArray[Any], tag: int) -> npt.NDArray[Any]:
    """Return an array [H, W, ...] as the orientation `tag` shows it: in order, a copy where it has to be turned."""
    turn = _TURNS.get(tag)
    return np.ascontiguousarray(array if turn is None else turn(array))
