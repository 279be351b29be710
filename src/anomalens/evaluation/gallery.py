"""Keep a few pictures that a person should see: the best, the worst and the borderline images of each class.

    worst       anomalous images with the lowest scores, normal images with the highest
    best        anomalous images with the highest scores, normal images with the lowest
    borderline  images whose scores are nearest to the threshold the detector decides by

They are chosen while images stream by. Memory and disk are bounded: `keep` cases for each of the five sorts and each
class, each at most SIDE pixels long, about 40 kB a case. A picture is only drawn when its image enters the choice, so
most images cost nothing.
"""

from bisect import insort
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomalens.datasets.layouts import Sample, read_truth
from anomalens.files import atomic_write
from anomalens.images.decoding import decode
from anomalens.images.encoding import encode_image
from anomalens.images.image_files import MAX_PIXELS
from anomalens.images.maps import resize_map
from anomalens.images.overlay import draw_overlay
from anomalens.names import name_text
from anomalens.prediction import Label, Prediction

SIDE = 320
"""Longest side of a picture in pixels."""

MASK_COLOURS = {"neither": (32, 36, 44), "both": (0, 158, 115), "missed": (230, 159, 0), "extra": (86, 180, 233)}
"""Colours of a mask picture: pixels in neither mask, in both, in the truth alone, in the detector's alone."""


# Share of a small pixel's area in the mask above which the pixel is.
_HALF = 0.5


@dataclass(frozen=True)
class Pictures:
    """Hold one image drawn small: JPEG, JPEG and PNG."""

    image: bytes
    # Over the image, with the contour of the detector's mask.
    heatmap: bytes
    # The detector's mask against the truth in MASK_COLOURS; None where no truth is known.
    masks: bytes | None


@dataclass(frozen=True, order=True)
class Case:
    """Describe one image of the choice; cases compare by how well they fit their sort."""

    # Smaller fits better.
    key: float
    # Place in the stream; of two that fit alike, the first seen stays.
    order: int
    path: str = field(compare=False)
    kind: str = field(compare=False)
    # 0 normal, 1 anomalous.
    label: int = field(compare=False)
    score: float = field(compare=False)
    threshold: float = field(compare=False)
    decision: Label = field(compare=False)
    pictures: Pictures = field(compare=False)


class Gallery:
    """Hold the cases chosen so far: `keep` of each sort and class; 0 keeps nothing."""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        # (class, sort) -> at most `keep` cases, best fit first.
        self.cases: dict[tuple[str, str], list[Case]] = {}
        self._seen = 0

    def offer(self, sample: Sample, prediction: Prediction) -> None:
        """Draw and keep one labelled image where it belongs to the choice; never one that could not be judged."""
        self._seen += 1
        if prediction.unusable is not None:
            return
        score, threshold = prediction.score, prediction.threshold
        if sample.label == 1:
            fits = {"lowest anomalous": score, "highest anomalous": -score}
        else:
            fits = {"highest normal": -score, "lowest normal": score}
        fits["nearest threshold"] = abs(score - threshold)
        pictures = None
        for sort, key in fits.items():
            kept = self.cases.setdefault((sample.class_name, sort), [])
            if self.keep == 0 or (len(kept) == self.keep and key >= kept[-1].key):
                continue
            pictures = pictures or draw(sample, prediction)
            label = int(sample.label or 0)
            path = name_text(sample.image)
            decision = prediction.label
            insort(kept, Case(key, self._seen, path, sample.kind, label, score, threshold, decision, pictures))
            del kept[self.keep :]

    def write(self, folder: Path) -> list[dict[str, Any]]:
        """Write the pictures to `folder` and return one row a case: its facts and its files' names.

        An image that belongs to several sorts is written once. Pictures of an earlier run are removed.
        """
        if folder.is_dir():
            for stale in (*folder.glob("*-image.jpg"), *folder.glob("*-heatmap.jpg"), *folder.glob("*-masks.png")):
                stale.unlink()
        rows = []
        for (class_name, sort), kept in self.cases.items():
            for case in kept:
                folder.mkdir(parents=True, exist_ok=True)
                files = {"image": f"{case.order:06d}-image.jpg", "heatmap": f"{case.order:06d}-heatmap.jpg"}
                if case.pictures.masks is not None:
                    files["masks"] = f"{case.order:06d}-masks.png"
                for name, file in files.items():
                    atomic_write(folder / file, getattr(case.pictures, name))
                facts: dict[str, Any] = {"path": case.path, "kind": case.kind, "label": case.label, "score": case.score}
                facts |= {"threshold": case.threshold, "decision": case.decision}
                rows.append({"class": class_name, "sort": sort, **facts, **files})
        return rows


def draw(sample: Sample, prediction: Prediction) -> Pictures:
    """Draw the three pictures of one image. Raises InputError when the image or its mask cannot be read."""
    limit = max(MAX_PIXELS, prediction.width * prediction.height)
    rgb = decode(sample.image, max_pixels=limit, truncated=True).rgb
    shrink = min(1.0, SIDE / max(rgb.shape[:2]))
    height, width = (max(1, round(side * shrink)) for side in rgb.shape[:2])
    small = np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))
    values = resize_map(prediction.anomaly_map, (height, width))
    mask = resize_map(prediction.mask.astype(np.float32), (height, width)) > _HALF
    overlay = draw_overlay(small, values, prediction.heat_range, mask, alpha=0.6)
    truth = read_truth(sample, (height, width), max_pixels=limit)
    return Pictures(
        image=encode_image(Image.fromarray(small), "JPEG", quality=85),
        heatmap=encode_image(overlay, "JPEG", quality=85),
        masks=None if truth is None else encode_image(_compared(mask, truth), "PNG", optimize=True),
    )


def _compared(mask: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> Image.Image:
    """Colour each pixel by whether the detector's mask and the truth agree on it."""
    names = list(MASK_COLOURS)
    index = np.full(mask.shape, names.index("neither"), np.uint8)
    index[mask & truth] = names.index("both")
    index[~mask & truth] = names.index("missed")
    index[mask & ~truth] = names.index("extra")
    picture = Image.fromarray(index)
    picture.putpalette([channel for colour in MASK_COLOURS.values() for channel in colour])
    return picture
