"""Compare the images of a folder with each other: mutual scoring (MuSc, Li et al., ICLR 2024, arXiv 2401.16753).

No photograph is named as good, nothing is trained: a sound patch has a near twin in most other images, a defect in few.
The numerics, with their equations, stand in `parts/mutual.py`.

The paper's settings, all of them selectable:

    levels="each" standardise=True windows=[1,3,5] share=0.3 top=0 others=0 words_weight=0 map_words_weight=0
    position=0 rescore=[1,2,3]

Ours are the defaults, for the bundled stem: levels joined to one descriptor a patch, as in the memory of good
photographs; a part of a large folder compared, which costs a set of 1,000 images no more an image than one of 50; no
re-scoring, whose results are relative to the folder; and words and places in the image:

    score    mean of the largest 1 % of  z(A without place) + words_weight * z(map of words)
    map      z(A with place) + map_words_weight * z(map of words)

z subtracts the median of all places of all images and divides by 1.4826 times their median absolute deviation. Places
count only in folders whose parts always lie alike (turned copies of some images are less like the others than the
images are). Where images are too unlike each other (mean half squared distance of a patch to the nearest of the others
above 0.15), words alone count.

Where it fails: a defect that looks the same in more than `share` of the images has twins enough and is lost; a sound
variant that is rarer than that (one colour, one pose) stands out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from anomalens.decision.pooling import ScorePooling
from anomalens.errors import ConfigError
from anomalens.methods.parts.array_namespace import Array, convert, like, numpy_array
from anomalens.methods.parts.fusion import Scale
from anomalens.methods.parts.method_config import MethodConfig
from anomalens.methods.parts.mutual import FeatureStore, MutualConfig, mutual_maps, rescore
from anomalens.methods.parts.patches import apply, describe, operator
from anomalens.methods.parts.turning import place_weight
from anomalens.methods.sets.set_method import Floats, SetMaps, SetMethod, register_set

# A share of the map so small that it is its highest place alone.
_HIGHEST = 1e-9
# Bytes of features that are held at once while images are compared.
_HELD = 2**28
# Mean half squared distance of a patch to the nearest of the others beyond which words decide alone.
_TOO_UNLIKE = 0.15
# Of a normal distribution, the standard deviation in units of the median absolute deviation.
_DEVIATION = 1.4826


@dataclass(frozen=True)
class Config(MethodConfig):
    """Hold the settings. The head of the file says which ones are the paper's."""

    # "joined": one descriptor a patch, of all levels; "each": levels are scored one by one and averaged.
    levels: Literal["joined", "each"] = "joined"
    # Sides of the neighbourhoods that are averaged, in cells; odd. Scores are averaged over them.
    windows: tuple[int, ...] = (3,)
    # Bring the features of an image to mean 0 and deviation 1 first.
    standardise: bool = False
    # Share of the other images, those most alike, that judge a patch; above 0, at most 1.
    share: float = 0.3
    # Images that each one is compared with, drawn by their content; 0: with all.
    others: int = 20
    # Share of the map, its highest places, whose mean is the image score; 0: the highest place alone.
    top: float = 0.01
    # Sizes of the neighbourhoods of images that scores are smoothed over; empty: not at all.
    rescore: tuple[int, ...] = ()
    # Weights of words in the score and in the map; with 0 for the score words count in neither.
    words_weight: float = 0.25
    map_words_weight: float = 0.2
    # Weight of the place in the image, in the map; None: decided by the images; 0: the place counts nothing.
    position: float | None = None
    # Seed of the draw of other images.
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mutual(1)
        if not 0 <= self.top <= 1:
            raise ConfigError(f"top {self.top} is a share of the map, in [0, 1]; 0 takes its highest place")
        if min(self.words_weight, self.map_words_weight) < 0:
            raise ConfigError("words_weight and map_words_weight must not be negative")
        if self.levels == "each" and self.position:
            raise ConfigError('position counts in joined levels only; leave it out, or set levels="joined"')
        if any(size < 1 for size in self.rescore):
            raise ConfigError(f"rescore {self.rescore} must be numbers of images, at least 1 each, such as (1, 2, 3)")

    def mutual(self, block: int, turn_ratio: float | None = None) -> MutualConfig:
        """Return the options of the numerics. Raises ConfigError where a value is out of range."""
        position = self.position
        if position is None:
            position = place_weight(turn_ratio) if self.levels == "joined" else 0.0
        asked = MutualConfig(
            self.windows, self.share, self.standardise, self.others or None, self.seed, block, position
        )
        # Joined levels have been averaged over their neighbourhoods before they were joined.
        return asked if self.levels == "each" else replace(asked, windows=(1,))


@register_set(
    "musc",
    title="A folder compared with itself: what few of the other images show is abnormal",
    source="Li et al., ICLR 2024 (arXiv 2401.16753)",
    year=2024,
    config=Config,
)
class MuSc(SetMethod):
    """Score by mutual comparison. Maps are distances of unit vectors, 0 to 2; joined with words, robust deviations."""

    config: Config

    @property
    def pooling(self) -> ScorePooling:
        """Take the mean of the highest places of the map."""
        return ScorePooling(1.0, self.config.top or _HIGHEST)

    @property
    def uses_words(self) -> bool:
        """Return whether words count."""
        return self.config.words_weight > 0

    def describe(self, levels: Sequence[Array]) -> list[Array]:
        """Describe patches on the grid of the second of three levels (stride 16 of the stem)."""
        middle = levels[len(levels) // 2]
        grid = (middle.shape[1], middle.shape[2])
        if self.config.levels == "joined":
            return [describe(levels, grid, window) for window in self.config.windows]
        return [_on_grid(level, grid) for level in levels]

    @property
    def asks_turns(self) -> bool:
        """Return whether the images decide if places count."""
        return self.config.position is None and self.config.levels == "joined"

    def score_set(self, store: FeatureStore, turn_ratio: float | None = None, like_array: Array = None) -> SetMaps:
        """Compare all images, a block at a time; see `SetMethod.score_set`."""
        widest = max(store.read(0, level).size for level in range(store.levels)) if len(store) else 1
        # Two blocks are held, in single precision.
        block = max(1, min(32, _HELD // (2 * 4 * widest)))
        maps = mutual_maps(store, self.config.mutual(block, turn_ratio), like_array)
        plain, placed = ([numpy_array(grid).astype(np.float32) for grid in part] for part in (maps.plain, maps.placed))
        return SetMaps(plain, placed, self.uses_words and maps.apart > _TOO_UNLIKE)

    def join(self, maps: SetMaps, words: Sequence[Floats]) -> SetMaps:
        """Add the maps of words, all in robust deviations from the median of the whole set."""
        if not self.uses_words:
            return maps
        said = _standardised(words)
        if maps.words_alone:
            return replace(maps, for_score=said, for_map=said)
        weights = (self.config.words_weight, self.config.map_words_weight)
        score, shown = (
            [grid + weight * part for grid, part in zip(_standardised(compared), said, strict=True)]
            for compared, weight in zip((maps.for_score, maps.for_map), weights, strict=True)
        )
        return replace(maps, for_score=score, for_map=shown)

    def smooth(self, scores: Floats, wholes: Floats) -> Floats:
        """Re-score as the paper does, where sizes of neighbourhoods are set."""
        if not self.config.rescore:
            return scores
        smoothed: Floats = np.asarray(rescore(scores, wholes, self.config.rescore), np.float32)
        return smoothed


def _on_grid(level: Array, grid: tuple[int, int]) -> Array:
    """Bring a level [B, h, w, C] to a grid [B, *grid, C], float32, without averaging neighbours."""
    rows, columns = (
        like(operator(length, 1, target), level) for length, target in zip(level.shape[1:3], grid, strict=True)
    )
    return apply(rows, convert(level, "float32"), columns)


def _standardised(maps: Sequence[Floats]) -> list[Floats]:
    """Bring maps to robust deviations from the median of all their places."""
    values = np.concatenate([grid.ravel() for grid in maps]).astype(np.float64)
    middle = float(np.median(values))
    spread = _DEVIATION * float(np.median(np.abs(values - middle)))
    scale = Scale(middle, max(spread, 0.02 * abs(middle), float(np.finfo(np.float32).tiny)))
    return [scale.standardise(grid) for grid in maps]
