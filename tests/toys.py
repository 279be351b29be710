"""A method with known answers, for tests of everything around methods."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip, Features
from anomalens.decision.calibration import Calibration
from anomalens.decision.pooling import ScorePooling
from anomalens.detection.detector import Detector
from anomalens.engines.contract import Floats, Identity, Scored
from anomalens.engines.torch_engine import TorchEngine
from anomalens.images.preprocessing import Preprocess
from anomalens.methods.base import Method, ScoreMap
from anomalens.methods.references.reference_method import QUARTERS
from anomalens.options import LoadOptions
from anomalens.prediction import Failure, Prediction


class Brightness(Method):
    """Take the red channel as the map, its mean as the score: both can be told by hand."""

    def encode(self, clip: Clip, pixels: Tensor, keys: Sequence[int] = ()) -> Features:
        self.batches = [*getattr(self, "batches", []), (pixels.shape[0], tuple(keys))]
        return Features(None, ((pixels[:, 0],),), (1, 1))

    def text(self, encoder: PromptEncoder, name: str) -> Any:
        self.asked = [*getattr(self, "asked", []), name]

    def score(self, features: Features, text: Any, size: tuple[int, int]) -> ScoreMap:
        red = features.dense[0][0]
        return ScoreMap(red.mean(dim=(1, 2)), red)


NO_CHANGE: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def make(
    tiny_clip: Clip, calibration: Calibration | None = None, pooling: ScorePooling | None = None, **config: Any
) -> Detector:
    settings = LoadOptions(**config)
    identity = Identity("brightness", "tiny", object_name=settings.object_name)
    return Detector(
        TorchEngine(tiny_clip, Brightness(tiny_clip.config), PromptEncoder(tiny_clip), identity),
        Preprocess(size=64, multiple=16, **NO_CHANGE),
        calibration or Calibration(0.5, 0.6, (0.0, 1.0), "by hand"),
        settings,
        pooling or ScorePooling(),
        extra_sizes=settings.extra_sizes or (),
    )


def torch_engine(detector: Detector) -> TorchEngine:
    """Return the detector's engine, which must be PyTorch's."""
    assert isinstance(detector.engine, TorchEngine)
    return detector.engine


def toy_of(detector: Detector) -> Brightness:
    """Return the toy method of a detector that `make` made, to ask what it was called with."""
    method = torch_engine(detector).method
    assert isinstance(method, Brightness)
    return method


def predictions(answers: Iterable[Prediction | Failure]) -> list[Prediction]:
    """Return the answers, none of which may be a failure."""
    results = []
    for answer in answers:
        assert isinstance(answer, Prediction), answer
        results.append(answer)
    return results


def grey(value: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def speckled(value: int, height: int = 64, width: int = 64) -> np.ndarray:
    """Return an image that can be judged: red, all that the toy looks at, is `value` everywhere; the rest is noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[..., 0] = value
    return pixels


class Patches:
    """Hand out the pixels of 8 x 8 cells as features, so that equal cells are equal patches. No network.

    Words' map is the red channel, their score its mean.
    """

    runtime = "numpy"

    def __init__(self, identity: Identity | None = None, hands_out: bool = False) -> None:
        self.identity = identity or Identity("brightness", "patches")
        self.parallel = 2
        self._hands_out = hands_out

    def for_object(self, name: str) -> "Patches":
        return self if name == self.identity.object_name else Patches(replace(self.identity, object_name=name))

    def with_levels(self, depths: Sequence[float] = QUARTERS) -> "Patches":
        return Patches(self.identity, hands_out=True)

    def score_batch(self, pixels: Floats, keys: Sequence[int], sharing: int = 1) -> Scored:
        batch, _, height, width = pixels.shape
        cells = pixels.reshape(batch, 3, height // 8, 8, width // 8, 8).transpose(0, 2, 4, 1, 3, 5)
        level = cells.reshape(batch, height // 8, width // 8, -1) - np.float32(0.5)
        red = pixels[:, 0]
        return Scored(red.mean((1, 2)), red, levels=(level, level) if self._hands_out else ())


def make_patches(**options: Any) -> Detector:
    """Return a detector on `Patches` that sees images at 64 x 64 pixels."""
    settings = LoadOptions(**options)
    calibration = Calibration(0.5, 0.6, (0.0, 1.0), "by hand")
    identity = Identity("brightness", "patches", object_name=settings.object_name)
    return Detector(Patches(identity), Preprocess(size=64, multiple=16, **NO_CHANGE), calibration, settings)


def parts(count: int, faulty: Sequence[int] = (), seed: int = 4) -> list[np.ndarray]:
    """Return images [64, 64, 3] of one kind of part, a little different each; faulty ones have the same square.

    The square covers rows 16 to 31 and columns 40 to 55.
    """
    rng = np.random.default_rng(seed)
    part, square = rng.integers(60, 200, (64, 64, 3)), rng.integers(60, 200, (16, 16, 3))
    images = []
    for number in range(count):
        image = part + rng.integers(-6, 7, part.shape)
        if number in faulty:
            image[16:32, 40:56] = square + rng.integers(-6, 7, square.shape)
        images.append(image.astype(np.uint8))
    return images
