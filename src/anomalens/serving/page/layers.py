"""Draw the small pictures of the page: the photo, and the layers that lie over it in the viewer."""

from typing import Literal

import numpy as np
from PIL import Image

from anomalens.images.encoding import encode_image
from anomalens.images.overlay import draw_heat_layer, draw_outline
from anomalens.serving.schema import Inspection
from anomalens.serving.service import Service

Kind = Literal["photo", "overlay", "heat", "outline"]
"""What is shown: the photo, the photo with everything drawn on it, the heatmap alone or the mask's outline alone."""


def draw(service: Service, inspection: Inspection, kind: Kind, side: int) -> bytes:
    """Return a picture whose longer side has at most `side` pixels, as WebP; layers are transparent.

    Raises what `Service.picture` and `Service.prediction` raise where the image has no answer.
    """
    if kind in ("photo", "overlay"):
        shown = "original" if kind == "photo" else "overlay"
        return encode_image(service.picture(inspection, shown, side), "WEBP", quality=82)
    prediction = service.prediction(inspection)
    scale = min(1.0, side / max(prediction.width, prediction.height))
    width, height = max(1, round(prediction.width * scale)), max(1, round(prediction.height * scale))
    if kind == "heat":
        layer = draw_heat_layer(prediction.anomaly_map, prediction.heat_range, (height, width))
        return encode_image(layer, "WEBP", quality=85)
    # The mean of a mask of 0 and 255 is above 0 wherever a pixel is marked, so that no small region is lost.
    mask = Image.fromarray(prediction.mask.view(np.uint8) * np.uint8(255)).resize((width, height), Image.Resampling.BOX)
    return encode_image(draw_outline(np.asarray(mask) > 0), "WEBP", lossless=True)
