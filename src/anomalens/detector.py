"""The detector: a backbone, a method and a calibration; images in, Predictions out.

    source -> decode -> tiles -> tower (batched) -> method -> merge -> Prediction

Everything to the left of a Prediction is here, everything to the right of it (overlays, files, reports) is not.
"""

import copy
import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import torch
from torch import Tensor

from anomalens.calibration import BUNDLED, Calibration, SavedCalibration, bundled_calibration
from anomalens.clip.prompt_encoder import PromptEncoder, cache_folder
from anomalens.clip.tower import Clip
from anomalens.clip.weights import load_weights
from anomalens.errors import AnomalensError, ConfigError, InputError
from anomalens.imaging import Preprocess, content_key, decode, preprocess
from anomalens.maps import Box, merge_tiles, tiles
from anomalens.methods import base
from anomalens.methods.base import Method, ScoreMap
from anomalens.prediction import Failure, Prediction
from anomalens.sources import is_image_input, list_images, stream
from anomalens.training.checkpoints import (
    Checkpoint,
    load_method,
    missing_checkpoint,
    read_checkpoint,
    shipped_checkpoint,
)

Dtype = Literal["float32", "bfloat16"]
Result: TypeAlias = Prediction | Failure
DEFAULT_OBJECT = "object"


@dataclass(frozen=True)
class DetectorConfig:
    """How images go through a detector; nothing here changes what a method is."""

    object_name: str = DEFAULT_OBJECT  # what the images show, in the prompts; "object" where nothing is known
    tile: int | None = None  # side in source pixels of overlapping tiles; None looks at the image as a whole
    overlap: float = 0.25  # share of a tile that it has in common with the next
    batch_size: int = 8  # images (or tiles) in one pass; changes speed and memory, never a score
    workers: int = 2  # threads that decode ahead

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 1:
            raise ConfigError(f"batch size {self.batch_size} and workers {self.workers} must be at least 1")
        if self.tile is not None and self.tile < 16:
            raise ConfigError(f"tiles of {self.tile} pixels are too small; 16 is the least, 256 and more is sensible")
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
    results: list[tuple[float, np.ndarray]] = field(default_factory=list)


_Loaded: TypeAlias = tuple[_Pending, list[Tensor], list[int]]  # an image, its tiles' pixels, their content keys


class Detector:
    """Finds defects in images of things nobody trained it on. Build one with `load_detector`.

    The text side is computed once, at construction. `predict` and `predict_iter` do not change the detector; scores do
    not depend on batch size, order or number of threads (to 1e-5).
    """

    def __init__(
        self,
        clip: Clip,
        method: Method,
        encoder: PromptEncoder,
        preprocess: Preprocess,
        calibration: Calibration,
        config: DetectorConfig | None = None,
        *,
        method_name: str,
        backbone: str,
        weights_hash: str = "",
        seed: int = 0,
        auxiliary_data: str | None = None,
        trained_images: frozenset[int] = frozenset(),
    ) -> None:
        self.clip, self.method, self.preprocess = clip, method, preprocess
        self.calibration = calibration
        self.config = config or DetectorConfig()
        self.method_name, self.backbone, self.weights_hash = method_name, backbone, weights_hash
        self.seed, self.auxiliary_data, self.trained_images = seed, auxiliary_data, trained_images
        self.encoder = encoder
        self._text = self._read_text()

    def __repr__(self) -> str:
        return (
            f"Detector(method={self.method_name!r}, backbone={self.backbone!r}, "
            f"object_name={self.config.object_name!r}, size={self.preprocess.size})"
        )

    def for_object(self, name: str) -> "Detector":
        """The same detector, weights shared, with prompts about objects called `name`."""
        other = copy.copy(self)
        other.config = replace(self.config, object_name=name)
        other._text = other._read_text()
        return other

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the scores, JSON-ready: detectors of equal settings give equal scores for equal images."""
        options = getattr(self.method, "config", None)
        found = {
            "method": self.method_name,
            "backbone": self.backbone,
            "weights": self.weights_hash,
            "learned": _hash(dict(self.method.named_parameters())),
            "options": asdict(options) if is_dataclass(options) and not isinstance(options, type) else {},
            "object": self.config.object_name,
            "size": self.preprocess.size,
            "geometry": self.preprocess.geometry,
            "interpolation": self.preprocess.interpolation,
            "tile": self.config.tile,
            "overlap": self.config.overlap if self.config.tile else None,
            "precision": str(self.clip.visual.proj.dtype).removeprefix("torch."),
            "pooling": self.calibration.pooling,
            "top": self.calibration.top if self.calibration.pooling else None,
        }
        return dict(json.loads(json.dumps(found)))

    def with_calibration(self, calibration: Calibration) -> "Detector":
        """The same detector, weights shared, that decides by `calibration`."""
        other = copy.copy(self)
        other.calibration = calibration
        return other

    def _read_text(self) -> Any:
        with torch.inference_mode():
            return self.method.text(self.encoder, self.config.object_name)

    @property
    def device(self) -> torch.device:
        """Where the tower computes."""
        return self.clip.visual.proj.device

    @overload
    def predict(self, images: str | Path | np.ndarray | Tensor | Any) -> Prediction: ...
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
        yield from self._run(stream(items, self._load, workers=self.config.workers, ahead=ahead))

    def score_batch(self, pixels: Tensor, keys: Sequence[int]) -> ScoreMap:
        """The network part alone: preprocessed pixels [B, 3, H, W] -> scores [B] and maps [B, H, W], on the device."""
        with torch.inference_mode():
            features = self.method.encode(self.clip, pixels.to(self.device, non_blocking=True), keys)
            found = self.method.score(features, self._text, (pixels.shape[-2], pixels.shape[-1]))
            return ScoreMap(self._pool(found), found.map)

    def _pool(self, found: ScoreMap) -> Tensor:
        share = self.calibration.pooling
        if not share:
            return found.score
        flat = found.map.flatten(1)
        top = flat.topk(max(1, round(self.calibration.top * flat.shape[1])), dim=1).values.mean(dim=1)
        return (1 - share) * found.score + share * top

    def _load(self, item: Any) -> _Loaded:
        """Decode one input and cut it into preprocessed tiles (runs in a background thread)."""
        decoded = decode(item)
        rgb = decoded.rgb
        height, width = rgb.shape[:2]
        tile = self.config.tile or max(height, width)
        boxes = tiles(height, width, tile, self.config.overlap)
        parts = [rgb[box.slices] for box in boxes]
        pixels = [preprocess(part, self.preprocess) for part in parts]
        return (
            _Pending(_path_of(item), height, width, boxes, decoded.note),
            pixels,
            [content_key(part) for part in parts],
        )

    def _run(self, loaded: Iterator[tuple[Any, _Loaded | Exception]]) -> Iterator[Result]:
        """Batch tiles across images; give results back in the order of the inputs."""
        waiting: deque[_Pending | Failure] = deque()
        batch: list[tuple[_Pending, Tensor, int]] = []
        for item, result in loaded:
            if isinstance(result, Exception):
                waiting.append(Failure(_path_of(item), _one_line(result)))
            else:
                pending, pixels, keys = result
                waiting.append(pending)
                for tile, key in zip(pixels, keys, strict=True):
                    # A batch has one shape; where the aspect is kept, an image of another shape starts a new one.
                    if batch and batch[0][1].shape != tile.shape:
                        self._flush(batch)
                    batch.append((pending, tile, key))
                    if len(batch) == self.config.batch_size:
                        self._flush(batch)
            yield from self._finished(waiting)
        self._flush(batch)
        yield from self._finished(waiting)

    def _flush(self, batch: list[tuple[_Pending, Tensor, int]]) -> None:
        if not batch:
            return
        found = self.score_batch(torch.stack([pixels for _, pixels, _ in batch]), [key for *_, key in batch])
        scores, maps = found.score.float().cpu().numpy(), found.map.float().cpu().numpy()
        for (pending, *_), score, one in zip(batch, scores, maps, strict=True):
            pending.results.append((float(score), one))
        batch.clear()

    def _finished(self, waiting: deque[_Pending | Failure]) -> Iterator[Result]:
        while waiting:
            first = waiting[0]
            if isinstance(first, _Pending) and len(first.results) < len(first.boxes):
                return
            waiting.popleft()
            yield self._predict(first) if isinstance(first, _Pending) else first

    def _predict(self, done: _Pending) -> Result:
        try:
            return self._assemble(done)
        except InputError as error:  # a score that is no number is this image's failure, not the run's
            return Failure(done.source, str(error))

    def _assemble(self, done: _Pending) -> Prediction:
        scores, maps = zip(*done.results, strict=True)
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


def _hash(values: dict[str, Tensor]) -> str | None:
    """Short content hash of named tensors; None of none."""
    if not values:
        return None
    digest = hashlib.sha256()
    for name, value in sorted(values.items()):
        digest.update(f"{name} {tuple(value.shape)} ".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]


def _path_of(item: Any) -> str | None:
    return str(item) if isinstance(item, (str, Path)) else None


def _one_line(error: Exception) -> str:
    """The reason a row gives. An error nobody foresaw still is a row, with its type in front."""
    text = " ".join(str(error).split())
    return text if isinstance(error, AnomalensError) else f"{type(error).__name__}: {text}"


def pick_device(name: str) -> torch.device:
    """ "auto" takes a GPU where there is one. Raises ConfigError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); try 'auto'") from error
    return device


def _learned(method: str, checkpoint: str | Path | None, backbone: str) -> Checkpoint | None:
    """What `method` has learned: what is given, else what is shipped; None for a method that learns nothing."""
    if not base.entry(method).learned:
        if checkpoint is not None:
            raise ConfigError(f"method {method!r} learns nothing, so it takes no checkpoint")
        return None
    if checkpoint is None and backbone != BUNDLED:
        raise missing_checkpoint(method, backbone)
    return read_checkpoint(shipped_checkpoint(method) if checkpoint is None else checkpoint)


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
    batch_size: int = 8,
    workers: int = 2,
    device: str = "auto",
    dtype: Dtype = "float32",
    seed: int = 0,
    offline: bool = False,
    cache: str | Path | None = None,
    **options: Any,
) -> Detector:
    """Build a detector in one line.

    Args:
        method: a name from `anomalens methods`, or "auto" for the best one shipped with the bundled backbone.
        backbone: a name from `anomalens backbones`, a hub id, a folder or a file of weights.
        object_name: what the images show ("bottle"); the default "object" works for anything.
        checkpoint: what a learned method has learned; None takes what is shipped with the bundled backbone.
        any_backbone: use a checkpoint that was learned with other weights, where its sizes fit.
        calibration: a file that `anomalens calibrate` wrote; it is refused for other settings than its own.
        threshold, pixel_threshold: decide by these instead of the calibrated numbers.
        size: side in pixels at which the tower looks; None takes what the method prefers for these weights.
        tile, overlap, batch_size, workers: see DetectorConfig.
        device: "auto", "cpu", "cuda", "cuda:1", …; dtype: "float32" or "bfloat16".
        seed: of methods that draw random numbers; each image's draws follow from it and from the image's content.
        offline: never touch the network, also where a hub id was asked for.
        cache: folder for text features; None takes the user's cache folder.
        options: fields of the method's Config (for instance views=22).

    Raises:
        ConfigError: an option or name does not exist; WeightsError: weights are missing, damaged or unfit.
    """
    if dtype not in ("float32", "bfloat16"):
        raise ConfigError(f"dtype must be 'float32' or 'bfloat16', not {dtype!r}")
    config = DetectorConfig(object_name, tile, overlap, batch_size, workers)
    where = pick_device(device)
    loaded = load_weights(backbone, offline=offline)
    table = bundled_calibration() if loaded.name == BUNDLED else None
    if method == "auto":
        best = table.best if table else "anoclip"
        method = read_checkpoint(checkpoint).info.method if checkpoint is not None else best
    held = _learned(method, checkpoint, loaded.name)
    # Calibrated numbers are those of the shipped prompts.
    known = table.methods.get(method) if table and checkpoint is None else None
    options = (known.options if known else {}) | options
    if base.entry(method).accepts("seed"):
        options["seed"] = seed
    if held is None:
        built = base.create(method, loaded.config, **options)
    else:
        built = load_method(held, loaded, method, any_backbone=any_backbone, **options)
    clip = Clip.from_state_dict(loaded.config, loaded.state).to(where, getattr(torch, dtype))
    built = built.to(where).eval()
    learned_at = held.info.training.get("size") if held else None
    side = size or learned_at or built.working_size(loaded.image_size)
    sizes = Preprocess(
        size=side - side % loaded.config.vision.patch,
        mean=loaded.mean,
        std=loaded.std,
        interpolation=built.interpolation,
        geometry=built.geometry,
        multiple=loaded.config.vision.patch,
    )
    encoder = PromptEncoder(clip, loaded.hash, Path(cache) if cache else cache_folder())
    detector = Detector(
        clip,
        built,
        encoder,
        sizes,
        known or Calibration.neutral(built),
        config,
        method_name=method,
        backbone=loaded.name,
        weights_hash=loaded.hash,
        seed=seed,
        auxiliary_data=held.info.auxiliary_data if held else None,
        trained_images=held.images if held else frozenset(),
    )
    if calibration is not None:
        saved = SavedCalibration.read(calibration)
        saved.check(detector.settings)
        detector.calibration = saved.calibration
    detector.calibration = detector.calibration.override(threshold, pixel_threshold)
    return detector
