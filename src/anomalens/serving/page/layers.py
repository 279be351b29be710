"""Draw the small pictures of the page: the photo, and the layers that lie over it in the viewer.

Everything is drawn at the size it is shown in, so that a page full of large photographs comes at once.
"""

from dataclasses import replace
from typing import Literal

from PIL import Image

from anomalens.images.decoding import decode
from anomalens.images.encoding import encode_image
from anomalens.images.overlay import draw_heat_layer, draw_outline
from anomalens.prediction import Prediction
from anomalens.serving.schema import Inspection
from anomalens.serving.service import Service

Kind = Literal["photo", "overlay", "heat", "outline"]
"""What is shown: the photo, the photo with everything drawn on it, the heatmap alone or the mask's outline alone."""

# Of photos and heatmaps, in WebP's scale of 0 to 100, and how long it may search for fewer bytes, of 0 to 6.
_WEBP = {"quality": 84, "method": 2}


def draw(service: Service, inspection: Inspection, kind: Kind, side: int) -> bytes:
    """Return a picture whose longer side has at most `side` pixels, as WebP; layers are transparent.

    Raises NotFoundError where the image has no answer, InputError where its files are not there.
    """
    if kind == "photo":
        return encode_image(_photo(service, inspection, side), "WEBP", **_WEBP)
    prediction = _at_size(service.prediction(inspection), side)
    if kind == "outline":
        return encode_image(draw_outline(prediction.mask), "WEBP", lossless=True)
    heat = draw_heat_layer(prediction.anomaly_map, prediction.heat_range, (prediction.height, prediction.width))
    if kind == "heat":
        return encode_image(heat, "WEBP", **_WEBP)
    picture = _photo(service, inspection, side).resize(heat.size).convert("RGBA")
    for layer in (heat, draw_outline(prediction.mask)):
        picture.alpha_composite(layer)
    return encode_image(picture.convert("RGB"), "WEBP", **_WEBP)


def _photo(service: Service, inspection: Inspection, side: int) -> Image.Image:
    """Return the photo, upright; a JPEG file is decoded no larger than need be."""
    # It was accepted before, so it is read again whatever the limit is now.
    decoded = decode(service.original_bytes(inspection), at_least=(side, side), max_pixels=2**40, truncated=True)
    picture = Image.fromarray(decoded.rgb)
    picture.thumbnail((side, side), Image.Resampling.BILINEAR)
    return picture


def _at_size(prediction: Prediction, side: int) -> Prediction:
    """Return a prediction as if its image had at most `side` pixels a side; the smallest region shrinks alike."""
    scale = min(1.0, side / max(prediction.width, prediction.height))
    return replace(
        prediction,
        width=max(1, round(prediction.width * scale)),
        height=max(1, round(prediction.height * scale)),
        min_area=round(prediction.min_area * scale**2),
    )
