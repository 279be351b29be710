"""Choose thresholds, heatmap scale and score pooling of the bundled backbone.

They are chosen on scenes of families training never saw and on photographs of one kind of thing that no result is
claimed on:

    python -m anomalens_lab calibrate WORK --photographs mvtec:PATH

    pooling          share and size of the map's top in the image score. What users rank are images of one kind of
                     thing, so the scenes judge it by how often a faulty one outscores its sound twin, the photographs
                     by their image AUROC; the highest mean of both
    threshold        highest balanced accuracy of the pooled score (mean of hit rate and correct-rejection rate), mean
                     of scenes and photographs
    pixel threshold  highest F1 over all pixels of all scenes
    heat range       from the 95th percentile of sound pixels (scenes or photographs, the higher) to the 90th of
                     defective ones

    auto             the method with the highest mean of pixel AUROC and share of twins in order, on the scenes alone

On one's own parts one does better with a handful of normal images (`anomalens calibrate`).
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomalens.backbones.bundle import BUNDLED_FILE, read_bundle_info
from anomalens.datasets.layouts import Sample, open_dataset, read_truth
from anomalens.decision.calibration import Calibration, CalibrationTable, ShippedMethod
from anomalens.decision.pooling import ScorePooling
from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector
from anomalens.errors import InputError
from anomalens.files import write_json
from anomalens.images.maps import resize_map
from anomalens.metrics.summary import auroc, f1_max
from anomalens.options import BUNDLED
from anomalens.prediction import Prediction
from anomalens_lab.alignment import TEMPERATURE
from anomalens_lab.painting import paint_scenes
from anomalens_lab.shards import Scenes

METHODS: Mapping[str, Mapping[str, Any]] = {
    "anoclip": {"views": 1},
    "anoclip+": {"views": 1},
    "winclip": {},
    "anomalyclip": {},
    "tokenclip": {},
    "crane": {},
    "crane+": {},
    # The papers multiply cosines by 100, the factor that CLIP was trained with; this backbone was trained with another.
    "aprilgan": {"scale": 1 / TEMPERATURE},
    "adaclip": {"scale": 1 / TEMPERATURE},
}
"""Methods that are calibrated, with the options they are learned and shipped with."""
AUTO = "auto"
AUTO_SIZES = (224,)
"""Sides in pixels at which "auto" sees images too: small ones show whole parts best, the usual one fine faults."""
SCENES, SEED = 512, 8  # number and seed of the scenes
SHARES = (0.25, 0.5, 0.75, 1.0)  # shares of the map in the image score that are tried, beside none
TOPS = (0.002, 0.01, 0.03)  # shares of the map's pixels that are tried
GRID = 128  # pixels a side at which maps and masks are compared

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


def twins_in_order(scores: Floats, labels: Bools) -> float:
    """Return the share of twins (2k faulty, 2k + 1 sound) of which the faulty one scores higher; a tie counts half.

    Twins of which both are sound do not count. nan where none does.
    """
    counted = labels[0::2] & ~labels[1::2]
    faulty, sound = scores[0::2][counted], scores[1::2][counted]
    return float(np.mean((faulty > sound) + 0.5 * (faulty == sound))) if counted.any() else math.nan


@dataclass(frozen=True)
class Judged:
    """Hold scores and maps that a method gave to images whose truth is known."""

    # [B] image scores, not pooled.
    scores: Floats
    # [B, H, W] anomaly maps.
    maps: Floats
    # [B, H, W] True where a defect is.
    masks: Bools

    @property
    def labels(self) -> Bools:
        """Return True for the images with a defect, [B]."""
        return np.asarray(self.masks.any(axis=(1, 2)))


def balanced_threshold(groups: Sequence[tuple[Floats, Bools]]) -> float:
    """Return the threshold of the highest balanced accuracy, as a mean over groups of (scores [B], labels [B])."""
    order = np.sort(np.concatenate([scores for scores, _ in groups]))
    cuts = np.concatenate([[order[0] - 1e-6], (order[1:] + order[:-1]) / 2])

    def accuracy(cut: float) -> float:
        shares = [(np.mean(s[wrong] > cut) + np.mean(s[~wrong] <= cut)) / 2 for s, wrong in groups]
        return float(np.mean(shares))

    return float(max(cuts, key=accuracy))


def fit(scenes: Judged, photographs: Judged | None, source: str) -> ShippedMethod:
    """Choose calibration and score pooling for twins, the faulty one first, and photographs of one kind of thing.

    Raises InputError unless both hold faulty and sound ones.
    """
    labels = scenes.labels
    if not (labels[0::2] & ~labels[1::2]).any():
        raise InputError("calibration needs twins, a faulty scene and the same one sound; paint them anew")
    if photographs is not None and len(set(photographs.labels)) < 2:
        raise InputError("calibration needs photographs of sound and of faulty things")
    everything = [scenes] if photographs is None else [scenes, photographs]
    best = f1_max(scenes.maps.ravel(), scenes.masks.ravel())
    low = max(float(np.percentile(part.maps[~part.labels], 95)) for part in everything)
    high = float(np.percentile(scenes.maps[scenes.masks], 90))
    neutral = Calibration(0.0, best.threshold if best else high, (low, max(high, low + 1e-3)), source)

    def ranked(pooling: ScorePooling) -> float:
        ranks = [twins_in_order(pooling(scenes.scores, scenes.maps), labels)]
        if photographs is not None:
            ranks.append(auroc(pooling(photographs.scores, photographs.maps), photographs.labels) or 0.0)
        return float(np.mean(ranks))

    pooling = max([ScorePooling(), *(ScorePooling(share, top) for share in SHARES for top in TOPS)], key=ranked)
    groups = [(pooling(part.scores, part.maps), part.labels) for part in everything]
    return ShippedMethod(replace(neutral, threshold=balanced_threshold(groups)), pooling)


def judge(detector: Detector, images: Iterable[Any], masks: Iterable[Bools]) -> Judged:
    """Score images without pooling, on a grid of a fixed size; masks [H, W] of any size.

    Raises InputError naming the image that cannot be scored.
    """
    raw = detector.replace(pooling=ScorePooling())
    scores, maps = [], []
    for index, result in enumerate(raw.predict_iter(images)):
        if not isinstance(result, Prediction):
            raise InputError(f"calibration image {index}: {result.error}")
        scores.append(result.score)
        maps.append(resize_map(result.anomaly_map, (GRID, GRID)))
    return Judged(np.array(scores, np.float32), np.stack(maps), np.stack([_shrunk(mask) for mask in masks]))


def _shrunk(mask: Bools) -> Bools:
    rows, columns = ((np.arange(GRID) + 0.5) * side / GRID for side in mask.shape)
    return np.asarray(mask[rows.astype(int)][:, columns.astype(int)], bool)


def quality(scenes: Judged, pooling: ScorePooling) -> float:
    """Return the mean of pixel AUROC and share of twins in order on scenes, in [0, 1]; "auto" means the best method."""
    pooled = pooling(scenes.scores, scenes.maps)
    finding = auroc(scenes.maps.ravel(), scenes.masks.ravel()) or 0.0
    return (finding + twins_in_order(pooled, scenes.labels)) / 2


def held_out_scenes(folder: str | os.PathLike[str], workers: int = 1) -> Scenes:
    """Open the scenes that the shipped calibration is made on; they are painted in `folder` where they are missing."""
    paint_scenes(folder, SCENES, size=512, seed=SEED, held_out=True, workers=workers)
    return Scenes(Path(folder))


def labelled_images(photographs: str | None) -> list[Sample]:
    """Return the test images of LAYOUT:PATH, or none where it is None."""
    return list(open_dataset(photographs).samples("test")) if photographs else []


def judge_both(detector: Detector, scenes: Scenes, photographs: Sequence[Sample] = ()) -> tuple[Judged, Judged | None]:
    """Score scenes and photographs as `judge` does; None in place of the latter where there are none."""
    drawn = judge(
        detector,
        (scenes.image(i) for i in range(len(scenes))),
        (scenes.kind(i) > 0 for i in range(len(scenes))),
    )
    return drawn, judge_labelled(detector, photographs) if photographs else None


def judge_labelled(detector: Detector, photographs: Sequence[Sample]) -> Judged:
    """Score photographs as `judge` does; a faulty one without a mask counts as faulty all over."""
    truths = (read_truth(sample, (GRID, GRID)) for sample in photographs)
    masks = [np.ones((GRID, GRID), bool) if truth is None else truth > 0 for truth in truths]
    return judge(detector, [sample.image for sample in photographs], masks)


def calibrate_method(
    detector: Detector, scenes: Scenes, photographs: Sequence[Sample] = ()
) -> tuple[ShippedMethod, float]:
    """Calibrate a detector: what ships with it, and its `quality`; its own calibration plays no part."""
    drawn, real = judge_both(detector, scenes, photographs)
    named = f" and {len(photographs)} photographs of {photographs[0].class_name}" if photographs else ""
    shipped = fit(drawn, real, f"most right decisions on {len(scenes)} drawn scenes not trained on{named}")
    return shipped, quality(drawn, shipped.pooling)


def calibrate_bundled(
    scenes: str | os.PathLike[str],
    photographs: str | None = None,
    *,
    methods: Mapping[str, Mapping[str, Any]] = METHODS,
    out: str | os.PathLike[str] = BUNDLED_FILE.parent / "calibration.json",
) -> dict[str, float]:
    """Calibrate `methods` (name -> options to ship with it) on the bundled backbone and write the table.

    Args:
        scenes: shards of held-out families, made by `paint_scenes(..., held_out=True)`.
        photographs: LAYOUT:PATH of one labelled class (its test images), of which no result is claimed.
        out: the table. Entries of methods not asked for, and then also what "auto" means, stay as they are where they
            were made with the same weights.

    Returns:
        The quality of each.
    """
    path, known = Path(out), Scenes(Path(scenes))
    real = labelled_images(photographs)
    weights = read_bundle_info(BUNDLED_FILE).sha256
    table = CalibrationTable.read(path) if path.exists() else CalibrationTable(weights, "anoclip", {})
    entries = dict(table.methods) if table.weights == weights else {}
    reached = {}
    for name, options in methods.items():
        detector = load_detector(name, BUNDLED, batch_size=8, **options)
        shipped, reached[name] = calibrate_method(detector, known, real)
        entries[name] = replace(shipped, options=dict(options))
    best = table.best if set(entries) - set(reached) else max(reached, key=reached.__getitem__)
    auto = table.auto if table.weights == weights else None
    if best in reached:
        detector = load_detector(best, BUNDLED, batch_size=8, extra_sizes=AUTO_SIZES, **methods[best])
        shipped, reached[AUTO] = calibrate_method(detector, known, real)
        auto = replace(shipped, options=dict(methods[best]), extra_sizes=AUTO_SIZES)
    graphs = table.graphs if table.weights == weights else {}
    write_json(path, CalibrationTable(weights, best, entries, auto, graphs).to_dict())
    return reached
