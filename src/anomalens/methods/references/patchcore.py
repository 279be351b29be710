"""Compare neighbourhoods of two middle levels with a memory of those of good photographs: PatchCore.

Paper: Roth, Pemula, Zepeda, Schölkopf, Brox, Gehler, "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022
(arXiv 2106.08265). Code: github.com/amazon-science/patchcore-inspection (Apache-2.0).

    per level   3 x 3 windows, stride 1, zeros beyond the border: C x 9 values a place, channel by channel
                adaptive average pooling of these 9 C values to `channels`; bilinear to the grid of the finer level
    feature     both levels joined (2 x `channels`), pooled again to `channels`; not of unit length
    distance    |f - m|² to the nearest row m of the memory
    score       the largest distance; with `reweight` b, as the paper has it and the code does not,
                (1 - exp|p - m*| / Σ exp|p - m|) |p - m*|
                p the worst patch, m* the row nearest to it, m the b rows nearest to m*
    map         bilinear to pixels, Gaussian of 4 pixels at 224
    memory      all rows; with `coreset` that share of them, greedy k-centre on a random projection to 128 values

Adaptive pooling, from n values to m, averages values floor(i n / m) to ceil((i + 1) n / m). Both poolings are linear,
and so is enlarging, so they are one matrix a level, applied before the level is enlarged (exact).

The same as the code: features, distances, score. Different: the selection starts at one drawn row instead of the
distances to ten; the Gaussian's width follows the image's size. Ours: words on request; towers without a convolutional
stem give the tokens at half and three quarters of their depth, as layers 2 and 3 of 4 do; a convolutional stem its
strides 8 and 16.

Input: WideResNet-50-2, 224 pixels. Published with few photographs (by WinCLIP's authors; MVTec AD, image AUROC, pixel
AUROC, AUPRO): 83.4, 92.0, 79.7 (1), 86.3, 93.3, 82.3 (2), 88.8, 94.3, 84.3 (4).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from anomalens.errors import ConfigError
from anomalens.methods.parts.array_namespace import Array, convert, like, namespace, smallest
from anomalens.methods.parts.neighbours import Memory
from anomalens.methods.parts.patches import apply, operator
from anomalens.methods.references.distances import DistanceConfig, DistanceMethod, remember_patches
from anomalens.methods.references.reference_method import Compared, Descriptors, Owners, register_reference

# Values to which rows are projected for the selection.
_PROJECTED = 128


@dataclass(frozen=True)
class Config(DistanceConfig):
    """Hold PatchCore's settings."""

    # Values that describe a patch.
    channels: int = 1024
    # Share of the patches that is kept; 1: all, as published for few photographs; 0.1 or 0.01 for many.
    coreset: float = 1.0
    # Rows b that weigh the image score; 0, as in the public code: no weight; 9 as others have it.
    reweight: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.channels <= 8192:
            raise ConfigError(f"channels {self.channels} must lie in 1..8192; the paper has 1024")
        if not 0 < self.coreset <= 1:
            raise ConfigError(f"coreset {self.coreset} must be a share above 0 and at most 1, which keeps all patches")
        if self.reweight < 0:
            raise ConfigError(f"reweight {self.reweight} must be a number of rows, or 0 for no weight")


@register_reference(
    "patchcore",
    title="PatchCore: nearest neighbourhoods of two middle levels",
    source="Roth et al., CVPR 2022 (arXiv 2106.08265)",
    year=2022,
    config=Config,
)
class PatchCore(DistanceMethod[Memory]):
    """Implement PatchCore. Distances are squared lengths, so their scale is that of the features."""

    config: Config
    depths = (0.5, 0.75)
    pixels = 224
    top = 0.0
    remembers = Memory

    @property
    def unexportable(self) -> str | None:
        """Return why the weight of the score cannot be part of a graph."""
        return "reweight looks up rows for each image" if self.config.reweight else None

    def describe(self, levels: Sequence[Array]) -> Descriptors:
        """Pool the windows of the first two levels on the grid of the first: [V, h, w, channels]."""
        levels = levels[:2]
        grid = levels[0].shape[1:3]
        feature = None
        for number, level in enumerate(levels):
            values = convert(level, "float32")
            pooling = like(pooling_matrix(values.shape[-1], number, len(levels), self.config.channels), values)
            rows, columns = (
                like(operator(length, 1, target), values)
                for length, target in zip(values.shape[1:3], grid, strict=True)
            )
            part = apply(rows, windows(values) @ pooling.T, columns)
            feature = part if feature is None else feature + part
        return (feature,)

    def remember(self, descriptors: Descriptors, owners: Owners, seed: int) -> Memory:
        """Keep all patches, or a greedy k-centre selection of them."""
        memory = remember_patches(descriptors[0], owners)
        count, channels = memory.rows.shape
        if self.config.coreset == 1:
            return memory
        axes = None
        if channels > _PROJECTED:
            drawn = np.random.default_rng(seed).standard_normal((channels, _PROJECTED))
            axes = like(drawn, memory.rows, "float32")
        return memory.reduced(max(1, int(self.config.coreset * count)), seed, axes)

    def without(self, remembered: Memory, descriptors: Descriptors, owners: Owners, photo: int, seed: int) -> Memory:
        """Leave out the rows of one photograph: the selection among the others stays."""
        return remembered.without(photo)

    def distances(self, descriptors: Descriptors, remembered: Memory) -> Array:
        """Compute the squared distance of each patch to the nearest row."""
        return 2.0 * remembered.distances(convert(descriptors[0], "float32"))

    def compare(self, descriptors: Descriptors, remembered: Memory) -> Compared:
        """Measure distances; for the score, if asked, as lengths times the weight of the image."""
        compared = super().compare(descriptors, remembered)
        if not self.config.reweight:
            return compared
        xp = namespace(compared.for_score)
        patches = convert(descriptors[0], "float32")
        lengths = xp.sqrt(compared.for_score)
        weighted = [
            length
            * image_weight(
                patch.reshape(-1, patch.shape[-1])[int(length.argmax())], remembered.rows, self.config.reweight
            )
            for patch, length in zip(patches, lengths, strict=True)
        ]
        return replace(compared, for_score=xp.stack(weighted))


def windows(level: Array) -> Array:
    """Gather the 3 x 3 neighbourhood of every place, zeros beyond the border: [B, h, w, C] -> [B, h, w, 9 C].

    The nine values of a channel follow one another, row by row.
    """
    xp = namespace(level)
    images, height, width, channels = level.shape
    row = xp.zeros_like(level[:, :1])
    tall = xp.concatenate([row, level, row], 1)
    column = xp.zeros_like(tall[:, :, :1])
    padded = xp.concatenate([column, tall, column], 2)
    shifted = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return xp.stack(shifted, -1).reshape(images, height, width, 9 * channels)


def image_weight(patch: Array, rows: Array, count: int) -> Array:
    """Compute the weight of an image's score: smaller where rows near the worst patch's nearest row are near it too.

    Args:
        patch: [D] the patch with the largest distance.
        rows: [R, D] the memory.
        count: rows b nearest to the nearest one, itself included; no more than there are.

    Returns:
        A scalar in 0..1; 0 where there is no other row.
    """
    xp = namespace(rows)
    own = ((rows - patch) ** 2).sum(-1)
    star = own.argmin()
    around = ((rows - rows[star]) ** 2).sum(-1)
    reach = smallest(around, min(count, rows.shape[0])).max()
    # Of equal rows more than asked may be in reach; each counts.
    near = xp.sqrt(own[around <= reach])
    # The largest term is taken out of the fraction, because exp overflows.
    most = near.max()
    return 1 - xp.exp(xp.sqrt(own[star]) - most) / xp.exp(near - most).sum()


@lru_cache(maxsize=16)
def pooling_matrix(channels: int, number: int, levels: int, target: int) -> npt.NDArray[np.float32]:
    """Build the matrix [target, 9 C] from the windows of one level to its share of the feature.

    channels: C of the level, the `number`th (from 0) of `levels`.
    """
    joined = adaptive_pooling(levels * target, target)
    own = joined[:, number * target : (number + 1) * target]
    return np.asarray(own @ adaptive_pooling(9 * channels, target), np.float32)


def adaptive_pooling(source: int, target: int) -> npt.NDArray[np.float64]:
    """Build the matrix [target, source] of adaptive average pooling."""
    first = np.arange(target) * source // target
    end = -(-(np.arange(target) + 1) * source // target)
    inside = (np.arange(source) >= first[:, None]) & (np.arange(source) < end[:, None])
    return np.asarray(inside / inside.sum(axis=1, keepdims=True))
