"""Draw anomaly maps on one fixed colour scale, transparent where the map is low.

Colours depend on the map's values and the model's heat range only, never on the other pixels of the image: two images
of one model can be compared by eye, and a normal image looks normal.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomalens.images.maps import Map
from anomalens.images.pixel_values import Rgb

# Anchors, evenly spaced from cold to hot: lightness rises steadily (L* 18 to 98 in CIELAB), so that the scale survives
# grey printing and colour blindness. Purple, magenta, red, orange, yellow.
_ANCHORS = ((60, 15, 110), (120, 28, 109), (187, 55, 84), (229, 92, 48), (249, 142, 9), (249, 201, 50), (252, 255, 164))
# Cyan: the complement of the hot colours, and rare on things people photograph.
_CONTOUR = (0, 255, 255)
# Smallest side of an image, in pixels, per pixel of contour: visible when the whole image is on the screen.
_SIDE_PER_CONTOUR = 250


def _interpolated(anchors: tuple[tuple[int, int, int], ...]) -> npt.NDArray[np.uint8]:
    levels = np.linspace(0, 255, len(anchors))
    channels = [np.interp(np.arange(256), levels, channel) for channel in zip(*anchors, strict=True)]
    table: npt.NDArray[np.uint8] = np.rint(np.stack(channels, axis=1)).astype(np.uint8)
    return table


COLOURS = _interpolated(_ANCHORS)
"""The colour map, uint8 [256, 3], from cold to hot."""


def heat_levels(values: Map, heat_range: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Return levels uint8 [H, W] of a map [H, W]: 0 at and below heat_range[0], 255 at and above heat_range[1]."""
    low, high = heat_range
    levels: npt.NDArray[np.uint8] = np.rint(np.clip((values - low) * (255.0 / (high - low)), 0, 255)).astype(np.uint8)
    return levels


def draw_heatmap(values: Map, heat_range: tuple[float, float]) -> Image.Image:
    """Return the map alone in the fixed colours: RGB, H x W."""
    heat = Image.fromarray(heat_levels(values, heat_range))
    heat.putpalette(COLOURS.tobytes())
    return heat.convert("RGB")


def draw_overlay(
    rgb: Rgb, values: Map, heat_range: tuple[float, float], mask: npt.NDArray[np.bool_], alpha: float
) -> Image.Image:
    """Return the map drawn over its image [H, W, 3], with a contour just outside the mask bool [H, W].

    Opacity rises from 0 at the cold end to `alpha` at the middle of the heat range and stays there.
    """
    base = Image.fromarray(rgb)
    opacity = np.rint(np.minimum(np.arange(256) / 127.5, 1.0) * (255 * alpha)).astype(np.uint8)
    cover = Image.fromarray(opacity[heat_levels(values, heat_range)])
    blended = Image.composite(draw_heatmap(values, heat_range), base, cover)
    if mask.any():
        blended.paste(_CONTOUR, mask=Image.fromarray(_outline(mask)))
    return blended


def _outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Return 255 on a ring just outside the mask, 0 elsewhere; outside, so that a tiny defect is not painted over."""
    from scipy import ndimage

    thickness = max(1, round(min(mask.shape) / _SIDE_PER_CONTOUR))
    grown = ndimage.binary_dilation(mask, structure=np.ones((3, 3), bool), iterations=thickness)
    return (grown & ~mask).astype(np.uint8) * np.uint8(255)
