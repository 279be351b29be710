"""Feature grids of a few photographs, and what plain loops make of them."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.ndimage import map_coordinates

Floats = npt.NDArray[np.float64]


def grids(*shapes: tuple[int, int, int], images: int = 3, seed: int = 0) -> list[npt.NDArray[np.float32]]:
    """Draw random levels [images, h, w, C], one for each shape."""
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal((images, *shape)) * 3 + 1).astype(np.float32) for shape in shapes]


def nearest_loop(image: Floats, rows: Floats) -> Floats:
    """Squared distance of each patch [h, w, D] to the nearest of rows [R, D], one at a time."""
    out = np.zeros(image.shape[:2])
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            out[y, x] = min(float(((image[y, x] - row) ** 2).sum()) for row in rows)
    return out


def unit_loop(image: Floats) -> Floats:
    return np.asarray(image / np.linalg.norm(image, axis=-1, keepdims=True))


def enlarged(image: Floats, size: tuple[int, int], aligned: bool = False) -> Floats:
    """Enlarge bilinearly [h, w] -> size, written out by coordinates; the border is repeated."""
    axes = []
    for length, target in zip(image.shape, size, strict=True):
        if aligned:
            axes.append(np.arange(target) * (length - 1) / (target - 1))
        else:
            axes.append(np.clip((np.arange(target) + 0.5) * length / target - 0.5, 0, length - 1))
    return np.asarray(map_coordinates(image, np.meshgrid(*axes, indexing="ij"), order=1, mode="nearest"))


def blurred_loop(image: Floats, cell: int, sigma: float) -> Floats:
    """Enlarge to `cell` (odd) pixels a patch, blur by `sigma` pixels, read the middles of the patches."""
    height, width = image.shape
    fine = ndimage.gaussian_filter(enlarged(image, (cell * height, cell * width)), sigma)
    return np.asarray(fine[cell // 2 :: cell, cell // 2 :: cell])
