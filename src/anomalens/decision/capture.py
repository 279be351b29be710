"""Tell photographs that cannot be judged: black, white, uniform, far too dark, blurred, or of another thing.

Such an image must never be called normal. What the pixels alone tell is always checked; good photographs tell how
bright and how sharp this camera's photographs are, and what they show.

Everything is measured on the grey image, shrunk (never enlarged) to 256 pixels on its longer side. The constants were
chosen so that none of 1,135 real and 664 drawn photographs, sound or faulty, is refused by its pixels alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

_SIDE = 256
# Grey values, 0..255, of the percentiles 0.1, 1 and 99.9: no brighter than the first is black, no darker than the
# second is white, darker than the third is far too dark.
_BLACK, _WHITE, _DARK = 3.0, 250.0, 30.0
# A smaller range of grey values is a uniform image.
_UNIFORM = 8.0
# Blurred: averaging 5 x 5 pixels leaves more than this share of the steps between neighbours, and the sharpest edge
# is weaker than this.
_SOFT, _EDGE = 0.90, 7.5
# Against good photographs: allowed difference of brightness in grey values and of sharpness in natural logarithms, at
# least, and in standard deviations of the good photographs.
_BRIGHTNESS, _SHARPNESS, _DEVIATIONS = 40.0, 0.8, 4.0


@dataclass(frozen=True)
class Capture:
    """Say how a photograph was taken, as far as its pixels tell; grey values are 0..255."""

    # Mean grey value.
    brightness: float
    # Percentiles 0.1, 1 and 99.9 of the grey values.
    lowest: float
    low: float
    highest: float
    # Share of the steps between neighbouring pixels that is left after averaging 5 x 5 pixels, in [0, 1].
    softness: float
    # 99.9th percentile of the size of the Laplacian: the sharpest edge.
    edge: float
    # Natural logarithm of the standard deviation of the Laplacian plus 0.1.
    sharpness: float


def measure_capture(rgb: npt.NDArray[np.uint8]) -> Capture:
    """Measure a photograph: uint8 [H, W, 3]."""
    picture = Image.fromarray(rgb)
    longer = max(picture.size)
    if longer > 4 * _SIDE:
        # Whole-number shrinking first, which is much faster on large photographs.
        picture = picture.reduce(longer // (2 * _SIDE))
    grey = picture.convert("L")
    if max(grey.size) > _SIDE:
        factor = _SIDE / max(grey.size)
        size = (max(1, round(grey.width * factor)), max(1, round(grey.height * factor)))
        grey = grey.resize(size, Image.Resampling.BILINEAR)
    values = np.asarray(grey, np.float32)
    lowest, low, highest = np.percentile(values, (0.1, 1, 99.9))
    inner = values[1:-1, 1:-1]
    laplacian = 4 * inner - values[:-2, 1:-1] - values[2:, 1:-1] - values[1:-1, :-2] - values[1:-1, 2:]
    if not laplacian.size:
        # Fewer than 3 pixels a side have no inside.
        laplacian = np.zeros((1, 1), np.float32)
    return Capture(
        float(values.mean()),
        float(lowest),
        float(low),
        float(highest),
        _softness(values),
        float(np.percentile(np.abs(laplacian), 99.9)),
        float(np.log(laplacian.std() + 0.1)),
    )


def _softness(values: npt.NDArray[np.float32]) -> float:
    before, after = _steps(values), _steps(_mean5(_mean5(values).T).T)
    return after / before if before else 1.0


def _mean5(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Average five rows around each, the border repeated. (Not SciPy's, whose import takes longer than an image.)"""
    padded = np.pad(values, ((2, 2), (0, 0)), mode="edge")
    return np.asarray(sum(padded[row : row + len(values)] for row in range(5)), np.float32) / np.float32(5)


def _steps(values: npt.NDArray[np.float32]) -> float:
    return float(np.abs(np.diff(values, axis=0)).sum() + np.abs(np.diff(values, axis=1)).sum())


@dataclass(frozen=True)
class CaptureLimits:
    """Hold what good photographs say of brightness and sharpness."""

    # Mean over the good photographs, and the largest difference that is accepted.
    brightness: float
    brightness_range: float
    sharpness: float
    sharpness_range: float

    @classmethod
    def of(cls, captures: Sequence[Capture]) -> "CaptureLimits":
        """Fit the limits to at least one good photograph."""
        numbers = []
        for name, least in (("brightness", _BRIGHTNESS), ("sharpness", _SHARPNESS)):
            values = np.array([getattr(capture, name) for capture in captures])
            spread = values.std(ddof=1) if len(values) > 1 else 0.0
            numbers += [float(values.mean()), float(max(least, _DEVIATIONS * spread))]
        return cls(*numbers)


def why_unusable(capture: Capture, limits: CaptureLimits | None = None, unlike: float | None = None) -> str | None:
    """Return why a photograph cannot be judged, in words; None where it can.

    Args:
        capture: of the photograph.
        limits: of the good photographs; None where nothing was taught.
        unlike: how unlike the good photographs it is, in units of what is accepted; None where nothing was taught.
    """
    if capture.highest <= _BLACK:
        return "the image is black"
    if capture.low >= _WHITE:
        return "the image is white"
    if capture.highest < _DARK:
        return "the image is far too dark"
    if capture.highest - capture.lowest < _UNIFORM:
        return "the image is uniform: there is nothing in it"
    if capture.softness > _SOFT and capture.edge < _EDGE:
        return "the image is blurred"
    if unlike is not None and unlike > 1:
        return "the image shows something else than the good photos"
    if limits is not None:
        brighter, sharper = capture.brightness - limits.brightness, capture.sharpness - limits.sharpness
        if abs(brighter) > limits.brightness_range:
            return f"the image is much {'brighter' if brighter > 0 else 'darker'} than the good photos"
        if abs(sharper) > limits.sharpness_range:
            return f"the image is much {'noisier' if sharper > 0 else 'less sharp'} than the good photos"
    return None
