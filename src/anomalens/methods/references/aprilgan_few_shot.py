"""Compare the tokens of each tower quarter with those of good photographs, beside learned words: APRIL-GAN, few-shot.

Paper: Chen, Han, Zhang, "APRIL-GAN", CVPR 2023 VAND challenge (arXiv 2305.17382). Code:
github.com/ByChelsea/VAND-APRIL-GAN (f13b8a6, MIT). It is part of `aprilgan`, whose map and score it takes.

    memory   patch tokens after blocks 6, 12, 18, 24 of all photographs, a memory a block; not projected
    A_fs     Σ over blocks of min over b of (1 - cos(x, b)), bilinear to pixels, corners aligned
    map      A_zs + A_fs                                     A_zs: the zero-shot map
    score    ½ (p + s)                                       p: probability of "abnormal" of the image's class token

The same as the code: the memories, A_fs and the map. Different: s. The code takes the largest A_fs of an image, scaled
so that the least of the whole test set becomes 0 and the largest 1, which no image on its own has. Here

    s = max A_fs / (2 m)       m: the largest such maximum of the photographs, each compared with the others only

so that s is 0 for a photograph that was taught and ½ for an image as unlike the others as the most unlike photograph.
It has no upper end, so that images keep their order. The code draws photographs with replacement; here each is used
once.

Input: as `aprilgan`. Published (MVTec AD, 4 photographs; image AUROC, pixel AUROC, AUPRO): 92.8, 95.9, 91.8; VisA 92.6,
96.2, 90.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from anomalens.methods.parts.array_namespace import Array, convert, like, namespace, numpy_array, unit
from anomalens.methods.parts.neighbours import nearest
from anomalens.methods.parts.patches import apply
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


@dataclass(frozen=True)
class Remembered:
    """Hold the unit tokens of all photographs, a memory a block."""

    # [blocks, R, D].
    rows: Array


@register_reference(
    "aprilgan+",
    title="APRIL-GAN, few-shot: tokens like those of photographs, and learned words",
    source="Chen et al., CVPR 2023 VAND challenge (arXiv 2305.17382)",
    year=2023,
    config=ReferenceConfig,
)
class AprilGanFewShot(ReferenceMethod[Remembered]):
    """Implement APRIL-GAN's comparison with photographs. Map values lie in 0..3 a block, scores from 0 up."""

    words = "aprilgan"
    depths = ()
    pools_map = False
    remembers = Remembered

    def describe(self, levels: Sequence[Array]) -> Descriptors:
        """Return unit tokens [V, h, w, D] of each block."""
        return tuple(unit(convert(level, "float32")) for level in levels)

    def remember(self, descriptors: Descriptors, owners: Owners, seed: int) -> Remembered:
        """Keep everything."""
        rows = [part.reshape(-1, part.shape[-1]) for part in descriptors]
        return Remembered(namespace(rows[0]).stack(rows))

    def compare(self, descriptors: Descriptors, remembered: Remembered) -> Compared:
        """Compute A_fs on the grid of the patches [B, h, w]: enlarging is linear, so it waits until the sum is made."""
        distances = sum(
            nearest(convert(part, "float32").reshape(-1, part.shape[-1]), rows).reshape(part.shape[:-1])
            for part, rows in zip(descriptors, remembered.rows, strict=True)
        )
        return Compared(distances, distances)

    def fit_join(self, ordinary: Compared, words: Words) -> Mapping[str, float]:
        """Return m, the largest value of A_fs among good photographs."""
        # Copies of one photograph would give 0, by which nothing can be divided.
        return {"largest": max(float(numpy_array(ordinary.for_score).max()), float(np.finfo(np.float32).eps))}

    def join(self, compared: Compared, words: Words, fitted: Mapping[str, float]) -> Joined:
        """Add maps, at the size of the map of words, and average scores."""
        few = compared.for_map
        said = like(words.map, few, "float32")
        largest = namespace(few).amax(few.reshape(few.shape[0], -1), -1)
        score = 0.5 * (like(words.score, few, "float32") + largest / (2 * fitted["largest"]))
        rows, columns = (
            like(aligned(length, target), few) for length, target in zip(few.shape[1:], said.shape[1:], strict=True)
        )
        return Joined(said + apply(rows, few[..., None], columns)[..., 0], score)


@lru_cache(maxsize=32)
def aligned(length: int, target: int) -> npt.NDArray[np.float32]:
    """Build the matrix [target, length] that enlarges an axis bilinearly, corners aligned."""
    centre = np.linspace(0, length - 1, target) if target > 1 else np.zeros(1)
    return np.asarray(np.maximum(1 - np.abs(centre[:, None] - np.arange(length)[None, :]), 0), np.float32)
