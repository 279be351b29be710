"""Thresholds, heatmap scale and pooling of the bundled backbone, chosen on scenes of families training never saw.

    pooling          share and size of the map's top in the image score: a faulty scene most often above its sound twin,
                     since what users rank are images of one kind of thing
    threshold        highest balanced accuracy of the pooled score (mean of hit rate and correct-rejection rate)
    pixel threshold  highest F1 over all pixels of all scenes
    heat range       from the 95th percentile of pixels of sound scenes to the 90th of defective pixels

No real photograph takes part, so the numbers say nothing of any data set's difficulty; on real parts one does better
with a handful of own normal images (`anomalens calibrate`).
"""

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomalens.calibration import BUNDLED, Calibration, CalibrationTable
from anomalens.clip.bundle import BUNDLED_FILE, read_bundle_info
from anomalens.detector import Detector, load_detector
from anomalens.errors import InputError
from anomalens.evaluation.metrics import f1_max
from anomalens.files import write_json
from anomalens.maps import resize_map
from anomalens.prediction import Prediction
from anomalens.training.scenes import Scenes

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the map in the image score
TOPS = (0.002, 0.01, 0.03)  # of the map's pixels
_GRID = 128  # pixels a side at which maps and masks are compared

Floats = npt.NDArray[np.float32]


def twins_in_order(scores: Floats, labels: npt.NDArray[np.bool_]) -> float:
    """Share of twins (2k faulty, 2k + 1 sound) of which the faulty one scores higher; a tie counts half.

    Twins of which both are sound do not count. nan where none does.
    """
    counted = labels[0::2] & ~labels[1::2]
    faulty, sound = scores[0::2][counted], scores[1::2][counted]
    return float(np.mean((faulty > sound) + 0.5 * (faulty == sound))) if counted.any() else math.nan


def balanced_threshold(scores: Floats, labels: npt.NDArray[np.bool_]) -> float:
    """The number that splits best: highest mean of the shares of each label on its own side."""
    order = np.sort(scores)
    cuts = np.concatenate([[order[0] - 1e-6], (order[1:] + order[:-1]) / 2])
    right = [(np.mean(scores[labels] > c) + np.mean(scores[~labels] <= c)) / 2 for c in cuts]
    return float(cuts[int(np.argmax(right))])


def fit(scores: Floats, maps: npt.NDArray[np.float32], masks: npt.NDArray[np.bool_], source: str) -> Calibration:
    """The calibration for raw scores [B], maps [B, H, W] and masks [B, H, W] of twins, the faulty one first.

    Raises InputError unless there are faulty and sound ones.
    """
    labels = np.asarray(masks.any(axis=(1, 2)))
    if not (labels[0::2] & ~labels[1::2]).any():
        raise InputError("calibration needs twins, a faulty scene and the same one sound; paint them anew")
    best = f1_max(maps.ravel(), masks.ravel())
    low = float(np.percentile(maps[~labels], 95))
    high = float(np.percentile(maps[masks], 90))
    heat_range = (low, max(high, low + 1e-3))
    pixel_threshold = best.threshold if best is not None else high
    choices = [(0.0, TOPS[1]), *((share, top) for share in SHARES[1:] for top in TOPS)]
    tried = [Calibration(0.0, pixel_threshold, heat_range, source, *choice) for choice in choices]
    chosen = max(tried, key=lambda one: twins_in_order(one.pooled(scores, maps), labels))
    return replace(chosen, threshold=balanced_threshold(chosen.pooled(scores, maps), labels))


def calibrate_method(detector: Detector, scenes: Scenes) -> Calibration:
    """The calibration of one detector on all of `scenes`; the detector's own calibration plays no part."""
    raw = detector.with_calibration(replace(detector.calibration, pooling=0.0))
    scores, maps, masks = [], [], []
    for index, result in enumerate(raw.predict_iter(scenes.image(i) for i in range(len(scenes)))):
        if not isinstance(result, Prediction):
            raise InputError(f"scene {index}: {result.error}")
        scores.append(result.score)
        maps.append(resize_map(result.anomaly_map, (_GRID, _GRID)))
        step = scenes.kind(index).shape[0] // _GRID
        masks.append(scenes.kind(index)[step // 2 :: step, step // 2 :: step] > 0)
    source = f"best balanced accuracy on {len(scenes)} procedural scenes of families not trained on"
    return fit(np.array(scores, np.float32), np.stack(maps), np.stack(masks), source)


def calibrate_bundled(
    methods: Mapping[str, Mapping[str, Any]],
    scenes: str | os.PathLike[str],
    *,
    best: str | None = None,
    out: str | os.PathLike[str] = BUNDLED_FILE.parent / "calibration.json",
) -> CalibrationTable:
    """Calibrate `methods` (name -> options to ship with it) on the bundled backbone and write the table.

    Args:
        scenes: shards of held-out families, made by `paint_scenes(..., held_out=True)`.
        best: what method="auto" means; None keeps what the table says.
        out: the table. Other methods' entries stay where they were made with the same weights.
    """
    path, known = Path(out), Scenes(Path(scenes))
    weights = read_bundle_info(BUNDLED_FILE).sha256
    table = CalibrationTable.read(path) if path.exists() else CalibrationTable(weights, "anoclip", {})
    entries = dict(table.methods) if table.weights == weights else {}
    for name, options in methods.items():
        detector = load_detector(name, BUNDLED, batch_size=8, **options)
        entries[name] = replace(calibrate_method(detector, known), options=dict(options))
    table = CalibrationTable(weights, best or table.best, entries)
    write_json(path, table.to_dict())
    return table
