"""Score a folder of unlabelled images against itself (MuSc, Li et al., ICLR 2024, arXiv 2401.16753).

A normal patch has a near twin in most other images, a defective one in few. For every level and window r:

    z[i, m]    tokens of image i, averaged over r x r neighbours, unit length                              (LNAMD)
    a[i, m; j] = min_n |z[i, m] - z[j, n]|              distance to the nearest patch of image j != i
    ā[i, m]    = mean of the K smallest over j          K = max(1, int(share * others)), share 0.3         (MSM)
    A[i, m]    = mean of ā over levels and windows

Ours, besides: the same with the place in the image, for parts that always lie alike,

    a[i, m; j] = min_n sqrt(|z[i, m] - z[j, n]|² + position² |p - q|²)        patch m lies at p, n at q

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
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

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
    # Weight of the place in the image, see `patches.with_position`; 0: maps with the place are those without.
    position: float = 0.0

    def __post_init__(self) -> None:
        if not self.windows or any(window < 1 or window % 2 == 0 for window in self.windows):
            raise ConfigError(f"windows {self.windows} must be odd numbers of cells, such as (1, 3, 5)")
        if not 0 < self.share <= 1:
            raise ConfigError(f"share {self.share} of the images must lie above 0 and be at most 1; 0.3 is usual")
        if self.others is not None and self.others < 2:
            raise ConfigError(f"others {self.others}: compare each image with at least 2 others")
        if self.block < 1:
            raise ConfigError(f"block {self.block} must be at least 1 image")
        if self.position < 0:
            raise ConfigError(f"position {self.position} must not be negative")


@dataclass(frozen=True)
class MutualMaps:
    """Hold what comparing the images of a set with each other gives."""

    # A map [h, w] float32 for each image, >= 0: mean distances of unit vectors (at most 2). Copies of an image have the
    # same map; where all images are copies, maps are 0.
    plain: list[Array]
    # The same with the place in the image; the same arrays where it has no weight.
    placed: list[Array]
    # Half squared distance of a patch to the nearest of all patches of the images it meets, mean over all patches.
    apart: float


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


def mutual_maps(store: FeatureStore, config: MutualConfig | None = None, like_array: Array = None) -> MutualMaps:
    """Score every image of the store against the others.

    The result depends on the set of images, never on their order.

    Args:
        store: features of N >= 2 images.
        config: options; the paper's where left out.
        like_array: an array whose kind and device is computed with; NumPy where left out.

    Raises:
        InputError: fewer than two images.
    """
    config = config or MutualConfig()
    if len(store) < 2:
        raise InputError(f"{len(store)} image cannot be compared with itself; give at least 2, better 12 and more")
    # By the content, so that neither the order of the files nor their names decide which images meet.
    unique = sorted(copies(store.keys).values(), key=lambda places: content_order(store.keys[places[0]], config.seed))
    images = [places[0] for places in unique]
    if len(images) == 1:
        grid = like(np.zeros(store.read(0, 0).shape[:2], np.float32), like_array)
        return MutualMaps([grid] * len(store), [grid] * len(store), 0.0)
    passes = [(level, window) for level in range(store.levels) for window in config.windows]
    totals: list[_Scored] = [_Scored(0.0, 0.0, 0.0)] * len(images)
    for level, window in passes:
        for number, scored in _mutual(store, images, level, window, config, like_array):
            totals[number] = _Scored(*(total + part for total, part in zip(totals[number], scored, strict=True)))
    plain: list[Array] = [None] * len(store)
    placed: list[Array] = [None] * len(store)
    for places, image, total in zip(unique, images, totals, strict=True):
        shape = store.read(image, 0).shape[:2]
        for place in places:
            plain[place] = (total.plain / len(passes)).reshape(shape)
            placed[place] = (total.placed / len(passes)).reshape(shape) if config.position else plain[place]
    patches = sum(grid.shape[0] * grid.shape[1] for grid in (plain[image] for image in images))
    return MutualMaps(plain, placed, sum(total.apart for total in totals) / (patches * len(passes)))


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


class _Scored(NamedTuple):
    """Hold what the others say of one image: ā [M] without and with the place, and a sum of half squared distances."""

    plain: Array
    placed: Array
    apart: float


def _mutual(
    store: FeatureStore, images: list[int], level: int, window: int, config: MutualConfig, like_array: Array
) -> Iterator[tuple[int, _Scored]]:
    """Yield (position in `images`, scores) of every image as soon as all its pairs are done."""

    @lru_cache(maxsize=2 * config.block)
    def features(number: int) -> tuple[Array, tuple[int, ...]]:
        grid = store.read(images[number], level)
        return neighbourhood(like(grid, like_array), window, config.standardise), grid.shape[:2]

    pairs, others = meetings(len(images), config.others)
    pairs.sort(key=lambda pair: (pair[0] // config.block, pair[1] // config.block, pair))
    kept = max(1, int(config.share * others))
    plain, placed = _Nearest(len(images), others, kept), _Nearest(len(images), others, kept)
    for i, j in pairs:
        (rows, grid), (columns, other_grid) = features(i), features(j)
        similar = rows @ columns.T
        plain.add(i, j, similar)
        if config.position:
            between = _half_squared(grid, other_grid, config.position)
            placed.add(i, j, similar - like(between, similar))
        for number in (i, j):
            if plain.complete(number):
                mean, nearest = plain.pop(number)
                yield (
                    number,
                    _Scored(
                        mean,
                        placed.pop(number)[0] if config.position else 0.0,
                        float((nearest * nearest).sum()) / 2,
                    ),
                )


class _Nearest:
    """Gather, for each image, how far its patches are from the nearest patch of each image that it meets."""

    def __init__(self, images: int, others: int, kept: int) -> None:
        self._others, self._kept = others, kept
        # In half precision, the largest part of what is held.
        self._distances: list[list[Array]] = [[] for _ in range(images)]

    def add(self, i: int, j: int, similar: Array) -> None:
        """Take the similarities [M, M'] of the patches of images i and j, 1 - half a squared distance."""
        for number, axis in ((i, 1), (j, 0)):
            self._distances[number].append(convert(_distance(namespace(similar).amax(similar, axis)), "float16"))

    def complete(self, number: int) -> bool:
        """Tell whether an image has met all that it meets."""
        return len(self._distances[number]) == self._others

    def pop(self, number: int) -> tuple[Array, Array]:
        """Return the mean of the smallest distances [M], and the smallest one [M]; they are held no longer."""
        stacked = namespace(self._distances[number][0]).stack(self._distances[number], -1)
        self._distances[number] = []
        least = smallest(convert(stacked, "float32"), self._kept)
        return least.mean(-1), -namespace(least).amax(-least, -1)


@lru_cache(maxsize=8)
def _half_squared(grid: tuple[int, ...], other: tuple[int, ...], weight: float) -> npt.NDArray[np.float32]:
    """Return half the squared distances between the places of patches of two grids, times weight² [M, M']."""
    y, x = (
        (np.arange(length) + 0.5)[:, None] / length - (np.arange(others) + 0.5)[None, :] / others
        for length, others in zip(grid, other, strict=True)
    )
    squared = (y * y)[:, None, :, None] + (x * x)[None, :, None, :]
    return (0.5 * weight**2 * squared).reshape(math.prod(grid), math.prod(other)).astype(np.float32)


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


def content_order(key: str, seed: int) -> bytes:
    """Return by what images are sorted for drawing some of them: it depends on their content and the seed alone."""
    return hashlib.blake2b(f"{seed} {key}".encode(), digest_size=16).digest()
