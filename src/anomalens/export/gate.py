"""Measure whether a detector with rounded weights still finds what the exact one finds.

It is judged on labelled images: those a user names, or the drawn scenes in bundled/scenes, which show families that no
shipped weights have seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from anomalens.backbones.bundle import BUNDLED_FILE
from anomalens.datasets.layouts import open_dataset, read_truth
from anomalens.detection.detector import Detector
from anomalens.errors import ConfigError
from anomalens.images.maps import resize_map
from anomalens.metrics.accumulator import PixelAccumulator
from anomalens.prediction import predictions_of

SCENES = f"mvtec:{BUNDLED_FILE.parent / 'scenes'}"
"""LAYOUT:PATH of the bundled scenes: half of them with a defect, all with exact masks."""

_SIDE = 256  # pixels a side at which maps and masks are compared

Labelled = Sequence[tuple[Any, npt.NDArray[np.bool_]]]
"""Images, as `Detector.predict` takes them, with their masks [_SIDE, _SIDE]."""


@dataclass(frozen=True)
class Gate:
    """Limit on what rounding may cost."""

    # Largest drop of pixel AUROC, of 1.
    auroc: float = 0.005
    # Largest drop of AUPRO up to 30 % false positives, of 1.
    aupro: float = 0.01


@dataclass(frozen=True)
class Verdict:
    """Hold both detectors' figures on one set of images."""

    images: int
    # Pixel AUROC of the exact detector and of the rounded one.
    auroc: tuple[float, float]
    # AUPRO likewise.
    aupro: tuple[float, float]
    gate: Gate

    @property
    def passed(self) -> bool:
        """Tell whether both drops are within the gate."""
        drops = (self.auroc[0] - self.auroc[1], self.aupro[0] - self.aupro[1])
        return drops[0] <= self.gate.auroc and drops[1] <= self.gate.aupro


def labelled_images(spec: str, limit: int) -> Labelled:
    """Return `limit` labelled test images of "LAYOUT:PATH", evenly spread over it, or all where it holds fewer.

    Images whose truth is unknown are left out. Raises InputError where the path cannot be read as a data set.
    """
    samples = list(open_dataset(spec).samples("test"))
    count = min(limit, len(samples))
    chosen = (samples[number * len(samples) // count] for number in range(count))
    truths = ((sample.image, read_truth(sample, (_SIDE, _SIDE))) for sample in chosen)
    return [(image, mask) for image, mask in truths if mask is not None]


def judge(exact: Detector, rounded: Detector, images: Labelled, gate: Gate) -> Verdict:
    """Measure both detectors on the same images.

    Raises ConfigError where the images show no defect, or nothing but defects.
    """
    (auroc, aupro), (auroc_rounded, aupro_rounded) = _measure(exact, images), _measure(rounded, images)
    return Verdict(len(images), (auroc, auroc_rounded), (aupro, aupro_rounded), gate)


def _measure(detector: Detector, images: Labelled) -> tuple[float, float]:
    pixels = PixelAccumulator("histogram")
    predictions = predictions_of(detector.predict_iter([image for image, _ in images]))
    for prediction, (_, mask) in zip(predictions, images, strict=True):
        pixels.update(resize_map(prediction.anomaly_map, mask.shape), mask)
    measured = pixels.compute()
    auroc, aupro = measured["pixel_auroc"], measured["aupro"]
    if auroc is None or aupro is None:
        raise ConfigError(
            f"int8 is judged by masks, and the {len(images)} labelled images show no defect or nothing else; "
            "give --gate a data set with masks"
        )
    return auroc, aupro
