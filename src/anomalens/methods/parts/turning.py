"""Turn and mirror good photographs, where the photographs themselves say that their parts lie at any angle.

Turned copies let a part be recognised at angles that no photograph shows (AnomalyDINO, Damm et al., WACV 2025). They
hurt where a turned part is the defect, as a misplaced component. So they are used only where the photographs differ by
a turn: where, to a photograph, turned copies of the others are no less alike than the others as they are.

Shapes: H W pixels, K photographs, T turns, N patches an image, D channels.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from anomalens.errors import ConfigError
from anomalens.methods.parts.array_namespace import Array, namespace
from anomalens.methods.parts.neighbours import nearest

Rgb = npt.NDArray[np.uint8]

# Above this ratio of distances parts always lie alike, and the weight of the place in the image where they do.
_ALIKE, _PLACE_WEIGHT = 1.25, 3.5


def turn(rgb: Rgb, degrees: float) -> Rgb:
    """Turn an image [H, W, 3] counter-clockwise about its middle on the same canvas; the border is reflected.

    Quarter turns of a square image are exact; other turns are bilinear.
    """
    height, width = rgb.shape[:2]
    quarters, rest = divmod(degrees % 360, 90)
    if rest == 0 and (height == width or quarters % 2 == 0):
        return np.ascontiguousarray(np.rot90(rgb, int(quarters)))
    angle = np.deg2rad(degrees)
    cosine, sine = np.cos(angle), np.sin(angle)
    # From a place (row, column) of the result to the place of the source that it shows.
    return _moved(rgb, np.array([[cosine, sine], [-sine, cosine]]))


def zoom(rgb: Rgb, factor: float) -> Rgb:
    """Enlarge an image [H, W, 3] about its middle on the same canvas; below 1 it shrinks, the border reflected."""
    return _moved(rgb, np.eye(2) / factor)


def _moved(rgb: Rgb, matrix: npt.NDArray[np.float64]) -> Rgb:
    """Move every pixel as a matrix [2, 2] says, which leads from places of the result to places of the source.

    Bilinear, the border mirrored; equals `scipy.ndimage.affine_transform(order=1, mode="mirror")`.
    """
    sides = rgb.shape[:2]
    middle = (np.array(sides) - 1) / 2
    rows, columns = np.indices(sides)
    shift = middle - matrix @ middle
    axes = [_neighbours(matrix[a, 0] * rows + matrix[a, 1] * columns + shift[a], sides[a]) for a in (0, 1)]
    moved = np.zeros(rgb.shape)
    for row, row_weight in axes[0]:
        for column, column_weight in axes[1]:
            moved += rgb[row, column] * (row_weight * column_weight)[..., None]
    return np.clip(moved.astype(np.float32).round(), 0, 255).astype(np.uint8)


def _neighbours(
    places: npt.NDArray[np.float64], length: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
    """Return the two pixels of an axis that each place lies between, with their weights; mirrored at both ends."""
    away = np.abs(places) % max(1, 2 * (length - 1))
    inside = np.minimum(away, 2 * (length - 1) - away) if length > 1 else np.zeros_like(away)
    first = np.floor(inside).astype(np.int64)
    share = inside - first
    return [(first, 1 - share), (np.minimum(first + 1, length - 1), share)]


def views(rgb: Rgb, turns: int = 1, mirrored: bool = False) -> list[Rgb]:
    """Make copies of an image at `turns` equal steps of a full turn, the first as it is; mirrored ones after them.

    Raises ConfigError for fewer than one turn.
    """
    if turns < 1:
        raise ConfigError(f"turns {turns}: at least 1, the image as it is")
    sources = [rgb, np.ascontiguousarray(rgb[:, ::-1])] if mirrored else [rgb]
    return [turn(source, 360 * step / turns) for source in sources for step in range(turns)]


def differ_by_turn(patches: Array, turned: Sequence[Array], tolerance: float) -> bool:
    """Tell whether photographs show parts at any angle.

    Args:
        patches: [K, N, D] descriptors of K >= 2 photographs as they are.
        turned: for each photograph [T, N, D], copies turned by large angles, the angle 0 not among them.
        tolerance: largest ratio of the distance to turned copies and the distance to the others as they are.

    Returns:
        True where turned copies are as near; False for a single photograph, which cannot tell.
    """
    ratio = turn_ratio(patches, turned)
    return ratio is not None and ratio <= tolerance


def turn_ratio(patches: Array, turned: Sequence[Array]) -> float | None:
    """Compare, for each photograph, the best turned copy of the others with the others as they are; None for one.

    Arguments as `differ_by_turn`. Both sides see as many rows: one copy at a time, the mean distance over patches;
    the best of T copies of each other photograph, then the mean over pairs.
    """
    count = patches.shape[0]
    if count < 2:
        return None
    plain, best = 0.0, 0.0
    for i in range(count):
        for j in range(count):
            if i == j:
                continue
            plain += float(nearest(patches[i], patches[j]).mean())
            best += float(namespace(patches).stack([nearest(patches[i], copy).mean() for copy in turned[j]]).min())
    return best / max(plain, float(np.finfo(np.float32).tiny))


def place_weight(ratio: float | None) -> float:
    """Return the weight of the place in the image by a `turn_ratio`: above 0 only for parts that always lie alike."""
    return _PLACE_WEIGHT if ratio is not None and ratio > _ALIKE else 0.0
