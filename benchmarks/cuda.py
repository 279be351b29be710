"""A GPU against the processor: the same maps from every method, what photographs teach, a folder, and images a second.

    python benchmarks/cuda.py examples/hazelnuts

Everything runs in PyTorch on the bundled backbone. Maps are compared in units of the range of colours, which is how far
sound and faulty places lie apart. Images a second are those of a whole detection, decoding and answers in pixels
included, with one batch size for both.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from anomalens import Detector, load_detector
from anomalens.images.sources import list_images
from anomalens.prediction import predictions_of
from measure import machine

METHODS = (
    "auto", "anoclip", "anoclip+", "winclip", "anomalyclip", "tokenclip", "crane", "crane+", "aprilgan", "adaclip"
)  # fmt: skip
DEVICES = ("cpu", "cuda")
# Images a batch, and timed runs of which the median counts.
BATCH, REPEATS = 32, 3


def differences(answers: list[list[np.ndarray]], detector: Detector) -> str:
    """Return the largest and the mean difference of two runs' maps, in units of the range of colours."""
    low, high = detector.calibration.heat_range
    far = [np.abs(a - b) / (high - low) for a, b in zip(*answers, strict=True)]
    return f"{max(float(each.max()) for each in far):.1e}   {float(np.mean([each.mean() for each in far])):.1e}"


def maps_of(detector: Detector, photos: list[Path]) -> list[np.ndarray]:
    """Return the maps of photos in their order."""
    return [answer.anomaly_map for answer in predictions_of(detector.predict_iter(photos))]


def rate_of(device: str, photos: list[Path], dtype: str) -> float:
    """Return the images a second of the default method, the median of some runs after one that is not counted."""
    detector = load_detector(device=device, engine="torch", dtype=dtype, batch_size=BATCH, workers=8)
    seconds = []
    for _ in range(REPEATS + 1):
        begin = time.perf_counter()
        maps_of(detector, photos)
        seconds.append(time.perf_counter() - begin)
    return len(photos) / statistics.median(seconds[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a part in MVTec layout: train/good, test")
    parser.add_argument("--count", type=int, default=128, help="images of a run that is timed; 0 times nothing")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no GPU: PyTorch finds none on this machine")
    part = next(asked.folder.glob("*/train")).parent
    good, photos = list_images([part / "train"]), list_images([part / "test"])
    print(f"{torch.cuda.get_device_name()}; {machine()}")
    print("what runs        largest difference   mean difference")
    for method in METHODS:
        detectors = [load_detector(method, device=device, engine="torch") for device in DEVICES]
        print(f"{method:15}  {differences([maps_of(each, photos) for each in detectors], detectors[0])}")
    words = [load_detector(device=device, engine="torch") for device in DEVICES]
    taught = [each.fit(good) for each in words]
    print(f"taught           {differences([maps_of(each, photos) for each in taught], taught[0])}")
    print(f"thresholds of the two lessons: {[each.calibration.threshold for each in taught]}")
    together = [each.together() for each in words]
    print(f"a folder         {differences([maps_of(each, photos) for each in together], together[0])}")
    many = [photos[number % len(photos)] for number in range(asked.count)]
    for dtype in ("float32", "bfloat16") if many else ():
        rates = [rate_of(device, many, dtype) for device in DEVICES]
        print(
            f"{dtype}: {rates[0]:.1f} images/s on the processor, {rates[1]:.1f} on the GPU, {rates[1] / rates[0]:.1f}x"
        )


if __name__ == "__main__":
    main()
