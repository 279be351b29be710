"""Take photographed materials as surfaces: random crops of the images in given folders."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from anomalens.errors import InputError
from anomalens.images.image_files import FORMATS, quoted, read_file
from anomalens_lab.synthesis.fields import Field, Random, chance, log_uniform, pick

SUFFIXES = (".png", ".jpg", ".jpeg", ".tga", ".bmp", ".webp", ".tif", ".tiff")
# Decoded photographs are kept at this size at most: larger ones bring no more texture to a 256-pixel scene.
LONGEST = 1024


@lru_cache(maxsize=8)
def list_photographs(folders: tuple[Path, ...]) -> tuple[Path, ...]:
    """List all image files below the folders in a fixed order (by path); folders that do not exist count as empty."""
    paths = (p for folder in folders for p in sorted(folder.rglob("*")))
    return tuple(p for p in paths if p.suffix.lower() in SUFFIXES and p.is_file())


def _photograph(picture: Pillow.Image, _: list[str]) -> Pillow.Image | None:
    """Return an opened photograph as RGB, None where it is tiny or huge."""
    if min(picture.size) < 48 or picture.size[0] * picture.size[1] > 64_000_000:
        return None
    return picture.convert("RGB")


@lru_cache(maxsize=48)
def _decode(path: Path) -> npt.NDArray[np.uint8] | None:
    """Read the photograph as RGB [h,w,3], or None where it cannot be read, is tiny, or is one flat colour."""
    try:
        picture = read_file(path, quoted(path), _photograph, formats=(*FORMATS, "TGA"))
    except InputError:
        return None
    if picture is None:
        return None
    if max(picture.size) > LONGEST:
        picture.thumbnail((LONGEST, LONGEST), Pillow.Resampling.BOX)
    pixels = np.asarray(picture, np.uint8)
    return None if float(pixels[::4, ::4].std(axis=(0, 1)).max()) < 1.5 else pixels


def photograph(rng: Random, paths: tuple[Path, ...], h: int, w: int) -> Field | None:
    """Draw a random crop [h,w,3] of one of the photographs: rescaled, turned, mirrored, recoloured.

    None if none of a few tries can be read.
    """
    for _ in range(4):
        pixels = _decode(pick(rng, paths))
        if pixels is not None:
            break
    else:
        return None
    if chance(rng, 0.5):
        pixels = pixels[:, ::-1]
    pixels = np.rot90(pixels, int(rng.integers(4)))
    rows, cols = pixels.shape[:2]
    turn = float(rng.normal(0, 0.15)) if chance(rng, 0.3) else 0.0
    c, s = abs(np.cos(turn)), abs(np.sin(turn))
    # The largest scale (source pixels a canvas pixel) at which the turned crop still fits.
    fit = min(cols / (w * c + h * s), rows / (w * s + h * c))
    scale = min(fit, max(0.25, fit * log_uniform(rng, 0.3, 1.0)))
    span_x, span_y = scale * (w * c + h * s), scale * (w * s + h * c)
    x = span_x / 2 + float(rng.random()) * max(0.0, cols - span_x)
    y = span_y / 2 + float(rng.random()) * max(0.0, rows - span_y)
    a, b = scale * np.cos(turn), -scale * np.sin(turn)
    matrix = (a, b, x - a * w / 2 - b * h / 2, -b, a, y + b * w / 2 - a * h / 2)
    source = Pillow.fromarray(np.ascontiguousarray(pixels))
    crop = source.transform((w, h), Pillow.Transform.AFFINE, matrix, Pillow.Resampling.BILINEAR)
    image = np.asarray(crop, np.float32) / 255
    if chance(rng, 0.3):
        grey = image.mean(-1, keepdims=True)
        image = grey + (image - grey) * np.float32(rng.uniform(0, 1.3))
    if chance(rng, 0.3):
        image = image * rng.uniform(0.8, 1.2, 3).astype(np.float32)
    mean = image.mean()
    # Many texture photographs are dark; bring some of them to ordinary exposure.
    if mean < 0.25 and chance(rng, 0.7):
        image = image * np.float32(rng.uniform(0.3, 0.6) / max(float(mean), 0.04))
    return np.asarray(image, np.float32)
