"""What a method is: prompts in, features in, a score and a map out. No files, no devices, no trainer.

Shapes: B images, H W pixels, h w patch grid, N = h*w tokens, E joint width, C = 2 (normal, abnormal).
"""

import importlib
import importlib.util
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from anomalens.backbones.config import ClipConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.streams import Dense
from anomalens.backbones.tower import Clip, Features, Positions
from anomalens.errors import ConfigError
from anomalens.methods.parts.draws import Draws


@dataclass
class ScoreMap:
    """What a method says of a batch: float32, larger = more abnormal."""

    score: Tensor  # [B] image-level anomaly score, in [0, 1]
    map: Tensor  # [B, H, W] anomaly map at the size asked for; range stated by the method


class Method(nn.Module, ABC):
    """One paper. `encode` asks the tower for what it needs, `text` gives the text side, `score` compares the two.

    Subclasses hold a frozen `Config` dataclass whose defaults are the paper's and set the class attributes below.
    Learned methods keep what is learned as parameters, so `state_dict()` is the checkpoint, and add
    `loss(features, masks, labels)`.
    """

    interpolation: ClassVar[Literal["bilinear", "bicubic"]] = "bicubic"  # how the method's code resizes images
    geometry: Literal["squash", "shorter-side"] = "squash"  # to a square, or with the aspect kept
    heat_range: tuple[float, float] = (0.0, 1.0)  # map values drawn as coldest and hottest where uncalibrated
    cls: ClassVar[Literal["normed", "raw"]] = "normed"  # how the class token is read (see ImageTower)
    positions: ClassVar[Positions] = "bicubic"  # how position tables reach another grid
    switches: ClassVar[str | None] = None  # what in a map turns at a tie, so that the last digit of a token decides
    dense: tuple[Dense, ...] = ()  # the streams this method reads
    config: Any  # the frozen Config dataclass it was built from

    def __init__(self, clip: ClipConfig) -> None:
        super().__init__()
        self.clip = clip

    @property
    def unexportable(self) -> str | None:
        """Why this method cannot be a graph of its own as it is configured; None: it can."""
        return None

    @property
    def one_size(self) -> str | None:
        """Why a graph of this method takes images of one size only; None: it can take any."""
        return None

    @property
    def batch_limit(self) -> int | None:
        """Images that a graph of this method should see at once, where memory bounds them; None: any number."""
        return None

    @property
    def ordered(self) -> bool:
        """Whether what it says of an image depends on the images before it, so that none may overtake another."""
        return False

    def draws(self, text: Any, count: int) -> Draws | None:
        """The random numbers that `score` takes for an image of `count` tokens; None: it takes none.

        A graph draws nothing: it has them as inputs and finds them in `Features.drawn`.
        """
        return None

    def working_size(self, native: int) -> int:
        """Side in pixels of the square the tower sees, given the size the weights prefer."""
        return native

    def encode(self, clip: Clip, pixels: Tensor, keys: Sequence[int] = ()) -> Features:
        """Image side: normalised pixels [B, 3, H, W] -> Features. `keys`: one content key an image (random seeds)."""
        features: Features = clip.visual(pixels, self.dense, cls=self.cls, positions=self.positions)
        features.keys = tuple(keys)
        return features

    @abstractmethod
    def text(self, encoder: PromptEncoder, name: str) -> Any:
        """Text side for objects called `name` ("object" where nothing is known), computed once and kept."""

    @abstractmethod
    def score(self, features: Features, text: Any, size: tuple[int, int]) -> ScoreMap:
        """Compare: features of B images and the text side -> scores [B] and maps [B, *size]."""


@dataclass(frozen=True)
class Entry:
    """A line of the registry: what a reader of `anomalens methods` wants to know, and how to build it."""

    name: str
    title: str
    source: str  # paper, as "authors, venue year (arXiv id)"
    year: int
    learned: bool  # needs a checkpoint of learned prompts
    config: type  # its Config dataclass: the options there are
    build: Callable[..., Method]  # (clip: ClipConfig, **options) -> Method

    def accepts(self, option: str) -> bool:
        """Whether the method has an option of that name."""
        return any(field.name == option for field in fields(self.config))


_REGISTRY: dict[str, Entry] = {}


def register(
    name: str, *, title: str, source: str, year: int, config: type, learned: bool = False
) -> Callable[[Callable[..., Method]], Callable[..., Method]]:
    """Decorator on a factory `(clip: ClipConfig, **options) -> Method`; several names may share one class."""

    def add(factory: Callable[..., Method]) -> Callable[..., Method]:
        if name in _REGISTRY:
            raise ConfigError(f"method {name!r} is registered twice")
        _REGISTRY[name] = Entry(name, title, source, year, learned, config, factory)
        return factory

    return add


def entries() -> list[Entry]:
    """All methods, by year and name. Imports every method file."""
    package = importlib.import_module("anomalens.methods")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"anomalens.methods.{module.name}")
    return sorted(_REGISTRY.values(), key=lambda e: (e.year, e.name))


def entry(name: str) -> Entry:
    """The registry line of `name`; only that method's file is imported. Raises ConfigError listing what exists."""
    if name not in _REGISTRY:
        known = {e.name for e in entries()} if not _import_by_convention(name) else set(_REGISTRY)
        if name not in known:
            raise ConfigError(f"unknown method {name!r}; known: {', '.join(sorted(known))}")
    return _REGISTRY[name]


def create(name: str, clip: ClipConfig, **options: Any) -> Method:
    """Build method `name` for a backbone. `options` are fields of its Config; unknown ones raise ConfigError."""
    try:
        return entry(name).build(clip, **options)
    except TypeError as error:
        raise ConfigError(f"options of {name!r}: {error}") from error


def _import_by_convention(name: str) -> bool:
    stem = name.rstrip("+")
    module = f"anomalens.methods.{stem}"
    if not stem.isidentifier() or importlib.util.find_spec(module) is None:
        return False
    importlib.import_module(module)
    return name in _REGISTRY
