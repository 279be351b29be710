"""Join engine, calibration and options as a detector: images in, Predictions out. `load_detector` builds one.

    source -> decode -> tiles, sizes -> engine (batched: tower and method) -> pooling -> mean, merge -> Prediction

Everything to the left of a Prediction is in this room, everything to the right of it (overlays, files, reports) is not.
What computes is an `Engine`: PyTorch, or a file made by `anomalens export`, for which torch is never imported.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, overload

import numpy as np

from anomalens.decision.calibration import Calibration
from anomalens.decision.capture import CaptureLimits, why_unusable
from anomalens.decision.pooling import ScorePooling
from anomalens.detection.reading import read_image
from anomalens.detection.recipe import Recipe, write_recipe
from anomalens.detection.session import Session
from anomalens.detection.streaming import as_items, stream_results
from anomalens.detection.teaching import Lesson, Progress, teach, teach_more, with_unlearned
from anomalens.detection.tiling import Inside, TiledImage, TileScore, cut
from anomalens.detection.together import UNDECIDED, choose_good, predict_together
from anomalens.engines.contract import NO_WORDS, Engine, Floats, Identity, Scored
from anomalens.engines.set_engine import SetEngine
from anomalens.engines.taught import TaughtEngine
from anomalens.errors import ConfigError, InputError
from anomalens.files import digest, json_ready
from anomalens.images.decoding import Source
from anomalens.images.maps import resize_map
from anomalens.images.pixel_values import Channels
from anomalens.images.preprocessing import Preprocess
from anomalens.images.sources import is_image_input
from anomalens.methods.references.reference_method import is_reference_method
from anomalens.methods.sets.set_method import create_set_method
from anomalens.options import LoadOptions
from anomalens.prediction import Failure, Prediction, Result


@dataclass(frozen=True, eq=False, repr=False)
class Detector:
    """Find defects in images of things nobody trained it on.

    It is never changed after it is made (`replace` gives a changed copy), so threads may share it and processes may
    be sent it. Scores do not depend on batch size, order or number of threads (to 1e-5); the one exception is a method
    that adapts from image to image, which then sees images in order. The text side is computed once, at construction.

    Raises ConfigError where the engine cannot have prompts about the object in `options`.
    """

    engine: Engine
    # How images are prepared for the first size; that size is the map's.
    preprocess: Preprocess
    calibration: Calibration
    options: LoadOptions = LoadOptions()
    pooling: ScorePooling = ScorePooling()
    # Where a part may have defects, bool [h, w] of any size, which stands for the whole image; None: everywhere.
    roi: Inside | None = None
    # What good photographs say of brightness and sharpness; None where nothing was taught.
    capture: CaptureLimits | None = None
    # All that good photographs taught; None for words alone.
    lesson: Lesson | None = None
    # Sides in pixels at which images are seen too; score and map are the mean.
    extra_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "engine", self.engine.for_object(self.options.object_name))

    def __repr__(self) -> str:
        return (
            f"Detector(method={self.method_name!r}, backbone={self.backbone!r}, "
            f"object_name={self.options.object_name!r}, size={self.preprocess.size})"
        )

    @property
    def identity(self) -> Identity:
        """Say what the network is, and what it has learned from."""
        return self.engine.identity

    @property
    def method_name(self) -> str:
        """Return the method, as `anomalens methods` lists it."""
        return self.identity.method

    @property
    def backbone(self) -> str:
        """Name the weights, as they were asked for."""
        return self.identity.backbone

    @property
    def compares_sets(self) -> bool:
        """Return whether images are scored against the others of their set, instead of one by one."""
        return isinstance(self.engine, SetEngine)

    @property
    def sizes(self) -> list[Preprocess]:
        """Say how images are prepared for each size they are seen at; the first one decides the size of the map."""
        multiple = self.preprocess.multiple
        extra = [replace(self.preprocess, size=side - side % multiple) for side in self.extra_sizes]
        return [self.preprocess, *extra]

    @property
    def settings(self) -> dict[str, Any]:
        """Return all that decides the scores, JSON-ready: equal settings give equal scores for equal images."""
        chosen = {name: getattr(self.options, name) for name in LoadOptions.names("scores")}
        resolved = {
            "method": self.method_name,
            "backbone": self.backbone,
            "weights": self.identity.weights,
            "learned": self.identity.learned,
            "method_options": self.identity.options,
            "size": self.preprocess.size,
            "extra_sizes": [size.size for size in self.sizes[1:]],
            "geometry": self.preprocess.geometry,
            "interpolation": self.preprocess.interpolation,
            "overlap": self.options.overlap if self.options.tile else None,
            "dtype": self.identity.precision,
            "seed": self.identity.seed,
            "pooling": self.pooling.share,
            "top": self.pooling.top if self.pooling.share else None,
            "roi": None if self.roi is None else digest(self.roi.tobytes())[:16],
        }
        return dict(json_ready(chosen | resolved))

    def replace(self, **changes: Any) -> "Detector":
        """Return a copy, weights shared, with other fields: `detector.replace(calibration=...)`."""
        return replace(self, **changes)

    def for_object(self, name: str) -> "Detector":
        """Return a copy, weights shared, with prompts about objects called `name`.

        Raises ConfigError for an exported detector, whose prompts are part of the file.
        """
        return self.replace(options=self.options.replace(object_name=name))

    def fit(
        self,
        photos: Any,
        *,
        mixed: bool = False,
        fpr: float | None = None,
        seed: int = 0,
        channels: Channels = "rgb",
        progress: Progress = None,
        **options: Any,
    ) -> "Detector":
        """Return a detector that has learned this part from good photographs; the detector itself stays as it is.

        A detector that has learned already learns more: the photographs are added to those it knows.

        Args:
            photos: a folder, a pattern or an iterable of good photographs, none with a defect. Four are enough to
                begin with; the more, the fewer false alarms are promised.
            mixed: take the photographs for unlabelled, some of them faulty: they are compared with each other, the 7 in
                10 that are most like the others are learned (`lesson.left_out` names the rest), and the threshold comes
                from the scores of all.
            fpr: largest rate of false alarms, in (0, 1); None takes what the number of photographs allows.
            seed: of everything drawn at random.
            channels: "rgb", or "bgr" for arrays as OpenCV gives them.
            progress: called after every photograph; where they are mixed, once for the choice and once for learning.
            options: of the reference method ("memory" unless the detector was loaded for another one): turns=4,
                words_weight=0.

        Raises:
            InputError: no photograph can be used, or fewer than `fpr` needs.
            ConfigError: an unknown option, or an exported detector, which cannot learn.
        """
        images = list(as_items(photos))
        if self.lesson is None:
            chosen, unlike = images, list[Any]()
            left_out: tuple[str, ...] = ()
            if mixed:
                if fpr is not None:
                    raise ConfigError("no rate of false alarms can be promised of unsorted photos; leave out fpr")
                chosen, unlike, left_out = choose_good(self.together(), images, channels, progress)
            # Good photographs say enough at one size, unless more are asked for.
            extra_sizes = self.options.extra_sizes or ()
            seeing = self.replace(extra_sizes=extra_sizes)
            words, sizes, own = self.engine, seeing.sizes, self.options
            taught = teach(
                words,
                sizes,
                own,
                chosen,
                roi=self.roi,
                fpr=fpr,
                seed=seed,
                channels=channels,
                progress=progress,
                **options,
            )
            lesson = replace(taught.lesson, left_out=(*left_out, *taught.lesson.left_out))
            taught = replace(taught, lesson=lesson)
            if mixed:
                rest = seeing.replace(**vars(taught)).predict_many(unlike, channels=channels)
                scores = [result.score for result in rest if isinstance(result, Prediction)]
                taught = with_unlearned(taught, scores, own)
        else:
            if mixed:
                raise ConfigError("a taught detector learns more from good photos only; leave out mixed")
            if options:
                raise ConfigError(f"a taught detector keeps its options; leave out {', '.join(sorted(options))}")
            extra_sizes = self.extra_sizes
            words = cast(TaughtEngine, self.engine).words
            taught = teach_more(
                words,
                self.sizes,
                self.options,
                images,
                self.lesson,
                roi=self.roi,
                fpr=fpr,
                channels=channels,
                progress=progress,
            )
        return self.replace(**vars(taught), extra_sizes=extra_sizes)

    def together(self, **options: Any) -> "Detector":
        """Return a detector that compares the images of a set with each other: mutual scoring, nothing is learned.

        Its threshold comes from each set itself and takes for granted that at least 60 of 100 images are sound.

        options: of the method "musc": others=0, words_weight=0.

        Raises ConfigError for an unknown option, for tiles, and for a detector that is taught, exported or compares
        sets already.
        """
        if self.options.tile is not None:
            raise ConfigError("whole images are compared with each other, not tiles; leave out the option tile")
        if self.lesson is not None:
            raise ConfigError(
                "a taught part compares images with its good photos, not with each other; leave out one of the two"
            )
        if self.engine.identity.method == NO_WORDS:
            options = {"words_weight": 0.0, "map_words_weight": 0.0} | options
        engine = SetEngine(self.engine, create_set_method(**options))
        calibration = UNDECIDED.override(self.options.threshold, self.options.pixel_threshold)
        return self.replace(engine=engine, calibration=calibration, pooling=engine.method.pooling)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a taught detector as one file, atomically; `load_detector(path)` reads it.

        Raises ConfigError for a detector that was not taught, OSError where the file cannot be written.
        """
        if self.lesson is None:
            raise ConfigError("nothing was taught: call fit(photos) first; words alone need no file")
        write_recipe(path, self._recipe(self.lesson))

    def _recipe(self, lesson: Lesson) -> Recipe:
        engine = cast(TaughtEngine, self.engine)
        words = engine.words.identity
        return Recipe(lesson, engine.sizes, self.options, words, self.calibration, self.pooling, self.capture, self.roi)

    def require_taught(self) -> None:
        """Raise ConfigError for a method that compares with good photographs, before it has learned from any."""
        if self.lesson is None and is_reference_method(self.options.method):
            raise ConfigError(
                f"{self.options.method} compares with good photos and has none: call fit(photos), or on the command "
                "line `anomalens fit` and then --recipe"
            )

    @overload
    def predict(self, image: Source, *, channels: Channels = "rgb") -> Prediction: ...
    @overload
    def predict(self, image: list[Any] | tuple[Any, ...], *, channels: Channels = "rgb") -> list[Result]: ...
    def predict(self, image: Any, *, channels: Channels = "rgb") -> Prediction | list[Result]:
        """Predict one image. A list or tuple of images is handed to `predict_many`.

        Args:
            image: a path, the bytes of a file, an open binary file, a PIL image, an array [H, W], [H, W, 1|3|4] or a
                tensor [H, W], [1|3|4, H, W].
            channels: "rgb", or "bgr" for arrays as OpenCV gives them.

        Raises InputError where the image cannot be read, ConfigError for a folder, pattern or batch.
        """
        if isinstance(image, (list, tuple)):
            return self.predict_many(image, channels=channels)
        if isinstance(image, (str, os.PathLike)) and not is_image_input(image):
            raise ConfigError(f"{os.fspath(image)!r} is no single image; use predict_many or predict_iter")
        self.require_taught()
        with Session(self, max_wait=None) as session:
            answer = session.submit(image, channels=channels)
            session.flush()
            result = answer.result()
        if isinstance(result, Failure):
            raise InputError(result.error)
        return result

    def predict_many(self, images: Any, *, channels: Channels = "rgb") -> list[Result]:
        """Predict many images (a sequence, a folder, a pattern), in order; an unreadable one gives a Failure."""
        return list(self.predict_iter(images, channels=channels))

    def predict_iter(self, images: Any, *, channels: Channels = "rgb") -> Iterator[Result]:
        """Predict a stream in order and in constant memory; an unreadable image gives a Failure in its place.

        A live source gets each answer as soon as it can: nothing waits for a batch to fill while no more images are on
        their way. The source is read in a thread of its own, at most a few batches ahead.

        Args:
            images: a folder, a pattern, or an iterable (lists, generators) of whatever `predict` takes. A detector
                that compares images with each other takes all of them for one set, and answers once it has seen them.
            channels: "rgb", or "bgr" for arrays as OpenCV gives them.
        """
        self.require_taught()
        if self.compares_sets:
            return predict_together(self, as_items(images), channels)
        return stream_results(self, images, channels)

    def score_batch(self, pixels: Floats, keys: Sequence[int]) -> Scored:
        """Score preprocessed pixels [B, 3, H, W]: scores [B], pooled, and maps [B, h, w]."""
        raw = self.engine.score_batch(pixels, keys)
        return raw._replace(score=self.pooling(raw.score, raw.map if raw.score_map is None else raw.score_map))

    def tile_scores(self, raw: Scored, tiles: Sequence[tuple[TiledImage, int]]) -> list[TileScore]:
        """Turn an engine's answer for a batch of tiles, each an image and a number, into an answer for each.

        Only what lies in the region of interest counts in a score; a tile outside of it has the least score there is.
        """
        pooled = raw.map if raw.score_map is None else raw.score_map
        scores = []
        for index, (image, number) in enumerate(tiles):
            own, values = raw.score[index], pooled[index]
            if self.roi is None:
                score = float(self.pooling.pool(own, values.ravel()))
            else:
                inside = values[image.inside(self.roi, number, values.shape)]
                score = float(ScorePooling(1.0, self.pooling.top).pool(own, inside)) if inside.size else -math.inf
            unlike = None if raw.unlike is None else float(raw.unlike[index])
            scores.append(TileScore(score, float(own), raw.map[index], unlike))
        return scores

    @staticmethod
    def path_of(image: Any) -> str | None:
        """Return what a result's `path` says of an input: its path; None for pixels and bytes."""
        return str(image) if isinstance(image, (str, Path)) else None

    def prepare(self, image: Any, channels: Channels = "rgb") -> TiledImage:
        """Decode one input and cut it into preprocessed tiles. Raises InputError where it cannot be read."""
        sizes, options = self.sizes, self.options
        # Held until the tiles are prepared, which takes about as much memory again as decoding.
        with ExitStack() as room:
            return cut(read_image(image, sizes, options, channels, room), sizes, options.tile, options.overlap)

    def judge(self, image: TiledImage, source: str | None) -> Result:
        """Turn the answers for an image's tiles into its Prediction; a Failure where a score is no number."""
        joined, calibration = image.joined(), self.calibration
        anomaly_map = joined.map
        if self.roi is not None:
            # On a coarse map half a cell would leak over the border of the region.
            height, width = anomaly_map.shape
            finer = max(1.0, self.preprocess.size / min(height, width))
            anomaly_map = resize_map(anomaly_map, (round(finer * height), round(finer * width)))
            inside = image.inside(self.roi, None, anomaly_map.shape)
            anomaly_map = np.where(inside, anomaly_map, min(calibration.heat_range[0], float(anomaly_map.min())))
        try:
            return Prediction(
                path=source,
                width=image.width,
                height=image.height,
                score=joined.score,
                threshold=calibration.threshold,
                threshold_source=calibration.words(tiled=image.tiled),
                pixel_threshold=calibration.pixel_threshold,
                anomaly_map=anomaly_map,
                heat_range=calibration.heat_range,
                object_name=self.options.object_name,
                method=self.method_name,
                backbone=self.backbone,
                note=image.note,
                p_value=calibration.p_value(joined.score),
                method_score=joined.method_score,
                score_scale=calibration.score_scale,
                unusable=why_unusable(image.capture, self.capture, joined.unlike),
                min_area=self.options.min_area,
                mm_per_px=self.options.mm_per_px,
            )
        except InputError as error:
            return Failure.of(source, error)
