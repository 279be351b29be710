"""Teach a detector from good photographs: references, the join with words, thresholds, limits of what can be judged.

    photos ─▶ observe ─▶ turns? place? ─▶ remember ─▶ each photo against the others ─▶ scales, threshold, limits

Every number comes from the good photographs alone, each compared with a memory that lacks it (leave one out).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from anomalens.decision.calibration import Calibration
from anomalens.decision.capture import CaptureLimits
from anomalens.decision.conformal import Rate, promise
from anomalens.decision.conformal import threshold as conformal_threshold
from anomalens.decision.folder_threshold import ASSUMPTION, folder_threshold
from anomalens.decision.pooling import ScorePooling
from anomalens.decision.quantiles import STUDENT_90
from anomalens.detection.observing import HALF_TURNED, Floats, Photo, Seen, observe, read_photos
from anomalens.detection.reading import read_image
from anomalens.detection.tiling import Inside, inside_whole
from anomalens.engines.contract import NO_WORDS, Engine
from anomalens.engines.taught import TaughtEngine, TaughtSize
from anomalens.errors import ConfigError, InputError
from anomalens.files import digest
from anomalens.images.decoding import Decoded
from anomalens.images.pixel_values import Channels, Rgb
from anomalens.images.preprocessing import Preprocess
from anomalens.methods.parts.neighbours import nearest
from anomalens.methods.parts.turning import place_weight, turn_ratio
from anomalens.methods.references.reference_method import (
    DEFAULT,
    Compared,
    Descriptors,
    ReferenceMethod,
    Words,
    create_reference,
    is_reference_method,
)
from anomalens.methods.sets.set_method import is_set_method
from anomalens.options import LoadOptions

Progress = Callable[[], object] | None

# Turned copies are looked at for as many photographs at most; more photographs show enough angles by themselves.
_TURNED = 12
# Photographs whose turned copies decide whether parts lie at any angle, where there are more than that.
_ASKED = 6
# Parts lie at any angle where turned copies are at most this many times as far from the others.
_ANY_ANGLE = 1.0
# The least rate of false alarms that is aimed at where none is asked for, however many photographs there are.
_LEAST_RATE = Fraction(1, 100)
# Thresholds, in deviations from ordinary: how far above the copies of a single photograph; up to how many photographs
# the largest score is raised, and by how much at most; how many deviations above the others a score is an outlier.
_ABOVE_COPIES, _FEW, _MOST_RAISED, _OUTLYING = 1.5, 18, 1.0, 2.0
# An image shows the same thing up to this half squared distance of its global features, or up to this many times the
# median and the largest distance of good photographs to their nearest other, but never beyond the last.
_UNLIKE, _OF_MEDIAN, _OF_LARGEST, _OTHER = 0.25, 3.0, 1.5, 0.5


@dataclass(frozen=True)
class Lesson:
    """Hold all that was taught, from which it can be taught again, and more."""

    # Name of the reference method, and its options, none of them left open.
    method: str
    options: Mapping[str, Any]
    photos: tuple[Photo, ...]
    # What the photographs gave, by the shorter side of the pixels.
    seen: Mapping[int, Seen]
    # The largest rate of false alarms asked for; None: what the number of photographs allows.
    fpr: float | None
    seed: int
    # Scores of the photographs, each against the others.
    scores: tuple[float, ...]
    # How much less alike turned copies of the photographs are than the photographs; None where it was not asked.
    turn_ratio: float | None = None
    # Why photographs were left out, a line each; not kept in recipes.
    left_out: tuple[str, ...] = ()
    # Scores of the photographs of an unlabelled set that were not learned from; empty where all were good.
    unlearned: tuple[float, ...] = ()

    @property
    def mixed(self) -> bool:
        """Return whether the photographs were chosen from an unlabelled set, some of which may be faulty."""
        return bool(self.unlearned)

    @property
    def odd(self) -> tuple[str, ...]:
        """Return the names of photographs that look unlike the others, which may not be good ones.

        Either a place in them scores far above the others, or they show something else as a whole.
        """
        scores = np.array(self.scores)
        if len(scores) < 4:
            return ()
        middle = np.median(scores)
        spread = np.median(np.abs(scores - middle)) + 1e-9
        seen = next(iter(self.seen.values()))
        plain = seen.view == 0
        apart = _apart(seen.globals[plain], seen.photo[plain])
        other = seen.photo[plain][apart > max(_UNLIKE, _OF_MEDIAN * float(np.median(apart)))]
        return tuple(
            photo.name
            for number, (photo, score) in enumerate(zip(self.photos, scores, strict=True))
            if score > middle + 8 * spread or number in other
        )


@dataclass(frozen=True)
class Taught:
    """Hold what a lesson makes of a detector: the fields that differ from a detector of words alone."""

    engine: TaughtEngine
    calibration: Calibration
    pooling: ScorePooling
    capture: CaptureLimits
    lesson: Lesson


def teach(
    engine: Engine,
    sizes: Sequence[Preprocess],
    options: LoadOptions,
    images: Sequence[Any],
    *,
    roi: Inside | None = None,
    method: str | None = None,
    fpr: float | None = None,
    seed: int = 0,
    channels: Channels = "rgb",
    progress: Progress = None,
    **reference_options: Any,
) -> Taught:
    """Learn from good photographs.

    Args:
        engine: of words alone.
        sizes: how images are prepared for each size they are seen at.
        options: how images are seen.
        images: good photographs, each as `Detector.predict` takes it.
        roi: where defects count; the scores of the photographs, and so the thresholds, look there alone.
        method: a reference method; None takes the one that `options` name, or the default.
        fpr: largest rate of false alarms, in (0, 1); None takes what the number of photographs allows.
        seed: of everything drawn at random.
        channels: "rgb", or "bgr" for arrays as OpenCV gives them.
        progress: called after every photograph.
        reference_options: of the reference method.

    Raises:
        InputError: no photograph can be used, or fewer than `fpr` needs.
        ConfigError: an unknown method or option; the engine has learned already, or cannot; a region of interest that
            is smaller than what the method tells apart.
    """
    name = method or named_reference(options.method)
    reference = create_reference(name, **reference_options)
    if reference.words not in (None, engine.identity.method):
        raise ConfigError(f"{name} is part of {reference.words}; load the detector with method={name!r}")
    if engine.identity.method == NO_WORDS and reference.uses_words:
        weights = [option for option in vars(reference.config) if option.endswith("words_weight")]
        asked = [option for option in weights if reference_options.get(option)]
        if asked:
            raise ConfigError(f"{engine.identity.backbone} knows no words; leave {', '.join(asked)} out")
        reference = _decided(reference, **dict.fromkeys(weights, 0.0))
    turns, few = reference.config.turns, len(images) <= _TURNED
    # Where the photographs decide, quarter turns of all or of some are looked at, and dropped if they are not wanted.
    looks = [turns or (4 if few or number < _ASKED else 1) for number in range(len(images))]
    photos, seen, left_out = _observe(engine, sizes, options, reference, images, looks, (), channels, progress)
    if not photos:
        raise InputError(f"no good photo to learn from{': ' + left_out[0] if left_out else ''}")
    ratio = None
    if turns == 0:
        ratio = _ratio(seen)
        decided = 4 if few and ratio is not None and ratio <= _ANY_ANGLE else 1
        reference = _decided(reference, turns=decided)
        seen = {side: part.only(part.view < decided) for side, part in seen.items()}
    if getattr(reference.config, "position", 0) is None:
        # Places in tiles are not places in the image.
        reference = _decided(reference, position=place_weight(ratio) if options.tile is None else 0.0)
    lesson = Lesson(name, vars(reference.config), photos, seen, fpr, seed, (), ratio, left_out)
    return learn(engine, options, lesson, roi)


def teach_more(
    engine: Engine,
    sizes: Sequence[Preprocess],
    options: LoadOptions,
    images: Sequence[Any],
    lesson: Lesson,
    *,
    roi: Inside | None = None,
    fpr: float | None = None,
    channels: Channels = "rgb",
    progress: Progress = None,
) -> Taught:
    """Add good photographs to an earlier lesson, which decides the method and its options; see `teach`."""
    reference = create_reference(lesson.method, **lesson.options)
    keys = [photo.key for photo in lesson.photos]
    looks = [reference.config.turns] * len(images)
    photos, seen, left_out = _observe(engine, sizes, options, reference, images, looks, keys, channels, progress)
    # With further photographs the copies of a single one are not needed any more.
    known = {side: part.only(part.view >= 0) if photos else part for side, part in lesson.seen.items()}
    together = {
        side: part.joined(seen[side], len(lesson.photos)) if side in seen else part for side, part in known.items()
    }
    more = replace(lesson, photos=(*lesson.photos, *photos), seen=together, fpr=fpr or lesson.fpr, left_out=left_out)
    return learn(engine, options, more, roi)


def _observe(
    engine: Engine,
    sizes: Sequence[Preprocess],
    options: LoadOptions,
    reference: ReferenceMethod[Any],
    images: Sequence[Any],
    looks: Sequence[int],
    known: Sequence[int],
    channels: Channels,
    progress: Progress,
) -> tuple[tuple[Photo, ...], dict[int, Seen], tuple[str, ...]]:
    """Return the photographs that can be used, what they gave at each size, and why others were left out."""
    photos: list[Photo] = []
    left_out: list[str] = []

    def read(image: Any) -> Decoded:
        return read_image(image, sizes, options, channels)

    def usable() -> Iterator[tuple[Rgb, int]]:
        for turns, entry in zip(looks, read_photos(images, options.workers, read, known), strict=True):
            if isinstance(entry, str):
                left_out.append(entry)
            else:
                photos.append(entry[0])
                yield entry[1], turns
            if progress:
                progress()

    single = len(images) + len(known) == 1
    seen = observe(engine.with_levels(reference.depths), sizes, options, reference, usable(), single)
    return tuple(photos), seen, tuple(left_out)


def named_reference(method: str) -> str:
    """Return the reference method that goes with a method asked for: itself where it is one, else the default.

    Raises ConfigError for a method that compares the images of a set with each other, and so learns nothing.
    """
    if is_set_method(method):
        raise ConfigError(
            f"{method} compares a folder with itself and learns nothing; name another method to learn from photos, "
            "which may be a mixed, unsorted folder"
        )
    return method if is_reference_method(method) else DEFAULT


def learn(engine: Engine, options: LoadOptions, lesson: Lesson, roi: Inside | None = None) -> Taught:
    """Compute from a lesson all that a detector needs; the scores of the photographs are filled in.

    Raises InputError for fewer photographs than the lesson's rate of false alarms needs, ConfigError as `teach`.
    """
    reference = create_reference(lesson.method, **lesson.options)
    sizes, ordinary = {}, {}
    for side, seen in lesson.seen.items():
        sizes[side], ordinary[side] = _learn_size(reference, seen, lesson.seed)
    scores, peaks = _image_scores(reference, lesson, sizes, ordinary, roi)
    unit = 1.0 if reference.standardised else float(np.std(next(iter(ordinary.values())).for_score))
    lesson = replace(lesson, scores=tuple(scores))
    calibration = _of_unlabelled(_calibrate(scores, peaks, lesson.fpr, unit), lesson)
    return Taught(
        taught_engine(engine, lesson, sizes),
        calibration.override(options.threshold, options.pixel_threshold),
        ScorePooling(1.0, 0.01) if reference.pools_map else ScorePooling(),
        CaptureLimits.of([photo.capture for photo in lesson.photos]),
        lesson,
    )


def with_unlearned(taught: Taught, scores: Sequence[float], options: LoadOptions) -> Taught:
    """Decide by all photographs of an unlabelled set, most of which are taken to be sound.

    Args:
        taught: what was learned from those most like the others.
        scores: of the rest of them, by what was learned.
        options: thresholds that were asked for.
    """
    lesson = replace(taught.lesson, unlearned=tuple(scores))
    calibration = _of_unlabelled(taught.calibration, lesson)
    return replace(taught, lesson=lesson, calibration=calibration.override(options.threshold, options.pixel_threshold))


def taught_engine(engine: Engine, lesson: Lesson, sizes: Mapping[int, TaughtSize]) -> TaughtEngine:
    """Join an engine of words with what a lesson taught at each size."""
    reference = create_reference(lesson.method, **lesson.options)
    words = engine.identity
    identity = replace(
        words,
        method=f"{words.method} + {lesson.method}" if reference.uses_words and not reference.words else lesson.method,
        learned=_digest(words.learned, lesson),
        options={**words.options, "references": dict(lesson.options) | {"photos": len(lesson.photos)}},
    )
    return TaughtEngine(engine.with_levels(reference.depths), reference, sizes, identity)


def _decided(reference: ReferenceMethod[Any], **options: Any) -> ReferenceMethod[Any]:
    return type(reference)(replace(reference.config, **options))


def _ratio(seen: Mapping[int, Seen]) -> float | None:
    """Compare quarter-turned copies of photographs with the photographs, see `turn_ratio`; None for one photograph."""
    part = next(iter(seen.values()))
    # Of photographs that were cut into tiles the first tile of each stands for all.
    first = part.tile == 0
    patches = part.descriptors[0].reshape(len(part.photo), -1, part.descriptors[0].shape[-1])
    asked = [number for number in np.unique(part.photo) if (first & (part.photo == number) & (part.view > 0)).any()]
    if len(asked) < 2:
        return None
    plain = [patches[first & (part.photo == number) & (part.view == 0)][0] for number in asked]
    turned = [patches[first & (part.photo == number) & (part.view > 0)] for number in asked]
    return turn_ratio(np.stack(plain).astype(np.float32), [views.astype(np.float32) for views in turned])


def _learn_size(reference: ReferenceMethod[Any], seen: Seen, seed: int) -> tuple[TaughtSize, Compared]:
    """Learn from what was seen at one size; also return the photographs as they are, compared with the others."""
    views, asked = seen.only(seen.view >= 0), _ordinary_looks(seen)
    descriptors = _float32(views.descriptors)
    remembered = reference.remember(descriptors, views.photo, seed)
    if len(np.unique(views.photo)) > 1:
        ordinary = _against_others(reference, remembered, descriptors, views, seed)
    else:
        ordinary = reference.compare(_float32(asked.descriptors), remembered)
    fitted = dict(reference.fit_join(ordinary, _words(asked)))
    plain = views.view == 0
    whole = views.globals[plain]
    return TaughtSize(remembered, fitted, whole, _limit(whole, views.photo[plain])), ordinary


def _ordinary_looks(seen: Seen) -> Seen:
    """Return the looks whose comparison with the memory says what is ordinary: photographs, or copies of the only one.

    A single photograph that has no copies, because others were left out, stands for itself.
    """
    copies = seen.view < 0
    return seen.only(copies if copies.any() else seen.view == 0)


def _against_others(
    reference: ReferenceMethod[Any], remembered: Any, descriptors: Descriptors, seen: Seen, seed: int
) -> Compared:
    """Compare each photograph with a memory that lacks it."""
    parts = []
    plain = np.flatnonzero(seen.view == 0)
    for number in np.unique(seen.photo):
        chosen = plain[seen.photo[plain] == number]
        others = reference.without(remembered, descriptors, seen.photo, int(number), seed)
        parts.append((chosen, reference.compare(tuple(part[chosen] for part in descriptors), others)))
    order = np.argsort(np.concatenate([chosen for chosen, _ in parts]), kind="stable")
    return Compared(
        np.concatenate([compared.for_score for _, compared in parts])[order],
        np.concatenate([compared.for_map for _, compared in parts])[order],
    )


def _image_scores(
    reference: ReferenceMethod[Any],
    lesson: Lesson,
    sizes: Mapping[int, TaughtSize],
    ordinary: Mapping[int, Compared],
    roi: Inside | None,
) -> tuple[list[float], list[float]]:
    """Return the image score and the highest map value of each photograph, as if it were an image in question."""
    pooling = ScorePooling(1.0, 0.01)
    by_size_scores, by_size_maps = [], []
    photo: Any = None
    for side, seen in lesson.seen.items():
        asked = _ordinary_looks(seen)
        joined = reference.join(ordinary[side], _words(asked), sizes[side].fitted)
        maps = joined.map if joined.score_map is None else joined.score_map
        if roi is None or (asked.tile > 0).any():
            # Where tiles lay in their photographs is not kept, so that all of each tile counts.
            by_size_scores.append(pooling(maps[:, 0, 0], maps) if joined.score is None else joined.score)
            by_size_maps.append(joined.map.reshape(len(maps), -1).max(1))
        else:
            counted = _only_inside(roi, asked, maps)
            by_size_scores.append(np.stack([pooling.pool(values[0], values) for values in counted]))
            by_size_maps.append(np.stack([values.max() for values in _only_inside(roi, asked, joined.map)]))
        photo = asked.photo
    scores, peaks = np.mean(by_size_scores, axis=0), np.mean(by_size_maps, axis=0)
    return (
        [float(scores[photo == number].max()) for number in range(len(lesson.photos))],
        [float(peaks[photo == number].max()) for number in range(len(lesson.photos))],
    )


def _only_inside(roi: Inside, looks: Seen, maps: Floats) -> list[Floats]:
    """Return the values of each look's map [O, h, w] that lie in the region of interest.

    Raises ConfigError where that is smaller than a place of the map.
    """
    inside = inside_whole(roi, maps.shape[1:])
    if not inside.any():
        raise ConfigError("the region of interest is smaller than what the method tells apart; mark a larger one")
    # The copy of a single photograph that is turned by half has the region turned too.
    half_turn = inside[::-1, ::-1]
    return [values[half_turn if view == HALF_TURNED else inside] for values, view in zip(maps, looks.view, strict=True)]


def promised_rate(count: int, fpr: float | None) -> Rate:
    """Return the rate of false alarms that is not exceeded: the one asked for, else what `count` photographs allow."""
    return fpr or max(Fraction(1, count + 1), _LEAST_RATE)


def _calibrate(scores: Sequence[float], peaks: Sequence[float], fpr: float | None, unit: float) -> Calibration:
    """Choose thresholds by the photographs' own scores, each against the others."""
    count = len(scores)
    if fpr is not None:
        cut, words = conformal_threshold(scores, fpr), promise(fpr)
    else:
        cut, words = _usual_threshold(sorted(scores), unit)
    pixel_cut = max(peaks)
    span = max(pixel_cut - float(np.median(peaks)), 1e-3)
    photos = "1 good photo" if count == 1 else f"{count} good photos"
    return Calibration(
        threshold=cut,
        pixel_threshold=pixel_cut,
        heat_range=(0.0, pixel_cut + 2 * span),
        source=f"{photos}: {words}",
        normal_scores=tuple(sorted(scores)),
    )


def _of_unlabelled(calibration: Calibration, lesson: Lesson) -> Calibration:
    """Take the threshold from all photographs of an unlabelled set; nothing changes where all were good.

    Those that were learned from are the ones most like the others, so their own scores would be too strict a guide.
    """
    if not lesson.mixed:
        return calibration
    scores = (*lesson.scores, *lesson.unlearned)
    source = f"from {len(scores)} unsorted photos, {len(lesson.scores)} of them learned: {ASSUMPTION}"
    return replace(calibration, threshold=folder_threshold(scores), source=source, normal_scores=())


def _usual_threshold(scores: Sequence[float], unit: float) -> tuple[float, str]:
    """Return the threshold for the scores of photographs, ascending, and what it promises, in words.

    `unit` is a deviation from ordinary, in the units of scores.

    It is the conformal one for the rate that their number allows, corrected where that is known to be too strict or
    too loose:

    * a single photograph was compared with copies of itself, which are more alike than another photograph is;
    * of few photographs the largest score is a poor guess of how large ordinary scores get: it is raised as far as
      Student's distribution says, but not by more than a deviation;
    * of many, a single one that scores far above the others is taken for faulty: the promise then is that without it.
    """
    count, largest = len(scores), scores[-1]
    if count == 1:
        return largest + _ABOVE_COPIES * unit, "no rate of false alarms can be promised; teach more"
    rate = promised_rate(count, None)
    if count <= _FEW:
        spread = float(np.std(scores, ddof=1)) * math.sqrt(1 + 1 / count)
        expected = float(np.mean(scores)) + STUDENT_90[count - 2] * spread
        return max(largest, min(expected, largest + _MOST_RAISED * unit)), promise(rate)
    cut = conformal_threshold(scores, rate)
    limit = scores[-2] + _OUTLYING * float(np.std(scores[:-1], ddof=1))
    if cut > limit:
        return limit, promise(Fraction(2, count + 1))
    return cut, promise(rate)


def _limit(whole: Floats, photo: Any) -> float:
    """Return the largest distance of global features at which an image still shows what the photographs show."""
    if len(np.unique(photo)) < 2:
        return _UNLIKE
    distances = _apart(whole, photo)
    return float(min(_OTHER, max(_UNLIKE, _OF_MEDIAN * np.median(distances), _OF_LARGEST * distances.max())))


def _apart(whole: Floats, photo: Any) -> Floats:
    """Return how far each look [O, G] of photographs [O] is from the nearest look of another photograph: [O]."""
    return np.array([nearest(whole[[i]], whole[photo != photo[i]])[0] for i in range(len(whole))])


def _words(seen: Seen) -> Words:
    return Words(seen.word_scores, seen.word_maps.astype(np.float32))


def _float32(descriptors: Descriptors) -> Descriptors:
    return tuple(part.astype(np.float32) for part in descriptors)


def _digest(learned: str | None, lesson: Lesson) -> str:
    """Return a short hash of all that decides scores: what words have learned, the photographs and the options."""
    parts = [repr(learned), lesson.method, repr(sorted(lesson.options.items())), repr(lesson.seed)]
    for side, seen in sorted(lesson.seen.items()):
        parts += [str(side), *(digest(part.tobytes()) for part in (*seen.descriptors, seen.photo, seen.word_maps))]
    return digest("\n".join(parts))[:16]
