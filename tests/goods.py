"""Photographs of a made-up part that can be learned in a moment: a coloured pattern, the same in each but for noise."""

from pathlib import Path

import numpy as np
from PIL import Image

from anomalens.images.pixel_values import Rgb


def good_photo(number: int, side: int = 96) -> Rgb:
    """Return a sound part, uint8 [side, side, 3]; each number gives another photograph."""
    pattern = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(pattern).resize((side, side), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(number + 1).integers(-9, 10, (side, side, 3))
    return (np.asarray(picture).astype(int) + noise).clip(0, 255).astype(np.uint8)


def faulty_photo(number: int, side: int = 96) -> Rgb:
    """Return a part with a black square in it."""
    pixels = good_photo(number, side)
    pixels[side // 3 : side // 2, side // 3 : side // 2] = 0
    return pixels


def write_goods(folder: Path, count: int = 5, start: int = 0) -> Path:
    """Write photographs of sound parts into a folder, which is made; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        Image.fromarray(good_photo(number)).save(folder / f"{number}.png")
    return folder
