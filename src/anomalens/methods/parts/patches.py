"""Turn the feature grids of a tower into patch descriptors: neighbourhood mean, one common grid, unit length.

    level [B, h, w, C]  ->  mean over r x r neighbours  ->  common grid  ->  unit length    } for each level
    levels joined along channels, each weighted, and the whole of unit length

The mean over neighbours makes a descriptor tolerant of small shifts (PatchCore, Roth et al., CVPR 2022). Averaging and
resampling are linear and separable, so both are one small matrix an axis. Unit length for each level keeps a level
with large values from deciding alone.

Shapes: B images, h w grid of a level, C its channels, D channels of all levels together.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from anomalens.errors import ConfigError
from anomalens.methods.parts.array_namespace import Array, convert, like, namespace, unit
from anomalens.methods.parts.smoothing import smoothed

# Places along a patch at which a blur is computed; odd, so that the middle of the patch is one of them.
_FINE = 15


def describe(
    levels: Sequence[Array], grid: tuple[int, int], window: int = 3, weights: Sequence[float] | None = None
) -> Array:
    """Join the levels of B images into patch descriptors on one grid.

    Args:
        levels: feature grids [B, h, w, C], each with its own h, w and C.
        grid: rows and columns of the descriptors.
        window: side r of the neighbourhood in cells of the level's own grid; odd; 1 takes each cell alone.
        weights: one factor >= 0 for each level; all equal where left out.

    Returns:
        [B, *grid, D] float32; every descriptor of unit length (0 where all features are 0).

    Raises:
        ConfigError: an even window, or another number of weights than of levels.
    """
    if window < 1 or window % 2 == 0:
        raise ConfigError(f"a neighbourhood of {window} cells has no middle; use 1, 3 or 5")
    if weights is not None and len(weights) != len(levels):
        raise ConfigError(f"{len(weights)} weights for {len(levels)} levels; give one for each")
    joined = []
    for level, weight in zip(levels, weights or [1.0] * len(levels), strict=True):
        values = convert(level, "float32")
        rows, columns = (
            like(operator(length, window, target), values)
            for length, target in zip(values.shape[1:3], grid, strict=True)
        )
        joined.append(unit(apply(rows, values, columns)) * weight)
    return unit(namespace(joined[0]).concatenate(joined, -1))


def with_position(descriptors: Array, weight: float) -> Array:
    """Add the place in the image to descriptors, so that a distance also counts how far apart two patches lie.

    For descriptors f, b at places p, q (in sides of the image) the squared distance becomes
    |f - b|² + weight² |p - q|². That finds a sound piece at the wrong place of a part which always lies alike.

    Args:
        descriptors: [B, h, w, D].
        weight: >= 0; with 2, half a side of the image adds 1 to the squared distance; 0 changes no distance.

    Returns:
        [B, h, w, D + 2]; not of unit length any more, so distances must be Euclidean.
    """
    height, width = descriptors.shape[1:3]
    y = weight * (np.arange(height) + 0.5)[:, None] / height + np.zeros((height, width))
    x = weight * (np.arange(width) + 0.5)[None, :] / width + np.zeros((height, width))
    place = like(np.stack([y, x], -1).astype(np.float32), descriptors)
    xp = namespace(descriptors)
    # Added to zeros, because the number of images may be open in a graph.
    return xp.concatenate([descriptors, place + xp.zeros_like(descriptors[..., :2])], -1)


def apply(rows: Array, values: Array, columns: Array) -> Array:
    """Apply one matrix along each axis of grids: [H, h], [B, h, w, C], [W, w] -> [B, H, W, C]."""
    images, height, width, channels = values.shape
    tall = rows @ values.reshape(images, height, width * channels)
    return columns @ tall.reshape(images, rows.shape[0], width, channels)


def resampled(maps: Array, size: tuple[int, int]) -> Array:
    """Bring maps [B, h, w] to another size [B, *size], float32: bilinear, or by averaging where they shrink."""
    if tuple(maps.shape[1:]) == size:
        return convert(maps, "float32")
    return _by_axes(maps, [operator(length, 1, target) for length, target in zip(maps.shape[1:], size, strict=True)])


def blurred(maps: Array, sigma: float) -> Array:
    """Blur maps of patches [B, h, w] as if they were enlarged to pixels, blurred and read at the patches' middles.

    sigma: standard deviation of the Gaussian in patches; 0 leaves maps as they are.
    """
    return _by_axes(maps, [_blurring(length, sigma) for length in maps.shape[1:]]) if sigma else maps


def _by_axes(maps: Array, operators: Sequence[npt.NDArray[np.float32]]) -> Array:
    """Apply one matrix along each axis of maps [B, h, w]."""
    rows, columns = (like(matrix, maps) for matrix in operators)
    return apply(rows, convert(maps, "float32")[..., None], columns)[..., 0]


@lru_cache(maxsize=64)
def _blurring(length: int, sigma: float) -> npt.NDArray[np.float32]:
    """Build the matrix [length, length] of `blurred`, which works on `_FINE` places a patch."""
    fine = smoothed(_resampling(length, _FINE * length), _FINE * sigma)
    return np.ascontiguousarray(fine[_FINE // 2 :: _FINE], np.float32)


@lru_cache(maxsize=64)
def operator(length: int, window: int, target: int) -> npt.NDArray[np.float32]:
    """Build the matrix [target, length] that averages `window` neighbours and then resamples an axis.

    Both parts divide by the weights inside the grid, so a constant stays constant up to the border.
    """
    return (_resampling(length, target) @ _averaging(length, window)).astype(np.float32)


def _averaging(length: int, window: int) -> npt.NDArray[np.float64]:
    position = np.arange(length)
    near = (np.abs(position[:, None] - position[None, :]) <= window // 2).astype(np.float64)
    return np.asarray(near / near.sum(axis=1, keepdims=True))


def _resampling(length: int, target: int) -> npt.NDArray[np.float64]:
    """Build bilinear weights with half-pixel centres; where the axis shrinks, triangles as wide as the step."""
    step = length / target
    centre = (np.arange(target) + 0.5) * step - 0.5
    if step <= 1:
        # Beyond the outermost cells bilinear enlarging repeats them.
        centre = np.clip(centre, 0, length - 1)
    weight = np.maximum(1 - np.abs(centre[:, None] - np.arange(length)[None, :]) / max(step, 1.0), 0)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))
