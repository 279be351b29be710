"""Turn predictions into rows of the history, and rows back into predictions that draw the same pictures."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from PIL import Image

from anomalens.errors import InputError, one_line
from anomalens.images.decoding import decode
from anomalens.prediction import Failure, Prediction, Result
from anomalens.serving.history import Answer, NotFoundError
from anomalens.serving.media import MediaFolder, pack_map, unpack_map
from anomalens.serving.schema import Inspection, now
from anomalens.untrusted import read_bytes

# Fields of a prediction that have columns of their own, or none.
_APART = ("path", "anomaly_map", "score", "p_value")
_MOST_ORIGINAL = 2**31  # bytes
_FACTS = tuple(field.name for field in fields(Prediction) if field.name not in _APART)
Drawn = str
"""A picture of an inspection: "original", "overlay", "heatmap" or "mask"."""
PICTURES: tuple[Drawn, ...] = ("original", "overlay", "heatmap", "mask")


def answer_of(id: str, name: str, result: Result | BaseException, media: MediaFolder) -> Answer:
    """Return what a row says of a result, after its map was stored. Raises OSError where there is no room for the map.

    id, name: of the inspection.
    """
    if isinstance(result, BaseException):
        result = Failure(None, f"the detector failed: {one_line(result)}", type(result).__name__)
    if isinstance(result, Failure):
        return Answer(id, {"state": "failed", "error": _without_path(result, name), "answered": now()})
    facts = {field: getattr(result, field) for field in (*_FACTS, "confidence", "reason")}
    values = {
        "state": "done",
        "answered": now(),
        "label": result.label,
        "score": result.score,
        "p_value": result.p_value,
        "facts": {**facts, "heat_range": list(result.heat_range)},
        "map": media.put(pack_map(result.anomaly_map)),
    }
    return Answer(id, values, result.regions)


def prediction_of(row: Inspection, media: MediaFolder) -> Prediction:
    """Return the prediction that a row was made from, its map included.

    Raises NotFoundError where the image has no answer, InputError where the map is missing or damaged.
    """
    if row.facts is None or row.map is None or row.score is None:
        raise NotFoundError("this image has no answer, so there is no picture of it")
    facts: dict[str, Any] = {name: value for name, value in row.facts.items() if name in _FACTS}
    facts["heat_range"] = tuple(facts["heat_range"])
    return Prediction(
        path=None, anomaly_map=unpack_map(media.path(row.map)), score=row.score, p_value=row.p_value, **facts
    )


def original_file(row: Inspection, media: MediaFolder) -> Path:
    """Return the file that holds an image's bytes. Raises InputError where it is not on this machine."""
    path = media.path(row.original)
    if not path.exists():
        raise InputError("the picture lies in the media folder of another station")
    return path


def original_bytes(row: Inspection, media: MediaFolder) -> bytes:
    """Return an image's bytes. Raises InputError where they are not on this machine."""
    return read_bytes(original_file(row, media), named="picture", error=InputError, most_bytes=_MOST_ORIGINAL)


def picture_of(
    row: Inspection, media: MediaFolder, picture: Drawn, side: int | None = None, **thresholds: float | None
) -> Image.Image:
    """Draw a picture of an inspection, see `draw`. Raises NotFoundError without an answer, InputError without files.

    thresholds: `threshold`, `pixel_threshold` in place of those that it was decided by; None leaves one as it is.
    """
    asked: dict[str, Any] = {name: value for name, value in thresholds.items() if value is not None}
    prediction = None if picture == "original" else replace(prediction_of(row, media), **asked)
    original = b"" if picture in ("heatmap", "mask") else original_bytes(row, media)
    return draw(prediction, original, picture, side)


def draw(prediction: Prediction | None, original: bytes, picture: Drawn, side: int | None = None) -> Image.Image:
    """Draw a picture of an inspection, upright, RGB or a mask of 0 and 255.

    Args:
        prediction: None where the original alone is asked for.
        original: the bytes of the image.
        picture: which one.
        side: the longest side in pixels; None: as large as the original.
    """
    if prediction is None or picture == "original":
        drawn = Image.fromarray(decode(original, max_pixels=2**40, truncated=True).rgb)
    elif picture == "overlay":
        drawn = prediction.overlay(original)
    elif picture == "heatmap":
        drawn = prediction.heatmap()
    else:
        drawn = Image.fromarray(prediction.mask.astype("uint8") * 255)
    if side is not None and side < max(drawn.size):
        scale = side / max(drawn.size)
        size = max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale))
        drawn = drawn.resize(size, Image.Resampling.BOX if picture == "mask" else Image.Resampling.BILINEAR)
    return drawn


def _without_path(failure: Failure, name: str) -> str:
    """Return the reason of a failure, with the name that the sender gave in the place of the stored file's."""
    return failure.error.replace(repr(failure.path), repr(name)) if failure.path else failure.error
