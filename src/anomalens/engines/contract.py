"""What a detector computes with: pixels in, raw scores and maps out. One contract; nothing here imports a runtime.

The pipeline around it (decoding, tiles, batches, pooling, decisions) is `detector.py` and the same for all of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Dtype = Literal["float32", "bfloat16"]
DEFAULT_OBJECT = "object"


class Scored(NamedTuple):
    """What an engine says of a batch: larger = more abnormal."""

    score: Floats  # [B] the method's own image score, in [0, 1]
    map: Floats  # [B, H, W] at the size of the pixels; range stated by the method


@dataclass(frozen=True)
class Identity:
    """What a network is: all of it that decides scores, and what it has learned from."""

    method: str
    backbone: str
    weights: str = ""  # hash of the backbone's weights
    learned: str | None = None  # hash of what the method has learned
    options: dict[str, Any] = field(default_factory=dict)  # the method's options, JSON-ready
    object_name: str = DEFAULT_OBJECT  # what the prompts speak of
    precision: str = "float32"  # of the tower
    seed: int = 0  # of methods that draw random numbers
    auxiliary_data: str | None = None  # data sets learned from, "visa+mvtec"
    trained_images: frozenset[int] = frozenset()  # keys of the images learned from


Batch = tuple[Floats, Sequence[int]]
"""Pixels [B, 3, H, W] as `Preprocess` gives them, and one content key an image."""


class Engine(Protocol):
    """A network ready to run."""

    @property
    def identity(self) -> Identity:
        """What it is."""

    def score_batch(self, pixels: Floats, keys: Sequence[int]) -> Scored:
        """One batch (`Batch`) -> raw scores and maps."""

    def score_batches(self, batches: Iterable[Batch]) -> Iterator[Scored]:
        """Many batches, results in their order. They are drawn as they are needed: there may be no end of them."""

    def for_object(self, name: str) -> "Engine":
        """The same network with prompts about `name`; itself where it has these already.

        Raises ConfigError where the prompts cannot be changed.
        """
