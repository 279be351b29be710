"""Measure a detector on a labelled data set: numbers per class, their mean, and the protocol that made them.

Every map is compared with its mask at one size, `EvaluationConfig.size` squared, reached by the papers' rule: maps
bilinear, masks antialiased bilinear and above one half. Anomalous images without a mask count at image level only.
The result is an `Evaluation`; result.py says which files it writes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

import numpy as np

from anomalens.datasets.layouts import Dataset, Sample, truth_at
from anomalens.detection.detector import Detector
from anomalens.errors import ConfigError, InputError, one_line
from anomalens.evaluation.gallery import Gallery
from anomalens.evaluation.result import ClassNumbers, Evaluation, ImageRow, Intervals
from anomalens.evaluation.trained_data import refuse_trained_data
from anomalens.extras import versions
from anomalens.images.image_files import MAX_PIXELS
from anomalens.images.maps import Map, resize_map
from anomalens.metrics import ranks
from anomalens.metrics.accumulator import check_limit, defined
from anomalens.metrics.summary import (
    Curve,
    Mode,
    PixelAccumulator,
    aupimo,
    f1_max,
    image_intervals,
    pixel_intervals,
    pr_curve,
    pro_curve,
    rank,
    roc_curve,
    summarise,
)
from anomalens.names import name_text
from anomalens.prediction import Failure, Prediction, Result
from anomalens.typed_values import checked_value

_POINTS = 200  # of a curve kept for the report

_PROTOCOL_NAMES = {"size": "image_size", "extra_sizes": "also", "dtype": "precision"}
"""Names in metrics.json of settings that a detector calls otherwise."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Hold the settings that decide what the numbers mean. Raises ConfigError where one is out of range."""

    # Side in pixels at which maps and masks are compared.
    size: int = 518
    # Largest false-positive rate of AUPRO, in (0, 1].
    limit: float = 0.3
    # "histogram" takes constant memory; "exact" takes 4 bytes a pixel and more.
    mode: Mode = "histogram"
    # Name each class in the prompts as its folder is called, instead of one name for all.
    class_names: bool = False
    # Pictures kept for the report, of each of five sorts and each class; 0 keeps none.
    gallery: int = 3
    # Measure on data that was trained on; the protocol then says so.
    allow_same_data: bool = False
    # Compute intervals of the pixel metrics, and AUPIMO. Keeps the maps and masks of one class at a time in memory:
    # 5 bytes a pixel, 1.3 MB an image at size 518.
    detailed: bool = False

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(EvaluationConfig).items():
            checked_value(name, getattr(self, name), hint)
        check_limit(self.limit)
        if self.size < 1 or self.gallery < 0:
            raise ConfigError(f"evaluation size {self.size} must be at least 1 and gallery {self.gallery} at least 0")


def tested(dataset: Dataset) -> dict[str, list[Sample]]:
    """Return the labelled test images of each class that has any. Raises InputError when no class has."""
    members = {
        name: [sample for sample in samples if sample.split == "test" and sample.label is not None]
        for name, samples in dataset.classes.items()
    }
    labelled = {name: samples for name, samples in members.items() if samples}
    if not labelled:
        raise InputError(
            f"{dataset.root}: no labelled test image to evaluate on (read as layout '{dataset.layout}'); "
            "give labels, as folders normal/ and anomalous/ or in a manifest, or use `anomalens detect`"
        )
    return labelled


def evaluate(
    detector: Detector,
    dataset: Dataset,
    config: EvaluationConfig | None = None,
    *,
    progress: Callable[[], object] | None = None,
    inspect: Callable[[Sample, Prediction], object] | None = None,
) -> Evaluation:
    """Run `detector` over the test split of `dataset`.

    Images that cannot be read are rows with an error and count nowhere; a mask that cannot be read leaves its image
    at image level.

    Args:
        progress: called after every image.
        inspect: called with every image that could be read and its prediction.

    Raises:
        InputError: the data set has no labelled test image.
        ConfigError: the detector was trained on this data set.
    """
    config = config or EvaluationConfig()
    samples = tested(dataset)
    if not config.allow_same_data:
        images = [sample.image for members in samples.values() for sample in members]
        refuse_trained_data(detector.identity.auxiliary_data, detector.identity.trained_images, dataset.name, images)
    protocol = _protocol(detector, dataset, config)
    result = Evaluation(
        dataset.name, detector.method_name, detector.backbone, protocol, gallery=Gallery(config.gallery)
    )
    for name, members in samples.items():
        class_detector = detector.for_object(name) if config.class_names else detector
        measured = _ClassMeasurement(config)
        for sample, prediction in zip(members, _results(class_detector, members), strict=True):
            row = measured.add(sample, prediction)
            if isinstance(prediction, Prediction):
                if row.error is None:
                    result.gallery.offer(sample, prediction)
                if inspect:
                    inspect(sample, prediction)
            if progress:
                progress()
        result.rows += measured.rows
        protocol["tiny_masks_kept"] += measured.tiny
        result.classes[name], result.intervals[name], result.curves[name] = measured.finish()
    protocol["failed_images"] = len(result.failed)
    return result


def _results(detector: Detector, members: Sequence[Sample]) -> Iterator[Result]:
    """Predict the images of a class, which a detector that compares images takes for one set.

    Too small a set gives a Failure for each of its images.
    """
    try:
        yield from detector.predict_iter([sample.image for sample in members])
    except InputError as error:
        if not detector.compares_sets:
            raise
        yield from (Failure.of(str(sample.image), error) for sample in members)


class _ClassMeasurement:
    """Gather scores and maps of one class, then compute its numbers."""

    def __init__(self, config: EvaluationConfig) -> None:
        self.config = config
        self.rows: list[ImageRow] = []
        self.pixels = PixelAccumulator(config.mode)
        # Masks that would have vanished at the evaluation's size.
        self.tiny = 0
        # Kept where the evaluation is detailed.
        self.maps: list[Map] = []
        self.masks: list[Any] = []

    def add(self, sample: Sample, prediction: Result) -> ImageRow:
        """Take in one image. Returns its row, whose `error` says what could not be read."""
        row = ImageRow(name_text(sample.image), sample.class_name, sample.kind, int(sample.label or 0))
        self.rows.append(row)
        if isinstance(prediction, Failure):
            row.error = prediction.error
            return row
        row.score, row.decision = prediction.score, prediction.label
        size = (self.config.size, self.config.size)
        try:
            # The image was accepted at this size, so its mask is.
            limit = max(MAX_PIXELS, prediction.width * prediction.height)
            truth = truth_at(sample, size, max_pixels=limit)
        except InputError as error:
            row.error = one_line(error)
            return row
        if truth is not None:
            resized = resize_map(prediction.anomaly_map, size)
            self.pixels.update(resized, truth.marks)
            self.tiny += truth.tiny
            if self.config.detailed:
                self.maps.append(resized)
                self.masks.append(truth.marks)
        return row

    def finish(self) -> tuple[ClassNumbers, Intervals, dict[str, Any]]:
        """Return numbers and intervals in per cent, and the curves of the report."""
        scored = [row for row in self.rows if row.score is not None]
        scores = np.array([row.score for row in scored], np.float64)
        labels = np.array([row.label for row in scored], np.bool_)
        limit = self.config.limit
        numbers: ClassNumbers = {"n_normal": int((~labels).sum()), "n_anomalous": int(labels.sum())}
        numbers |= summarise(scores, labels, self.pixels, limit)
        intervals = image_intervals(scores, labels)
        if self.config.detailed:
            mean = aupimo(self.maps, self.masks).value
            numbers["aupimo"] = None if mean is None else 100 * mean
            intervals |= pixel_intervals(self.maps, self.masks, limit=limit)
        in_per_cent: Intervals = {
            name: None if interval is None else [100 * interval.low, 100 * interval.high]
            for name, interval in intervals.items()
        }
        return numbers, in_per_cent, _curves(scores, labels, self.pixels, limit)


def _curves(scores: Any, labels: Any, pixels: PixelAccumulator, limit: float) -> dict[str, Any]:
    image, pixel = rank(scores, labels), pixels.ranks()
    best = f1_max(scores, labels)
    return {
        "image_f1max_threshold": best.threshold if best else None,
        "image_roc": _points(roc_curve(image, _POINTS)),
        "image_pr": _points(pr_curve(image, _POINTS)),
        "pixel_f1max_threshold": defined(ranks.f1_max(pixel)[1]),
        "pixel_roc": _points(roc_curve(pixel, _POINTS)),
        "pixel_pr": _points(pr_curve(pixel, _POINTS)),
        "pro": _points(pro_curve(pixel, _POINTS, limit)),
    }


def _points(curve: Curve) -> list[list[float]]:
    """Return [[x, y], ...] to five decimals, finer than any screen."""
    return [[round(float(x), 5), round(float(y), 5)] for x, y in zip(curve.x, curve.y, strict=True)]


def _protocol(detector: Detector, dataset: Dataset, config: EvaluationConfig) -> dict[str, Any]:
    """Return everything that decides the numbers: the detector's own settings, the data's and the evaluation's."""
    settings = {_PROTOCOL_NAMES.get(name, name): value for name, value in detector.settings.items()}
    object_name, options = settings.pop("object_name"), settings.pop("method_options")
    pooling = {name: settings.pop(name) for name in ("pooling", "top")}
    # These stand at the top of metrics.json.
    del settings["method"], settings["backbone"]
    return {
        "layout": dataset.layout,
        "auxiliary_data": detector.identity.auxiliary_data,
        "same_data_allowed": config.allow_same_data,
        **settings,
        "evaluation_size": config.size,
        "mask_rule": "not black; antialiased bilinear to the evaluation size, above one half",
        "tiny_masks_kept": 0,
        "aupro_limit": config.limit,
        "pixel_mode": config.mode,
        "prompts": {"object": "class name" if config.class_names else object_name, "options": options},
        "calibration": detector.calibration.to_dict() | pooling,
        "versions": versions(),
        "faults": len(dataset.faults),
    }
