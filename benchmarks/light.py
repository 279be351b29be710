"""The shipped graph against PyTorch: import, first answer, images from files to files, memory, and equal maps.

    python benchmarks/light.py examples/hazelnuts
    python benchmarks/light.py photos --count 200 --repeats 9

Every number comes from a process of its own; engines take turns in one run, so ratios of medians hold on a noisy
machine. The first answer is timed from outside: start of the interpreter, import, load, one photo read and judged.
Targets: a quarter of the time to a first answer, 1.2 times the images a second, and maps equal to 1e-5 of their range.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from anomalens.detection.loading import load_detector
from anomalens.images.sources import list_images
from anomalens.prediction import predictions_of
from anomalens.runs.folder import detect_files
from measure import machine, report_peak

ENGINES = ("torch", "onnx", "openvino")
_IMPORT = "import anomalens; anomalens.load_detector"
_FIRST = "import sys, anomalens; anomalens.load_detector(engine=sys.argv[1]).predict(sys.argv[2]).score"


def seconds_of(script: str, *arguments: str) -> float:
    """Measure a process of its own from its start to its end."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True)
    return time.perf_counter() - begin


def run_alone(folder: Path, count: int, engine: str) -> None:
    """Detect `count` photos as the command does, then print the images per second and this process's peak memory."""
    paths = list(islice(cycle(_photos(folder)), count))
    detector = load_detector(engine=engine, device="cpu")
    with tempfile.TemporaryDirectory() as out:
        print(detect_files(paths, Path(out) / "run", detector, detector.settings).rate)
    report_peak()


def measure_run(folder: Path, count: int, engine: str) -> tuple[float, float]:
    """Return images per second and the peak of memory in MB of a whole run, measured in a process of its own."""
    command = [sys.executable, __file__, str(folder), "--count", str(count), "--only", engine]
    rate, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return float(rate), float(peak)


def largest_difference(folder: Path, engine: str) -> float:
    """Return the largest difference of ten maps from PyTorch's, in units of the range of colours."""
    ten = _photos(folder)[:10]
    detectors = [load_detector(engine=name, device="cpu") for name in ("torch", engine)]
    low, high = detectors[0].calibration.heat_range
    expected, maps = ([p.anomaly_map for p in predictions_of(each.predict_iter(ten))] for each in detectors)
    pairs = zip(expected, maps, strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs) / (high - low)


def _photos(folder: Path) -> list[Path]:
    return [path for path in list_images([folder]) if "ground_truth" not in path.parts]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of photos")
    parser.add_argument("--count", type=int, default=60, help="images of a run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        run_alone(asked.folder, asked.count, asked.only)
        return
    photo = str(_photos(asked.folder)[0])
    taken: dict[str, list[tuple[float, ...]]] = {engine: [] for engine in ENGINES}
    for _ in range(asked.repeats):
        for engine, rows in taken.items():
            imported, first = seconds_of(_IMPORT), seconds_of(_FIRST, engine, photo)
            rows.append((imported, first, *measure_run(asked.folder, asked.count, engine)))
    print(machine())
    print("engine      import s   first answer s   images/s   peak MB   map differs by")
    for engine, rows in taken.items():
        imported, first, rate, peak = (statistics.median(column) for column in zip(*rows, strict=True))
        print(
            f"{engine:10}  {imported:8.2f}   {first:14.2f}   {rate:8.2f}   {peak:7.0f}   "
            f"{largest_difference(asked.folder, engine):.1e}"
        )
    base = [statistics.median(column) for column in zip(*taken["torch"], strict=True)]
    for engine in ENGINES[1:]:
        own = [statistics.median(column) for column in zip(*taken[engine], strict=True)]
        print(
            f"{engine} against torch: first answer {own[1] / base[1]:.2f}x the time, "
            f"{own[2] / base[2]:.2f}x the images/s, {own[3] / base[3]:.2f}x the memory"
        )


if __name__ == "__main__":
    main()
