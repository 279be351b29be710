"""What comparing images costs against the tower alone, in one run: with good photographs, and a folder with itself.

    python benchmarks/references.py
    python benchmarks/references.py --photos 4 20 100 --sets 50 200 1000

Seconds are those that all cores worked together, so that other work on the machine counts little. What is compared runs
in turn, round by round, and the smallest of each counts. The tower alone is the same network at the first size, on the
same images, prepared beforehand. Each set is measured in a process of its own, which also gives its peak memory.

Targets: an image with a memory of 4, 20 and 100 photographs at most 1.3 times words alone, learning 20 photographs at
most 3 times the tower, 200 images compared at most 3 times the tower and 2 GB.

The images are drawn scenes that come with the package, each repeated with noise of its own, because copies of an image
count once.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib import resources
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image

from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector
from anomalens.engines.contract import Floats
from anomalens.images.sources import list_images
from measure import machine, report_peak

# Images on which the tower alone is measured, and how often it is measured in turn with what is compared with it.
TOWER, ROUNDS = 24, 3


def noisy_scenes(folder: Path, count: int, kind: str = "chip") -> list[Path]:
    """Write `count` images of one kind of drawn part into a folder, each with noise of its own."""
    with resources.as_file(resources.files("anomalens") / "bundled" / "scenes" / kind / "test") as scenes:
        sources = [np.asarray(Image.open(path).convert("RGB"), np.float32) for path in list_images([scenes])]
    rng = np.random.default_rng(0)
    paths = []
    for number, pixels in enumerate(islice(cycle(sources), count)):
        noisy = pixels + rng.normal(0, 6, pixels.shape)
        paths.append(folder / f"{number:05d}.png")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1], compress_level=1)
    return paths


def batches_of(detector: Detector, paths: list[Path]) -> list[tuple[Floats, list[int]]]:
    """Prepare images at the first size: pixels and keys of each batch."""
    images, size = [detector.prepare(path) for path in paths], detector.options.batch_size
    groups = [images[start : start + size] for start in range(0, len(images), size)]
    return [(np.stack([image.pixels[0][0] for image in group]), [image.keys[0] for image in group]) for group in groups]


def score_seconds(detector: Detector, batches: list[tuple[Floats, list[int]]]) -> float:
    """Measure the seconds of work an image of scoring prepared pixels."""
    begin = time.process_time()
    for pixels, keys in batches:
        detector.engine.score_batch(pixels, keys)
    return (time.process_time() - begin) / sum(len(keys) for _, keys in batches)


def tower_seconds(detector: Detector, paths: list[Path]) -> float:
    """Measure the seconds of work an image of the tower and the words alone."""
    return score_seconds(detector, batches_of(detector, paths))


def photos(counts: list[int]) -> None:
    """Measure what it takes to learn photographs, and to score with what was learned; print a line for each number."""
    print("compared with good photographs")
    words = load_detector(extra_sizes=())
    with tempfile.TemporaryDirectory() as folder:
        paths = noisy_scenes(Path(folder), max(counts) + TOWER)
        asked, good = batches_of(words, paths[-TOWER:]), paths[:-TOWER]
        score_seconds(words, asked)  # warm-up
        for count in counts:
            begin = time.process_time()
            taught = words.fit(good[:count])
            fit = (time.process_time() - begin) / count
            rounds = [(score_seconds(words, asked), score_seconds(taught, asked)) for _ in range(ROUNDS)]
            alone, compared = (1000 * min(taken) for taken in zip(*rounds, strict=True))
            path = Path(folder) / "part.anomalens"
            taught.save(path)
            print(
                f"{count} photos: {compared:.0f} ms an image, {compared / alone:.2f} times {alone:.0f} by words alone; "
                f"learned in {1000 * fit / alone:.2f} times the tower; {path.stat().st_size / 1e6:.1f} MB",
                flush=True,
            )


def set_seconds(detector: Detector, paths: list[Path]) -> float:
    """Measure the seconds of work an image of comparing a folder with itself, from files to Predictions."""
    begin = time.process_time()
    for _ in detector.predict_iter(paths):
        pass
    return (time.process_time() - begin) / len(paths)


def measure_set(count: int) -> None:
    """Measure one number of images; print what came of it, and the peak of memory as the last line."""
    words = load_detector()
    with tempfile.TemporaryDirectory() as folder:
        paths = noisy_scenes(Path(folder), count)
        tower_seconds(words, paths[: words.options.batch_size])  # warm-up
        alone = [tower_seconds(words, paths[:TOWER])]
        together = set_seconds(words.together(), paths)
        alone.append(tower_seconds(words, paths[:TOWER]))
    print(json.dumps({"count": count, "tower": min(alone), "together": together}))
    report_peak()


def sets(counts: list[int]) -> None:
    """Measure each number of images; print a line for each."""
    print("a folder compared with itself")
    for count in counts:
        command = [sys.executable, __file__, "--only", str(count)]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()
        taken = json.loads(lines[-2])
        together, tower = 1000 * taken["together"], 1000 * taken["tower"]
        times = f"{together:.0f} ms an image, {together / tower:.2f} times the tower's {tower:.0f}"
        print(f"{count} images: {times}; peak {float(lines[-1]):.0f} MB", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, nargs="*", default=[4, 20], help="numbers of photographs learned")
    parser.add_argument("--sets", type=int, nargs="*", default=[50, 200], help="numbers of images compared")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        measure_set(asked.only)
        return
    print(machine())
    if asked.photos:
        photos(asked.photos)
    if asked.sets:
        sets(asked.sets)


if __name__ == "__main__":
    main()
