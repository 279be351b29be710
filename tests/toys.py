"""A method with known answers, for tests of everything around methods."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip, Features
from anomalens.decision.calibration import Calibration
from anomalens.decision.pooling import ScorePooling
from anomalens.detection.detector import Detector
from anomalens.engines.contract import Identity
from anomalens.engines.torch_engine import TorchEngine
from anomalens.images.preprocessing import Preprocess
from anomalens.methods.base import Method, ScoreMap
from anomalens.options import LoadOptions
from anomalens.prediction import Failure, Prediction


class Brightness(Method):
    """The map is the red channel, the score its mean: both can be told by hand."""

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
    """An image that can be judged: red, all that the toy looks at, is `value` everywhere; the rest is noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[..., 0] = value
    return pixels
