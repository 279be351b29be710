"""A few pictures a person should see: the best, the worst and the borderline images of each class, chosen in passing.

    worst       anomalous images with the lowest scores, normal images with the highest
    best        anomalous images with the highest scores, normal images with the lowest
    borderline  images whose scores are nearest to the threshold the detector decides by

Memory and disk are bounded: `keep` cases for each of the five sorts and each class, each at most SIDE pixels long,
about 40 kB a case. A picture is only drawn when its image enters the choice, so most images cost nothing.
"""

import io
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
from anomalens.images.maps import resize_map
from anomalens.images.overlay import draw_overlay
from anomalens.prediction import Prediction

SIDE = 320  # pixels; longest side of a picture

SORTS = ("lowest anomalous", "highest normal", "highest anomalous", "lowest normal", "nearest threshold")
"""The five sorts of cases, worst first."""

MASK_COLOURS = {"neither": (32, 36, 44), "both": (0, 158, 115), "missed": (230, 159, 0), "extra": (86, 180, 233)}
"""What a mask picture shows: pixels in neither mask, in both, in the truth alone, in the detector's alone."""


@dataclass(frozen=True)
class Pictures:
    """One image drawn small: JPEG, JPEG and PNG."""

    image: bytes
    heatmap: bytes  # over the image, with the contour of the detector's mask
    masks: bytes | None  # detector's mask against the truth in MASK_COLOURS; None where no truth is known


@dataclass(frozen=True, order=True)
class Case:
    """One image of the choice; sorted by how well it fits its sort."""

    key: float  # smaller fits better
    order: int  # of two that fit alike, the first seen stays
    path: str = field(compare=False)
    kind: str = field(compare=False)
    label: int = field(compare=False)  # 0 normal, 1 anomalous
    score: float = field(compare=False)
    threshold: float = field(compare=False)
    pictures: Pictures = field(compare=False)


class Gallery:
    """Chooses while images stream by; see the module's head for what and how many."""

    def __init__(self, keep: int) -> None:
        """`keep`: cases of each sort and class; 0 keeps nothing."""
        self.keep = keep
        self.cases: dict[tuple[str, str], list[Case]] = {}  # (class, sort) -> at most `keep`, best fit first
        self._seen = 0

    def offer(self, sample: Sample, found: Prediction) -> None:
        """Look at one labelled image; draw and keep it where it belongs to the choice."""
        self._seen += 1
        score = found.score
        if sample.label == 1:
            fits = {"lowest anomalous": score, "highest anomalous": -score}
        else:
            fits = {"highest normal": -score, "lowest normal": score}
        fits["nearest threshold"] = abs(score - found.threshold)
        pictures = None
        for sort, key in fits.items():
            kept = self.cases.setdefault((sample.class_name, sort), [])
            if self.keep == 0 or (len(kept) == self.keep and key >= kept[-1].key):
                continue
            pictures = pictures or draw(sample, found)
            label = int(sample.label or 0)
            path = str(sample.image)
            insort(kept, Case(key, self._seen, path, sample.kind, label, score, found.threshold, pictures))
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
                facts = {"path": case.path, "kind": case.kind, "label": case.label, "score": case.score}
                rows.append({"class": class_name, "sort": sort, **facts, "threshold": case.threshold, **files})
        return rows


def draw(sample: Sample, found: Prediction) -> Pictures:
    """The three pictures of one image. Raises InputError when the image or its mask cannot be read."""
    rgb = decode(sample.image).rgb
    shrink = min(1.0, SIDE / max(rgb.shape[:2]))
    height, width = (max(1, round(side * shrink)) for side in rgb.shape[:2])
    small = np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))
    values = resize_map(found.anomaly_map, (height, width))
    mask = values > found.pixel_threshold
    overlay = draw_overlay(small, values, found.heat_range, mask, alpha=0.6)
    truth = read_truth(sample, (height, width))
    return Pictures(
        image=_encoded(Image.fromarray(small), "JPEG"),
        heatmap=_encoded(overlay, "JPEG"),
        masks=None if truth is None else _encoded(_compared(mask, truth), "PNG"),
    )


def _compared(mask: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> Image.Image:
    names = list(MASK_COLOURS)
    index = np.full(mask.shape, names.index("neither"), np.uint8)
    index[mask & truth] = names.index("both")
    index[~mask & truth] = names.index("missed")
    index[mask & ~truth] = names.index("extra")
    picture = Image.fromarray(index)
    picture.putpalette([channel for colour in MASK_COLOURS.values() for channel in colour])
    return picture


def _encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
    return buffer.getvalue()
