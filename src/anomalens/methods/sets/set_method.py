"""Define what a set method is: it scores the images of a set against each other. No PyTorch in this file.

    levels of a batch ─▶ describe ─▶ store ──(whole set)──▶ score_set ─▶ a map of each image ─▶ join with words

An image's score depends on the other images, so there is no batch of its own to score: `detection/together.py` looks
at all images first. To add a method, add a file beside this one with a `SetMethod` subclass under `@register_set`.

Shapes: N images of the set, B images of a batch, h w a grid of patches, C channels.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from anomalens.decision.pooling import ScorePooling
from anomalens.errors import ConfigError
from anomalens.methods.parts.array_namespace import Array
from anomalens.methods.parts.method_config import MethodConfig
from anomalens.methods.parts.mutual import FeatureStore
from anomalens.options import refuse_unknown

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SetMaps:
    """Hold maps [h, w] for each image of a set, larger = more abnormal."""

    # What image scores are made of, and what people are shown; often the same arrays.
    for_score: list[Floats]
    for_map: list[Floats]
    # Whether the images were too unlike each other to be compared, so that words alone count.
    words_alone: bool = False


class SetMethod(ABC):
    """Score the images of a set against each other, as one paper does."""

    # As `anomalens methods` lists it.
    name: ClassVar[str]

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    @abstractmethod
    def pooling(self) -> ScorePooling:
        """Say how an image's score comes from its map."""

    @property
    @abstractmethod
    def uses_words(self) -> bool:
        """Return whether the map of words counts in the result."""

    @abstractmethod
    def describe(self, levels: Sequence[Array]) -> list[Array]:
        """Turn feature grids [B, h, w, C], one a level, into what the store keeps: grids of one size [B, h, w, D]."""

    @property
    @abstractmethod
    def asks_turns(self) -> bool:
        """Return whether `score_set` goes by whether the parts lie at any angle."""

    @abstractmethod
    def score_set(self, store: FeatureStore, turn_ratio: float | None = None, like_array: Array = None) -> SetMaps:
        """Score every image of the store against the others, whatever their order.

        Args:
            store: what `describe` gave for N >= 2 images, one by one.
            turn_ratio: how much less alike turned copies of some images are than the images; None where nobody knows.
            like_array: an array whose kind and device is computed with; NumPy where left out.
        """

    @abstractmethod
    def join(self, maps: SetMaps, words: Sequence[Floats]) -> SetMaps:
        """Join the maps of `score_set` with maps of words on the same grids, [h, w] for each image."""

    @abstractmethod
    def smooth(self, scores: Floats, wholes: Floats) -> Floats:
        """Smooth image scores [N] over images that look alike, by unit vectors [N, G] that describe whole images."""


@dataclass(frozen=True)
class SetEntry:
    """Describe a set method: what `anomalens methods` shows, and how to build it."""

    name: str
    title: str
    # The paper, as "authors, venue year (arXiv id)".
    source: str
    year: int
    config: type[MethodConfig]
    build: type[SetMethod]

    @property
    def options(self) -> tuple[str, ...]:
        """Return the names of the options."""
        return tuple(field.name for field in fields(self.config))


DEFAULT = "musc"
"""The set method that compares a folder with itself where none is named."""

_REGISTRY: dict[str, SetEntry] = {}
_Class = TypeVar("_Class", bound=type[SetMethod])


def register_set(
    name: str, *, title: str, source: str, year: int, config: type[MethodConfig]
) -> Callable[[_Class], _Class]:
    """Enter a SetMethod subclass into the registry."""

    def add(build: _Class) -> _Class:
        if name in _REGISTRY:
            raise ConfigError(f"set method {name!r} is registered twice")
        build.name = name
        _REGISTRY[name] = SetEntry(name, title, source, year, config, build)
        return build

    return add


def list_set_methods() -> list[SetEntry]:
    """Return all set methods, by year and name."""
    package = importlib.import_module("anomalens.methods.sets")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return sorted(_REGISTRY.values(), key=lambda entry: (entry.year, entry.name))


def is_set_method(name: str) -> bool:
    """Return whether `name` is that of a method that compares the images of a set with each other."""
    return name != "auto" and any(entry.name == name for entry in list_set_methods())


def create_set_method(name: str = DEFAULT, **options: Any) -> SetMethod:
    """Build a set method. Raises ConfigError for an unknown name or option, or a value that does not fit."""
    entries = {entry.name: entry for entry in list_set_methods()}
    if name not in entries:
        raise ConfigError(f"unknown set method {name!r}; known: {', '.join(sorted(entries))}")
    refuse_unknown(options, entries[name].options, name)
    return entries[name].build(entries[name].config(**options))
