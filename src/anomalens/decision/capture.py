"""Tell photographs that cannot be judged: black, white, uniform, far too dark, blurred, or of another thing.

Such an image must never be called normal. What the pixels alone tell is always checked; good photographs tell how
bright and how sharp this camera's photographs are, and what they show.

Everything is measured on the grey image, shrunk to at most 256 pixels a side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

_SIDE = 256
# Grey values (0..255): a range below this between the 1st and 99th percentile is a uniform image.
_UNIFORM = 6.0
# The 99th percentile of a photograph that is far too dark, the 1st of an overexposed one.
_DARK, _BRIGHT = 24.0, 250.0
# Against good photographs: allowed difference of brightness in grey values and of sharpness in natural logarithms, at
# least, and in standard deviations of the good photographs.
_BRIGHTNESS, _SHARPNESS, _DEVIATIONS = 25.0, 0.5, 4.0


@dataclass(frozen=True)
class Capture:
    """How a photograph was taken, as far as its pixels tell."""

    # Mean grey value, 0..255.
    brightness: float
    # 1st and 99th percentile of the grey values.
    darkest: float
    brightest: float
    # Natural logarithm of the standard deviation of the Laplacian, in grey values.
    sharpness: float


def measure_capture(rgb: npt.NDArray[np.uint8]) -> Capture:
    """Measure a photograph: uint8 [H, W, 3]."""
    picture = Image.fromarray(rgb)
    factor = max(1, min(picture.size) // _SIDE)
    # Whole-number shrinking first: fast, and the same for every size.
    grey = picture.reduce(factor).convert("L") if factor > 1 else picture.convert("L")
    grey.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    values = np.asarray(grey, np.float32)
    padded = np.pad(values, 1, mode="edge")
    laplacian = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * values
    darkest, brightest = np.percentile(values, (1, 99))
    return Capture(float(values.mean()), float(darkest), float(brightest), float(np.log(laplacian.std() + 0.1)))


@dataclass(frozen=True)
class CaptureLimits:
    """What good photographs say of brightness and sharpness."""

    # Mean over the good photographs, and the largest difference that is accepted.
    brightness: float
    brightness_range: float
    sharpness: float
    sharpness_range: float

    @classmethod
    def of(cls, captures: Sequence[Capture]) -> "CaptureLimits":
        """Fit the limits to at least one good photograph."""
        brightness, sharpness = (
            np.array([getattr(capture, name) for capture in captures]) for name in ("brightness", "sharpness")
        )
        return cls(
            float(brightness.mean()),
            float(max(_BRIGHTNESS, _DEVIATIONS * brightness.std())),
            float(sharpness.mean()),
            float(max(_SHARPNESS, _DEVIATIONS * sharpness.std())),
        )


def why_unusable(capture: Capture, limits: CaptureLimits | None = None, unlike: float | None = None) -> str | None:
    """Return why a photograph cannot be judged, in words; None where it can.

    Args:
        capture: of the photograph.
        limits: of the good photographs; None where nothing was taught.
        unlike: how unlike the good photographs it is, in units of what is accepted.
    """
    if capture.brightest < _DARK:
        return "the image is black or far too dark"
    if capture.darkest > _BRIGHT:
        return "the image is white or far too bright"
    if capture.brightest - capture.darkest < _UNIFORM:
        return "the image is uniform: there is nothing in it"
    if limits is not None:
        brighter, sharper = capture.brightness - limits.brightness, capture.sharpness - limits.sharpness
        if abs(brighter) > limits.brightness_range:
            return f"the image is much {'brighter' if brighter > 0 else 'darker'} than the good photos"
        if sharper < -limits.sharpness_range:
            return "the image is blurred, compared with the good photos"
        if sharper > limits.sharpness_range:
            return "the image is much noisier than the good photos"
    if unlike is not None and unlike > 1:
        return "the image shows something else than the good photos"
    return None
