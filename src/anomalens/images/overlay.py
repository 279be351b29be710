"""Draw anomaly maps on one fixed colour scale, transparent where the map is low.

Colours depend on the map's values and the model's heat range only, never on the other pixels of the image: two images
of one model can be compared by eye, and a normal image looks normal.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomalens.images.maps import Box, Map, bands, resize_map
from anomalens.images.pixel_values import Rgb

# Anchors, evenly spaced from cold to hot: lightness rises steadily (L* 18 to 98 in CIELAB), so that the scale survives
# grey printing and colour blindness. Purple, magenta, red, orange, yellow.
_ANCHORS = ((60, 15, 110), (120, 28, 109), (187, 55, 84), (229, 92, 48), (249, 142, 9), (249, 201, 50), (252, 255, 164))
OPACITY = 0.6
"""Largest opacity of an overlay unless another is asked for."""

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
    return _coloured(heat_levels(values, heat_range))


def draw_overlay(
    rgb: Rgb, values: Map, heat_range: tuple[float, float], mask: npt.NDArray[np.bool_], alpha: float
) -> Image.Image:
    """Return the map drawn over its image [H, W, 3], with a contour just outside the mask bool [H, W].

    The map [h, w] may be of any size; it is resized to the image's. Opacity rises from 0 at the cold end to `alpha` at
    the middle of the heat range and stays there. It goes band by band, so that a large image takes little memory
    besides the picture.
    """
    height, width = mask.shape
    opacity = _opacity(alpha)
    picture = Image.new("RGB", (width, height))
    for band in bands(Box(0, 0, width, height)):
        levels = heat_levels(resize_map(values, (height, width), band), heat_range)
        cover = Image.fromarray(opacity[levels])
        blended = Image.composite(_coloured(levels), Image.fromarray(rgb[band.slices]), cover)
        if (outline := _outline(mask, band)).any():
            blended.paste(_CONTOUR, mask=Image.fromarray(outline))
        picture.paste(blended, band[:2])
    return picture


def draw_heat_layer(
    values: Map, heat_range: tuple[float, float], size: tuple[int, int], alpha: float = OPACITY
) -> Image.Image:
    """Return the map as a picture to lay over its image: RGBA, H x W of `size`, as opaque as in `draw_overlay`."""
    levels = heat_levels(resize_map(values, size), heat_range)
    picture = _coloured(levels)
    picture.putalpha(Image.fromarray(_opacity(alpha)[levels]))
    return picture


def draw_outline(mask: npt.NDArray[np.bool_]) -> Image.Image:
    """Return the contour just outside a mask bool [H, W] as a picture to lay over its image: RGBA, H x W."""
    height, width = mask.shape
    picture = Image.new("RGBA", (width, height), (*_CONTOUR, 0))
    picture.putalpha(Image.fromarray(_outline(mask, Box(0, 0, width, height))))
    return picture


def _opacity(alpha: float) -> npt.NDArray[np.uint8]:
    """Return how opaque each level is, uint8 [256]: from 0 at the cold end to `alpha` at the middle and beyond."""
    opacity: npt.NDArray[np.uint8] = np.rint(np.minimum(np.arange(256) / 127.5, 1.0) * (255 * alpha)).astype(np.uint8)
    return opacity


def _coloured(levels: npt.NDArray[np.uint8]) -> Image.Image:
    heat = Image.fromarray(levels)
    heat.putpalette(COLOURS.tobytes())
    return heat.convert("RGB")


def _outline(mask: npt.NDArray[np.bool_], band: Box) -> npt.NDArray[np.uint8]:
    """Return, for the rows of a band, 255 on a ring just outside the mask, 0 elsewhere.

    It lies outside, so that a tiny defect is not painted over.
    """
    thickness = max(1, round(min(mask.shape) / _SIDE_PER_CONTOUR))
    above = min(thickness, band.top)
    rows = mask[band.top - above : band.bottom + thickness]
    if not rows.any():
        return np.zeros((band.bottom - band.top, band.right - band.left), np.uint8)
    inside = slice(above, above + band.bottom - band.top)
    ring = _widened(_widened(rows, thickness).T, thickness).T[inside] & ~rows[inside]
    return ring.astype(np.uint8) * np.uint8(255)


def _widened(mask: npt.NDArray[np.bool_], reach: int) -> npt.NDArray[np.bool_]:
    """Set every pixel of a mask [H, W] that has a set one in its row within `reach` columns."""
    # How many are set to the left of each place; a window holds one where the number grows along it.
    counts = np.cumsum(np.pad(mask, ((0, 0), (reach + 1, reach))), axis=1, dtype=np.int32)
    return counts[:, 2 * reach + 1 :] > counts[:, : -2 * reach - 1]
