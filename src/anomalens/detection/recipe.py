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
from anomalens.methods.references.reference_method import create_reference, reference_entry
from anomalens.options import LoadOptions

SUFFIX = ".anomalens"
_SCHEMA = 1
_FORMAT = "anomalens-recipe"
# Options that a recipe keeps: how images are seen, and what a user knows of the part.
_KEPT = (
    "method", "backbone", "object_name", "size", "tile", "overlap", "extra_sizes", "fast_jpeg", "dtype", "seed",
    "method_options", "min_area", "mm_per_px",
)  # fmt: skip
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
        "version": __version__,
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
            "mixed": lesson.mixed,
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
    try:
        if Path(path).stat().st_size > _MOST_BYTES:
            raise WeightsError(f"{name}: larger than any recipe ({_MOST_BYTES / 1e9:.0f} GB)")
        raw = Path(path).read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{name}: {error.strerror or error}; make one with `anomalens fit GOOD_PHOTOS --out {name}`"
        ) from error
    try:
        length = int.from_bytes(raw[:8], "little")
        metadata = json.loads(raw[8 : 8 + length])["__metadata__"]
        if metadata["format"] != _FORMAT:
            raise ValueError("another kind of file")
        header = json.loads(metadata["recipe"])
        tensors = load(raw)
    except (ValueError, KeyError, TypeError, SafetensorError, RecursionError) as error:
        raise WeightsError(f"{name}: no recipe of `anomalens fit`, or a damaged one ({one_line(error)})") from error
    if header.get("schema") != _SCHEMA:
        raise WeightsError(f"{name}: a recipe of schema {header.get('schema')!r}, this version reads {_SCHEMA}")
    if header.get("sha256") != _digest(tensors):
        raise WeightsError(f"{name}: damaged: its tensors do not match its header; get the file again")
    try:
        return _from_parts(header, tensors)
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, AnomalensError) as error:
        raise WeightsError(f"{name}: a damaged recipe ({one_line(error)}); get the file again") from error


def _from_parts(header: Mapping[str, Any], tensors: Mapping[str, Any]) -> Recipe:
    told = header["lesson"]
    ends = [0, *(int(end) for end in tensors["thumbnail_ends"])]
    photos = tuple(
        Photo(
            str(photo["name"]),
            int(photo["key"]),
            Capture(**photo["capture"]),
            tensors["thumbnails"][ends[number] : ends[number + 1]].tobytes(),
        )
        for number, photo in enumerate(told["photos"])
    )
    remembers = reference_entry(told["method"]).build.remembers
    seen, sizes = {}, {}
    for text, facts in header["sizes"].items():
        side = int(text)
        seen[side] = _seen(side, tensors)
        kept = {part.name: _single(tensors[f"{side}.remembered.{part.name}"]) for part in fields(remembers)}
        plain = seen[side].view == 0
        sizes[side] = TaughtSize(
            remembers(**kept),
            {name: float(value) for name, value in facts["fitted"].items()},
            seen[side].globals[plain],
            float(facts["limit"]),
        )
    # Checks names and values.
    options = vars(create_reference(told["method"], **told["options"]).config)
    ratio = told["turn_ratio"]
    return Recipe(
        Lesson(
            told["method"],
            options,
            photos,
            seen,
            None if told["fpr"] is None else float(told["fpr"]),
            int(told["seed"]),
            tuple(float(score) for score in told["scores"]),
            None if ratio is None else float(ratio),
            mixed=bool(told["mixed"]),
        ),
        sizes,
        LoadOptions(**header["options"]),
        Identity(**header["words"]),
        Calibration.from_dict(header["calibration"]),
        ScorePooling(**header["pooling"]),
        CaptureLimits(**header["capture"]) if header["capture"] else None,
        tensors["roi"].astype(bool) if "roi" in tensors else None,
    )


def _seen(side: int, tensors: Mapping[str, Any]) -> Seen:
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
    if not seen.descriptors or any(len(array) != looks for array in arrays):
        raise ValueError("arrays of different lengths")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("a number is not finite")
    return seen


def _single(value: Any) -> Any:
    return value.astype(np.float32) if value.dtype == np.float16 else value


def _digest(tensors: Mapping[str, Any]) -> str:
    parts = [f"{name} {value.dtype} {list(value.shape)} {digest(value.tobytes())}" for name, value in tensors.items()]
    return digest("\n".join(sorted(parts)))
