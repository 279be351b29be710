"""The engine "ray" against one process on the same cores, and the figures per image that docs/scale.md reckons with.

    python benchmarks/scale.py ../shared/data --count 400
    python benchmarks/scale.py --count 24 --repeats 1          drawn pictures, to see that it runs
    python benchmarks/scale.py --overhead                      what keys and rows cost the engine without any image

Both turn files into rows (decoding, tower, map, regions); neither draws pictures. The one process has as many threads
as the engine has actors; each actor has one thread. They take turns on the same photos in one run. Start-up is
reported by itself: the engine's rate is counted from the moment when every actor has finished one part, because that
rate lasts over millions of images. The bytes of a row are those in files of many rows, as large runs write them. The
actors' memory is read on Linux only.
"""

import argparse
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector
from anomalens.images.sources import list_images
from anomalens.options import LoadOptions
from anomalens.runs.ray_inputs import list_inputs
from anomalens.runs.ray_run import detect_scaled
from anomalens.runs.store import RunSummary
from measure import machine, report_peak


class Figures(NamedTuple):
    """Hold the measurements of one run of the engine."""

    # Seconds from the call until every actor has finished a part.
    start: float
    # Images a second from then on.
    rate: float
    # Bytes of a row on disk.
    row: float
    # MB at the peak of the largest actor; NaN where it cannot be read.
    memory: float


def photos(folder: Path | None, count: int, room: Path) -> list[str]:
    """Make `count` files in `room`: links to the photos below `folder` in turn, or pictures drawn with a fixed seed."""
    names = [room / f"{index:05d}.jpg" for index in range(count)]
    if folder is not None:
        paths = [path.resolve() for path in list_images([folder]) if "ground_truth" not in path.parts]
        for name, path in zip(names, cycle(paths), strict=False):
            name.symlink_to(path)
    else:
        draw = np.random.default_rng(0)
        for name in names:
            noise = gaussian_filter(draw.normal(size=(480, 640, 3)), (4, 4, 0))
            Image.fromarray((128 + 400 * noise).clip(0, 255).astype(np.uint8)).save(name, quality=90)
    return [str(name) for name in names]


def one_process(detector: Detector, paths: list[str]) -> float:
    """Measure the images a second of one process, from files to rows."""
    begin = time.perf_counter()
    for result in detector.predict_iter([Path(path) for path in paths]):
        result.to_dict()
    return len(paths) / (time.perf_counter() - begin)


def actor_memory() -> float:
    """Read the peak resident memory of the largest actor in MB."""
    return max(_peaks(), default=float("nan"))


def _peaks() -> Iterator[float]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"MapWorker" in (folder / "cmdline").read_bytes():
                status = (folder / "status").read_text().splitlines()
                yield next(float(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
        except OSError:  # it ended meanwhile
            continue


def engine(options: LoadOptions, paths: list[str], actors: int, part: int) -> Figures:
    """Measure one run of the engine on the cluster that is connected."""
    begin, seen = time.perf_counter(), [(0.0, 0)]
    memory: list[float] = []

    def watch(summary: RunSummary) -> None:
        if summary.counts.rows:
            seen.append((time.perf_counter() - begin, summary.counts.rows))
            memory.append(actor_memory())

    with tempfile.TemporaryDirectory() as folder:
        detect_scaled(paths, folder, options, {}, actors=actors, part_size=part, progress=watch)
        together = Path(folder) / "together.parquet"
        pq.write_table(ds.dataset(Path(folder) / "rows").to_table(), together, compression="zstd")
        size = together.stat().st_size
    (first, before), (last, after) = seen[min(actors, len(seen) - 1)], seen[-1]
    rate = (after - before) / (last - first) if after > before else float("nan")
    return Figures(first, rate, size / len(paths), max(memory))


def manifest(path: Path, count: int) -> Path:
    """Write a manifest of `count` paths of 75 characters, of files that do not exist."""
    numbers = pc.utf8_lpad(pc.cast(pa.array(np.arange(count)), pa.string()), 12, "0")
    start = "/nowhere/factory-line-7/2026/11/21/shift-b/camera-03/frame-"
    pq.write_table(pa.table({"path": pc.binary_join_element_wise(start, numbers, ".jpg", "")}), path)
    return path


def list_and_report(path: Path) -> None:
    """List a manifest and print the seconds and the peak of memory; `overhead` runs this in a process of its own."""
    begin = time.perf_counter()
    list_inputs([path])
    print(time.perf_counter() - begin)
    report_peak()


def overhead(keys: int, rows: int, actors: int) -> dict[str, str]:
    """Measure the cost of a key and of a row where no image is read: every row says that its file does not exist."""
    seen: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        large, single = manifest(Path(folder) / "large.parquet", keys), manifest(Path(folder) / "single.parquet", 1)
        command = [sys.executable, __file__, "--list"]
        ran = [subprocess.run([*command, path], check=True, capture_output=True, text=True) for path in (large, single)]
        (seconds, peak), (_, floor) = ([float(line) for line in each.stdout.split()[-2:]] for each in ran)
        inputs = manifest(Path(folder) / "absent.parquet", rows)
        out = Path(folder) / "run"

        def watch(summary: RunSummary) -> None:
            seen.append((time.perf_counter(), summary.counts.rows))

        detect_scaled([inputs], out, LoadOptions(device="cpu"), {}, actors=actors, progress=watch)
    (first, before), (last, after) = seen[min(actors, len(seen) - 2)], seen[-1]
    return {
        "seconds of the driver a key": f"{seconds / keys:.7f}",
        "bytes of the driver a key, at its peak": f"{(peak - floor) * 1e6 / keys:.0f}",
        "core seconds of the engine a row": f"{actors * (last - first) / (after - before):.6f}",
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="folder of photos; pictures are drawn unless named")
    parser.add_argument("--count", type=int, default=200, help="images of a run; photos are repeated if need be")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--actors", type=int, default=2, help="one thread each; also the threads of the one process")
    parser.add_argument("--part-size", type=int, help="images of a part; an eighth of an actor's share unless named")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--size", type=int, help="side in pixels at which the tower looks")
    parser.add_argument("--overhead", action="store_true", help="measure keys and rows instead of images")
    parser.add_argument("--keys", type=int, default=4_000_000, help="of the manifest that --overhead lists")
    parser.add_argument("--rows", type=int, default=300_000, help="that --overhead writes")
    parser.add_argument("--list", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.list:
        list_and_report(arguments.list)
        return

    import ray

    part = arguments.part_size or max(1, arguments.count // (8 * arguments.actors))
    torch.set_num_threads(arguments.actors)
    print(machine())
    ray.init(
        "local", num_cpus=arguments.actors, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    if arguments.overhead:
        show(overhead(arguments.keys, arguments.rows, arguments.actors))
        return
    options = LoadOptions(arguments.method, size=arguments.size, device="cpu")
    detector = load_detector(options)
    alone, figures = [], []
    with tempfile.TemporaryDirectory() as room:
        paths = photos(arguments.folder, arguments.count, Path(room))
        file = statistics.mean(Path(path).stat().st_size for path in paths)
        key = list_inputs(paths).table.nbytes / len(paths)
        one_process(detector, paths[: 2 * detector.options.batch_size])  # warm
        for _ in range(arguments.repeats):
            alone.append(one_process(detector, paths))
            figures.append(engine(options, paths, arguments.actors, part))
    ray.shutdown()

    middle = Figures(*(statistics.median(values) for values in zip(*figures, strict=True)))
    single = statistics.median(alone)
    lines = {
        f"one process of {arguments.actors} threads, images/s": f"{single:.2f}",
        f"{arguments.actors} actors of 1 thread, images/s": f"{middle.rate:.2f}",
        "ratio": f"{middle.rate / single:.2f}",
        "seconds of start-up": f"{middle.start:.1f}",
        "core seconds an image": f"{arguments.actors / middle.rate:.4f}",
        "bytes of a row": f"{middle.row:.0f}",
        "bytes of an image file": f"{file:.0f}",
        "bytes of a key in memory": f"{key:.0f}",
        "MB of an actor at its peak": f"{middle.memory:.0f}",
    }
    print(f"{detector!r}, {arguments.count} images in parts of {part}, median of {arguments.repeats}")
    show(lines)


def show(lines: dict[str, str]) -> None:
    """Print names and values in two columns."""
    for name, value in lines.items():
        print(f"{name:40s} {value:>10s}")


if __name__ == "__main__":
    main()
