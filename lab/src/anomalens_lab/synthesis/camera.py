"""Photograph a painted scene: light, tone, colour cast, blur, sensor noise, resampling, compression.

Settings are drawn once and applied alike to every version of a scene, so a clean and a faulty rendering differ only
where the fault is.
"""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from anomalens_lab.synthesis.fields import (
    Bool,
    Field,
    Random,
    blur,
    chance,
    coordinates,
    log_uniform,
    octaves,
)


@dataclass(frozen=True, eq=False)
class Shot:
    """Hold the settings of one photograph."""

    # [H,W], factor.
    light: Field
    # [H,W], added.
    glare: Field
    # [3], factor.
    gain: Field
    offset: float
    gamma: float
    grey: bool
    # Blur, pixels of the canvas.
    sigma: float
    # Standard deviation, 0..1.
    noise: float
    noise_seed: int
    # JPEG quality, 0 for none.
    quality: int
    # Side of the square that leaves the camera.
    size: int


def draw_shot(rng: Random, raw: Field, size: int, grey_share: float) -> Shot:
    """Draw random settings for the painted scene `raw` [H,W,3]; most dark scenes are exposed longer."""
    h, w = raw.shape[:2]
    u, v = coordinates(h, w, float(rng.uniform(0, 2 * np.pi)))
    u, v = u / np.float32(w), v / np.float32(h)
    light = np.ones((h, w), np.float32)
    if chance(rng, 0.6):
        light = light + np.float32(rng.uniform(0, 0.6)) * u
    if chance(rng, 0.35):
        light = light * (1 - np.float32(rng.uniform(0, 0.9)) * (u * u + v * v))
    if chance(rng, 0.15):
        light = light * (1 + np.float32(rng.uniform(0.05, 0.2)) * octaves(rng, h, w, max(h, w) * 0.6, count=2))
    glare = np.zeros((h, w), np.float32)
    if chance(rng, 0.15):
        x, y = rng.uniform(-0.6, 0.6, 2)
        spread = log_uniform(rng, 0.02, 0.4)
        glare = np.float32(rng.uniform(0.05, 0.45)) * np.exp(
            -((u - np.float32(x)) ** 2 + (v - np.float32(y)) ** 2) / np.float32(spread)
        )
    grey = chance(rng, grey_share)
    cast = rng.normal(1, 0.05, 3) if chance(rng, 0.5) else np.ones(3)
    level = float(np.quantile(raw[::4, ::4].mean(-1), 0.9))
    longer = float(rng.uniform(0.4, 0.8)) / max(level, 0.08) if level < 0.4 and chance(rng, 0.7) else 1.0
    return Shot(
        light=np.clip(light, 0.3, 1.7).astype(np.float32),
        glare=glare.astype(np.float32),
        gain=(cast * longer * rng.uniform(0.75, 1.25)).astype(np.float32),
        offset=float(rng.normal(0, 0.03)),
        gamma=log_uniform(rng, 0.7, 1.4) if chance(rng, 0.5) else 1.0,
        grey=grey,
        sigma=float(rng.uniform(0.3, 1.4)) if chance(rng, 0.45) else 0.0,
        noise=log_uniform(rng, 0.003, 0.05) if chance(rng, 0.7) else 0.0,
        noise_seed=int(rng.integers(2**31)),
        quality=int(rng.integers(35, 96)) if chance(rng, 0.4) else 0,
        size=size,
    )


def expose(image: Field, shot: Shot) -> Field:
    """Apply light and tone: [H,W,3] -> [H,W,3] in 0..1, before blur and noise."""
    out = image * shot.light[..., None]
    out = out * shot.gain + (shot.glare[..., None] + np.float32(shot.offset))
    if shot.grey:
        out = np.broadcast_to((out @ np.array([0.299, 0.587, 0.114], np.float32))[..., None], out.shape)
    out = np.clip(out, 0, 1)
    if shot.gamma != 1:
        out = out ** np.float32(shot.gamma)
    return np.asarray(out, np.float32)


def develop(exposed: Field, shot: Shot) -> npt.NDArray[np.uint8]:
    """Blur, noise, resampling to the square and compression: [H,W,3] in 0..1 -> uint8 [size,size,3]."""
    out = blur(exposed, shot.sigma) if shot.sigma else exposed
    if shot.noise:
        rng = np.random.Generator(np.random.Philox(key=shot.noise_seed))
        channels = 1 if shot.grey else 3
        noise = rng.standard_normal((*out.shape[:2], channels), dtype=np.float32)
        out = out + np.float32(shot.noise) * noise
    picture = Pillow.fromarray(np.asarray(np.clip(out * 255 + 0.5, 0, 255), np.uint8))
    if picture.size != (shot.size, shot.size):
        picture = picture.resize((shot.size, shot.size), Pillow.Resampling.BICUBIC)
    if shot.quality:
        store = io.BytesIO()
        picture.save(store, "JPEG", quality=shot.quality)
        picture = Pillow.open(store)
    return np.array(picture.convert("RGB"), np.uint8)


def develop_mask(mask: Bool, shot: Shot) -> Bool:
    """Return the mask [H,W] as the camera sees it: bool [size,size]; thin lines survive."""
    if mask.shape == (shot.size, shot.size):
        return mask
    soft = Pillow.fromarray(mask.astype(np.uint8) * 255).resize((shot.size, shot.size), Pillow.Resampling.BOX)
    return np.asarray(soft) >= 90
