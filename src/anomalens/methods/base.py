"""Define what a method is: words and features in, a score and a map out. No files, no devices, no trainer.

To add a method, add a file to `anomalens/methods` with a `Method` subclass under `@register`; nothing else lists names.

Shapes: B images, H W pixels, h w patch grid, N = h*w tokens, E joint width, C = 2 (normal, abnormal).
"""

import importlib
import importlib.util
import logging
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from anomalens.backbones.config import ClipConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.streams import Dense
from anomalens.backbones.tower import Clip, Features, Positions
from anomalens.errors import ConfigError
from anomalens.images.normalisation import Interpolation
from anomalens.methods.parts.draws import Draws
from anomalens.methods.parts.method_config import MethodConfig
from anomalens.options import refuse_unknown


@dataclass
class ScoreMap:
    """Hold what a method computes for a batch: float32, larger = more abnormal."""

    # [B] image-level anomaly scores, in [0, 1].
    score: Tensor
    # [B, H, W] anomaly maps at the size asked for; each method states their range.
    map: Tensor


@dataclass
class RandomFeatures(Features):
    """Hold features of a method that draws random numbers for each image (`ExportTraits.draws`)."""

    # One content key an image: the seed of its random numbers.
    keys: tuple[int, ...] = ()
    # The random numbers themselves, where they are inputs of a graph.
    drawn: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class ExportTraits:
    """State what must be known to turn a configured method into a graph that runs without PyTorch."""

    # Why this cannot be a graph at all, as the method is configured.
    unexportable: str | None = None
    # Why a graph takes images of one size only.
    one_size: str | None = None
    # The most images that a graph should see at once, where memory bounds them.
    batch_limit: int | None = None
    # Discrete choice whose ties may differ between runtimes, in words: "which subspaces a token uses".
    switches: str | None = None
    # Random numbers that a graph takes as inputs, because a graph draws none; the features are `RandomFeatures`.
    draws: Draws | None = None


class Method(nn.Module, ABC):
    """Compare images with words, as one paper does. `encode` is the image side, `text` the words, `score` compares.

    A subclass has the signature `(clip: ClipConfig, config: Config)` and sets the class attributes below. What a
    learned method learns is its parameters, so `state_dict()` is the checkpoint (`parts/learned.py`).
    """

    # Whether the method learns on auxiliary data, and so needs a checkpoint.
    learned: ClassVar[bool] = False
    # Whether the words are about the object's name; else every object is called alike.
    names_object: ClassVar[bool] = True
    # How images are resized.
    interpolation: ClassVar[Interpolation] = "bicubic"
    # "squash" resizes to a square; "shorter-side" keeps the aspect.
    geometry: Literal["squash", "shorter-side"] = "squash"
    # Map values drawn as coldest and hottest where nothing is calibrated.
    heat_range: tuple[float, float] = (0.0, 1.0)
    # How the class token is read, see `ImageTower.forward`.
    cls: ClassVar[Literal["normed", "raw"]] = "normed"
    # How the tower's position table is resized to another grid.
    positions: ClassVar[Positions] = "bicubic"
    # Streams of patch tokens that the method reads.
    dense: tuple[Dense, ...] = ()
    # Blocks, counted from 1, after which patch tokens are read for the comparison with photographs, see
    # `ImageTower.forward` and `hand_out_levels`.
    level_taps: tuple[int, ...] = ()
    # Options that change the method's own image score and nothing else; without effect where the map alone is scored.
    score_only_options: ClassVar[tuple[str, ...]] = ()
    # Of the subclass's own kind, which it declares: `config: Config`.
    config: Any

    def __init__(self, clip: ClipConfig, config: MethodConfig = MethodConfig()) -> None:
        super().__init__()
        self.clip, self.config = clip, config

    @property
    def ordered(self) -> bool:
        """Return True if scores depend on earlier images; batches then run sequentially."""
        return False

    def export_traits(self, size: int) -> ExportTraits:
        """Return what an exporter must know of a graph made for images of `size` x `size` pixels."""
        return ExportTraits()

    def working_size(self, native: int) -> int:
        """Return the side in pixels of the square the tower sees, given the size the weights prefer."""
        return native

    def load_networks(self, *, offline: bool) -> None:
        """Load the networks, besides the backbone, that the options name; `offline` forbids the network.

        Raises WeightsError where one is missing or damaged.
        """

    def encode(self, clip: Clip, pixels: Tensor, keys: Sequence[int] = ()) -> Features:
        """Encode normalised pixels [B, 3, H, W]. `keys`: one content key an image, the seed of its random numbers."""
        features: Features = clip.visual(
            pixels, self.dense, cls=self.cls, positions=self.positions, level_taps=self.level_taps
        )
        return features

    def encode_frozen(self, clip: Clip, pixels: Tensor, keys: Sequence[int] = ()) -> Features:
        """Encode as much as `encode` does without anything learned: it never changes in training and may be kept."""
        return self.encode(clip, pixels, keys)

    def encode_learned(self, clip: Clip, frozen: Features) -> Features:
        """Finish what `encode_frozen` began: together they give what `encode` gives."""
        return frozen

    def hand_out_levels(self, taps: tuple[int, ...]) -> None:
        """Have `encode` read what `levels` returns, from now on.

        taps: blocks of the tower, counted from 1, after which patch tokens are read. Without any, `levels` returns
            what the method itself compares with words, if it is one that compares it with photographs too.
        """
        self.level_taps = taps

    def levels(self, features: Any) -> tuple[Tensor, ...]:
        """Return what photographs are compared by: grids of features [B, h, w, C] of what `encode` gave."""
        return tuple(level.permute(0, 2, 3, 1) for level in features.levels)

    @abstractmethod
    def text(self, encoder: PromptEncoder, name: str) -> Any:
        """Encode the words for objects called `name` ("object" where nothing is known). Callers keep the result."""

    @abstractmethod
    def score(self, features: Any, text: Any, size: tuple[int, int]) -> ScoreMap:
        """Compare what `encode` made of B images with what `text` made of words -> scores [B] and maps [B, *size]."""


def image_embedding(features: Features) -> Tensor:
    """Return the unit image embeddings f̂ [B, E]."""
    assert features.cls is not None
    return F.normalize(features.cls, dim=-1)


def warn_score_only(method: Method, changed: Iterable[str]) -> None:
    """Log a warning where changed options have no effect, for a caller whose image score comes from the map alone."""
    idle = [name for name in changed if name in method.score_only_options]
    if idle:
        logging.getLogger("anomalens").warning(
            "%s changes nothing here but the time it takes: it acts on the method's own score, and the image score"
            " of this detector comes from the map alone",
            ", ".join(idle),
        )


@dataclass(frozen=True)
class Entry:
    """Describe a method: what `anomalens methods` shows, and how to build it."""

    name: str
    title: str
    # The paper, as "authors, venue year (arXiv id)".
    source: str
    year: int
    # The Config dataclass: its fields are the options.
    config: type[MethodConfig]
    build: type[Method]

    @property
    def learned(self) -> bool:
        """Tell whether it needs a checkpoint of what it learned."""
        return self.build.learned

    @property
    def options(self) -> tuple[str, ...]:
        """Return the names of the options."""
        return tuple(field.name for field in fields(self.config))


_REGISTRY: dict[str, Entry] = {}
_Class = TypeVar("_Class", bound=type[Method])


def register(
    name: str, *, title: str, source: str, year: int, config: type[MethodConfig] = MethodConfig
) -> Callable[[_Class], _Class]:
    """Enter a Method subclass into the registry; one class may stand under several names with different Configs."""

    def add(build: _Class) -> _Class:
        if name in _REGISTRY:
            raise ConfigError(f"method {name!r} is registered twice")
        _REGISTRY[name] = Entry(name, title, source, year, config, build)
        return build

    return add


def list_methods() -> list[Entry]:
    """Return all methods, by year and name. Imports every file of methods."""
    package = importlib.import_module("anomalens.methods")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"anomalens.methods.{module.name}")
    return sorted(_REGISTRY.values(), key=lambda entry: (entry.year, entry.name))


def entry(name: str) -> Entry:
    """Return the entry of `name`, importing its file alone where that is called so ("crane+" stands in crane.py).

    Raises ConfigError listing the methods that exist.
    """
    module = f"anomalens.methods.{name.rstrip('+')}"
    if name not in _REGISTRY and name.rstrip("+").isidentifier() and importlib.util.find_spec(module):
        importlib.import_module(module)
    if name not in _REGISTRY:
        known = sorted(entry.name for entry in list_methods())
        if name not in known:
            raise ConfigError(f"unknown method {name!r}; known: {', '.join(known)}")
    return _REGISTRY[name]


def create(name: str, clip: ClipConfig, *, offline: bool = False, **options: Any) -> Method:
    """Build method `name` for a backbone.

    Args:
        name: as registered.
        clip: sizes of the backbone.
        offline: never touch the network, also where an option names weights by a hub id.
        options: fields of the method's Config.

    Raises:
        ConfigError: no such method or option, or a value that does not fit; the message names what there is.
        WeightsError: a network that an option names is missing or damaged.
    """
    registered = entry(name)
    refuse_unknown(options, registered.options, name)
    method = registered.build(clip, registered.config(**options))
    method.load_networks(offline=offline)
    # Whatever the program's default is.
    return method.float()
