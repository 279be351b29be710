"""Cut an image into preprocessed tiles, and join the tiles' scores and maps to the image's.

image -> tiles -> for each size: pixels -> (scores, maps) -> mean over sizes -> merge of tiles -> score and map
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from anomalens.decision.capture import Capture, measure_capture
from anomalens.images.content import content_key
from anomalens.images.decoding import Decoded
from anomalens.images.maps import Box, Map, merge_tiles, resize_map, tiles
from anomalens.images.preprocessing import Preprocess, preprocess

Floats = np.ndarray
Inside = npt.NDArray[np.bool_]


class TileScore(NamedTuple):
    """Hold the answer for one tile at one size."""

    # Image score after score pooling.
    score: float
    # The method's own image score.
    method_score: float
    # [h, w] anomaly map.
    map: Map
    # How unlike what was taught, in units of what is accepted; None where nothing was taught.
    unlike: float | None = None


@dataclass
class TiledImage:
    """Hold an image's tiles while they are scored."""

    height: int
    width: int
    # A remark on how the image was read.
    note: str | None
    boxes: list[Box]
    # How the photograph was taken, as far as its pixels tell.
    capture: Capture
    # A content key for each tile.
    keys: list[int]
    # For each size, for each tile: pixels [3, H, W]. Emptied when they are handed to a batch.
    pixels: list[list[Floats]]
    # For each size, for each tile: its answer, once there is one.
    results: list[list[TileScore | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.results = [[None] * len(self.boxes) for _ in self.pixels]

    @property
    def tiled(self) -> bool:
        """Tell whether the image was cut into several tiles."""
        return len(self.boxes) > 1

    @property
    def complete(self) -> bool:
        """Tell whether every tile has been scored at every size."""
        return all(answer is not None for answers in self.results for answer in answers)

    def joined(self) -> TileScore:
        """Join the answers of all tiles and sizes to one for the image.

        Sizes are averaged. One tile suffices to make an image anomalous, as one defect suffices to make a part
        defective, so the largest score of all tiles is the image's.
        """
        tile_scores = [_mean([answer for answer in sizes if answer]) for sizes in zip(*self.results, strict=True)]
        maps = [tile.map for tile in tile_scores]
        # An image shows another thing only where every part of it does.
        unlike = [tile.unlike for tile in tile_scores if tile.unlike is not None]
        return TileScore(
            max(tile.score for tile in tile_scores),
            max(tile.method_score for tile in tile_scores),
            maps[0] if len(maps) == 1 else self._merged(maps),
            min(unlike, default=None),
        )

    def inside(self, roi: Inside, tile: int | None, shape: tuple[int, ...]) -> Inside:
        """Return which places of a map of `shape` (h, w) lie in a region of interest, bool [h, w].

        Args:
            roi: bool [H', W'] of any size, which stands for the whole image.
            tile: number of the tile that the map shows; None: the whole image.
        """
        bottom, right = self.boxes[-1].bottom, self.boxes[-1].right
        box = Box(0, 0, right, bottom) if tile is None else self.boxes[tile]
        rows = _places(box.top, box.bottom, shape[0], bottom, roi.shape[0])
        columns = _places(box.left, box.right, shape[1], right, roi.shape[1])
        return roi[np.ix_(rows, columns)]

    def _merged(self, maps: Sequence[Map]) -> Map:
        """Merge tile maps at the image's size or, where tiles were shrunk for the tower, shrunk alike."""
        first = self.boxes[0]
        shrink = min(
            1.0, max(maps[0].shape[0] / (first.bottom - first.top), maps[0].shape[1] / (first.right - first.left))
        )
        boxes = [Box(*(round(edge * shrink) for edge in box)) for box in self.boxes]
        return merge_tiles(maps, boxes, (round(self.height * shrink), round(self.width * shrink)))


def cut(image: Decoded, sizes: Sequence[Preprocess], tile: int | None, overlap: float) -> TiledImage:
    """Cut a decoded image into tiles of `tile` source pixels a side (None: one tile) and prepare them for each size."""
    height, width = image.rgb.shape[:2]
    boxes = tiles(height, width, tile or max(height, width), overlap)
    parts = [image.rgb[box.slices] for box in boxes]
    prepared = [[preprocess(part, size) for part in parts] for size in sizes]
    keys = [content_key(part) for part in parts]
    return TiledImage(image.height, image.width, image.note, boxes, measure_capture(image.rgb), keys, prepared)


def inside_whole(roi: Inside, shape: tuple[int, ...]) -> Inside:
    """Return which places of a map [h, w] of a whole image lie in a region of interest; see `TiledImage.inside`."""
    rows, columns = (_places(0, 1, count, 1, side) for count, side in zip(shape, roi.shape, strict=True))
    return roi[np.ix_(rows, columns)]


def _places(start: int, stop: int, count: int, length: int, target: int) -> npt.NDArray[np.intp]:
    """Return where the middles of `count` cells from `start` to `stop` of `length` pixels lie among `target` cells."""
    middles = start + (np.arange(count) + 0.5) * (stop - start) / count
    return np.minimum((middles * target / length).astype(np.intp), target - 1)


def _mean(sizes: Sequence[TileScore]) -> TileScore:
    """Average one tile's answers over all sizes; the map has the first size's shape."""
    if len(sizes) == 1:
        return sizes[0]
    scores, method_scores, maps, unlike = zip(*sizes, strict=True)
    resized = [resize_map(values, maps[0].shape) for values in maps]
    known = [value for value in unlike if value is not None]
    return TileScore(
        float(np.mean(scores)),
        float(np.mean(method_scores)),
        np.stack(resized).mean(axis=0),
        float(np.mean(known)) if known else None,
    )
