"""Measure a detector on a labelled data set: numbers per class, their mean, and the protocol that made them.

With `shots`, each class is taught from a few of its good photographs first, as often as there are `draws`; its numbers
are the means over the draws, and their deviations are told.

Every map is compared with its mask at one size, `EvaluationConfig.size` squared, reached by the papers' rule: maps
bilinear, masks antialiased bilinear and above one half. Anomalous images without a mask count at image level only.
The result is an `Evaluation`; result.py says which files it writes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_type_hints

from anomalens.datasets.catalog import keys_of
from anomalens.datasets.layouts import Dataset, Sample
from anomalens.detection.detector import Detector
from anomalens.detection.reading import read_image
from anomalens.errors import ConfigError, InputError
from anomalens.evaluation.class_measurement import ClassMeasurement
from anomalens.evaluation.gallery import Gallery
from anomalens.evaluation.result import ClassOutcome, Evaluation, Taught
from anomalens.evaluation.shots import Draw, draws
from anomalens.evaluation.trained_data import refuse_taught_photos, refuse_trained_data
from anomalens.evaluation.unfinished import Unfinished
from anomalens.extras import versions
from anomalens.metrics.accumulator import check_limit
from anomalens.metrics.summary import Mode
from anomalens.prediction import Failure, Prediction, Result
from anomalens.typed_values import checked_value

_PROTOCOL_NAMES = {"size": "image_size", "extra_sizes": "also", "dtype": "precision"}
"""Names in metrics.json of settings that a detector calls otherwise."""


_DEPENDING_ON_ORDER = ("carry_optimizer", "batch_threshold")
"""Options of methods with which an image's score depends on images before it or beside it."""


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
    # Good photographs of each class that a part is taught from before it is measured; 0: words alone, or the part as
    # it was taught.
    shots: int = 0
    # How often they are drawn, with the seeds 0, 1, 2, ...; counts nothing without shots.
    draws: int = 1

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(EvaluationConfig).items():
            checked_value(name, getattr(self, name), hint)
        check_limit(self.limit)
        if self.size < 1 or self.gallery < 0:
            raise ConfigError(f"evaluation size {self.size} must be at least 1 and gallery {self.gallery} at least 0")
        if self.shots < 0 or self.draws < 1:
            raise ConfigError(f"shots {self.shots} must be at least 0 and draws {self.draws} at least 1")


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


def steps(dataset: Dataset, config: EvaluationConfig) -> int:
    """Return how many images `evaluate` looks at: how often `progress` is called where nothing fails."""
    samples = tested(dataset)
    if not config.shots:
        return sum(map(len, samples.values()))
    return sum(chosen.steps for name in samples for chosen in _draws(dataset, name, config)[0])


def evaluate(
    detector: Detector,
    dataset: Dataset,
    config: EvaluationConfig | None = None,
    *,
    fit_options: Mapping[str, Any] | None = None,
    progress: Callable[[], object] | None = None,
    inspect: Callable[[Sample, Prediction], object] | None = None,
    unfinished: Unfinished | None = None,
) -> Evaluation:
    """Run `detector` over the test split of `dataset`; with `config.shots`, teach it each class anew before.

    Images that cannot be read are rows with an error and count nowhere; a mask that cannot be read leaves its image
    at image level. A class that cannot be taught has the reason in the place of its numbers.

    Args:
        detector: what is measured; for shots, what is taught.
        dataset: labelled images.
        config: what the numbers mean.
        fit_options: for shots, of `Detector.fit`: fpr, and options of the reference method.
        progress: called after every image, those that are learned from included.
        inspect: called with every image that could be read and its prediction.
        unfinished: what a stopped evaluation of the same settings left, where this one goes on and leaves what it has;
            its images are not looked at again, so they are in no gallery. Without effect with shots, with `detailed`,
            in exact mode, and where scores depend on other images.

    Raises:
        InputError: the data set has no labelled test image.
        ConfigError: the detector was trained on this data set, was taught with photographs of its test, or cannot be
            taught.
    """
    config = config or EvaluationConfig()
    samples = tested(dataset)
    images = [sample.image for members in samples.values() for sample in members]
    if config.shots and detector.lesson is not None:
        raise ConfigError("a taught part is measured as it is: leave out the shots, or the recipe")
    if not config.allow_same_data:
        identity = detector.identity
        refuse_trained_data(
            identity.auxiliary_data, identity.trained_images, dataset.name, images, likely=keys_of(dataset)
        )
        if detector.lesson is not None:
            read = partial(read_image, sizes=detector.sizes, options=detector.options)
            refuse_taught_photos([photo.key for photo in detector.lesson.photos], images, read)
    result = Evaluation(
        dataset.name,
        detector.method_name,
        detector.backbone,
        _protocol(detector, dataset, config),
        gallery=Gallery(config.gallery),
    )
    if unfinished is not None and not _measures_in_parts(detector, config):
        unfinished = None
    run = _Run(config, result.gallery, progress, inspect, unfinished)
    tiny: set[str] = set()
    for name, members in samples.items():
        class_detector = detector.for_object(name) if config.class_names else detector
        if config.shots:
            chosen, reason = _draws(dataset, name, config)
            try:
                outcomes = [run.taught(class_detector, each, fit_options or {}) for each in chosen]
            except InputError as error:
                outcomes, reason = [], str(error)
        else:
            outcomes, reason = [run.measured(class_detector, members, name=name)], ""
        result.add(name, outcomes, reason)
        tiny.update(*(outcome.tiny for outcome in outcomes))
    result.protocol["tiny_masks_kept"] = len(tiny)
    result.protocol["failed_images"] = len(result.failed)
    if unfinished is not None:
        unfinished.remove()
    return result


def _measures_in_parts(detector: Detector, config: EvaluationConfig) -> bool:
    """Return whether an evaluation may stop and go on: whether each image's numbers stand alone and are counted."""
    options = detector.settings["method_options"]
    alone = not detector.compares_sets and not any(options.get(name) for name in _DEPENDING_ON_ORDER)
    return alone and not config.shots and not config.detailed and config.mode == "histogram"


def _draws(dataset: Dataset, name: str, config: EvaluationConfig) -> tuple[list[Draw], str]:
    """Return the photographs drawn of a class; none, and the reason, where it has too few."""
    try:
        return draws(dataset.classes[name], config.shots, config.draws), ""
    except InputError as error:
        return [], str(error)


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


@dataclass(frozen=True)
class _Run:
    """Hold what all classes of an evaluation share."""

    config: EvaluationConfig
    gallery: Gallery
    progress: Callable[[], object] | None
    inspect: Callable[[Sample, Prediction], object] | None
    unfinished: Unfinished | None

    def measured(
        self, detector: Detector, members: Sequence[Sample], seed: int | None = None, name: str = ""
    ) -> ClassOutcome:
        """Predict the images of class `name` and compute its numbers.

        seed: of the draw, None without shots. name: of the class, by which an unfinished evaluation keeps it.
        """
        earlier = self.unfinished.read(name) if self.unfinished else None
        measurement = ClassMeasurement(self.config, earlier)
        rest = members[len(measurement.rows) :]
        for _ in measurement.rows:
            if self.progress:
                self.progress()
        try:
            for sample, prediction in zip(rest, _results(detector, rest) if rest else (), strict=True):
                row = measurement.add(sample, prediction)
                row.draw = seed
                if isinstance(prediction, Prediction):
                    # Pictures of one draw show what the others would.
                    if row.error is None and not seed:
                        self.gallery.offer(sample, prediction)
                    if self.inspect:
                        self.inspect(sample, prediction)
                if self.unfinished:
                    self.unfinished.write(name, measurement.measured)
                if self.progress:
                    self.progress()
        finally:
            if self.unfinished and rest:
                self.unfinished.write(name, measurement.measured, now=True)
        return measurement.finish()

    def taught(self, detector: Detector, chosen: Draw, options: Mapping[str, Any]) -> ClassOutcome:
        """Teach the detector from the photographs drawn, and measure what it then is."""
        photos = [sample.image for sample in chosen.photos]
        part = detector.fit(photos, seed=chosen.seed, progress=self.progress, **options)
        assert part.lesson is not None
        learned = Taught(
            part.method_name,
            chosen.seed,
            tuple(sample.id for sample in chosen.photos),
            part.lesson.left_out,
            dict(part.lesson.options),
            part.calibration.threshold,
        )
        return replace(self.measured(part, chosen.tests, chosen.seed), taught=learned)


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
        "checkpoint": detector.identity.published or detector.options.checkpoint,
        "same_data_allowed": config.allow_same_data,
        **settings,
        "evaluation_size": config.size,
        "mask_rule": "not black; antialiased bilinear to the evaluation size, above one half",
        "aupro_limit": config.limit,
        "pixel_mode": config.mode,
        "prompts": {"object": "class name" if config.class_names else object_name, "options": options},
        "calibration": detector.calibration.to_dict() | pooling,
        "versions": versions(),
        "faults": len(dataset.faults),
        **({"shots": config.shots, "draws": config.draws} if config.shots else {}),
    }
