"""Choose thresholds on a user's own images, and keep what they hold for.

saved = calibrate(detector, "normals/", fpr=0.01)
saved.write("line3.json")
detector = load_detector(..., calibration="line3.json")      # or: anomalens detect --calibration line3.json
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import Any, Literal

from anomalens.datasets.layouts import Dataset
from anomalens.decision.calibration import SavedCalibration
from anomalens.decision.conformal import GUARANTEE, needed, promise, rate_interval
from anomalens.decision.conformal import threshold as conformal_threshold
from anomalens.decision.thresholds import best_f1, check_costs, check_recall, for_recall, least_cost
from anomalens.detection.detector import Detector
from anomalens.detection.reading import read_image
from anomalens.detection.streaming import as_items
from anomalens.errors import ConfigError, InputError
from anomalens.images.content import content_key
from anomalens.images.image_files import quoted
from anomalens.prediction import Failure, Prediction

Rule = Literal["f1", "recall", "cost"]
Progress = Callable[[], object] | None


def calibrate(detector: Detector, images: Any, *, fpr: float = 0.01, progress: Progress = None) -> SavedCalibration:
    """Choose thresholds on normal images alone, with the guarantee of `anomalens.decision.conformal`.

    Image level: a new normal image is called anomalous with probability at most `fpr`. Pixel level: a new normal
    image has anything in its mask with probability at most `fpr` (the same rule on the maps' highest values).

    Args:
        images: normal images, none hand-picked, of the kind the detector will meet; whatever `predict_iter` takes.
        fpr: in (0, 1).
        progress: called after every image.

    Returns the calibration; images that could not be read or judged, and those that the part was taught with, count
    nowhere and are listed in `left_out`.

    Raises:
        InputError: fewer readable images than `fpr` needs; the message says how many.
        ConfigError: the detector compares the images of a set with each other.
    """
    # What makes no sense is refused before the tower runs.
    needed(fpr)
    _refuse_sets(detector)
    scores, peaks, left_out = [], [], []
    for result in _predict(detector, images, progress):
        if isinstance(result, Failure):
            left_out.append(result.error)
        else:
            scores.append(result.score)
            peaks.append(float(result.anomaly_map.max()))
    n = len(scores)
    try:
        cut, pixel_cut = conformal_threshold(scores, fpr), conformal_threshold(peaks, fpr)
    except InputError as error:
        unreadable = f" ({len(left_out)} more could not be read or do not count: {left_out[0]})" if left_out else ""
        raise InputError(f"{error}{unreadable}") from error
    low, high = rate_interval(n, fpr)
    calibration = replace(
        detector.calibration,
        threshold=cut,
        pixel_threshold=pixel_cut,
        source=f"{n} normal images: {promise(fpr)}",
        tiled_source=None,
        normal_scores=tuple(sorted(scores)),
    )
    made_from = {
        "rule": "conformal",
        "fpr": fpr,
        "n_normal": n,
        "n_anomalous": 0,
        "n_failed": len(left_out),
        "n_equal_scores": n - len(set(scores)),
        "guarantee": GUARANTEE.format(fpr=f"{fpr:g}", n=n),
        "true_rate_90": [low, high],
    }
    return SavedCalibration(calibration, detector.settings, made_from, tuple(left_out))


def calibrate_on_labels(
    detector: Detector,
    dataset: Dataset,
    rule: Rule,
    *,
    recall: float = 0.95,
    miss: float = 10.0,
    alarm: float = 1.0,
    progress: Progress = None,
) -> SavedCalibration:
    """Choose an image threshold on labelled images: by the best F1, a wanted recall, or the least cost.

    The pixel threshold stays as it is. P-values are then counted in the normal ones of these images.

    Args:
        recall: for rule "recall", the share of anomalous images to find, in (0, 1].
        miss, alarm: for rule "cost", the costs of a missed and of a falsely called image, > 0, any unit.

    Raises:
        InputError: the data set has not both kinds of readable images. ConfigError: recall or costs out of range.
    """
    # Wrong numbers are refused before the tower has run over everything.
    check_recall(recall)
    check_costs(miss, alarm)
    _refuse_sets(detector)
    samples = [sample for sample in dataset.samples() if sample.label is not None]
    scores, labels, left_out = [], [], []
    for sample, result in zip(samples, _predict(detector, [s.image for s in samples], progress), strict=True):
        if isinstance(result, Failure):
            left_out.append(result.error)
        else:
            scores.append(result.score)
            labels.append(sample.label == 1)
    choose: dict[Rule, tuple[Callable[[], float], str]] = {
        "f1": (lambda: best_f1(scores, labels), "the best balance of finds and false alarms (F1)"),
        "recall": (lambda: for_recall(scores, labels, recall), f"{100 * recall:g} % of the anomalous found"),
        "cost": (
            lambda: least_cost(scores, labels, miss, alarm),
            f"the least cost ({miss:g} a miss, {alarm:g} an alarm)",
        ),
    }
    cut, words = choose[rule][0](), choose[rule][1]
    normal = sorted(score for score, label in zip(scores, labels, strict=True) if not label)
    calls = [(score > cut, label) for score, label in zip(scores, labels, strict=True)]
    calibration = replace(
        detector.calibration,
        threshold=cut,
        tiled_source=None,
        source=f"{words} on {len(normal)} normal and {len(scores) - len(normal)} anomalous images of {dataset.name}",
        normal_scores=tuple(normal),
    )
    made_from = {
        "rule": rule,
        **({"recall": recall} if rule == "recall" else {}),
        **({"miss": miss, "alarm": alarm} if rule == "cost" else {}),
        "n_normal": len(normal),
        "n_anomalous": len(scores) - len(normal),
        "n_failed": len(left_out),
        "missed": sum(label and not called for called, label in calls),
        "false_alarms": sum(called and not label for called, label in calls),
        # Counted on the images it was chosen on, so nothing is promised about others.
        "guarantee": None,
    }
    return SavedCalibration(calibration, detector.settings, made_from, tuple(left_out))


def _refuse_sets(detector: Detector) -> None:
    if detector.compares_sets:
        raise ConfigError(
            f"scores of {detector.method_name} hold within one set of images only, so no calibration carries over to "
            "another; leave out the calibration, each set has a threshold of its own"
        )


def _predict(detector: Detector, images: Any, progress: Progress) -> Iterator[Prediction | Failure]:
    """Yield what the detector says of each image; one that must not count becomes a failure.

    Images that cannot be judged do not count, nor do photographs that the part was taught with, which look sounder than
    any new image.
    """
    taught = {photo.key for photo in detector.lesson.photos} if detector.lesson else set()
    items = list(as_items(images)) if taught else images
    sources = items if taught else repeat(None)
    read = partial(read_image, sizes=detector.sizes, options=detector.options)
    for source, result in zip(sources, detector.predict_iter(items), strict=False):
        if isinstance(result, Prediction) and result.unusable:
            yield Failure(result.path, f"{_called(result)}: {result.unusable}")
        elif isinstance(result, Prediction) and taught and content_key(read(source).rgb) in taught:
            yield Failure(result.path, f"{_called(result)}: the part was taught with it")
        else:
            yield result
        if progress:
            progress()


def _called(prediction: Prediction) -> str:
    return "image" if prediction.path is None else quoted(prediction.path)
