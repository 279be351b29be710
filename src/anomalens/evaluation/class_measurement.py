"""Measure one class: scores and maps of its images in, numbers in per cent out."""

from typing import TYPE_CHECKING, Any

import numpy as np

from anomalens.datasets.layouts import Sample, truth_at
from anomalens.errors import InputError, one_line
from anomalens.evaluation.decisions import Decisions
from anomalens.evaluation.result import ClassNumbers, ClassOutcome, ImageRow, Intervals
from anomalens.evaluation.unfinished import Measured
from anomalens.images.image_files import MAX_PIXELS
from anomalens.images.maps import Map, resize_map
from anomalens.metrics import ranks
from anomalens.metrics.accumulator import defined
from anomalens.metrics.summary import (
    Curve,
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
from anomalens.prediction import Failure, Result

if TYPE_CHECKING:
    from anomalens.evaluation.evaluator import EvaluationConfig

_POINTS = 200  # of a curve kept for the report


class ClassMeasurement:
    """Gather scores and maps of one class, then compute its numbers."""

    def __init__(self, config: "EvaluationConfig", measured: Measured | None = None) -> None:
        """Start with what was `measured` before, or with nothing."""
        measured = measured or Measured([], PixelAccumulator(config.mode), set(), None)
        self.config = config
        self.rows = measured.rows
        # That the detector decided by; None before the first image.
        self.threshold = measured.threshold
        self.pixels = measured.pixels
        # Ids of images whose mask would have vanished at the evaluation's size.
        self.tiny = measured.tiny
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
        row.score, row.decision, row.unusable = prediction.score, prediction.label, prediction.unusable
        self.threshold = prediction.threshold
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
            if truth.tiny:
                self.tiny.add(sample.id)
            if self.config.detailed:
                self.maps.append(resized)
                self.masks.append(truth.marks)
        return row

    @property
    def measured(self) -> Measured:
        """Return what is to be kept of an evaluation that may be stopped."""
        return Measured(self.rows, self.pixels, self.tiny, self.threshold)

    def finish(self) -> ClassOutcome:
        """Return numbers and intervals in per cent, decisions, and the curves of the report."""
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
        curves = _curves(scores, labels, self.pixels, limit) | {"threshold": self.threshold}
        called = Decisions.of((row.label == 1, row.decision) for row in self.rows if row.decision is not None)
        return ClassOutcome(numbers, in_per_cent, called, curves, self.rows, frozenset(self.tiny))


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
