"""Share what methods of distances have in common: words added on request, a blurred map, a score of its highest values.

    z(x) = (x - mean) / deviation                 both from good photographs, each compared with the others only
    joined = z(distances) + words_weight * z(map of words)

With `words_weight` 0, as published, distances are left as they are, so that a photograph which was taught scores 0.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from anomalens.errors import ConfigError
from anomalens.methods.parts.array_namespace import Array, like
from anomalens.methods.parts.fusion import Fusion, Scale, fit_scale, pooled
from anomalens.methods.parts.neighbours import Memory, build_memory
from anomalens.methods.parts.patches import blurred, resampled
from anomalens.methods.references.reference_method import (
    Compared,
    Descriptors,
    Joined,
    Owners,
    R,
    ReferenceConfig,
    ReferenceMethod,
    Words,
)


def fit_scales(ordinary: Compared, words: Words) -> dict[str, float]:
    """Fit mean and deviation of the distances of good photographs and of their maps of words."""
    grid = tuple(ordinary.for_map.shape[1:])
    scales = {
        "score": fit_scale([ordinary.for_score]),
        "map": fit_scale([ordinary.for_map]),
        "words": fit_scale([resampled(words.map, grid)]),
    }
    return {f"{name}_{part}": getattr(scale, part) for name, scale in scales.items() for part in ("mean", "deviation")}


def add_words(compared: Compared, words: Words, fitted: Mapping[str, float], weight: float) -> Joined:
    """Standardise distances and add the standardised map of words, on the grid of the patches.

    Args:
        compared, words: of the same B images.
        fitted: from `fit_scales`.
        weight: of the words; 0 leaves them out.
    """
    scales = {name: Scale(fitted[f"{name}_mean"], fitted[f"{name}_deviation"]) for name in ("score", "map", "words")}
    said = resampled(like(words.map, compared.for_map, "float32"), tuple(compared.for_map.shape[1:]))
    joined = {
        name: Fusion(scales[name], scales["words"], weight).join(distances, said)
        for name, distances in (("score", compared.for_score), ("map", compared.for_map))
    }
    return Joined(map=joined["map"], score_map=joined["score"])


def remember_patches(patches: Array, owners: Owners) -> Memory:
    """Keep all patches [V, h, w, D] of all views, with the number of the photograph that each comes from."""
    memory = build_memory(list(patches))
    return Memory(memory.rows, like(owners, memory.rows)[memory.owners])


@dataclass(frozen=True)
class DistanceConfig(ReferenceConfig):
    """Hold the options that methods of distances share."""

    # Weight of words in the join; 0, as published: photographs alone.
    words_weight: float = 0.0
    # Standard deviation of the Gaussian that blurs the map, in pixels of an image as large as the paper's
    # (`DistanceMethod.pixels` on its shorter side): it grows with the image. 0 leaves maps as they are.
    sigma: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.words_weight < 0 or self.sigma < 0:
            raise ConfigError("words_weight and sigma must not be negative")


class DistanceMethod(ReferenceMethod[R]):
    """Score and map images by the distances of their patches; the map is blurred, the score is made before that."""

    config: DistanceConfig
    pools_map = False
    # Shorter side of the paper's images in pixels.
    pixels: ClassVar[int] = 448
    # Share of the patches whose mean, the largest, is the image score; less than one patch: the largest alone.
    top: ClassVar[float] = 0.01

    @property
    def uses_words(self) -> bool:
        """Return whether words count."""
        return self.config.words_weight > 0

    @property
    def standardised(self) -> bool:
        """Return whether scores are in deviations from ordinary, as the join with words makes them."""
        return self.uses_words

    @abstractmethod
    def distances(self, descriptors: Descriptors, remembered: R) -> Array:
        """Return the distance of each patch of B images to what is remembered: [B, h, w]."""

    def compare(self, descriptors: Descriptors, remembered: R) -> Compared:
        """Measure distances, and blur them for the map."""
        distances = self.distances(descriptors, remembered)
        return Compared(distances, self.blurred(distances))

    def blurred(self, distances: Array) -> Array:
        """Blur distances [B, h, w] for the map."""
        return blurred(distances, self.config.sigma / self.pixels * min(distances.shape[1:]))

    def fit_join(self, ordinary: Compared, words: Words) -> Mapping[str, float]:
        """Fit mean and deviation of distances and words; nothing where words do not count."""
        return fit_scales(ordinary, words) if self.uses_words else {}

    def join(self, compared: Compared, words: Words, fitted: Mapping[str, float]) -> Joined:
        """Score and map by the distances, as they are or joined with words."""
        joined = Joined(compared.for_map, None, compared.for_score)
        if self.uses_words:
            joined = add_words(compared, words, fitted, self.config.words_weight)
        return Joined(joined.map, pooled(joined.score_map, self.top), joined.score_map)
