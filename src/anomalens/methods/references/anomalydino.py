"""Compare patches of a tower's last block with those of good photographs, turned to eight angles: AnomalyDINO.

Paper: Damm, Laszkiewicz, Lederer, Fischer, "AnomalyDINO: Boosting Patch-based Few-Shot Anomaly Detection with DINOv2",
WACV 2025 (arXiv 2405.14529). Code: github.com/dammsi/AnomalyDINO (Apache-2.0).

    f      last block's patch tokens, unit length
    B      tokens of all photographs, each at 0, 45, ..., 315 degrees (same canvas, border reflected); all are kept
    d(f)   min over b in B of ½ |f - b|²  =  1 - max cos(f, b)               exact
    score  mean of the int(0.01 N) largest of N distances; the largest alone where that is none
    map    d, bilinear to pixels, Gaussian of 4 pixels

    foreground (`mask`): first principal component of the image's own raw tokens above `mask_threshold`; its sign is
    flipped where it covers at most 35 % of the middle; dilated, then closed, 3 x 3. Elsewhere d = 0, which counts
    among the N. Photographs are not masked.

The same as the code: all of it on DINOv2. Different: the Gaussian's width follows the image's size, the longer side is
rounded to a multiple of the patch rather than cropped, and the mask is off unless asked for, because its threshold of
10 holds for the scale of DINOv2 ViT-S/14 alone; the code switches it on for some classes by name.
Ours: words on request; on a convolutional stem the middle level, because the last one is coarse.

Input: DINOv2 ViT-S/14, shorter side 448 or 672. Published (MVTec AD, image AUROC at 1, 2, 4 photographs, 672 pixels):
96.6, 96.9, 97.7; VisA 87.4, 89.7, 92.6.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anomalens.methods.parts.array_namespace import Array, convert, like, namespace, numpy_array, unit
from anomalens.methods.parts.neighbours import Memory
from anomalens.methods.references.distances import DistanceConfig, DistanceMethod, remember_patches
from anomalens.methods.references.reference_method import Descriptors, Owners, register_reference

# Share of each side that is cut off to leave the middle, and what a foreground covers of it at least.
_BORDER, _COVERED = 0.2, 0.35


@dataclass(frozen=True)
class Config(DistanceConfig):
    """Hold AnomalyDINO's settings."""

    turns: int = 8
    # Whether distances outside of the part itself count as 0.
    mask: bool = False
    # Value of the first principal component above which a patch shows the part. 10 fits DINOv2 ViT-S/14 only.
    mask_threshold: float = 10.0


@register_reference(
    "anomalydino",
    title="AnomalyDINO: nearest patches of the last block, photographs turned",
    source="Damm et al., WACV 2025 (arXiv 2405.14529)",
    year=2025,
    config=Config,
)
class AnomalyDino(DistanceMethod[Memory]):
    """Implement AnomalyDINO. Distances lie in 0..2, 0 = equal to a patch of a photograph."""

    config: Config
    depths = (1.0,)
    remembers = Memory

    @property
    def unexportable(self) -> str | None:
        """Return why the mask cannot be part of a graph."""
        return "the mask needs a principal component of each image" if self.config.mask else None

    def describe(self, levels: Sequence[Array]) -> Descriptors:
        """Return unit tokens [V, h, w, D] of the only level, or the middle one; with a mask also their lengths."""
        tokens = convert(levels[len(levels) // 2], "float32")
        if not self.config.mask:
            return (unit(tokens),)
        return unit(tokens), namespace(tokens).sqrt((tokens * tokens).sum(-1))[..., None]

    def remember(self, descriptors: Descriptors, owners: Owners, seed: int) -> Memory:
        """Keep all patches."""
        return remember_patches(descriptors[0], owners)

    def without(self, remembered: Memory, descriptors: Descriptors, owners: Owners, photo: int, seed: int) -> Memory:
        """Leave out the patches of one photograph."""
        return remembered.without(photo)

    def distances(self, descriptors: Descriptors, remembered: Memory) -> Array:
        """Search the nearest patch of each patch; 0 outside of the foreground."""
        distances = remembered.distances(convert(descriptors[0], "float32"))
        if not self.config.mask:
            return distances
        tokens = numpy_array(descriptors[0]).astype(np.float32) * numpy_array(descriptors[1])
        part = np.stack([foreground(image, self.config.mask_threshold) for image in tokens])
        return distances * like(part, distances, "float32")


def foreground(tokens: npt.NDArray[np.float32], threshold: float) -> npt.NDArray[np.bool_]:
    """Tell which patches show a part rather than what lies around it.

    Args:
        tokens: [h, w, D] raw tokens of one image.
        threshold: of the first principal component.

    Returns:
        [h, w], True where the part is.
    """
    height, width, channels = tokens.shape
    flat = tokens.reshape(-1, channels).astype(np.float64)
    flat = flat - flat.mean(0)
    axis = np.linalg.eigh(flat.T @ flat)[1][:, -1]
    component = (flat @ axis).reshape(height, width)
    # Eigenvectors have no sign of their own: the farthest patch is given the positive side.
    component *= np.sign(component.flat[np.abs(component).argmax()]) or 1.0
    middle = tuple(slice(int(side * _BORDER), max(1, int(side * (1 - _BORDER)))) for side in (height, width))
    if (component > threshold)[middle].mean() <= _COVERED:
        component = -component
    grown = _dilated(_dilated(component > threshold))
    # Shrinking is growing of what lies around; beyond the border nothing grows into the part.
    return ~_dilated(~grown)


def _dilated(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Set every place of a mask [h, w] that has a set one among its eight neighbours."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(mask, 1), (3, 3))
    return np.asarray(windows.any(axis=(-1, -2)))
