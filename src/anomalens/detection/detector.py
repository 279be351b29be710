"""The detector: an engine and a calibration; images in, Predictions out.

    source -> decode -> tiles, sizes -> engine (batched: tower and method) -> pooling -> mean, merge -> Prediction

Everything to the left of a Prediction is here, everything to the right of it (overlays, files, reports) is not. What
computes is an `Engine`: PyTorch, or a file made by `anomalens export`, for which torch is never imported.
"""

import copy
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union, overload

import numpy as np

from anomalens.decision.calibration import BUNDLED, Calibration, SavedCalibration
from anomalens.engines import exported
from anomalens.engines.contract import DEFAULT_OBJECT, Batch, Dtype, Engine, Floats, Scored
from anomalens.errors import AnomalensError, ConfigError, InputError
from anomalens.images.content import content_key
from anomalens.images.decoding import decode
from anomalens.images.maps import Box, merge_tiles, resize_map, tiles
from anomalens.images.preprocessing import Preprocess, preprocess
from anomalens.images.sources import is_image_input, list_images
from anomalens.prediction import Failure, Prediction
from anomalens.threads import map_ordered

if TYPE_CHECKING:
    from torch import Tensor

Result: TypeAlias = Prediction | Failure


@dataclass(frozen=True)
class DetectorConfig:
    """How images go through a detector; nothing here changes what a method is."""

    object_name: str = DEFAULT_OBJECT  # what the images show, in the prompts; "object" where nothing is known
    tile: int | None = None  # side in source pixels of overlapping tiles; None looks at the image as a whole
    overlap: float = 0.25  # share of a tile that it has in common with the next
    also: tuple[int, ...] = ()  # further sides in pixels to look at everything with; score and map are the mean of all
    batch_size: int = 8  # images (or tiles) in one pass; changes speed and memory, never a score
    workers: int = 2  # threads that decode ahead
    draft: bool = False  # decode large JPEGs at 1/2, 1/4 or 1/8 where the tower sees less anyway; scores move a little

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 1:
            raise ConfigError(f"batch size {self.batch_size} and workers {self.workers} must be at least 1")
        if self.tile is not None and self.tile < 16:
            raise ConfigError(f"tiles of {self.tile} pixels are too small; 16 is the least, 256 and more is sensible")
        if any(side < 16 for side in self.also):
            raise ConfigError(f"also {self.also}: 16 pixels a side is the least a tower can look at")
        if not 0 <= self.overlap < 1:
            raise ConfigError(f"overlap {self.overlap} must lie in [0, 1): it is a share of the tile")
        if not self.object_name.strip():
            raise ConfigError("the object name is empty; leave it out to use 'object'")


@dataclass
class _Pending:
    """An image whose tiles are under way."""

    source: str | None
    height: int
    width: int
    boxes: list[Box]
    note: str | None
    results: list[list[tuple[float, np.ndarray]]]  # of every look (size), tile by tile

    @property
    def complete(self) -> bool:
        """Whether every look has seen every tile."""
        return all(len(found) == len(self.boxes) for found in self.results)


_Loaded: TypeAlias = tuple[_Pending, list[list[Floats]], list[int]]  # an image, its tiles' pixels by look, their keys


class Detector:
    """Finds defects in images of things nobody trained it on. Build one with `load_detector`.

    The text side is computed once, at construction. `predict` and `predict_iter` do not change the detector; scores do
    not depend on batch size, order or number of threads (to 1e-5).
    """

    def __init__(
        self, engine: Engine, preprocess: Preprocess, calibration: Calibration, config: DetectorConfig | None = None
    ) -> None:
        """Raises ConfigError where the engine cannot have prompts about the object in `config`."""
        self.config = config or DetectorConfig()
        self.engine = engine.for_object(self.config.object_name)
        self.preprocess, self.calibration = preprocess, calibration
        who = engine.identity
        self.method_name, self.backbone, self.weights_hash = who.method, who.backbone, who.weights
        self.seed, self.auxiliary_data, self.trained_images = who.seed, who.auxiliary_data, who.trained_images

    def __repr__(self) -> str:
        return (
            f"Detector(method={self.method_name!r}, backbone={self.backbone!r}, "
            f"object_name={self.config.object_name!r}, size={self.preprocess.size})"
        )

    def for_object(self, name: str) -> "Detector":
        """The same detector, weights shared, with prompts about objects called `name`.

        Raises ConfigError for an exported detector, whose prompts are part of the file.
        """
        other = copy.copy(self)
        other.config = replace(self.config, object_name=name)
        other.engine = self.engine.for_object(name)
        return other

    @property
    def looks(self) -> list[Preprocess]:
        """How everything is prepared for each look at it; the first one decides the size of the map."""
        multiple = self.preprocess.multiple
        further = [replace(self.preprocess, size=side - side % multiple) for side in self.config.also]
        return [self.preprocess, *further]

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the scores, JSON-ready: detectors of equal settings give equal scores for equal images."""
        who = self.engine.identity
        found = {
            "method": self.method_name,
            "backbone": self.backbone,
            "weights": self.weights_hash,
            "learned": who.learned,
            "options": who.options,
            "object": self.config.object_name,
            "size": self.preprocess.size,
            "also": [look.size for look in self.looks[1:]] or None,
            "geometry": self.preprocess.geometry,
            "interpolation": self.preprocess.interpolation,
            "tile": self.config.tile,
            "overlap": self.config.overlap if self.config.tile else None,
            "draft": self.config.draft,
            "precision": who.precision,
            "pooling": self.calibration.pooling,
            "top": self.calibration.top if self.calibration.pooling else None,
        }
        return dict(json.loads(json.dumps(found)))

    def with_calibration(self, calibration: Calibration) -> "Detector":
        """The same detector, weights shared, that decides by `calibration`."""
        other = copy.copy(self)
        other.calibration = calibration
        return other

    @overload
    def predict(self, images: Union[str, Path, np.ndarray, "Tensor", Any]) -> Prediction: ...
    @overload
    def predict(self, images: Sequence[Any]) -> list[Prediction]: ...
    def predict(self, images: Any) -> Prediction | list[Prediction]:
        """Predict one image (path, PIL image, array, tensor) or many (a sequence, a folder, a glob pattern).

        Returns a Prediction for a single image and a list, in order, for everything else.

        Raises:
            InputError: an image cannot be read. `predict_iter` reports such images and goes on.
        """
        single = is_image_input(images)
        out = []
        for result in self.predict_iter([images] if single else images):
            if isinstance(result, Failure):
                raise InputError(result.error)
            out.append(result)
        return out[0] if single else out

    def predict_iter(self, images: Any) -> Iterator[Result]:
        """Predict a stream in order and in constant memory; an unreadable image gives a Failure in its place.

        Args:
            images: a folder, a glob pattern, or an iterable (lists, generators) of paths, PIL images, arrays [H, W],
                [H, W, 3] or [H, W, 4] and tensors [3, H, W].
        """
        items: Iterable[Any] = images
        if is_image_input(images):
            items = [images]
        elif isinstance(images, (str, Path)):
            items = list_images([images])
        ahead = 2 * self.config.batch_size
        yield from self._run(map_ordered(items, self._load, workers=self.config.workers, ahead=ahead))

    def score_batch(self, pixels: Floats, keys: Sequence[int]) -> Scored:
        """Without images: preprocessed pixels [B, 3, H, W] -> scores [B], pooled as calibrated, and maps [B, H, W]."""
        return self._pooled(self.engine.score_batch(pixels, keys))

    def _pooled(self, raw: Scored) -> Scored:
        return Scored(self.calibration.pooled(raw.score, raw.map), raw.map)

    def _load(self, item: Any) -> _Loaded:
        """Decode one input and cut it into preprocessed tiles (runs in a background thread)."""
        looks = self.looks
        # Tiles are cut in source pixels, so they need all of them.
        side = max(look.size for look in looks) if self.config.draft and self.config.tile is None else None
        decoded = decode(item, at_least=None if side is None else (side, side))
        rgb = decoded.rgb
        height, width = rgb.shape[:2]
        tile = self.config.tile or max(height, width)
        boxes = tiles(height, width, tile, self.config.overlap)
        parts = [rgb[box.slices] for box in boxes]
        return (
            _Pending(_path_of(item), decoded.height, decoded.width, boxes, decoded.note, [[] for _ in looks]),
            [[preprocess(part, look) for part in parts] for look in looks],
            [content_key(part) for part in parts],
        )

    def _run(self, loaded: Iterator[tuple[Any, _Loaded | Exception]]) -> Iterator[Result]:
        """Batch tiles across images; give results back in the order of the inputs."""
        waiting: deque[_Pending | Failure] = deque()
        sent: deque[tuple[int, list[_Pending]]] = deque()  # look and owners of the tiles in the batches under way
        for found in self.engine.score_batches(self._batches(loaded, waiting, sent)):
            scored = self._pooled(found)
            look, owners = sent.popleft()
            for pending, score, one in zip(owners, scored.score, scored.map, strict=True):
                pending.results[look].append((float(score), one))
            yield from self._finished(waiting)
        yield from self._finished(waiting)

    def _batches(
        self,
        loaded: Iterator[tuple[Any, _Loaded | Exception]],
        waiting: deque[_Pending | Failure],
        sent: deque[tuple[int, list[_Pending]]],
    ) -> Iterator[Batch]:
        """Full batches of tiles, one look each; notes in `waiting` each input and in `sent` what a batch holds."""
        gathered: list[list[tuple[_Pending, Floats, int]]] = [[] for _ in self.looks]

        def emptied(look: int) -> Batch:
            owners, parts, keys = zip(*gathered[look], strict=True)
            sent.append((look, list(owners)))
            gathered[look].clear()
            return np.stack(parts), keys

        for item, result in loaded:
            if isinstance(result, Exception):
                waiting.append(Failure(_path_of(item), _one_line(result)))
                continue
            pending, cut, keys = result
            waiting.append(pending)
            for look, batch in enumerate(gathered):
                for tile, key in zip(cut[look], keys, strict=True):
                    # A batch has one shape; where the aspect is kept, an image of another shape starts a new one.
                    if batch and batch[0][1].shape != tile.shape:
                        yield emptied(look)
                    batch.append((pending, tile, key))
                    if len(batch) == self.config.batch_size:
                        yield emptied(look)
        for look, batch in enumerate(gathered):
            if batch:
                yield emptied(look)

    def _finished(self, waiting: deque[_Pending | Failure]) -> Iterator[Result]:
        while waiting:
            first = waiting[0]
            if isinstance(first, _Pending) and not first.complete:
                return
            waiting.popleft()
            yield self._predict(first) if isinstance(first, _Pending) else first

    def _predict(self, done: _Pending) -> Result:
        try:
            return self._assemble(done)
        except InputError as error:  # a score that is no number is this image's failure, not the run's
            return Failure(done.source, str(error))

    def _assemble(self, done: _Pending) -> Prediction:
        scores, maps = zip(*(_mean(seen) for seen in zip(*done.results, strict=True)), strict=True)
        merged = maps[0] if len(maps) == 1 else self._merge(done, maps)
        # One tile suffices to make an image anomalous, as one defect suffices to make a part defective.
        return Prediction(
            path=done.source,
            width=done.width,
            height=done.height,
            score=max(scores),
            threshold=self.calibration.threshold,
            threshold_source=self.calibration.source,
            pixel_threshold=self.calibration.pixel_threshold,
            anomaly_map=merged,
            heat_range=self.calibration.heat_range,
            object_name=self.config.object_name,
            method=self.method_name,
            backbone=self.backbone,
            note=done.note,
            p_value=self.calibration.p_value(max(scores)),
        )

    def _merge(self, done: _Pending, maps: Sequence[np.ndarray]) -> np.ndarray:
        """Tile maps to one map, at the source's size or, where tiles were shrunk for the tower, shrunk alike."""
        first = done.boxes[0]
        shrink = min(
            1.0, max(maps[0].shape[0] / (first.bottom - first.top), maps[0].shape[1] / (first.right - first.left))
        )
        boxes = [Box(*(round(edge * shrink) for edge in box)) for box in done.boxes]
        return merge_tiles(maps, boxes, (round(done.height * shrink), round(done.width * shrink)))


def _mean(seen: Sequence[tuple[float, np.ndarray]]) -> tuple[float, np.ndarray]:
    """One tile's score and map out of those of all looks at it, the map at the first look's size."""
    if len(seen) == 1:
        return seen[0]
    scores, maps = zip(*seen, strict=True)
    return float(np.mean(scores)), np.stack([resize_map(one, maps[0].shape) for one in maps]).mean(axis=0)


def _path_of(item: Any) -> str | None:
    return str(item) if isinstance(item, (str, Path)) else None


def _one_line(error: Exception) -> str:
    """The reason a row gives. An error nobody foresaw still is a row, with its type in front."""
    text = " ".join(str(error).split())
    return text if isinstance(error, AnomalensError) else f"{type(error).__name__}: {text}"


def load_detector(
    method: str = "auto",
    backbone: str = BUNDLED,
    *,
    object_name: str = DEFAULT_OBJECT,
    checkpoint: str | Path | None = None,
    any_backbone: bool = False,
    calibration: str | Path | None = None,
    threshold: float | None = None,
    pixel_threshold: float | None = None,
    size: int | None = None,
    tile: int | None = None,
    overlap: float = 0.25,
    also: int | Sequence[int] = (),
    batch_size: int = 8,
    workers: int = 2,
    draft: bool = False,
    device: str = "auto",
    dtype: Dtype = "float32",
    seed: int = 0,
    offline: bool = False,
    cache: str | Path | None = None,
    **options: Any,
) -> Detector:
    """Build a detector in one line.

    Args:
        method: a name from `anomalens methods`, "auto" for the best one shipped with the bundled backbone, or a file
            made by `anomalens export` (.onnx, .xml), which settles backbone, checkpoint, size, seed and options.
        backbone: a name from `anomalens backbones`, a hub id, a folder or a file of weights.
        object_name: what the images show ("bottle"); the default "object" works for anything.
        checkpoint: what a learned method has learned; None takes what is shipped with the bundled backbone.
        any_backbone: use a checkpoint that was learned with other weights, where its sizes fit.
        calibration: a file that `anomalens calibrate` wrote; it is refused for other settings than its own.
        threshold, pixel_threshold: decide by these instead of the calibrated numbers.
        size: side in pixels at which the tower looks; None takes what the method prefers for these weights.
        tile, overlap, also, batch_size, workers, draft: see DetectorConfig.
        device: "auto", "cpu", "cuda", "cuda:1", …; dtype: "float32" or "bfloat16".
        seed: of methods that draw random numbers; each image's draws follow from it and from the image's content.
        offline: never touch the network, also where a hub id was asked for.
        cache: folder for text features; None takes the user's cache folder.
        options: fields of the method's Config (for instance views=22).

    Raises:
        ConfigError: an option or name does not exist; WeightsError: weights are missing, damaged or unfit.
    """
    further = (also,) if isinstance(also, int) else tuple(also)
    config = DetectorConfig(object_name, tile, overlap, further, batch_size, workers, draft)
    if exported.is_exported(method):
        fixed = {"backbone": backbone != BUNDLED, "checkpoint": checkpoint is not None, "any_backbone": any_backbone}
        changed = [name for name, given in fixed.items() if given] + sorted(options)
        detector = _from_file(Path(method), config, device, dtype, size, seed, changed)
    else:
        from anomalens.engines.torch_engine import load

        loaded = load(
            method,
            backbone,
            object_name=object_name,
            checkpoint=checkpoint,
            any_backbone=any_backbone,
            size=size,
            device=device,
            dtype=dtype,
            seed=seed,
            offline=offline,
            cache=cache,
            **options,
        )
        scale = loaded.calibration
        if loaded.unlike is not None:
            unlike = [*loaded.unlike, *([f"tile={tile}"] if tile else []), *(f"also={side}" for side in further)]
            scale = scale.used_with(*unlike)
        detector = Detector(loaded.engine, loaded.preprocess, scale, config)
    if calibration is not None:
        saved = SavedCalibration.read(calibration)
        saved.check(detector.settings)
        detector.calibration = saved.calibration
    detector.calibration = detector.calibration.override(threshold, pixel_threshold)
    return detector


def _from_file(
    model: Path, config: DetectorConfig, device: str, dtype: Dtype, size: int | None, seed: int, changed: list[str]
) -> Detector:
    """An exported detector. `changed` names further arguments that its file has settled."""
    engine = exported.load(model, device=device, dtype=dtype)
    card = engine.card
    prepared = card.preprocess
    if card.any_size and size is not None:
        prepared = replace(prepared, size=size)
    changed += ["also"] * bool(config.also and not card.any_size)
    changed += ["size"] * (size not in (None, prepared.size)) + ["seed"] * (seed not in (0, card.identity.seed))
    if changed:
        raise ConfigError(
            f"{model}: {', '.join(changed)} cannot be changed in an exported detector; leave out, or export again"
        )
    if config.object_name == DEFAULT_OBJECT:  # who does not name the object takes the one in the file
        config = replace(config, object_name=card.identity.object_name)
    return Detector(engine, prepared, card.calibration, config)
