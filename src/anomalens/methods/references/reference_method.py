"""Define what a reference method is: feature grids of good photographs in, distances and a map out. No PyTorch here.

    levels of good photographs ─▶ describe ─▶ remember ─▶ R (arrays only)
    levels of an image ─────────▶ describe ─▶ compare with R ─▶ join with the map of words ─▶ score, map

Everything is written against arrays of NumPy or PyTorch alike (`parts/array_namespace.py`), so that a part taught with
one gives the same scores with the other. To add a method, add a file beside this one with a `ReferenceMethod` subclass
under `@register_reference`.

Shapes: K photographs, V views of them all (turned copies included), B images, h w a grid of patches, D channels.
"""

import importlib
import importlib.util
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from anomalens.errors import ConfigError
from anomalens.methods.parts.array_namespace import Array
from anomalens.methods.parts.method_config import MethodConfig
from anomalens.options import refuse_unknown

Descriptors: TypeAlias = tuple[Array, ...]
"""One or several grids of patch descriptors, each [V, h, w, D] with its own h, w and D."""

QUARTERS = (0.25, 0.5, 0.75, 1.0)
"""Depths of a tower, as shares of its blocks: the ends of its quarters."""

Owners: TypeAlias = npt.NDArray[np.int64]
"""[V] number of the photograph that each view shows, 0..K-1; its first view is the photograph as it is."""


@dataclass(frozen=True)
class ReferenceConfig(MethodConfig):
    """Hold the options that all reference methods share. Subclasses set their paper's values as defaults."""

    # Views of each photograph at equal steps of a full turn; 1: as it is; 0: decided by the photographs themselves.
    turns: int = 1
    # Whether mirrored views are added.
    mirrored: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.turns <= 64:
            raise ConfigError(
                f"turns {self.turns} must lie in 0..64: 1 keeps photographs as they are, 0 decides by them"
            )


@dataclass(frozen=True)
class Compared:
    """Hold distances of images to good photographs, larger = more abnormal."""

    # [B, h, w] what the image score is made of.
    for_score: Array
    # [B, h, w] what the map is made of; often the same array.
    for_map: Array


@dataclass(frozen=True)
class Words:
    """Hold what a zero-shot method says of the same images."""

    # [B] image scores.
    score: Array
    # [B, H, W] maps, at the size of the pixels.
    map: Array


@dataclass(frozen=True)
class Joined:
    """Hold scores and maps of images, from photographs and words together."""

    # [B, h', w'] the map; any size, because readers enlarge it.
    map: Array
    # [B] image scores; None where they are the mean of the largest values of `score_map`.
    score: Array | None = None
    # [B, h', w'] what image scores are made of; None where that is the map itself.
    score_map: Array | None = None


R = TypeVar("R")


class ReferenceMethod(ABC, Generic[R]):
    """Compare images with good photographs, as one paper does.

    R is a frozen dataclass of arrays: what is remembered of the photographs. `fit_join` adds what must be known of
    ordinary distances and words to join both, as plain numbers. Neither ever sees an image in question.
    """

    # The zero-shot method that this one is part of and whose score it takes; None: any.
    words: ClassVar[str | None] = None
    # Depths of the tower, as shares of its blocks, after which patch tokens are read; a convolutional stem hands out
    # its own levels whatever they are. (): what the zero-shot method in `words` compares by itself.
    depths: ClassVar[tuple[float, ...]] = QUARTERS
    # What is remembered, R.
    remembers: ClassVar[type[Any]]
    # Whether image scores are the mean of the largest 1 % of `Joined.score_map`; else `Joined.score` has them.
    pools_map: ClassVar[bool] = True

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def uses_words(self) -> bool:
        """Return whether the map or score of words counts in the result."""
        return self.words is not None

    @property
    def standardised(self) -> bool:
        """Return whether scores are in deviations from ordinary; else they are distances as they are."""
        return False

    @property
    def unexportable(self) -> str | None:
        """Return why the method, as it is configured, cannot be part of a graph; None where it can."""
        return None

    @abstractmethod
    def describe(self, levels: Sequence[Array]) -> Descriptors:
        """Turn feature grids [V, h, w, C], one a level, into descriptors of patches."""

    @abstractmethod
    def remember(self, descriptors: Descriptors, owners: Owners, seed: int) -> R:
        """Keep what later images are compared with. `seed`: of everything drawn at random."""

    @abstractmethod
    def compare(self, descriptors: Descriptors, remembered: R) -> Compared:
        """Compare B images with what is remembered."""

    def without(self, remembered: R, descriptors: Descriptors, owners: Owners, photo: int, seed: int) -> R:
        """Return what would be remembered without one photograph, all its views included. K >= 2."""
        kept = owners != photo
        _, others = np.unique(owners[kept], return_inverse=True)
        return self.remember(tuple(part[kept] for part in descriptors), others, seed)

    def fit_join(self, ordinary: Compared, words: Words) -> Mapping[str, float]:
        """Return numbers that `join` needs, from good photographs alone.

        Args:
            ordinary: of K photographs, each compared with the others only.
            words: of the same photographs.
        """
        return {}

    @abstractmethod
    def join(self, compared: Compared, words: Words, fitted: Mapping[str, float]) -> Joined:
        """Make scores and maps of what images are like, seen by photographs and by words."""


@dataclass(frozen=True)
class ReferenceEntry:
    """Describe a reference method: what `anomalens methods` shows, and how to build it."""

    name: str
    title: str
    # The paper, as "authors, venue year (arXiv id)".
    source: str
    year: int
    config: type[ReferenceConfig]
    build: type[ReferenceMethod[Any]]

    @property
    def options(self) -> tuple[str, ...]:
        """Return the names of the options."""
        return tuple(field.name for field in fields(self.config))


_REGISTRY: dict[str, ReferenceEntry] = {}
_Class = TypeVar("_Class", bound=type[ReferenceMethod[Any]])

FINER = 4
"""Cells a patch, in height and width, at which maps of words are kept of good photographs."""

DEFAULT = "memory"
"""The reference method that is joined with a zero-shot method where none is named."""


def register_reference(
    name: str, *, title: str, source: str, year: int, config: type[ReferenceConfig]
) -> Callable[[_Class], _Class]:
    """Enter a ReferenceMethod subclass into the registry."""

    def add(build: _Class) -> _Class:
        if name in _REGISTRY:
            raise ConfigError(f"reference method {name!r} is registered twice")
        _REGISTRY[name] = ReferenceEntry(name, title, source, year, config, build)
        return build

    return add


def reference_entry(name: str) -> ReferenceEntry:
    """Return the entry of `name`. Raises ConfigError listing the reference methods that exist."""
    if name not in _REGISTRY:
        _import_all()
    if name not in _REGISTRY:
        raise ConfigError(f"unknown reference method {name!r}; known: {', '.join(sorted(_REGISTRY))}")
    return _REGISTRY[name]


def is_reference_method(name: str) -> bool:
    """Return whether `name` is that of a method that compares with good photographs; "auto" is not."""
    if name not in _REGISTRY and name != "auto":
        _import_all()
    return name in _REGISTRY


def list_reference_methods() -> list[ReferenceEntry]:
    """Return all reference methods, by year and name."""
    _import_all()
    return sorted(_REGISTRY.values(), key=lambda entry: (entry.year, entry.name))


def create_reference(name: str, **options: Any) -> ReferenceMethod[Any]:
    """Build a reference method. Raises ConfigError for an unknown name or option, or a value that does not fit."""
    registered = reference_entry(name)
    refuse_unknown(options, registered.options, name)
    return registered.build(registered.config(**options))


def taps_at(layers: int, depths: Sequence[float]) -> tuple[int, ...]:
    """Return the blocks, counted from 1, at depths of a tower of `layers` blocks; some may be the same block."""
    # Depths are fractions that floating point may hold a little too small.
    return tuple(max(1, int(layers * depth + 1e-6)) for depth in depths)


@cache
def _import_all() -> None:
    """Import every file of reference methods."""
    package = importlib.import_module("anomalens.methods.references")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
