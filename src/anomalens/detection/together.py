"""Compare the images of a set with each other: look at all of them, then score each against the others.

images ─▶ look ─▶ features of all ─▶ set method ─▶ maps, scores ─▶ threshold of the set ─▶ Predictions
"""

import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalens.decision.calibration import Calibration
from anomalens.decision.folder_threshold import ASSUMPTION, folder_threshold
from anomalens.detection.looking import LookedSet, look, turns_of
from anomalens.detection.observing import photo_name
from anomalens.detection.teaching import Progress
from anomalens.detection.tiling import TiledImage, TileScore
from anomalens.engines.contract import Floats, Scored
from anomalens.engines.set_engine import SetEngine
from anomalens.errors import InputError
from anomalens.images.pixel_values import Channels
from anomalens.methods.parts.mutual import FeatureStore, copies
from anomalens.prediction import Failure, Result

if TYPE_CHECKING:
    from anomalens.detection.detector import Detector

UNDECIDED = Calibration(0.0, 0.0, (0.0, 1.0), "chosen from each set of images itself")
"""What a detector that compares sets decides by, before it has seen one."""

LEAST_TOGETHER = 12
"""Fewer images than this are compared only where that is asked for, and with a warning."""

# Images that are looked at, at most, to see whether a folder shows one kind of part.
_ASKED = 28
# At least this share of them must be alike: within this half squared distance of global features from the image that is
# nearest to the others.
_MOST, _ALIKE = 0.95, 0.30
# Share of an unlabelled set, those most like the others, that a part is learned from.
_KEPT = 0.7

_log = logging.getLogger("anomalens")


def predict_together(
    detector: "Detector", images: Iterable[Any], channels: Channels = "rgb", progress: Progress = None
) -> Iterator[Result]:
    """Score the images of a set against each other; yield the results in order, once all have been looked at.

    Images that cannot be judged take no part and are labelled so; unreadable ones give Failures. Copies of an image
    count once and have the same map.

    Args:
        detector: its engine is a `SetEngine`.
        images: whatever `Detector.predict` takes, one by one.
        channels: "rgb", or "bgr" for arrays as OpenCV gives them.
        progress: called after every image that has been looked at.

    Raises:
        InputError: fewer than two images that can be judged.
        OSError: the folder for temporary files has no room for the features.
    """
    engine = detector.engine
    assert isinstance(engine, SetEngine)
    method = engine.method
    with tempfile.TemporaryDirectory(prefix="anomalens-") as folder:
        looked = look(detector, images, FeatureStore(Path(folder)), channels, progress)
        _check(looked)
        turns = turns_of(detector, looked, channels) if method.asks_turns else None
        maps = method.score_set(looked.store, turns, looked.kind)
    if maps.words_alone:
        _log.warning("the images are too unlike each other to be compared: words alone decide")
    compared = looked.compared
    maps = method.join(maps, [kept.words for _, kept in compared])
    answers = [
        _answer(detector, image, grid, score_map)
        for (image, _), grid, score_map in zip(compared, maps.for_map, maps.for_score, strict=True)
    ]
    pooled = np.array([answer.score for answer in answers], np.float32)
    scores = method.smooth(pooled, np.stack([kept.whole for _, kept in compared]))
    groups = copies(looked.store.keys).values()
    firsts = [places[0] for places in groups]
    calibration = _calibrate([float(scores[place]) for place in firsts], [maps.for_map[place] for place in firsts])
    calibration = calibration.override(detector.options.threshold, detector.options.pixel_threshold)
    judging = detector.replace(calibration=calibration)
    repeated = {place for places in groups if len(places) > 1 for place in places}
    for entry in looked.entries:
        if isinstance(entry, Failure):
            yield entry
            continue
        if entry.kept is None:
            # Nothing is known of it, so it gets the score that says nothing.
            blank = np.full((1, 1), calibration.heat_range[0], np.float32)
            answer = TileScore(calibration.threshold, calibration.threshold, blank)
        else:
            answer = answers[entry.kept.number]._replace(score=float(scores[entry.kept.number]))
            if entry.kept.number in repeated:
                remarks = (entry.image.note, "a copy of another image of the set, with which it counts once")
                entry.image.note = "; ".join(filter(None, remarks))
        entry.image.results = [[answer]]
        yield judging.judge(entry.image, entry.source)


def _check(looked: LookedSet) -> None:
    """Raise InputError where there is nothing to compare; warn where that is little or is there more than once."""
    usable, different = len(looked.store), len(copies(looked.store.keys))
    if usable < 2:
        raise InputError(
            f"{usable} of {len(looked.entries)} images can be judged, and comparing images with each other takes at "
            "least 2, better 12 and more; add images, or use another method"
        )
    if different < usable:
        _log.warning("%d of %d images are copies of others and count once", usable - different, usable)
    if different < LEAST_TOGETHER:
        _log.warning(
            "only %d different images are compared with each other; below %d a defect may pass for usual, and a usual "
            "part for a defect", different, LEAST_TOGETHER,
        )  # fmt: skip


def _answer(detector: "Detector", image: TiledImage, grid: Floats, score_map: Floats) -> TileScore:
    """Pool what scores are made of; only what lies in the region of interest counts."""
    raw = Scored(np.array([score_map.max()], np.float32), grid[None], score_map[None])
    return detector.tile_scores(raw, [(image, 0)])[0]


def _calibrate(scores: Sequence[float], maps: Sequence[Floats]) -> Calibration:
    """Choose thresholds and colours by the scores and maps of the different images of a set."""
    peaks = [float(grid.max()) for grid in maps]
    pixel_cut = folder_threshold(peaks)
    return Calibration(
        threshold=folder_threshold(scores),
        pixel_threshold=pixel_cut,
        heat_range=(
            float(np.median(np.concatenate([grid.ravel() for grid in maps]))),
            pixel_cut + 2 * max(pixel_cut - float(np.median(peaks)), 1e-3),
        ),
        source=f"from the {len(scores)} images of this set: {ASSUMPTION}",
    )


def looks_like_one_part(detector: "Detector", images: Sequence[Any]) -> bool:
    """Tell whether images show one kind of part, by some of them that are spread evenly over the list.

    detector: its engine is a `SetEngine`. Images that cannot be read or judged tell nothing.
    """
    asked = [images[place] for place in np.linspace(0, len(images) - 1, min(_ASKED, len(images))).astype(int)]
    with tempfile.TemporaryDirectory(prefix="anomalens-") as folder:
        compared = look(detector.replace(extra_sizes=()), asked, FeatureStore(Path(folder))).compared
    if len(compared) < LEAST_TOGETHER:
        return False
    wholes = np.stack([kept.whole for _, kept in compared]).astype(np.float64)
    distances = 1 - wholes @ wholes.T
    central = np.median(distances, axis=1).argmin()
    return bool((distances[central] <= _ALIKE).mean() >= _MOST)


def choose_good(
    detector: "Detector", images: Sequence[Any], channels: Channels = "rgb", progress: Progress = None
) -> tuple[list[Any], list[Any], tuple[str, ...]]:
    """Choose the images of an unlabelled set that are most like the others, for learning from.

    detector: its engine is a `SetEngine`. channels: "rgb", or "bgr" for arrays as OpenCV gives them.

    Returns the chosen images, those that are less like the others, and why any image was left out, a line each.

    Raises InputError where fewer than two images can be judged.
    """
    results = list(predict_together(detector, images, channels, progress))
    scores = [result.score for result in results if not isinstance(result, Failure) and result.unusable is None]
    limit = sorted(scores)[max(1, int(_KEPT * len(scores))) - 1]
    chosen, unlike, reasons = [], [], []
    for number, (image, result) in enumerate(zip(images, results, strict=True)):
        if isinstance(result, Failure):
            reasons.append(result.error)
            continue
        name = photo_name(image, number)
        if result.unusable is not None:
            reasons.append(f"{name}: {result.unusable}")
        elif result.score <= limit:
            chosen.append(image)
        else:
            unlike.append(image)
            reasons.append(f"{name}: among the {100 - round(100 * _KEPT)} in 100 least like the others")
    return chosen, unlike, tuple(reasons)
