"""Keep a taught part as one file, `NAME.anomalens`: a safetensors file whose header says all that is needed.

Header `recipe` (JSON): schema, version, sha256 of the tensors, the options images are seen with, the hashes of weights
and words, the reference method with all of its options, the photographs (name, key, how they were taken), calibration,
score pooling, scales, limits. Tensors: for each size what the photographs gave (`SIZE.seen.*`) and what is remembered
of it (`SIZE.remembered.*`); the small pictures (`thumbnails`, `thumbnail_ends`); the region of interest (`roi`).

Nothing in the file is executed: numbers and text only, checked when they are read.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from anomalens._version import __version__
from anomalens.decision.calibration import Calibration
from anomalens.decision.capture import Capture, CaptureLimits
from anomalens.decision.pooling import ScorePooling
from anomalens.detection.observing import Photo, Seen
from anomalens.detection.teaching import Lesson
from anomalens.detection.tiling import Inside
from anomalens.engines.contract import Identity
from anomalens.engines.taught import TaughtSize
from anomalens.errors import AnomalensError, WeightsError, one_line
from anomalens.files import atomic_write, digest, json_ready
from anomalens.methods.references.reference_method import ReferenceMethod, Words, create_reference
from anomalens.options import LoadOptions, refuse_unknown
from anomalens.typed_values import build, checked_value
from anomalens.untrusted import read_bytes, read_header, read_json

SUFFIX = ".anomalens"
_SCHEMA = 1
_FORMAT = "anomalens-recipe"
# Options that a recipe keeps: how images are seen, and what a user knows of the part.
_KEPT = (
    "method", "backbone", "object_name", "size", "tile", "overlap", "extra_sizes", "fast_jpeg", "dtype", "seed",
    "method_options", "min_area", "mm_per_px",
)  # fmt: skip
# Pixels of a side of the coarsest patch.
_COARSEST = 128
# The largest file that is read, in bytes.
_MOST_BYTES = 2**31


@dataclass(frozen=True)
class Recipe:
    """Hold a taught part: everything but the weights."""

    lesson: Lesson
    # What was learned, by the shorter side of the pixels.
    sizes: Mapping[int, TaughtSize]
    # How images are seen.
    options: LoadOptions
    # Of the engine for words that the part was taught with.
    words: Identity
    calibration: Calibration
    pooling: ScorePooling
    capture: CaptureLimits | None
    roi: Inside | None = None
    # Of anomalens, which the part was taught with.
    version: str = __version__

    def check(self, words: Identity, path: str | os.PathLike[str]) -> None:
        """Raise WeightsError where words are not those the part was taught with; `path` names the file."""
        if words.weights != self.words.weights:
            raise WeightsError(
                f"{os.fspath(path)}: taught with other weights ({self.words.backbone}, {self.words.weights[:12]}) than "
                f"these ({words.backbone}, {words.weights[:12]}); load those, or teach the part again"
            )
        if (words.learned, words.method) != (self.words.learned, self.words.method):
            raise WeightsError(
                f"{os.fspath(path)}: taught with the words of {self.words.method}, whose learned prompts are not those"
                f" of {words.method} here; teach the part again"
            )


def is_recipe(name: str) -> bool:
    """Return whether a name is that of a recipe's file."""
    return Path(name).suffix == SUFFIX


def write_recipe(path: str | os.PathLike[str], recipe: Recipe) -> None:
    """Write a recipe, atomically. Raises OSError where the file cannot be written."""
    lesson = recipe.lesson
    pictures = [np.frombuffer(photo.thumbnail, np.uint8) for photo in lesson.photos]
    tensors: dict[str, Any] = {
        "thumbnails": np.concatenate(pictures),
        "thumbnail_ends": np.cumsum([len(picture) for picture in pictures]),
    }
    if recipe.roi is not None:
        tensors["roi"] = recipe.roi.astype(np.uint8)
    for side, seen in lesson.seen.items():
        for name, value in vars(seen).items():
            parts = value if name == "descriptors" else (value,)
            tensors |= {f"{side}.seen.{name}.{number}": part for number, part in enumerate(parts)}
        for name, value in vars(recipe.sizes[side].remembered).items():
            # Rows of the memory come from descriptors in half precision, so half precision holds them exactly.
            exact = value.dtype == np.float32 and bool((value.astype(np.float16) == value).all())
            tensors[f"{side}.remembered.{name}"] = value.astype(np.float16) if exact else value
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    header = {
        "schema": _SCHEMA,
        "version": recipe.version,
        "sha256": _digest(tensors),
        "options": {name: value for name, value in asdict(recipe.options).items() if name in _KEPT},
        "words": {name: getattr(recipe.words, name) for name in ("method", "backbone", "weights", "learned")},
        "lesson": {
            "method": lesson.method,
            "options": dict(lesson.options),
            "photos": [
                {"name": photo.name, "key": photo.key, "capture": asdict(photo.capture)} for photo in lesson.photos
            ],
            "fpr": lesson.fpr,
            "seed": lesson.seed,
            "scores": list(lesson.scores),
            "turn_ratio": lesson.turn_ratio,
            "unlearned": list(lesson.unlearned),
        },
        "sizes": {
            str(side): {"fitted": dict(taught.fitted), "limit": taught.limit} for side, taught in recipe.sizes.items()
        },
        "calibration": recipe.calibration.to_dict(),
        "pooling": asdict(recipe.pooling),
        "capture": asdict(recipe.capture) if recipe.capture else None,
    }
    text = json.dumps(json_ready(header), allow_nan=False)
    atomic_write(path, save(tensors, {"format": _FORMAT, "recipe": text}))


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe and check it against its own header.

    Raises WeightsError where the file is missing, too large, no recipe, damaged, or of another version.
    """
    name = os.fspath(path)
    if not Path(path).exists():
        raise WeightsError(f"{name}: no such file; make one with `anomalens fit GOOD_PHOTOS --out {name}`")
    raw = read_bytes(path, named="recipe", error=WeightsError, most_bytes=_MOST_BYTES)
    try:
        texts = read_header(raw, named=name, error=WeightsError)
        if texts.get("format") != _FORMAT:
            raise ValueError("another kind of file")
        header = read_json(texts.get("recipe", "").encode(), named="its description", error=WeightsError)
        tensors = load(raw)
        schema, recorded = header["schema"], header["sha256"]
    except (ValueError, KeyError, TypeError, AnomalensError, SafetensorError) as error:
        raise WeightsError(f"{name}: no recipe of `anomalens fit`, or a damaged one ({one_line(error)})") from error
    if schema != _SCHEMA:
        raise WeightsError(f"{name}: a recipe of schema {schema!r:.40}, this version reads {_SCHEMA}")
    if recorded != _digest(tensors):
        raise WeightsError(f"{name}: damaged: its tensors do not match its header; get the file again")
    try:
        return _from_parts(header, tensors)
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, AnomalensError) as error:
        raise WeightsError(f"{name}: a damaged recipe ({one_line(error)}); get the file again") from error


def _from_parts(header: Mapping[str, Any], tensors: Mapping[str, Any]) -> Recipe:
    """Build a recipe. Raises one of many errors, for instance ConfigError, where parts are missing or do not fit."""
    told = build(_LessonHeader, header["lesson"], "lesson")
    photos = _photos(told, tensors)
    reference = create_reference(told.method, **told.options)
    seen, sizes = {}, {}
    for text, facts in checked_value("sizes", header["sizes"], dict[str, _SizeHeader]).items():
        side = int(text)
        seen[side] = _seen(side, tensors, len(photos))
        kept = {
            part.name: _remembered(tensors[f"{side}.remembered.{part.name}"]) for part in fields(reference.remembers)
        }
        sizes[side] = TaughtSize(
            reference.remembers(**kept),
            {name: float(value) for name, value in facts.fitted.items()},
            seen[side].globals[seen[side].view == 0],
            _above_zero("limit", facts.limit),
        )
        _rehearse(reference, seen[side], sizes[side])
    options = checked_value("options", header["options"], dict[str, Any])
    # Files that a detector reads or writes are no business of a recipe.
    refuse_unknown(options, _KEPT, "a recipe")
    if not sizes:
        raise ValueError("nothing was taught at any size")
    capture = None if header["capture"] is None else build(CaptureLimits, header["capture"], "capture")
    return Recipe(
        Lesson(
            told.method,
            vars(reference.config),
            photos,
            seen,
            told.fpr,
            told.seed,
            tuple(map(float, told.scores)),
            told.turn_ratio,
            unlearned=tuple(map(float, told.unlearned)),
        ),
        sizes,
        LoadOptions(**options),
        Identity(**vars(build(_WordsHeader, header["words"], "words"))),
        Calibration.from_dict(header["calibration"]),
        build(ScorePooling, header["pooling"], "pooling"),
        capture,
        _roi(tensors["roi"]) if "roi" in tensors else None,
        checked_value("version", header["version"], str),
    )


@dataclass(frozen=True)
class _PhotoHeader:
    name: str
    key: int
    capture: Capture


@dataclass(frozen=True)
class _LessonHeader:
    method: str
    options: dict[str, Any]
    photos: tuple[_PhotoHeader, ...]
    fpr: float | None
    seed: int
    scores: tuple[float, ...]
    turn_ratio: float | None
    unlearned: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.photos or len(self.photos) != len(self.scores):
            raise ValueError(f"{len(self.photos)} photos and {len(self.scores)} scores")
        if self.fpr is not None and not 0 < self.fpr < 1:
            raise ValueError(f"a false-alarm rate of {self.fpr}")
        if self.seed < 0:
            raise ValueError(f"a seed of {self.seed}")


@dataclass(frozen=True)
class _SizeHeader:
    fitted: dict[str, float]
    limit: float


@dataclass(frozen=True)
class _WordsHeader:
    method: str
    backbone: str
    weights: str
    learned: str | None


def _photos(told: _LessonHeader, tensors: Mapping[str, Any]) -> tuple[Photo, ...]:
    """Give each photograph its small picture. Raises ValueError where there is not one for each."""
    pictures, ends = tensors["thumbnails"], tensors["thumbnail_ends"]
    bounds = [0, *map(int, ends)]
    if len(ends) != len(told.photos) or bounds != sorted(bounds) or bounds[-1] != len(pictures):
        raise ValueError("the small pictures do not belong to the photos")
    return tuple(
        Photo(photo.name, photo.key, photo.capture, pictures[start:end].tobytes())
        for photo, start, end in zip(told.photos, bounds[:-1], bounds[1:], strict=True)
    )


def _seen(side: int, tensors: Mapping[str, Any], photos: int) -> Seen:
    """Gather what photographs gave at one size. Raises ValueError where the arrays do not belong together."""
    parts: dict[str, Any] = {}
    for part in fields(Seen):
        prefix = f"{side}.seen.{part.name}."
        count = sum(name.startswith(prefix) for name in tensors)
        values = tuple(tensors[f"{prefix}{number}"] for number in range(count))
        parts[part.name] = values if part.name == "descriptors" else values[0]
    seen = Seen(**parts)
    looks = len(seen.photo)
    arrays = [*seen.descriptors, seen.view, seen.tile, seen.word_scores, seen.word_maps, seen.globals]
    # The grid of a tower is never so coarse: such a size would only take memory.
    if seen.descriptors and side > _COARSEST * max(seen.descriptors[0].shape[1:3]):
        raise ValueError(f"a size of {side} pixels, which no photo was seen at")
    if not seen.descriptors or any(len(array) != looks for array in arrays):
        raise ValueError("arrays of different lengths")
    ranks = [array.ndim for array in (*seen.descriptors, seen.photo, *arrays[len(seen.descriptors) :])]
    if ranks != [4] * len(seen.descriptors) + [1, 1, 1, 1, 3, 2]:
        raise ValueError("an array has not the dimensions it should have")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("a number is not finite")
    if any(array.dtype.kind != "i" for array in (seen.photo, seen.view, seen.tile)):
        raise ValueError("a number that counts is not whole")
    if sorted(set(seen.photo[seen.view == 0].tolist())) != list(range(photos)):
        raise ValueError("not every photo was looked at")
    return seen


def _rehearse(reference: ReferenceMethod[Any], seen: Seen, taught: TaughtSize) -> None:
    """Compare a photograph with what is remembered of all, as images will be.

    Raises ValueError where arrays do not belong together, one of many errors where they are of other kinds.
    """
    look = seen.only(np.arange(1))
    compared = reference.compare(look.descriptors, taught.remembered)
    words = Words(look.word_scores, look.word_maps.astype(np.float32))
    joined = reference.join(compared, words, taught.fitted)
    if not np.isfinite(joined.map).all():
        raise ValueError("a photograph compared with what is remembered gives no number")


def _roi(values: Any) -> Inside:
    if values.ndim != 2 or not values.any():
        raise ValueError("the region of interest is empty")
    inside: Inside = values.astype(bool)
    return inside


def _remembered(values: Any) -> Any:
    """Return an array that is remembered, numbers in single precision. Raises ValueError where one is not finite."""
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError("what is remembered is empty or holds a number that is not finite")
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _above_zero(name: str, value: float) -> float:
    if value <= 0:
        raise ValueError(f"{name} {value} must be above 0")
    return float(value)


def _digest(tensors: Mapping[str, Any]) -> str:
    parts = [f"{name} {value.dtype} {list(value.shape)} {digest(value.tobytes())}" for name, value in tensors.items()]
    return digest("\n".join(sorted(parts)))
