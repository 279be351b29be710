"""`anomalens detect` from files to files against the tower alone, and its memory from 100 to 5,000 images.

    python benchmarks/pipeline.py ../shared/data
    python benchmarks/pipeline.py photos --count 200 --method anoclip --no-memory

The first is a ratio in one run: images per second of a whole run (decoding, maps, heatmaps, masks, rows) over those of
the method on pixels that are ready, measured before and after it. Target: 90 %. For the second the same photos are
listed again and again in a process of its own, at a small size; the peak must not grow.

Photos are all images below the folder, masks left out, repeated where they are fewer than --count.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice, repeat
from pathlib import Path

import numpy as np

from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector
from anomalens.images.sources import list_images
from anomalens.runs.folder import detect_files
from anomalens.threads import map_ordered
from measure import machine, report_peak

SMALL = 112  # pixels a side of the memory runs: what is held does not depend on it
COUNTS = (100, 1000, 5000)


def photos(folder: Path, count: int) -> list[Path]:
    """Return `count` images, in the order of their names, repeated where they are fewer."""
    paths = [path for path in list_images([folder]) if "ground_truth" not in path.parts]
    return list(islice(cycle(paths), count))


def tower_rate(detector: Detector, seconds: float = 20) -> float:
    """Measure the images per second of encode and score on one batch of random pixels, again and again."""
    batch, side, parallel = detector.options.batch_size, detector.preprocess.size, detector.engine.parallel
    pixels, keys = np.random.default_rng(0).normal(size=(batch, 3, side, side)).astype(np.float32), list(range(batch))

    def score(pixels: np.ndarray) -> None:
        detector.engine.score_batch(pixels, keys, parallel)

    results = map_ordered(repeat(pixels), score, workers=parallel, ahead=parallel + 1)
    _, error = next(results)
    if error:
        raise error
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        next(results)
        done += batch
    rate = done / (time.perf_counter() - begin)
    results.close()
    return rate


def run(detector: Detector, paths: list[Path]) -> float:
    """Measure the images per second of a whole run on disk."""
    with tempfile.TemporaryDirectory() as folder:
        summary = detect_files(paths, Path(folder) / "run", detector, detector.settings)
    return summary.rate or 0.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of photos")
    parser.add_argument("--method", default="anoclip")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--no-memory", action="store_true", help="leave the memory runs out")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        run(load_detector(asked.method, size=SMALL), photos(asked.folder, asked.only))
        report_peak()
        return
    memory = {}
    for count in () if asked.no_memory else COUNTS:
        command = [sys.executable, __file__, str(asked.folder), "--method", asked.method, "--only", str(count)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        memory[count] = float(out.strip().splitlines()[-1])
        print(f"{count} images at {SMALL} pixels: peak {memory[count]:.0f} MB", flush=True)
    detector = load_detector(asked.method)
    before = tower_rate(detector)
    whole = run(detector, photos(asked.folder, asked.count))
    alone = (before + tower_rate(detector)) / 2
    print(machine())
    print(f"{asked.method}, {detector.preprocess.size} pixels, batches of {detector.options.batch_size}")
    print(f"{asked.count} photos: {whole:.2f} images a second; the tower alone: {alone:.2f}; {whole / alone:.0%}")


if __name__ == "__main__":
    main()
