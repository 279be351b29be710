"""Look at every image of a set once, and keep what a comparison with the others needs.

    images ─▶ decode, prepare (threads) ─▶ batches ─▶ engine (threads) ─▶ features to the store; small maps of words

In memory an image is a few kilobytes, whatever its size; the features are wherever the store keeps them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalens.decision.capture import why_unusable
from anomalens.detection.batching import Batch, Batcher
from anomalens.detection.reading import read_image
from anomalens.detection.teaching import Progress
from anomalens.detection.tiling import TiledImage
from anomalens.engines.contract import Floats, Scored
from anomalens.engines.set_engine import SetEngine
from anomalens.engines.taught import global_features
from anomalens.images.pixel_values import Channels
from anomalens.images.preprocessing import preprocess
from anomalens.methods.parts.array_namespace import Array, namespace, numpy_array
from anomalens.methods.parts.mutual import FeatureStore, content_order
from anomalens.methods.parts.patches import apply, operator
from anomalens.methods.parts.turning import turn_ratio, views
from anomalens.prediction import Failure
from anomalens.threads import map_ordered

if TYPE_CHECKING:
    from anomalens.detection.detector import Detector

# Images that are asked whether parts lie at any angle.
_DRAWN = 4


@dataclass(frozen=True)
class Kept:
    """Hold what is kept of an image that can be judged."""

    # Its place in the store.
    number: int
    # [h, w] what words say, on the grid of the features.
    words: Floats
    # [G] a unit vector that describes the image as a whole.
    whole: Floats


@dataclass
class Looked:
    """Hold an image that has been looked at."""

    source: str | None
    # Without its pixels.
    image: TiledImage
    # None for an image that cannot be judged, and so takes no part in the comparison.
    kept: Kept | None = None


@dataclass(frozen=True)
class LookedSet:
    """Hold all images that have been looked at."""

    # An entry an image, in their order.
    entries: list[Looked | Failure]
    store: FeatureStore
    # An empty array of the kind and on the device that features came on; None without any.
    kind: Array
    # A few of the images that take part, as they were handed in, drawn by their content.
    drawn: list[Any]

    @property
    def compared(self) -> list[tuple[TiledImage, Kept]]:
        """Return the images that take part, in the order of the store."""
        pairs = [(entry.image, entry.kept) for entry in self.entries if isinstance(entry, Looked) and entry.kept]
        return sorted(pairs, key=lambda pair: pair[1].number)


def look(
    detector: "Detector",
    images: Iterable[Any],
    store: FeatureStore,
    channels: Channels = "rgb",
    progress: Progress = None,
) -> LookedSet:
    """Look at images with a detector whose engine is a `SetEngine`, and fill `store`.

    Args:
        detector: says how images are prepared.
        images: whatever `Detector.predict` takes, one by one.
        store: empty.
        channels: "rgb", or "bgr" for arrays as OpenCV gives them.
        progress: called after every image.

    Raises OSError where there is no room in the folder of the store.
    """
    engine = detector.engine
    assert isinstance(engine, SetEngine)
    entries: dict[int, Looked | Failure] = {}
    words: dict[int, tuple[list[Array], Floats]] = {}
    kind: Array = None
    drawn: dict[bytes, Any] = {}

    def batches() -> Iterator[Batch[int]]:
        batcher: Batcher[int] = Batcher(len(detector.sizes), detector.options.batch_size)
        workers = detector.options.workers
        decoded = map_ordered(
            enumerate(images), lambda pair: detector.prepare(pair[1], channels), workers=workers, ahead=2 * workers
        )
        for (number, image), prepared in decoded:
            source = detector.path_of(image)
            if isinstance(prepared, Exception):
                entries[number] = Failure.of(source, prepared)
            else:
                entries[number] = Looked(source, prepared)
                if why_unusable(prepared.capture) is None:
                    drawn[content_order(str(prepared.keys[0]), detector.options.seed)] = image
                    if len(drawn) > _DRAWN:
                        del drawn[max(drawn)]
                    yield from batcher.add(number, prepared)
                    continue
                prepared.pixels = []
            if progress:
                progress()
        yield from batcher.flush()

    def score(batch: Batch[int]) -> tuple[Scored, list[Array], Floats | None]:
        raw = engine.looking.score_batch(*batch.stacked(), engine.parallel)
        if batch.size > 0:
            # Of further sizes the words count alone.
            return raw, [], None
        return raw, engine.method.describe(raw.levels), numpy_array(global_features(raw.levels)).astype(np.float32)

    for batch, answer in map_ordered(batches(), score, workers=engine.parallel, ahead=engine.parallel):
        if isinstance(answer, Exception):
            raise answer
        raw, descriptors, wholes = answer
        tiles = detector.tile_scores(raw, [(tile.image, tile.number) for tile in batch.tiles])
        for index, (tile, tile_score) in enumerate(zip(batch.tiles, tiles, strict=True)):
            tile.image.results[batch.size][tile.number] = tile_score
            if wholes is not None:
                kind = descriptors[0][:0]
                words[tile.owner] = ([level[index] for level in descriptors], wholes[index])
            if not tile.image.complete:
                continue
            levels, whole = words.pop(tile.owner)
            entry = entries[tile.owner]
            assert isinstance(entry, Looked)
            entry.kept = Kept(len(store), _on_grid(tile.image.joined().map, levels[0].shape[:2]), whole)
            store.append(levels, str(tile.image.keys[0]))
            tile.image.results = [[None]]
            if progress:
                progress()
    return LookedSet([entries[number] for number in sorted(entries)], store, kind, list(drawn.values()))


def turns_of(detector: "Detector", looked: LookedSet, channels: Channels = "rgb") -> float | None:
    """Compare quarter turns of the images that were drawn with these images, see `turn_ratio`.

    Returns None where there is one image only, or where images have different shapes, so that places in them are not
    comparable.
    """
    engine = detector.engine
    assert isinstance(engine, SetEngine)
    described = []
    for image in looked.drawn:
        rgb = read_image(image, detector.sizes, detector.options, channels).rgb
        turned = np.stack([preprocess(view, detector.preprocess) for view in views(rgb, 4)])
        (patches, *_) = engine.method.describe(engine.looking.score_batch(turned, range(4)).levels)
        described.append(patches.reshape(4, -1, patches.shape[-1]))
    if len({tuple(patches.shape) for patches in described}) != 1:
        return None
    return turn_ratio(
        namespace(described[0]).stack([patches[0] for patches in described]), [patches[1:] for patches in described]
    )


def _on_grid(values: Floats, grid: tuple[int, ...]) -> Floats:
    """Bring a map [h, w] to a grid by averaging."""
    rows, columns = (operator(length, 1, target) for length, target in zip(values.shape, grid, strict=True))
    return np.asarray(apply(rows, values[None, ..., None], columns)[0, ..., 0], np.float32)
