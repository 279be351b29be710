"""Whether a detector with rounded weights still finds what the exact one finds: measured, not assumed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from anomalens.datasets.layouts import open_dataset, read_truth
from anomalens.detection.detector import Detector
from anomalens.errors import ConfigError
from anomalens.images.maps import resize_map
from anomalens.metrics.accumulator import PixelAccumulator
from anomalens.prediction import predictions_of
from anomalens_lab.synthesis import HELD_OUT_FAMILIES, SynthesisConfig, scenes

_SIDE = 256  # pixels at which maps and masks are compared

Labelled = Sequence[tuple[Any, npt.NDArray[np.bool_]]]
"""Images, as `Detector.predict` takes them, with their masks [_SIDE, _SIDE]."""


@dataclass(frozen=True)
class Gate:
    """How much may be lost."""

    auroc: float = 0.005  # largest drop of pixel AUROC, of 1
    aupro: float = 0.01  # largest drop of AUPRO up to 30 % false positives, of 1


@dataclass(frozen=True)
class Verdict:
    """What was measured on one set of images."""

    images: int
    auroc: tuple[float, float]  # pixel AUROC of the exact detector and of the rounded one
    aupro: tuple[float, float]  # AUPRO likewise
    gate: Gate

    @property
    def passed(self) -> bool:
        """Whether both drops are within the gate."""
        drops = (self.auroc[0] - self.auroc[1], self.aupro[0] - self.aupro[1])
        return drops[0] <= self.gate.auroc and drops[1] <= self.gate.aupro


def procedural(count: int, seed: int = 2_000_000) -> Labelled:
    """Labelled scenes of families that no shipped weights have seen."""
    config = SynthesisConfig(size=_SIDE, include=HELD_OUT_FAMILIES)
    return [(one.image, one.mask) for one in scenes(count, seed, config)]


def dataset(spec: str, limit: int) -> Labelled:
    """Up to `limit` labelled test images of "LAYOUT:PATH", evenly spread over it."""
    found: list[tuple[Any, npt.NDArray[np.bool_]]] = []
    samples = [one for part in open_dataset(spec).classes.values() for one in part if one.split == "test"]
    for sample in samples[:: max(1, -(-len(samples) // limit))]:
        truth = read_truth(sample, (_SIDE, _SIDE))
        if truth is not None:
            found.append((sample.image, truth))
    return found


def judge(exact: Detector, rounded: Detector, images: Labelled, gate: Gate) -> Verdict:
    """Measure both detectors on the same images. Raises ConfigError where the images show no defect, or no ground."""
    (auroc, aupro), (auroc_rounded, aupro_rounded) = _measure(exact, images), _measure(rounded, images)
    return Verdict(len(images), (auroc, auroc_rounded), (aupro, aupro_rounded), gate)


def _measure(detector: Detector, images: Labelled) -> tuple[float, float]:
    pixels = PixelAccumulator("histogram")
    for found, (_, mask) in zip(
        predictions_of(detector.predict_iter([image for image, _ in images])), images, strict=True
    ):
        pixels.update(resize_map(found.anomaly_map, mask.shape), mask)
    measured = pixels.compute()
    auroc, aupro = measured["pixel_auroc"], measured["aupro"]
    if auroc is None or aupro is None:
        raise ConfigError(
            f"int8 is judged by masks, and the {len(images)} labelled images show no defect or nothing else; "
            "give --gate a data set with masks"
        )
    return auroc, aupro
