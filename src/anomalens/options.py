"""Define the options of a detector once; the library, the command line, benchmark files and run records read them here.

To add an option, add a field to `LoadOptions`: it is then an argument of `load_detector`, a flag of every command that
loads a detector (with its help), a key of a benchmark file's [settings], and a line of `run.json`.
"""

import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from functools import cache
from typing import Any, Literal, get_type_hints

from anomalens.errors import ConfigError
from anomalens.files import json_ready
from anomalens.names import did_you_mean, is_text
from anomalens.typed_values import checked_value

Dtype = Literal["float32", "bfloat16"]
EngineName = Literal["auto", "onnx", "openvino", "torch"]
Effect = Literal["scores", "source", "decision", "inputs", "speed"]
"""What an option changes: the scores; the weights (recorded by their hashes); the decision; which files can be read;
speed and memory alone."""

BUNDLED = "bundled"
# Pixels of a side at which a tower sees an image. More than the largest fits into no memory: larger images are tiled.
_LEAST_SIDE, _LARGEST_SIDE = 16, 8192
_LONGEST_NAME = 1000  # characters of an object's name
DEFAULT_OBJECT = "object"

RENAMED = {
    "also": "extra_sizes",
    "draft": "fast_jpeg",
    "object": "object_name",
    "options": "method_options",
    "precision": "dtype",
}
"""Names that settings had in files written by anomalens 0.1, and their names now."""


def _option(default: Any, help: str, effect: Effect = "scores", minimum: float | None = None, flag: str = "") -> Any:
    return field(default=default, metadata={"help": help, "effect": effect, "minimum": minimum, "flag": flag})


@dataclass(frozen=True)
class LoadOptions:
    """Hold everything that `load_detector` can be told. Checked when it is made.

    Raises ConfigError naming the option whose value is of the wrong type or out of range.
    """

    method: str = _option(
        "auto", "A method (`anomalens methods`), a file made by `anomalens export`, or 'auto' for the best one shipped."
    )
    recipe: str | None = _option(
        None,
        "A part taught by `anomalens fit` (.anomalens), which settles method, backbone, object and sizes.",
        "source",
    )
    backbone: str = _option(BUNDLED, "Weights: a name (`anomalens backbones`), a hub id, a folder or a file.")
    object_name: str = _option(
        DEFAULT_OBJECT, "What the images show, as the prompts call it: 'bottle'.", flag="--object"
    )
    checkpoint: str | None = _option(
        None,
        "What a learned method has learned: a file, or the name of a published one (`anomalens checkpoints`). Unless "
        "given, what is shipped with the bundled backbone, and what the authors published for ViT-L-14-336.",
        "source",
    )
    strict_backbone: bool = _option(True, "Refuse a checkpoint that was learned with other weights.", "source")
    calibration: str | None = _option(None, "Decide by this file of `anomalens calibrate`.", "decision")
    threshold: float | None = _option(None, "Image score above which an image is anomalous.", "decision")
    pixel_threshold: float | None = _option(None, "Map value above which a pixel is in the mask.", "decision")
    roi: str | None = _option(
        None, "Count defects only inside this mask: an image of any size, not black where they count.", "decision"
    )
    min_area: int = _option(0, "Leave out regions of fewer pixels of the image than this.", "decision", minimum=0)
    mm_per_px: float | None = _option(None, "Millimetres a pixel: regions then state their size in mm.", "decision")
    size: int | None = _option(
        None, "Side in pixels at which the tower sees an image; unless given, what the method prefers.", minimum=16
    )
    tile: int | None = _option(None, "Cut images into overlapping tiles of this many pixels a side.", minimum=16)
    overlap: float = _option(0.25, "Share of a tile that it has in common with the next, in [0, 1).", minimum=0)
    extra_sizes: tuple[int, ...] | None = _option(
        None,
        "See everything at this many pixels a side too; score and map are the mean. May be repeated; 0: at one size "
        "only. Unless given, 'auto' looks at a second size and everything else at one.",
        flag="--extra-size",
    )
    fast_jpeg: bool = _option(
        False, "Decode large JPEGs at 1/2, 1/4 or 1/8 where the tower sees less anyway; scores move a little."
    )
    truncated_jpeg: bool = _option(
        False, "Also read JPEGs whose end is missing; the lost part is grey, and a note says so.", "inputs"
    )
    max_pixels: int | None = _option(
        None, "Largest image read, in pixels; 89 million unless given.", "inputs", minimum=1
    )
    dtype: Dtype = _option("float32", "Precision of the tower.")
    seed: int = _option(0, "Seed of methods that draw random numbers (anoclip+).")
    batch_size: int = _option(8, "Images or tiles in one pass; changes speed and memory only.", "speed", minimum=1)
    workers: int = _option(2, "Threads that decode images ahead.", "speed", minimum=1)
    device: str = _option("auto", "Where to compute: auto, cpu, cuda, cuda:1, ...", "speed")
    engine: EngineName = _option(
        "auto",
        "What computes: onnx or openvino run the graph shipped with the bundled backbone, torch runs everything; auto "
        "takes the graph where it does what is asked for, else torch.",
        "speed",
    )
    offline: bool = _option(False, "Never touch the network.", "speed")
    cache: str | None = _option(None, "Folder for text features; unless given, the user's cache folder.", "speed")
    method_options: Mapping[str, Any] = field(
        default_factory=dict,
        metadata={
            "help": "An option of the method as NAME=VALUE, for instance views=1. May be repeated.",
            "effect": "scores",
            "minimum": None,
            "flag": "--set",
        },
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            value = _checked(option, getattr(self, option.name))
            # All text but the object's name may be a path.
            if isinstance(value, str) and option.name != "object_name":
                value = os.path.expanduser(value)
            object.__setattr__(self, option.name, value)
        if self.overlap >= 1:
            raise ConfigError(f"overlap {self.overlap} must lie in [0, 1): it is a share of the tile")
        if self.extra_sizes is not None:
            sides = tuple(side for side in self.extra_sizes if side)
            if any(side < _LEAST_SIDE for side in sides):
                raise ConfigError(f"extra_sizes {self.extra_sizes} is too small: the least is {_LEAST_SIDE}")
            object.__setattr__(self, "extra_sizes", sides)
        if largest := [side for side in (self.size or 0, *(self.extra_sizes or ())) if side > _LARGEST_SIDE]:
            raise ConfigError(f"a size of {largest[0]} is too large: the largest is {_LARGEST_SIDE:,}; use tile")
        if self.mm_per_px is not None and self.mm_per_px <= 0:
            raise ConfigError(f"mm_per_px {self.mm_per_px} must be above 0; 0.05 means 20 pixels a millimetre")
        if not is_text(self.object_name):
            raise ConfigError(f"object_name {self.object_name!r} is not valid text")
        if len(self.object_name) > _LONGEST_NAME:
            raise ConfigError(f"object_name has more than {_LONGEST_NAME:,} characters")
        if not self.object_name.strip():
            raise ConfigError("object_name is empty; leave it out to use 'object'")

    @classmethod
    def names(cls, *effects: Effect) -> tuple[str, ...]:
        """Return the names of all options, or of those that have one of these effects."""
        return tuple(option.name for option in fields(cls) if not effects or option.metadata["effect"] in effects)

    def replace(self, **changes: Any) -> "LoadOptions":
        """Return a copy with some options changed."""
        refuse_unknown(changes, self.names(), "options")
        return replace(self, **changes)

    def chosen(self) -> dict[str, Any]:
        """Return the options that differ from their default, by name."""
        defaults = _defaults()
        return {name: getattr(self, name) for name in self.names() if getattr(self, name) != defaults[name]}


HINTS: dict[str, Any] = get_type_hints(LoadOptions)
"""Type of each option, by name."""


@cache
def _defaults() -> dict[str, Any]:
    options = LoadOptions()
    return {name: getattr(options, name) for name in options.names()}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """Compare two records of settings, each of which may have been written by an older version.

    A setting that a record does not name counts as left at its default, so that records written before an option
    existed stay valid.

    Returns a phrase for each setting that differs, by name: {"extra_sizes": "--extra-size was not given then, 320
    now"}.
    """
    defaults, flags = _defaults(), {option.name: flag(option) for option in fields(LoadOptions)}
    records = [_modern(record) for record in (before, after)]
    phrases = {}
    for name in sorted(records[0].keys() | records[1].keys()):
        old, new = (json_ready(defaults.get(name) if record.get(name) is None else record[name]) for record in records)
        if (old or None) != (new or None):
            called, missing = (flags[name], "not given") if name in flags else (name, "not set")
            phrases[name] = f"{called} was {_in_words(old, missing)} then, {_in_words(new, missing)} now"
    return phrases


def flag(option: "Field[Any]") -> str:
    """Return how the command line calls an option of `LoadOptions`."""
    return option.metadata["flag"] or f"--{option.name.replace('_', '-')}"


def _modern(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with the names of today, without what version 0.1 kept in two places."""
    renamed = {RENAMED.get(name, name): value for name, value in record.items()}
    if isinstance(renamed.get("calibration"), Mapping):
        repeated = ("pooling", "top", "options")
        renamed["calibration"] = {name: value for name, value in renamed["calibration"].items() if name not in repeated}
    return renamed


def _in_words(value: Any, missing: str = "not set") -> str:
    if value is None or value in ("", [], {}):
        return missing
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(map(_in_words, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}={_in_words(part)}" for name, part in value.items())
    return f"{value:g}" if isinstance(value, float) else f"{value!s:.100}"


def refuse_unknown(values: Mapping[str, Any], known: tuple[str, ...], owner: str) -> None:
    """Raise ConfigError where `values` has a key that is not among `known`: it names the key and what `owner` has."""
    for name in values:
        if name not in known:
            hint = did_you_mean(RENAMED.get(name, name), known)
            raise ConfigError(f"unknown option {name!r}{hint}; {owner} has: {', '.join(known) or 'none'}")


def _checked(option: "Field[Any]", value: Any) -> Any:
    """Return the value of an option of `LoadOptions`, in its type and not below its minimum; else raise ConfigError."""
    value = checked_value(option.name, value, HINTS[option.name])
    least = option.metadata["minimum"]
    numbers = value if isinstance(value, tuple) else (value,)
    if least is not None and any(number is not None and number < least for number in numbers):
        raise ConfigError(f"{option.name} {value} is too small: the least is {least}")
    return value
