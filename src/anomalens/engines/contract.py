"""Define what a detector computes with: pixels in, raw scores and maps out. Nothing here imports a runtime.

The pipeline around an engine (decoding, tiles, batches, pooling, decisions) is in `detection` and the same for all.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from anomalens.methods.references.reference_method import QUARTERS
from anomalens.options import DEFAULT_OBJECT

Floats = npt.NDArray[np.float32]

NO_WORDS = "none"
"""`Identity.method` of an engine that knows images only: it hands out levels, and its scores and maps are 0."""

GraphRun = Callable[[list[Floats]], dict[str, Floats]]
"""Run a graph: its inputs in order -> its outputs by name: `score`, `map`, and other fields of `Scored` it has."""


class Scored(NamedTuple):
    """Hold the answer of an engine for a batch: larger = more abnormal."""

    # [B] the method's own image score; range stated by the method.
    score: Floats
    # [B, h, w] at the size of the pixels or smaller; range stated by the method.
    map: Floats
    # [B, h, w] what score pooling reads, where that is not the map.
    score_map: Floats | None = None
    # [B] how unlike the good photographs each image is, in units of what is still accepted: above 1 it is of another
    # thing. None where nothing was taught.
    unlike: Floats | None = None
    # Grids of features [B, h, w, C] that photographs are compared by, where these were asked for: arrays of NumPy, or
    # tensors on a GPU.
    levels: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Identity:
    """Describe a network: all of it that decides scores, and what it has learned from."""

    method: str
    backbone: str
    # Hash of the backbone's weights.
    weights: str = ""
    # Hash of what the method has learned.
    learned: str | None = None
    # The method's options, JSON-ready.
    options: dict[str, Any] = field(default_factory=dict)
    # What the prompts call the object.
    object_name: str = DEFAULT_OBJECT
    # Whether the method calls every object alike, whatever its name.
    ignores_object: bool = False
    # Precision of the tower.
    precision: str = "float32"
    # Seed of methods that draw random numbers.
    seed: int = 0
    # Data sets learned from, "visa+mvtec".
    auxiliary_data: str | None = None
    # Keys of the images learned from.
    trained_images: frozenset[int] = frozenset()
    # What was learned, where authors published it: its name in the table, "crane:visa", or that of its file.
    published: str | None = None


class Engine(Protocol):
    """Score batches of pixels with a network that is loaded. The methods may be called from several threads."""

    @property
    def identity(self) -> Identity:
        """Say what the network is."""

    @property
    def runtime(self) -> str:
        """Say what computes: "torch", "onnx" or "openvino"."""

    @property
    def parallel(self) -> int:
        """Say how many batches are worth scoring at the same time, each in a thread of its own; at least 1."""

    def score_batch(self, pixels: Floats, keys: Sequence[int], sharing: int = 1) -> Scored:
        """Score one batch.

        Args:
            pixels: [B, 3, H, W] as `Preprocess` gives them.
            keys: a content key for each image, the seed of its random numbers.
            sharing: batches scored at the same time, this one included: the cores are divided among them.
        """

    def for_object(self, name: str) -> "Engine":
        """Return the same network with prompts about `name`; itself where it has these already.

        Raises ConfigError where the prompts cannot be changed.
        """

    def with_levels(self, depths: Sequence[float] = QUARTERS) -> "Engine":
        """Return the same network, whose answers hold `Scored.levels` too.

        depths: shares of the tower's blocks after which its patch tokens are read, see `ReferenceMethod.depths`.

        Raises ConfigError where it cannot hand them out.
        """


def threads() -> int:
    """Return how many threads a graph may use, by OMP_NUM_THREADS as for PyTorch; 0 leaves it to the runtime."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return int(limit) if limit.isdecimal() else 0
