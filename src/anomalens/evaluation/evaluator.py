"""Measure a detector on a labelled data set: numbers per class, their mean, and the protocol that made them.

Every map is compared with its mask at one size, `EvaluationConfig.size` squared, reached by the papers' rule: maps
bilinear, masks antialiased bilinear and above one half. Anomalous images without a mask count at image level only.

    DIR/metrics.json    numbers per class in per cent, their mean, the protocol
    DIR/metrics.csv     the same numbers as a table
    DIR/scores.parquet  one row an image: path, class, kind, label, score, decision, error
    DIR/report.json     what `anomalens report` draws: curves of at most 200 points a class, thresholds, the choice
    DIR/gallery/        of pictures: best, worst and borderline images, at most 15 a class (see gallery.py)
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from anomalens.datasets.layouts import Dataset, Sample, read_truth
from anomalens.detection.detector import Detector
from anomalens.errors import ConfigError, InputError
from anomalens.evaluation.gallery import Gallery
from anomalens.evaluation.trained_data import refuse_trained_data
from anomalens.extras import optional, versions
from anomalens.files import atomic_write, write_json
from anomalens.images.maps import resize_map
from anomalens.metrics import ranks
from anomalens.metrics.accumulator import check_limit, defined
from anomalens.metrics.summary import (
    SUMMARY_KEYS,
    Curve,
    Mode,
    PixelAccumulator,
    f1_max,
    pr_curve,
    pro_curve,
    rank,
    roc_curve,
    summarise,
)
from anomalens.prediction import Failure, Prediction, Result

_POINTS = 200  # of a curve kept for the report


@dataclass(frozen=True)
class EvaluationConfig:
    """What the numbers mean."""

    size: int = 518  # side in pixels at which maps and masks are compared
    limit: float = 0.3  # largest false-positive rate of AUPRO
    mode: Mode = "histogram"  # "histogram": constant memory; "exact": 4 bytes a pixel and more
    class_names: bool = False  # name each class in the prompts (its folder's name), or use one word for all
    gallery: int = 3  # pictures kept for the report, of each sort and class; 0: none
    allow_same_data: bool = False  # measure on images or sets that were trained on; the protocol then says so

    def __post_init__(self) -> None:
        check_limit(self.limit)
        if self.size < 1 or self.gallery < 0:
            raise ConfigError(f"evaluation size {self.size} must be at least 1 and gallery {self.gallery} at least 0")
        if self.mode not in get_args(Mode):
            raise ConfigError(f"pixel mode {self.mode!r}: use one of {', '.join(get_args(Mode))}")


@dataclass
class Row:
    """One image: what is known and what was said."""

    path: str
    class_name: str
    kind: str
    label: int
    score: float | None  # None: the image could not be read
    decision: str | None
    error: str | None = None  # why there is no score, or why the mask was left out


@dataclass
class Evaluation:
    """The result: per-class metrics in per cent, rows per image, and the protocol."""

    dataset: str
    method: str
    backbone: str
    protocol: dict[str, Any]
    classes: dict[str, dict[str, float | int | None]]
    rows: list[Row] = field(default_factory=list)
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)  # per class, for the report
    gallery: Gallery = field(default_factory=lambda: Gallery(0))

    @property
    def mean(self) -> dict[str, float | None]:
        """Unweighted mean over the classes where a metric is defined."""
        found = {key: [v for c in self.classes.values() if (v := c[key]) is not None] for key in SUMMARY_KEYS}
        return {key: sum(values) / len(values) if values else None for key, values in found.items()}

    @property
    def failed(self) -> list[Row]:
        """Images without a score."""
        return [row for row in self.rows if row.score is None]

    def to_dict(self) -> dict[str, Any]:
        """The content of metrics.json."""
        head = {"dataset": self.dataset, "method": self.method, "backbone": self.backbone}
        return {**head, "protocol": self.protocol, "classes": self.classes, "mean": self.mean}

    def write(self, folder: Path) -> None:
        """Write the files that the module's head lists, metrics.json last.

        Raises MissingExtraError without pyarrow, ConfigError or OSError when the folder cannot be written.
        """
        parquet = check_folder(folder)
        table = io.BytesIO()
        parquet.write_table(optional("pyarrow", "data").Table.from_pylist([asdict(row) for row in self.rows]), table)
        atomic_write(folder / "scores.parquet", table.getvalue())
        lines = io.StringIO()
        columns = ["class", "n_normal", "n_anomalous", *SUMMARY_KEYS]
        writer = csv.DictWriter(lines, columns, restval="", lineterminator="\n")
        writer.writeheader()
        for name, values in (*self.classes.items(), ("mean", self.mean)):
            writer.writerow({"class": name, **{k: "" if v is None else v for k, v in values.items()}})
        atomic_write(folder / "metrics.csv", lines.getvalue())
        write_json(folder / "report.json", {"curves": self.curves, "gallery": self.gallery.write(folder / "gallery")})
        write_json(folder / "metrics.json", self.to_dict())


def check_folder(folder: Path) -> Any:
    """Find out before hours of work whether results can be written to `folder`; makes it, returns pyarrow's writer.

    Raises MissingExtraError without pyarrow, ConfigError when the folder cannot be made or written.
    """
    parquet = optional("pyarrow.parquet", "data")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / ".writable", b"")
        (folder / ".writable").unlink()
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror or error}; choose another --out") from error
    return parquet


def tested(dataset: Dataset) -> dict[str, list[Sample]]:
    """The labelled test images of each class that has any. Raises InputError when no class has."""
    members = {
        name: [sample for sample in samples if sample.split == "test" and sample.label is not None]
        for name, samples in dataset.classes.items()
    }
    found = {name: samples for name, samples in members.items() if samples}
    if not found:
        raise InputError(
            f"{dataset.root}: no labelled test image to evaluate on (read as layout '{dataset.layout}'); "
            "give labels, as folders normal/ and anomalous/ or in a manifest, or use `anomalens detect`"
        )
    return found


def evaluate(
    detector: Detector,
    dataset: Dataset,
    config: EvaluationConfig | None = None,
    *,
    progress: Callable[[], object] | None = None,
    inspect: Callable[[Sample, Prediction], None] | None = None,
) -> Evaluation:
    """Run `detector` over the test split of `dataset`.

    Images that cannot be read are rows with an error and count nowhere; a mask that cannot be read leaves its image
    at image level.

    Args:
        progress: called after every image.
        inspect: called with every image that could be read and its prediction (to draw or to keep it).

    Raises:
        InputError: the data set has no labelled test image.
        ConfigError: the detector was trained on this data set.
    """
    config = config or EvaluationConfig()
    samples = tested(dataset)
    if not config.allow_same_data:
        images = [sample.image for members in samples.values() for sample in members]
        refuse_trained_data(detector.identity.auxiliary_data, detector.identity.trained_images, dataset.name, images)
    rows: list[Row] = []
    classes, curves = {}, {}
    gallery = Gallery(config.gallery)
    for name, members in samples.items():
        eye = detector.for_object(name) if config.class_names else detector
        pixels = PixelAccumulator(config.mode)
        found = []
        for sample, result in _predict(eye, members, progress):
            row, read_mask = _measure(sample, result, pixels, config)
            found.append(row)
            if isinstance(result, Failure):
                continue
            if read_mask:
                gallery.offer(sample, result)
            if inspect:
                inspect(sample, result)
        good = [row for row in found if row.score is not None]
        scores = np.array([row.score for row in good], np.float64)
        labels = np.array([row.label for row in good], np.bool_)
        counts = {"n_normal": int((~labels).sum()), "n_anomalous": int(labels.sum())}
        classes[name] = {**counts, **summarise(scores, labels, pixels, config.limit)}
        curves[name] = _curves(scores, labels, pixels, config.limit)
        rows += found
    protocol = _protocol(detector, dataset, config) | {"failed_images": sum(row.score is None for row in rows)}
    return Evaluation(dataset.name, detector.method_name, detector.backbone, protocol, classes, rows, curves, gallery)


def _predict(
    detector: Detector, samples: Sequence[Sample], progress: Callable[[], object] | None
) -> Iterator[tuple[Sample, Result]]:
    for sample, result in zip(samples, detector.predict_iter([s.image for s in samples]), strict=True):
        yield sample, result
        if progress:
            progress()


def _measure(sample: Sample, result: Result, pixels: PixelAccumulator, config: EvaluationConfig) -> tuple[Row, bool]:
    """The image's row, its pixels added to `pixels`; and whether its truth, where there is one, could be read."""
    row = Row(str(sample.image), sample.class_name, sample.kind, int(sample.label or 0), None, None)
    if isinstance(result, Failure):
        row.error = result.error
        return row, False
    row.score, row.decision = result.score, result.label
    size = (config.size, config.size)
    try:
        truth = read_truth(sample, size)
    except InputError as error:
        row.error = " ".join(str(error).split())
        return row, False
    if truth is not None:
        pixels.update(resize_map(result.anomaly_map, size), truth)
    return row, True


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
    """[[x, y], ...] to five decimals, finer than any screen."""
    return [[round(float(x), 5), round(float(y), 5)] for x, y in zip(curve.x, curve.y, strict=True)]


def _protocol(detector: Detector, dataset: Dataset, config: EvaluationConfig) -> dict[str, Any]:
    who = detector.engine.identity
    return {
        "layout": dataset.layout,
        "auxiliary_data": detector.identity.auxiliary_data,
        "same_data_allowed": config.allow_same_data,
        "weights": detector.identity.weights,
        "image_size": detector.preprocess.size,
        "extra_sizes": detector.settings["extra_sizes"],
        "geometry": detector.preprocess.geometry,
        "interpolation": detector.preprocess.interpolation,
        "tile": detector.options.tile,
        "overlap": detector.options.overlap if detector.options.tile else None,
        "precision": who.precision,
        "evaluation_size": config.size,
        "mask_rule": "not black; antialiased bilinear to the evaluation size, above one half",
        "aupro_limit": config.limit,
        "pixel_mode": config.mode,
        "prompts": {
            "object": "class name" if config.class_names else detector.options.object_name,
            "options": who.options,
        },
        "calibration": detector.calibration.to_dict(),
        "seed": detector.identity.seed,
        "versions": versions(),
        "faults": len(dataset.faults),
    }
