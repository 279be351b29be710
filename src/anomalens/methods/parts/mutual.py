"""Score a folder of unlabelled images against itself (MuSc, Li et al., ICLR 2024, arXiv 2401.16753).

A normal patch has a near twin in most other images, a defective one in few. For every level and window r:

    z[i, m]    tokens of image i, averaged over r x r neighbours, unit length                              (LNAMD)
    a[i, m; j] = min_n |z[i, m] - z[j, n]|              distance to the nearest patch of image j != i
    ā[i, m]    = mean of the K smallest over j          K = max(1, int(share * others)), share 0.3         (MSM)
    A[i, m]    = mean of ā over levels and windows

Same as the public code: standardised tokens, windows (1, 3, 5), the interval [0, 30 %]. Different: an image may be
compared with a part of a large folder only; copies of an image count once, for otherwise a defect would have a twin;
K is at least 1 (the code divides by 0 for fewer than 5 images); the score is left to the caller (the largest value of
the grid, never smaller than the enlarged map's).

A defect found in more than `share` of the images at the same look has twins enough and is lost. That is the method's
premise, not an error of this code.

Both directions of a pair come from one product, so N images cost N (N - 1) / 2 of them. Features are float16, in memory
or in a file; at any time two blocks of images and the distances of images not yet finished are held.

Shapes: N images, h w grid of an image (may differ between images), M = h * w, C channels, D width of embeddings.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anomalens.errors import ConfigError, InputError
from anomalens.methods.parts.array_namespace import Array, convert, like, namespace, numpy_array, smallest, unit
from anomalens.methods.parts.patches import apply, operator

# Squared distances of unit vectors below this are rounding errors: the patches are equal.
_ROUNDING = 2e-6
_EPSILON = 1e-5


@dataclass(frozen=True)
class MutualConfig:
    """Hold the options of mutual scoring; the defaults are the paper's."""

    # Sides of the neighbourhoods, in cells; odd.
    windows: tuple[int, ...] = (1, 3, 5)
    # Share of the other images, those most alike, that judge a patch; above 0, at most 1.
    share: float = 0.3
    # Bring the tokens of an image to mean 0 and deviation 1 first.
    standardise: bool = True
    # Images that each one is compared with; None: with all.
    others: int | None = None
    # Seed of the choice of others.
    seed: int = 0
    # Images whose features are held at once, twice.
    block: int = 32

    def __post_init__(self) -> None:
        if not self.windows or any(window < 1 or window % 2 == 0 for window in self.windows):
            raise ConfigError(f"windows {self.windows} must be odd numbers of cells, such as (1, 3, 5)")
        if not 0 < self.share <= 1:
            raise ConfigError(f"share {self.share} of the images must lie above 0 and be at most 1; 0.3 is usual")
        if self.others is not None and self.others < 2:
            raise ConfigError(f"others {self.others}: compare each image with at least 2 others")
        if self.block < 1:
            raise ConfigError(f"block {self.block} must be at least 1 image")


class FeatureStore:
    """Hold features of a set of images in float16, an entry an image: in memory, or in a file of the folder given."""

    def __init__(self, folder: Path | None = None) -> None:
        """Start without images; `folder` exists and takes one file, which the caller removes after use."""
        self.keys: list[str] = []
        self._path = None if folder is None else folder / "features.f16"
        self._arrays: list[list[npt.NDArray[np.float16]]] = []
        self._places: list[list[tuple[int, tuple[int, ...]]]] = []

    def __len__(self) -> int:
        return len(self.keys)

    def append(self, levels: Sequence[Array], key: str) -> None:
        """Add an image.

        Args:
            levels: features [h, w, C] of each level, on one grid; as many levels for every image.
            key: stands for the content: images of equal keys are copies of one another.

        Raises:
            InputError: levels of different grids, or another number of them than before.
        """
        values = [np.ascontiguousarray(numpy_array(level), np.float16) for level in levels]
        if len({level.shape[:2] for level in values}) != 1:
            raise InputError(f"levels of different grids {[level.shape[:2] for level in values]}: bring them to one")
        if self.keys and len(values) != self.levels:
            raise InputError(f"{len(values)} levels for an image where the others have {self.levels}")
        self.keys.append(key)
        if self._path is None:
            self._arrays.append(values)
            return
        places = []
        with self._path.open("ab") as file:
            for level in values:
                places.append((file.tell(), level.shape))
                file.write(level.data)
        self._places.append(places)

    @property
    def levels(self) -> int:
        """Return the number of levels of each image; 0 without images."""
        first = self._arrays or self._places
        return len(first[0]) if first else 0

    def read(self, image: int, level: int) -> npt.NDArray[np.float16]:
        """Return the features [h, w, C] of one image and level."""
        if self._path is None:
            return self._arrays[image][level]
        offset, shape = self._places[image][level]
        return np.fromfile(self._path, np.float16, int(np.prod(shape)), offset=offset).reshape(shape)


def neighbourhood(tokens: Array, window: int, standardise: bool = True) -> Array:
    """Average tokens over a window and give them unit length (LNAMD): [h, w, C] -> [h * w, C] float32.

    The average is over the cells inside the grid; with zeros padded, as in the public code, it differs by a factor
    a patch, which the unit length undoes.
    """
    values = convert(tokens, "float32")
    if standardise:
        values = values - values.mean()
        values = values / namespace(values).sqrt((values * values).mean() + _EPSILON)
    if window > 1:
        rows, columns = (like(operator(n, window, n), values) for n in values.shape[:2])
        values = apply(rows, values[None], columns)[0]
    return unit(values.reshape(-1, values.shape[-1]))


def copies(keys: Sequence[str]) -> dict[str, list[int]]:
    """Group the positions of images by content, in order of first appearance; groups of one are unique images."""
    groups: dict[str, list[int]] = {}
    for position, key in enumerate(keys):
        groups.setdefault(key, []).append(position)
    return groups


def mutual_maps(store: FeatureStore, config: MutualConfig | None = None, like_array: Array = None) -> list[Array]:
    """Score every image of the store against the others.

    The result depends on the set of images, never on their order.

    Args:
        store: features of N >= 2 images.
        config: options; the paper's where left out.
        like_array: an array whose kind and device is computed with; NumPy where left out.

    Returns:
        For each image a map [h, w] float32, >= 0, mean distance of unit vectors (at most 2). Copies of one image have
        the same map; where all images are copies, maps are 0.

    Raises:
        InputError: fewer than two images.
    """
    config = config or MutualConfig()
    if len(store) < 2:
        raise InputError(f"{len(store)} image cannot be compared with itself; give at least 2, better 12 and more")
    groups = copies(store.keys)
    # By the content, so that neither the order of the files nor their names decide which images meet.
    unique = sorted(groups.values(), key=lambda places: _shuffled(store.keys[places[0]], config.seed))
    images = [places[0] for places in unique]
    totals: list[Array] = [0.0] * len(images)
    if len(images) > 1:
        for level in range(store.levels):
            for window in config.windows:
                for number, closest in _mutual(store, images, level, window, config, like_array):
                    totals[number] = totals[number] + closest
    maps: list[Array] = [None] * len(store)
    passes = store.levels * len(config.windows)
    for places, image, total in zip(unique, images, totals, strict=True):
        shape = store.read(image, 0).shape[:2]
        empty = np.zeros(shape, np.float32)
        grid = like(empty, like_array) if len(images) == 1 else (total / passes).reshape(shape)
        for place in places:
            maps[place] = grid
    return maps


def rescore(scores: Array, embeddings: Array, neighbours: Sequence[int] = (1, 2, 3)) -> Array:
    """Smooth image scores over the most similar images (RsCIN).

    The result is relative to the set: it cannot be compared between folders, and no fixed threshold applies to it.

    Args:
        scores: [N].
        embeddings: [N, D] of the images, of unit length.
        neighbours: sizes of the neighbourhoods, the image itself included; 1 is the score brought to [0, 1].

    Returns:
        [N] in [0, 1]; 0 where all scores are equal.
    """
    low, high = scores.min(), scores.max()
    if high == low:
        return scores * 0
    scaled = (scores - low) / (high - low)
    similar = numpy_array(embeddings @ embeddings.T).astype(np.float64)
    np.fill_diagonal(similar, np.inf)  # the image itself always is its own nearest
    order = np.argsort(-similar, axis=1, kind="stable")
    np.fill_diagonal(similar, 1.0)
    total = np.zeros(len(similar))
    for count in neighbours:
        nearest = order[:, :count]
        weights = np.take_along_axis(similar, nearest, axis=1)
        total += (weights * numpy_array(scaled)[nearest]).sum(axis=1) / weights.sum(axis=1)
    return like(total / len(neighbours), scores, "float32")


def _mutual(
    store: FeatureStore, images: list[int], level: int, window: int, config: MutualConfig, like_array: Array
) -> Iterator[tuple[int, Array]]:
    """Yield (position in `images`, ā [M]) of every image as soon as all its pairs are done."""

    @lru_cache(maxsize=2 * config.block)
    def features(number: int) -> Array:
        return neighbourhood(like(store.read(images[number], level), like_array), window, config.standardise)

    pairs, others = meetings(len(images), config.others)
    pairs.sort(key=lambda pair: (pair[0] // config.block, pair[1] // config.block, pair))
    kept = max(1, int(config.share * others))
    distances: list[list[Array]] = [[] for _ in images]
    for i, j in pairs:
        similar = features(i) @ features(j).T
        xp = namespace(similar)
        for number, axis in ((i, 1), (j, 0)):
            distances[number].append(convert(_distance(xp.amax(similar, axis)), "float16"))
            if len(distances[number]) == others:
                stacked = convert(xp.stack(distances[number], -1), "float32")
                yield number, smallest(stacked, kept).mean(-1)
                distances[number].clear()


def meetings(count: int, others: int | None) -> tuple[list[tuple[int, int]], int]:
    """Say which pairs of `count` images are compared, each pair once, and with how many others each image is.

    With a limit, images stand in a ring and each meets its neighbours on both sides: all meet equally many, and the
    symmetry of a pair is used as when all meet. An odd limit is rounded up.

    Returns:
        The pairs (i, j), i < j, and the number of others, the same for each image.
    """
    reach = (count - 1) if others is None else (others + 1) // 2
    if 2 * reach >= count - 1:
        return [(i, j) for i in range(count) for j in range(i + 1, count)], count - 1
    ring = {tuple(sorted((i, (i + step) % count))) for i in range(count) for step in range(1, reach + 1)}
    return [(i, j) for i, j in sorted(ring)], 2 * reach


def _distance(similar: Array) -> Array:
    """Compute the Euclidean distance of unit vectors from their cosine; equal vectors give exactly 0."""
    xp = namespace(similar)
    squared = 2.0 - 2.0 * similar
    return xp.sqrt(xp.where(squared > _ROUNDING, squared, xp.zeros_like(squared)))


def _shuffled(key: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed} {key}".encode(), digest_size=16).digest()
