"""Measure a detector on a labelled data set: numbers per class, their mean, and the protocol that made them.

Every map is compared with its mask at one size, `EvaluationConfig.size` squared, reached by the papers' rule: maps
bilinear, masks antialiased bilinear and above one half. Anomalous images without a mask count at image level only.
"""

import csv
import io
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomalens._version import __version__
from anomalens.data.layouts import Dataset, Sample, read_truth
from anomalens.detector import Detector, Result
from anomalens.errors import InputError
from anomalens.evaluation.metrics import SUMMARY_KEYS, Mode, PixelAccumulator, summarise
from anomalens.extras import optional
from anomalens.files import atomic_write, write_json
from anomalens.maps import resize_map
from anomalens.prediction import Failure, Prediction


@dataclass(frozen=True)
class EvaluationConfig:
    """What the numbers mean."""

    size: int = 518  # side in pixels at which maps and masks are compared
    limit: float = 0.3  # largest false-positive rate of AUPRO
    mode: Mode = "histogram"  # "histogram": constant memory; "exact": 4 bytes a pixel and more
    class_names: bool = False  # name each class in the prompts (its folder's name), or use one word for all


@dataclass
class Row:
    """One image: what is known and what was said."""

    path: str
    class_name: str
    kind: str
    label: int
    score: float | None  # None: the image could not be read
    decision: str | None
    error: str | None = None


@dataclass
class Evaluation:
    """The result: per-class metrics in per cent, rows per image, and the protocol."""

    dataset: str
    method: str
    backbone: str
    protocol: dict[str, Any]
    classes: dict[str, dict[str, float | int | None]]
    rows: list[Row] = field(default_factory=list)

    @property
    def mean(self) -> dict[str, float | None]:
        """Unweighted mean over the classes where a metric is defined."""
        found = {key: [v for c in self.classes.values() if (v := c[key]) is not None] for key in SUMMARY_KEYS}
        return {key: sum(values) / len(values) if values else None for key, values in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """The content of metrics.json."""
        head = {"dataset": self.dataset, "method": self.method, "backbone": self.backbone}
        return {**head, "protocol": self.protocol, "classes": self.classes, "mean": self.mean}

    def write(self, folder: Path) -> None:
        """metrics.json, metrics.csv and scores.parquet. Raises MissingExtraError without pyarrow, OSError."""
        pyarrow, parquet = optional("pyarrow", "data"), optional("pyarrow.parquet", "data")
        folder.mkdir(parents=True, exist_ok=True)
        table = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist([asdict(row) for row in self.rows]), table)
        atomic_write(folder / "scores.parquet", table.getvalue())
        lines = io.StringIO()
        columns = ["class", "n_normal", "n_anomalous", *SUMMARY_KEYS]
        writer = csv.DictWriter(lines, columns, restval="", lineterminator="\n")
        writer.writeheader()
        for name, values in (*self.classes.items(), ("mean", self.mean)):
            writer.writerow({"class": name, **{k: "" if v is None else v for k, v in values.items() if k in columns}})
        atomic_write(folder / "metrics.csv", lines.getvalue())
        write_json(folder / "metrics.json", self.to_dict())


def evaluate(
    detector: Detector,
    dataset: Dataset,
    config: EvaluationConfig | None = None,
    *,
    progress: Callable[[], object] | None = None,
    inspect: Callable[[Sample, Prediction], None] | None = None,
) -> Evaluation:
    """Run `detector` over the test split of `dataset`.

    Args:
        progress: called after every image.
        inspect: called with every image that could be read and its prediction (to draw or to keep it).

    Raises:
        InputError: the data set has no labelled test image, or a mask cannot be read.
    """
    config = config or EvaluationConfig()
    rows: list[Row] = []
    classes = {}
    for name, members in dataset.classes.items():
        tested = [sample for sample in members if sample.split == "test" and sample.label is not None]
        if not tested:
            continue
        eye = detector.for_object(name) if config.class_names else detector
        pixels = PixelAccumulator(config.mode)
        found = [_measure(*pair, pixels, config, inspect) for pair in _predict(eye, tested, progress)]
        good = [row for row in found if row.score is not None]
        summary = summarise(np.array([r.score for r in good]), np.array([r.label for r in good]), pixels, config.limit)
        labels = [row.label for row in good]
        counts = {"n_normal": labels.count(0), "n_anomalous": labels.count(1), "n_failed": len(found) - len(good)}
        classes[name] = {**counts, **summary}
        rows += found
    if not rows:
        raise InputError(f"{dataset.root}: no labelled test image to evaluate on (layout {dataset.layout})")
    protocol = _protocol(detector, dataset, config)
    return Evaluation(dataset.name, detector.method_name, detector.backbone, protocol, classes, rows)


def _predict(
    detector: Detector, samples: Sequence[Sample], progress: Callable[[], object] | None
) -> Iterator[tuple[Sample, Result]]:
    for sample, result in zip(samples, detector.predict_iter([s.image for s in samples]), strict=True):
        yield sample, result
        if progress:
            progress()


def _measure(
    sample: Sample,
    result: Result,
    pixels: PixelAccumulator,
    config: EvaluationConfig,
    inspect: Callable[[Sample, Prediction], None] | None,
) -> Row:
    row = Row(str(sample.image), sample.class_name, sample.kind, int(sample.label or 0), None, None)
    if isinstance(result, Failure):
        row.error = result.error
        return row
    size = (config.size, config.size)
    truth = read_truth(sample, size)
    if truth is not None:
        pixels.update(resize_map(result.anomaly_map, size), truth)
    if inspect:
        inspect(sample, result)
    row.score, row.decision = result.score, result.label
    return row


def _protocol(detector: Detector, dataset: Dataset, config: EvaluationConfig) -> dict[str, Any]:
    return {
        "layout": dataset.layout,
        "auxiliary_data": detector.auxiliary_data,
        "weights": detector.weights_hash,
        "image_size": detector.preprocess.size,
        "geometry": detector.preprocess.geometry,
        "tile": detector.config.tile,
        "evaluation_size": config.size,
        "mask_rule": "not black; antialiased bilinear to the evaluation size, above one half",
        "aupro_limit": config.limit,
        "pixel_mode": config.mode,
        "object": "class name" if config.class_names else detector.config.object_name,
        "seed": detector.seed,
        "versions": {"anomalens": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "faults": len(dataset.faults),
    }
