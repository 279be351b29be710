"""Read a detector from a file: a graph, and a card beside it that says what the graph is. Nothing here needs torch.

    model.onnx, model.onnx.json               ONNX Runtime
    model.xml, model.bin, model.xml.json      OpenVINO

The graph takes pixels in 0..1 at the size on the card and gives the method's raw score and map; thresholds, pooling
and colours are on the card, so that they can be changed without touching the graph.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomalens.decision.calibration import Calibration, pooling_from_dict
from anomalens.decision.capture import CaptureLimits
from anomalens.decision.pooling import ScorePooling
from anomalens.engines.contract import Floats, GraphRun, Identity, Scored
from anomalens.engines.onnx_files import external_files
from anomalens.errors import ConfigError, InputError, WeightsError, one_line
from anomalens.files import file_digest
from anomalens.images.decoding import decode
from anomalens.images.encoding import encode_image
from anomalens.images.preprocessing import Preprocess
from anomalens.methods.parts.draws import Draws
from anomalens.methods.references.reference_method import QUARTERS
from anomalens.options import Dtype
from anomalens.typed_values import checked_value
from anomalens.untrusted import read_json

SCHEMA = 1
_MOST_BYTES = 2**27  # of a card, which names every image trained on
_LARGEST = 2**14  # pixels a side, images at once
FORMATS = {".onnx": "onnx", ".xml": "openvino"}
_PARTS = {"onnx": (".onnx",), "openvino": (".bin", ".xml")}  # the file that a user names comes last


@dataclass(frozen=True)
class Card:
    """Describe a graph, and what it asks of the pipeline around it. Kept as a JSON file beside the graph."""

    # "onnx" or "openvino".
    format: str
    identity: Identity
    # Mean 0 and std 1: the backbone's own are inside the graph.
    preprocess: Preprocess
    calibration: Calibration
    pooling: ScorePooling = ScorePooling()
    # Random numbers the graph takes, besides the pixels.
    draws: Draws | None = None
    # Images at once, where memory bounds them.
    batch_limit: int | None = None
    # The side may be any multiple of this, in pixels; None: it is that of `preprocess`.
    any_size: int | None = None
    # Sides in pixels at which images are seen too, unless others are asked for.
    extra_sizes: tuple[int, ...] = ()
    # Of a taught part: what good photographs say of brightness and sharpness, where defects count (a mask, bool
    # [h, w]), the least area of a region in pixels, millimetres a pixel.
    capture: CaptureLimits | None = None
    roi: npt.NDArray[np.bool_] | None = None
    min_area: int = 0
    mm_per_px: float | None = None
    # Hash of each file of the model: see `files_of`.
    sha256: dict[str, str] = field(default_factory=dict)
    # Versions, and how far the graph is from PyTorch: for people who read the card.
    made: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary; `from_dict` is its inverse."""
        identity = asdict(self.identity) | {"trained_images": sorted(self.identity.trained_images)}
        prepared = asdict(self.preprocess)
        del prepared["mean"], prepared["std"]
        return {
            "schema": SCHEMA,
            "format": self.format,
            "identity": identity,
            "preprocess": prepared,
            "calibration": self.calibration.to_dict() | {"pooling": self.pooling.share, "top": self.pooling.top},
            "draws": asdict(self.draws) if self.draws else None,
            "batch_limit": self.batch_limit,
            "any_size": self.any_size,
            "extra_sizes": list(self.extra_sizes),
            "capture": asdict(self.capture) if self.capture else None,
            "roi": None if self.roi is None else _roi_text(self.roi),
            "min_area": self.min_area,
            "mm_per_px": self.mm_per_px,
            "sha256": self.sha256,
            "made": self.made,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Card":
        """Raise ConfigError where the content is not of this version's form."""
        try:
            if value["schema"] != SCHEMA:
                raise ConfigError(f"schema {value['schema']!r:.40}, this version reads {SCHEMA}")
            normalised = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
            own = {name: value[name] for name in ("format", "identity", "batch_limit", "any_size", "sha256", "made")}
            own["preprocess"] = checked_value("preprocess", value["preprocess"], dict[str, Any]) | normalised
            own["draws"] = value["draws"] or None
            # Cards of detectors of words alone, and older ones, lack what is known of a part.
            own |= {name: value[name] for name in ("extra_sizes", "capture", "min_area", "mm_per_px") if name in value}
            checked = {name: checked_value(name, part, _HINTS[name]) for name, part in own.items()}
            calibration = Calibration.from_dict(value["calibration"])
            roi = _roi_of_text(value["roi"]) if value.get("roi") else None
            card = cls(**checked, calibration=calibration, pooling=pooling_from_dict(value["calibration"]), roi=roi)
        except (KeyError, TypeError, AttributeError, binascii.Error, InputError) as error:
            raise ConfigError(one_line(error)) from error
        for size in (card.preprocess.size, card.preprocess.multiple, card.batch_limit or 1, card.any_size or 1):
            if not 0 < size <= _LARGEST:
                raise ConfigError(f"a size of {size} is out of range")
        return card

    @classmethod
    def read(cls, model: Path) -> "Card":
        """Read the card of `model`. Raises WeightsError where it is missing, or not one."""
        path = card_path(model)
        if not path.exists():
            raise WeightsError(
                f"{model}: the file {path.name} is not beside it; an exported detector is both, copy them together"
            )
        try:
            return cls.from_dict(read_json(path, most_bytes=_MOST_BYTES))
        except ConfigError as error:
            raise WeightsError(
                f"{path} is no description of an exported detector ({error}); export it again"
            ) from error


def _roi_text(roi: npt.NDArray[np.bool_]) -> str:
    """Return a mask as text: a PNG in base64."""
    return base64.b64encode(encode_image(Image.fromarray(roi.astype(np.uint8) * np.uint8(255)))).decode("ascii")


def _roi_of_text(text: str) -> npt.NDArray[np.bool_]:
    """Return the mask that `_roi_text` wrote. Raises ValueError for other text, InputError for another image."""
    inside: npt.NDArray[np.bool_] = decode(base64.b64decode(text, validate=True)).rgb.max(axis=2) > 0
    return inside


_HINTS = get_type_hints(Card)


def card_path(model: Path) -> Path:
    """Return where the card of a model lies."""
    return model.with_name(model.name + ".json")


def parts(model: Path) -> list[Path]:
    """List the files of a model, the one that a user names last. Raises ConfigError for a name of another kind."""
    return [model.with_suffix(suffix) for suffix in _PARTS[format_of(model)]]


def files_of(model: Path) -> dict[str, Path]:
    """Return all files of a model that exists, by what a card calls them, the one that a user names last.

    Parts are called by their suffix, files that an .onnx keeps numbers in by their name. Raises WeightsError where
    these cannot be told.
    """
    named = {part.suffix: part for part in parts(model)}
    if format_of(model) == "onnx":
        return {name: model.with_name(name) for name in external_files(model)} | named
    return named


def is_exported(name: str) -> bool:
    """Tell whether `name` is that of a model's file rather than of a method."""
    return Path(name).suffix in FORMATS


def format_of(model: Path) -> str:
    """Return "onnx" or "openvino", by the file's name. Raises ConfigError for a name of another kind."""
    if model.suffix not in FORMATS:
        raise ConfigError(f"{model}: an exported detector is called .onnx (ONNX Runtime) or .xml (OpenVINO)")
    return FORMATS[model.suffix]


class ExportedEngine:
    """Hold a graph and its card. It can be pickled: the copy opens the file anew, which must still be there."""

    # The runtime shares each batch among the cores itself.
    parallel = 1

    def __init__(self, model: Path, card: Card, run: GraphRun, device: str, dtype: Dtype) -> None:
        self.card, self.identity, self.runtime = card, card.identity, card.format
        self._model, self._run, self._device, self._dtype = model.absolute(), run, device, dtype

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (self._model, self._device, self._dtype)

    def for_object(self, name: str) -> "ExportedEngine":
        """Return itself. Raises ConfigError for another name: the text features are part of the graph."""
        if name != self.identity.object_name:
            raise ConfigError(
                f"this file was exported for objects called {self.identity.object_name!r}, not {name!r}; "
                f"export it again with --object {name!r}, or leave the name out"
            )
        return self

    def with_levels(self, depths: Sequence[float] = QUARTERS) -> "ExportedEngine":
        """Raise ConfigError: the graph has no such output."""
        raise ConfigError(
            f"{self._model.name} cannot be taught: its graph gives scores and maps only; "
            "teach the detector first, then export it"
        )

    def score_batch(self, pixels: Floats, keys: Sequence[int], sharing: int = 1) -> Scored:
        """Score pixels in 0..1 [B, 3, H, W]: scores [B] and maps [B, H, W]."""
        side = self.card.preprocess.size
        if not self.card.any_size and pixels.shape[-2:] != (side, side):
            raise ConfigError(f"pixels {pixels.shape[-2:]}, but the graph was exported for {side} x {side}")
        step = self.card.batch_limit or len(pixels)
        parts = [self._score(pixels[i : i + step], keys[i : i + step]) for i in range(0, len(pixels), step)]
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return Scored(outputs["score"], outputs["map"], outputs.get("score_map"), outputs.get("unlike"))

    def _score(self, pixels: Floats, keys: Sequence[int]) -> dict[str, Floats]:
        return self._run([np.ascontiguousarray(pixels), *(self.card.draws.draw(keys) if self.card.draws else ())])


def _check_sums(model: Path, files: dict[str, Path], card: Card) -> None:
    """Raise WeightsError unless the files, by what a card calls them, are there and are those on the card."""
    for file in files.values():
        if not file.is_file():
            raise WeightsError(f"{model}: the file {file.name}, which holds its numbers, is missing; copy all files")
    changed = [file.name for name, file in files.items() if file_digest(file) != card.sha256.get(name)]
    if changed:
        raise WeightsError(
            f"{model}: {', '.join(changed)} and {card_path(model).name} do not belong together, or one is damaged; "
            "copy all files again, or export again"
        )


def _load(model: Path, device: str, dtype: Dtype) -> ExportedEngine:
    return load(model, device=device, dtype=dtype)


def load(model: Path, *, device: str = "auto", dtype: Dtype = "float32") -> ExportedEngine:
    """Open an exported detector.

    Raises:
        WeightsError: a file is missing or damaged; ConfigError: the device or precision is not offered;
        MissingExtraError: the runtime is not installed.
    """
    kind = format_of(model)
    for part in parts(model):
        if not part.is_file():
            raise WeightsError(f"{part}: no such file; make one with `anomalens export --out {model}`")
    card = Card.read(model)
    own = {part.suffix: part for part in parts(model)}
    _check_sums(model, own, card)
    # Read from a file that is known to be the one on the card.
    _check_sums(model, {name: file for name, file in files_of(model).items() if name not in own}, card)
    if kind == "onnx":
        from anomalens.engines.onnx import open_model
    else:
        from anomalens.engines.openvino import open_model
    run = open_model(model, device, dtype)
    if dtype != "float32":
        card = replace(card, identity=replace(card.identity, precision=dtype))
    return ExportedEngine(model, card, run, device, dtype)
