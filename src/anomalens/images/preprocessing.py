"""Resize and normalise images as a backbone expects them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomalens.errors import ConfigError, InputError
from anomalens.images.normalisation import Interpolation, Triple
from anomalens.images.pixel_values import Rgb

MAX_ASPECT = 64
"""Largest ratio of the sides that `geometry="shorter-side"` accepts: beyond it the resized image would be huge."""


@dataclass(frozen=True)
class Preprocess:
    """Describe how a backbone wants its pixels. These values belong to the weights and are read with them.

    Raises ConfigError naming the field whose value cannot be used.
    """

    # Target side in pixels: of the square, or of the shorter side.
    size: int
    # Subtracted per channel from values in [0, 1].
    mean: Triple
    # Divided by, per channel; above 0.
    std: Triple
    # Pillow's kernel, which filters when it shrinks.
    interpolation: Interpolation = "bicubic"
    # "squash" makes a square and ignores the aspect; "shorter-side" keeps the aspect and crops nothing.
    geometry: Literal["squash", "shorter-side"] = "squash"
    # Sides become multiples of this many pixels (the patch side of the tower).
    multiple: int = 1

    def __post_init__(self) -> None:
        if self.interpolation not in ("bicubic", "bilinear"):
            raise ConfigError(f"interpolation '{self.interpolation}' is unknown: use 'bicubic' or 'bilinear'")
        if self.geometry not in ("squash", "shorter-side"):
            raise ConfigError(f"geometry '{self.geometry}' is unknown: use 'squash' or 'shorter-side'")
        if self.size < 1 or self.multiple < 1:
            raise ConfigError(f"size {self.size} and multiple {self.multiple} must be at least 1 pixel")
        if self.size % self.multiple:
            below = max(self.size // self.multiple, 1) * self.multiple
            raise ConfigError(
                f"size {self.size} is no multiple of the patch side {self.multiple}: "
                f"use {below} or {below + self.multiple}"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or not all(value > 0 for value in self.std):
            raise ConfigError(f"mean {self.mean} and std {self.std} need 3 values each, std above 0")

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) in pixels that an image of `height` x `width` is resized to.

        Raises InputError where the aspect is kept and one side is more than MAX_ASPECT times the other.
        """
        if self.geometry == "squash":
            return self.size, self.size
        short, long = min(height, width), max(height, width)
        if long > MAX_ASPECT * short:
            raise InputError(
                f"{width} x {height} pixels: one side is more than {MAX_ASPECT} times the other; "
                "cut it into parts or use geometry 'squash'"
            )
        side = self.size * long // short
        if self.multiple > 1:
            side = (side + self.multiple // 2) // self.multiple * self.multiple
        return (self.size, side) if height <= width else (side, self.size)


def preprocess(rgb: Rgb, settings: Preprocess) -> npt.NDArray[np.float32]:
    """Resize and normalise one image: uint8 [H, W, 3] -> float32 [3, H', W'], (H', W') = settings.target(H, W).

    The published pipelines resize before they convert to RGB. For grey and RGB images the order does not matter; for
    palettes and transparency ours (converted first) filters colours rather than palette indices.
    """
    height, width = settings.target(rgb.shape[0], rgb.shape[1])
    kernel = Image.Resampling.BICUBIC if settings.interpolation == "bicubic" else Image.Resampling.BILINEAR
    resized = np.asarray(Image.fromarray(rgb).resize((width, height), kernel))
    # (v / 255 - mean) / std has 256 values per channel: look them up, bit for bit what the arithmetic gives.
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    normalised = np.empty((3, height, width), np.float32)
    for channel in range(3):
        table = (levels - np.float32(settings.mean[channel])) / np.float32(settings.std[channel])
        np.take(table, resized[:, :, channel], out=normalised[channel], mode="clip")
    return normalised
