"""Count how often photographs that cannot be judged are found: each class is taught, then shown spoilt photographs.

    python lab/benchmarks/unusable.py mvtec:../shared/data/mvtec mvtec:../shared/data/cookie --shots 4

Every class is taught from a few of its good photographs, drawn with a seed. Its other good photographs, its faulty
ones, good photographs spoilt in several ways, and good photographs of the other classes are then looked at.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from anomalens.datasets.layouts import Sample, open_dataset
from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector
from anomalens.evaluation.shots import draw
from anomalens.prediction import Prediction

Pixels = npt.NDArray[np.uint8]


def blurred(pixels: Pixels) -> Pixels:
    """Blur with a deviation of a fortieth of the shorter side."""
    radius = min(pixels.shape[:2]) / 40
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def noise(pixels: Pixels) -> Pixels:
    """Return white noise of the same size."""
    return np.random.default_rng(0).integers(0, 256, pixels.shape, dtype=np.uint8)


SPOILT: dict[str, Callable[[Pixels], Pixels]] = {
    "black": np.zeros_like,
    "white": lambda pixels: np.full_like(pixels, 255),
    "grey": lambda pixels: np.full_like(pixels, 128),
    "noise": noise,
    "1/12 brightness": lambda pixels: pixels // 12,
    "blurred, side / 40": blurred,
}


def read(path: Path) -> Pixels:
    """Return the pixels of a photograph, uint8 [H, W, 3]."""
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB"))


def labels(detector: Detector, images: Iterable[Pixels | Path]) -> Counter[str]:
    """Count the labels that a detector gives."""
    results = detector.predict_iter(images)
    return Counter(result.label if isinstance(result, Prediction) else "failed" for result in results)


def shows(counts: Counter[str]) -> str:
    """Write counts as a cell of the table."""
    return f"{counts['unusable']} + {counts['anomalous']} of {counts.total()}"


def available(samples: Sequence[Sample]) -> int:
    """Return how many good photographs a class can be taught from: all it has for training, or half of its test's."""
    good = Counter(sample.split for sample in samples if sample.label == 0)
    return good["train"] or good["test"] // 2


def main() -> None:
    """Print a Markdown table: how many of each sort are called unusable + anomalous."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="LAYOUT:PATH of labelled sets")
    parser.add_argument("--shots", type=int, default=4, help="good photographs that each class is taught from, at most")
    parser.add_argument("--seed", type=int, default=0, help="of their choice")
    parser.add_argument("--limit", type=int, default=10, help="good photographs of a class that are spoilt, or strange")
    arguments = parser.parse_args()
    classes = {
        name: draw(samples, min(arguments.shots, available(samples)), arguments.seed)
        for spec in arguments.data
        for name, samples in open_dataset(spec).classes.items()
    }
    good = {name: [test.image for test in drawn.tests if test.label == 0] for name, drawn in classes.items()}
    words = load_detector()
    print("| class | photos | good | faulty | " + " | ".join(SPOILT) + " | other parts |")
    print("|---" * (len(SPOILT) + 5) + "|")
    some = [path for paths in good.values() for path in paths[:2]]
    spoilt = [shows(labels(words, map(spoil, map(read, some)))) for spoil in SPOILT.values()]
    print("| nothing taught | 0 | - | - | " + " | ".join(spoilt) + " | - |", flush=True)
    for name, drawn in classes.items():
        detector = words.fit([sample.image for sample in drawn.photos])
        some = good[name][: arguments.limit]
        cells = [
            name,
            str(len(drawn.photos)),
            shows(labels(detector, good[name])),
            shows(labels(detector, [test.image for test in drawn.tests if test.label])),
            *(shows(labels(detector, map(spoil, map(read, some)))) for spoil in SPOILT.values()),
            shows(labels(detector, [p for other in good if other != name for p in good[other][: arguments.limit]])),
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
