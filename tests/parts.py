"""Drawn photographs of one kind of part, good ones and faulty ones, for tests of what is learned from photographs."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

Rgb = npt.NDArray[np.uint8]

SIDE = 160


def good_part(seed: int, angle: float = 0.0) -> Rgb:
    """Return a photograph of a sound part: a plate with a slot and a hole, a little light and noise of its own."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    turned = np.deg2rad(angle)
    u, v = x * np.cos(turned) + y * np.sin(turned), y * np.cos(turned) - x * np.sin(turned)
    plate = (np.abs(u) < 60) & (np.abs(v) < 45)
    hole = (u - 30) ** 2 + (v - 10) ** 2 < 14**2
    slot = (np.abs(u + 25) < 20) & (np.abs(v + 15) < 5)
    values = np.where(plate & ~hole & ~slot, 170.0, 60.0) + 12 * np.sin(u / 4) * plate
    values += random.normal(0, 4) + ndimage.gaussian_filter(random.normal(0, 12, values.shape), 1)
    return np.repeat(values.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def faulty_part(seed: int, angle: float = 0.0) -> Rgb:
    """Return a photograph of a part with a dark scratch across the plate, rows 96..103, columns 50..89."""
    rgb = good_part(seed, angle).copy()
    rgb[96:104, 50:90] = 25
    return rgb


def good_parts(count: int, first: int = 0) -> list[Rgb]:
    """Return `count` photographs of sound parts."""
    return [good_part(first + number) for number in range(count)]


def write_parts(folder: Path, count: int = 5, first: int = 0) -> Path:
    """Write photographs of sound parts into a folder, which is made, as 0.png, 1.png, ...; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        Image.fromarray(good_part(number)).save(folder / f"{number}.png")
    return folder


def coloured_part(number: int, side: int = 96) -> Rgb:
    """Return a coloured pattern, the same in each photograph but for noise, whose places random weights tell apart."""
    pattern = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(pattern).resize((side, side), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(number + 1).integers(-9, 10, (side, side, 3))
    return (np.asarray(picture).astype(int) + noise).clip(0, 255).astype(np.uint8)


def part_with_square(number: int, side: int = 96) -> Rgb:
    """Return a coloured part with a black square, rows and columns from a third to the half of its side."""
    pixels = coloured_part(number, side)
    pixels[side // 3 : side // 2, side // 3 : side // 2] = 0
    return pixels
