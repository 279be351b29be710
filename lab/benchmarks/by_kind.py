"""Which kinds of defects, and which few images, the pixel AUROC of a class hangs on: a Markdown table.

    python lab/benchmarks/by_kind.py mvtec:../shared/data/magnetic_tile --method anoclip
    python lab/benchmarks/by_kind.py mvtec:../shared/data/crackforest --largest 5
    python lab/benchmarks/by_kind.py mvtec:... --backbone runs/backbone/backbone.safetensors

Pixel AUROC of a class pools the pixels of all its images, so a kind whose masks are large decides it. A row has the
number of images, the mean share of the image that is faulty, the share of all faulty pixels, and three figures: pixel
AUROC of these images and the sound ones, its mean over single images, and image AUROC against the sound ones. The last
row leaves out the images with the largest masks. Maps meet masks at 128 x 128 pixels.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from anomalens.datasets.layouts import open_dataset
from anomalens.detection.loading import load_detector
from anomalens.metrics.summary import auroc
from anomalens.options import BUNDLED
from anomalens_lab import calibrate
from anomalens_lab.calibrate import Bools, Judged


def percent(value: float | None) -> str:
    """Write a share as a percentage, or a dash where it is not defined."""
    return "-" if value is None or np.isnan(value) else f"{100 * value:.1f}"


def row(name: str, judged: Judged, chosen: Bools, faulty_pixels: int) -> str:
    """Write the row of the chosen faulty images; sound ones count in every row."""
    maps, masks = judged.maps[chosen], judged.masks[chosen]
    beside = chosen | ~judged.labels
    within = [auroc(m.ravel(), t.ravel()) for m, t in zip(maps, masks, strict=True) if 0 < t.sum() < t.size]
    cells = (
        percent(float(masks.mean())),
        percent(float(masks.sum()) / faulty_pixels),
        percent(auroc(judged.maps[beside].ravel(), judged.masks[beside].ravel())),
        percent(float(np.mean([value for value in within if value is not None]))),
        percent(auroc(judged.scores[beside], judged.labels[beside])),
    )
    return f"| {name} | {chosen.sum()} | {' | '.join(cells)} |"


def table(judged: Judged, kinds: Sequence[str], largest: int) -> str:
    """Write a row for every kind, one for all images, and one without those of the largest masks."""
    named, faulty_pixels = np.asarray(kinds), int(judged.masks.sum())
    lines = [
        "| kind | images | faulty share | of all faulty pixels | pixel AUROC | within an image | image AUROC |",
        "|---" * 7 + "|",
    ]
    present = sorted(set(named[judged.labels]))
    lines += [row(str(kind), judged, (named == kind) & judged.labels, faulty_pixels) for kind in present]
    lines.append(row("all", judged, judged.labels, faulty_pixels))
    rest = judged.labels.copy()
    rest[np.argsort(-judged.masks.mean(axis=(1, 2)))[:largest]] = False
    lines.append(row(f"all but the {largest} of the largest masks", judged, rest, faulty_pixels))
    return "\n".join(lines)


def main() -> None:
    """Print the table of one class."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="LAYOUT:PATH; all its test images are one table")
    parser.add_argument("--method", default="anoclip")
    parser.add_argument("--backbone", default=BUNDLED, help="the bundled one or a weights file")
    parser.add_argument("--largest", type=int, default=5, help="number of images that the last row leaves out")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    samples = list(open_dataset(asked.data).samples("test"))
    detector = load_detector(asked.method, asked.backbone, batch_size=2)
    judged = calibrate.judge_labelled(detector, samples)
    judged = replace(judged, scores=detector.pooling(judged.scores, judged.maps))
    print(table(judged, [sample.kind for sample in samples], asked.largest))


if __name__ == "__main__":
    main()
