"""Compare windows and patches with those of good photographs, beside words: WinCLIP+.

Paper: Jeong et al., "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation", CVPR 2023 (arXiv 2303.14814). No
official code. It is part of `winclip`, whose map and score it takes.

    three scales   class tokens of 2 x 2 and of 3 x 3 windows (projected); the last block's patch tokens (not projected)
    M_s(f)         min over b of ½ (1 - cos(f, b))                            0..1
    to patches     harmonic mean of M_s over the windows that cover a patch
    M_W            mean of the three
    map            zero-shot map + M_W, bilinear to pixels
    score          ½ (p + max M_W)                      p: probability of "abnormal" of the whole image's class token

The same as the paper: all of it. A harmonic mean of a zero has no value, so M_s counts as 1e-6 at least, and M_W of a
photograph that was taught is about 1e-6 rather than 0.

Input: as `winclip`. Published (image AUROC, pixel AUROC, AUPRO): MVTec AD 93.1, 95.2, 87.1 (1), 94.4, 96.0, 88.4 (2),
95.2, 96.2, 89.0 (4); VisA 83.8, 96.4, 85.1 (1), 84.6, 96.8, 86.2 (2), 87.3, 97.2, 87.6 (4).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from anomalens.errors import ConfigError
from anomalens.methods.parts.array_namespace import Array, convert, like, namespace, unit
from anomalens.methods.parts.neighbours import nearest
from anomalens.methods.parts.patches import apply, resampled
from anomalens.methods.references.reference_method import (
    Compared,
    Descriptors,
    Joined,
    Owners,
    ReferenceConfig,
    ReferenceMethod,
    Words,
    register_reference,
)

# The least distance in a harmonic mean.
_FLOOR = 1e-6


@dataclass(frozen=True)
class Remembered:
    """Hold the unit vectors of all photographs."""

    # [R, D] patch tokens.
    tokens: Array
    # [., E] class tokens of windows, of either scale.
    small: Array
    large: Array


@register_reference(
    "winclip+",
    title="WinCLIP+: windows and patches like those of photographs, and words",
    source="Jeong et al., CVPR 2023 (arXiv 2303.14814)",
    year=2023,
    config=ReferenceConfig,
)
class WinClipPlus(ReferenceMethod[Remembered]):
    """Implement WinCLIP+. Map values lie in 0..2, scores in 0..1."""

    words = "winclip"
    depths = ()
    pools_map = False
    remembers = Remembered

    def describe(self, levels: Sequence[Array]) -> Descriptors:
        """Return unit vectors: patch tokens [V, h, w, D], then windows [V, h - k + 1, w - k + 1, E] of each scale.

        Raises ConfigError where `winclip` has another number of scales.
        """
        if len(levels) != 3:
            raise ConfigError(f"winclip+ compares windows of two scales, not {len(levels) - 1}; leave scales out")
        small, large, tokens = (unit(convert(level, "float32")) for level in levels)
        return tokens, small, large

    def remember(self, descriptors: Descriptors, owners: Owners, seed: int) -> Remembered:
        """Keep everything."""
        return Remembered(*(part.reshape(-1, part.shape[-1]) for part in descriptors))

    def compare(self, descriptors: Descriptors, remembered: Remembered) -> Compared:
        """Compute M_W [B, h, w]."""
        tokens, small, large = (convert(part, "float32") for part in descriptors)
        grid = (tokens.shape[1], tokens.shape[2])
        mean = (
            _distances(tokens, remembered.tokens)
            + spread(_distances(small, remembered.small), grid)
            + spread(_distances(large, remembered.large), grid)
        ) / 3
        return Compared(mean, mean)

    def join(self, compared: Compared, words: Words, fitted: Mapping[str, float]) -> Joined:
        """Add maps, at the size of the map of words, and average scores."""
        mean = compared.for_map
        said = like(words.map, mean, "float32")
        largest = mean.reshape(mean.shape[0], -1)
        score = 0.5 * (like(words.score, mean, "float32") + namespace(mean).amax(largest, -1))
        return Joined(said + resampled(mean, (said.shape[1], said.shape[2])), score)


def spread(distances: Array, grid: tuple[int, int]) -> Array:
    """Give every patch the harmonic mean of the distances of the windows that cover it.

    Args:
        distances: [B, h - k + 1, w - k + 1] of windows of k x k patches at stride 1.
        grid: h, w.

    Returns:
        [B, h, w], at least 1e-6.
    """
    inverse = 1 / namespace(distances).where(distances > _FLOOR, distances, 0 * distances + _FLOOR)
    rows, columns = (
        like(covering(length, windows), inverse) for length, windows in zip(grid, distances.shape[1:], strict=True)
    )
    return 1 / apply(rows, inverse[..., None], columns)[..., 0]


@lru_cache(maxsize=32)
def covering(length: int, windows: int) -> npt.NDArray[np.float32]:
    """Build the matrix [length, windows] that averages, for each place of an axis, the windows that cover it."""
    side = length - windows + 1
    offset = np.arange(length)[:, None] - np.arange(windows)[None, :]
    covers = (offset >= 0) & (offset < side)
    return np.asarray(covers / covers.sum(axis=1, keepdims=True), np.float32)


def _distances(vectors: Array, rows: Array) -> Array:
    """Compute ½ (1 - cos) of unit vectors [B, h, w, D] and the nearest of rows [R, D]: [B, h, w]."""
    return 0.5 * nearest(vectors.reshape(-1, vectors.shape[-1]), rows).reshape(vectors.shape[:-1])
