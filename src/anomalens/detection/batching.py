"""Gather the tiles of many images into batches of one size and one shape."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from anomalens.detection.tiling import TiledImage
from anomalens.engines.contract import Floats

Owner = TypeVar("Owner")


@dataclass(frozen=True)
class Tile(Generic[Owner]):
    """Hold a tile on its way through the engine."""

    owner: Owner
    image: TiledImage
    # Number of the tile in its image.
    number: int
    # [3, H, W]
    pixels: Floats
    # Content key, the seed of its random numbers.
    key: int


@dataclass
class Batch(Generic[Owner]):
    """Hold tiles that go through the engine together."""

    # Number of the size the tiles were prepared for.
    size: int
    tiles: list[Tile[Owner]] = field(default_factory=list)

    @property
    def owners(self) -> list[Owner]:
        """Return whose tiles these are, each owner once."""
        return list({id(tile.owner): tile.owner for tile in self.tiles}.values())

    def stacked(self) -> tuple[Floats, list[int]]:
        """Return the pixels [B, 3, H, W] and the content keys."""
        return np.stack([tile.pixels for tile in self.tiles]), [tile.key for tile in self.tiles]


class Batcher(Generic[Owner]):
    """Fill a batch of `limit` tiles for each of `sizes` sizes. Not thread-safe: one thread adds and takes."""

    def __init__(self, sizes: int, limit: int) -> None:
        self._limit = limit
        self._open: list[Batch[Owner]] = [Batch(size) for size in range(sizes)]
        # When the first of the gathered tiles and the last one came, in seconds of `time.monotonic`.
        self.first = self.last = 0.0

    def __bool__(self) -> bool:
        """Tell whether any tile is waiting."""
        return any(batch.tiles for batch in self._open)

    def add(self, owner: Owner, image: TiledImage) -> Iterator[Batch[Owner]]:
        """Add all tiles of an image, which gives up its pixels; yield each batch that is full."""
        self.last = time.monotonic()
        self.first = self.first if self else self.last
        prepared, image.pixels = image.pixels, []
        for size, tiles in enumerate(prepared):
            for number, (pixels, key) in enumerate(zip(tiles, image.keys, strict=True)):
                gathered = self._open[size].tiles
                # Where the aspect is kept, a tile of another shape starts a new batch.
                if gathered and gathered[0].pixels.shape != pixels.shape:
                    yield self._taken(size)
                self._open[size].tiles.append(Tile(owner, image, number, pixels, key))
                if len(self._open[size].tiles) == self._limit:
                    yield self._taken(size)

    def flush(self) -> Iterator[Batch[Owner]]:
        """Yield every batch that holds a tile, full or not."""
        for size, batch in enumerate(self._open):
            if batch.tiles:
                yield self._taken(size)

    def _taken(self, size: int) -> Batch[Owner]:
        batch, self._open[size] = self._open[size], Batch(size)
        return batch
