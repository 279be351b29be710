"""Draw random fields and colours: the raw material of every procedural surface.

All arrays are float32; "field" means [H,W], "image" means [H,W,3] in 0..1. Lengths are pixels. Everything is a
function of the generator handed in, so a scene depends on its seed alone.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import scipy.fft
from PIL import Image as Pillow
from scipy import ndimage

Field = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Random = np.random.Generator


def generator(seed: int, *, stream: int = 0) -> Random:
    """Return a counter-based generator: the same numbers for the same (seed, stream) in every process and thread."""
    return np.random.Generator(np.random.Philox(key=(stream << 64) + seed))


def log_uniform(rng: Random, low: float, high: float) -> float:
    """Draw a number between `low` and `high` (both > 0), equally likely on a logarithmic scale."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def chance(rng: Random, probability: float) -> bool:
    """Return True with the given probability."""
    return bool(rng.random() < probability)


def pick(rng: Random, options: Sequence[Any]) -> Any:
    """Draw one of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]


def resize(values: Field, height: int, width: int, *, smooth: bool = True) -> Field:
    """Return a field [h,w] resampled to [height,width], bicubic (`smooth`) or bilinear."""
    method = Pillow.Resampling.BICUBIC if smooth else Pillow.Resampling.BILINEAR
    return np.asarray(Pillow.fromarray(values).resize((width, height), method), dtype=np.float32)


def unit(values: Field) -> Field:
    """Stretch the field to 0..1, its outermost 0.5 % clipped so that single pixels do not set the range."""
    sample = np.sort(values.ravel()[:: max(1, values.size // 4096)])
    cut = sample.size // 200
    low, high = float(sample[cut]), float(sample[-1 - cut])
    return cast(Field, np.clip((values - low) / max(high - low, 1e-6), 0, 1))


def white(rng: Random, h: int, w: int) -> Field:
    """Draw independent normal numbers [H,W]."""
    return rng.standard_normal((h, w), dtype=np.float32)


def octaves(rng: Random, h: int, w: int, cell: float, *, count: int = 4, gain: float = 0.5) -> Field:
    """Draw multi-octave value noise [H,W] of about unit spread; `cell` is the coarsest grain in pixels."""
    total = np.zeros((h, w), np.float32)
    amplitude, power = 1.0, 0.0
    for _ in range(count):
        rows, cols = max(2, round(h / cell)), max(2, round(w / cell))
        if rows >= h or cols >= w:
            layer = white(rng, h, w)
        else:
            # One cell of margin on each side, so that the border is not a special place of the noise.
            layer = resize(white(rng, rows + 2, cols + 2), h + 2 * h // rows, w + 2 * w // cols)
            layer = layer[h // rows :, w // cols :][:h, :w]
        total += np.float32(amplitude) * layer
        power += amplitude**2
        amplitude *= gain
        cell /= 2
        if cell < 1:
            break
    return cast(Field, total / np.float32(np.sqrt(power)))


@lru_cache(maxsize=32)
def _frequencies(h: int, w: int) -> tuple[Field, Field]:
    fy = np.fft.fftfreq(h).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(w).astype(np.float32)[None, :]
    return fy, fx


def spectral(
    rng: Random,
    h: int,
    w: int,
    *,
    beta: float = 1.0,
    stretch: float = 1.0,
    angle: float = 0.0,
    band: tuple[float, float] | None = None,
) -> Field:
    """Draw noise [H,W] of zero mean and unit spread with the amplitude spectrum 1/f^beta, or a band around a frequency.

    `stretch` > 1 draws the grain out along `angle` (radians from the x axis); `band` is (centre frequency in cycles
    a pixel, relative width) and replaces the power law.
    """
    fy, fx = _frequencies(h, w)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = (c * fx + s * fy) * np.float32(stretch), -s * fx + c * fy
    radius = np.sqrt(along * along + across * across) + np.float32(1.0 / max(h, w))
    if band is None:
        envelope = radius ** np.float32(-beta)
    else:
        envelope = np.exp(-(((radius - np.float32(band[0])) / np.float32(band[0] * band[1])) ** 2))
    noise = scipy.fft.irfft2(scipy.fft.rfft2(white(rng, h, w)) * envelope, s=(h, w))
    noise -= noise.mean()
    return cast(Field, (noise / (noise.std() + 1e-9)).astype(np.float32))


def coordinates(h: int, w: int, angle: float = 0.0) -> tuple[Field, Field]:
    """Return pixel coordinates (u, v), each [H,W], about the centre and turned by `angle` radians."""
    y = np.arange(h, dtype=np.float32)[:, None] - np.float32((h - 1) / 2)
    x = np.arange(w, dtype=np.float32)[None, :] - np.float32((w - 1) / 2)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return c * x + s * y, -s * x + c * y


def cells(rng: Random, h: int, w: int, spacing: float) -> tuple[npt.NDArray[np.int64], Field, Field]:
    """Draw a Voronoi partition: labels [H,W], distance to the own seed and distance to the nearest border, pixels."""
    rows, cols = max(2, round(h / spacing)), max(2, round(w / spacing))
    gy, gx = np.mgrid[0:rows, 0:cols]
    y = np.clip((gy + rng.uniform(0, 1, gy.shape)) * h / rows, 0, h - 1).astype(int)
    x = np.clip((gx + rng.uniform(0, 1, gx.shape)) * w / cols, 0, w - 1).astype(int)
    free = np.ones((h, w), bool)
    free[y, x] = False
    distance, index = ndimage.distance_transform_edt(free, return_indices=True)
    names = np.zeros((h, w), np.int64)
    names[y, x] = np.arange(rows * cols).reshape(rows, cols)
    labels = names[index[0], index[1]]
    border = np.zeros((h, w), bool)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    edge = ndimage.distance_transform_edt(~border)
    return labels, distance.astype(np.float32), edge.astype(np.float32)


def sample(values: Field, y: Field, x: Field) -> Field:
    """Read `values` [H,W] or [H,W,3] bilinearly at (y, x), mirrored at the border; the output follows y's shape."""
    h, w = values.shape[:2]
    y = np.abs(y)
    x = np.abs(x)
    y = np.clip(np.where(y > h - 1, 2 * (h - 1) - y, y), 0, h - 1.001)
    x = np.clip(np.where(x > w - 1, 2 * (w - 1) - x, x), 0, w - 1.001)
    top, left = y.astype(np.int64), x.astype(np.int64)
    fy, fx = (y - top).astype(np.float32), (x - left).astype(np.float32)
    flat = values.reshape(h * w, -1)
    index = top * w + left
    fy, fx = fy[..., None], fx[..., None]
    upper = flat[index] * (1 - fx) + flat[index + 1] * fx
    lower = flat[index + w] * (1 - fx) + flat[index + w + 1] * fx
    out = upper * (1 - fy) + lower * fy
    return cast(Field, out if values.ndim == 3 else out[..., 0])


def blur(values: Field, sigma: float) -> Field:
    """Blur by a Gaussian over the first two axes; wide blurs are computed at reduced resolution."""
    if sigma < 0.25:
        return values
    if values.ndim == 3:
        return np.stack([blur(values[..., c], sigma) for c in range(values.shape[2])], axis=-1)
    if sigma > 4 and min(values.shape) >= 32:
        factor = min(int(sigma // 2), min(values.shape) // 16)
        small = Pillow.fromarray(np.ascontiguousarray(values)).reduce(factor)
        soft = ndimage.gaussian_filter(np.asarray(small), sigma / factor, mode="nearest", truncate=2.5)
        return resize(soft, *values.shape)
    return cast(Field, ndimage.gaussian_filter(values, sigma, mode="nearest", truncate=2.5))


def slope(height: Field, angle: float) -> Field:
    """Compute the brightness change [H,W] of a height field (pixels) under a lamp standing at `angle` radians."""
    gy, gx = np.gradient(height)
    return cast(Field, -(gx * np.float32(np.cos(angle)) + gy * np.float32(np.sin(angle))))


def smoothstep(values: Field, low: float, high: float) -> Field:
    """Return 0 below `low`, 1 above `high`, a smooth cubic between (high < low turns it round)."""
    t = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return cast(Field, t * t * (3 - 2 * t))


def hsv(hue: float, saturation: float, value: float) -> Field:
    """Return a colour [3] in 0..1 from hue (turns), saturation and value."""
    offsets = np.array([0.0, 2 / 3, 1 / 3])
    channel = np.clip(np.abs((hue + offsets) % 1 * 6 - 3) - 1, 0, 1)
    return np.asarray(value * (1 - saturation * (1 - channel)), np.float32)


def colour(rng: Random, *, low: float = 0.12, high: float = 0.92, vivid: float = 0.3) -> Field:
    """Draw a random colour [3]; `vivid` is the mean saturation, `low`..`high` the range of its value."""
    saturation = float(rng.beta(1.2, 1.2 / max(vivid, 0.01) - 1.2)) if vivid > 0 else 0.0
    # Things made by hands or grown cluster around warm hues; the rest of the wheel stays possible.
    hue = float(rng.normal(0.09, 0.05)) % 1 if chance(rng, 0.4) else float(rng.random())
    return hsv(hue, saturation, float(rng.uniform(low, high)))


def tinted(rng: Random, t: Field, *, base: Field | None = None, contrast: float | None = None) -> Field:
    """Turn a field in 0..1 into an image: light and shade around a base colour with a slight drift of hue."""
    base = colour(rng) if base is None else base
    contrast = log_uniform(rng, 0.08, 0.8) if contrast is None else contrast
    drift = rng.normal(0, 0.15, 3).astype(np.float32)
    swing = (t - np.float32(0.5)) * np.float32(contrast)
    if chance(rng, 0.5):
        swing = -swing
    return base + swing[..., None] * (np.float32(0.35) + np.float32(0.65) * base + drift)


def ramp(t: Field, colours: Sequence[Field]) -> Field:
    """Turn a field in 0..1 into an image through evenly spaced colour stops."""
    stops = np.linspace(0, 1, len(colours))
    position = np.linspace(0, 1, 256)
    table = np.stack([np.interp(position, stops, [c[k] for c in colours]) for k in range(3)], axis=-1)
    return table.astype(np.float32)[np.clip(t * 255, 0, 255).astype(np.uint8)]


def mix(a: Field, b: Field, alpha: Field) -> Field:
    """Lay image `b` over image (or colour) `a` with coverage `alpha` [H,W]."""
    weight = alpha[..., None]
    return cast(Field, a + (b - a) * weight)
