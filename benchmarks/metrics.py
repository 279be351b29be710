"""AUPRO and its kin: our two modes against the usual ways, as ratios in one run, each in a process of its own.

    python benchmarks/metrics.py                          100 maps of 518 x 518
    python benchmarks/metrics.py --maps 20 --size 256     smaller
    python benchmarks/metrics.py --out results.md         also write the table

Targets: histogram mode at least 100x faster than the papers' 200-threshold loop, exact mode at least 5x faster than
sorting all pixels, histogram memory the same for 20x the maps. scikit-learn, scikit-image and `adeval` are
compared where they are installed (`adeval` needs OpenCV, so it is not among the development packages).
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from scipy import ndimage

Pair = tuple[NDArray[np.float32], NDArray[np.bool_]]
LIMIT = 0.3


def pairs(count: int, size: int, seed: int = 0) -> Iterator[Pair]:
    """Draw maps like a ViT's (37 x 37 logits upsampled, sigmoid) with up to four blobs in three of four images."""
    for index in range(count):
        generator = np.random.default_rng((seed, index))
        coarse = ndimage.gaussian_filter(generator.normal(size=(37, 37)), 1.0) * 3.0 - 2.0
        ticks = np.linspace(-1, 1, size)
        mask = np.zeros((size, size), np.bool_)
        for _ in range(int(generator.integers(1, 5)) if index % 4 else 0):
            x, y = generator.uniform(-0.8, 0.8, 2)
            radius, squash = generator.uniform(0.02, 0.15), generator.uniform(0.5, 2.0)
            mask |= ((ticks[:, None] - y) * squash) ** 2 + (ticks - x) ** 2 < radius**2
        logits = ndimage.zoom(coarse, size / 37, order=1, grid_mode=True, mode="nearest")
        logits += 2.0 * ndimage.gaussian_filter(mask.astype(np.float32), size / 50)
        yield (1.0 / (1.0 + np.exp(-logits))).astype(np.float32), mask


def stacked(count: int, size: int) -> Pair:
    """Return the same maps as arrays [count, size, size], filled in place so that only they count as memory."""
    maps, masks = np.empty((count, size, size), np.float32), np.empty((count, size, size), np.bool_)
    for index, (scores, mask) in enumerate(pairs(count, size)):
        maps[index], masks[index] = scores, mask
    return maps, masks


def threshold_loop(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> float:
    """Evaluate as the papers do: label and measure every region anew at each of 200 thresholds."""
    from skimage import measure

    low, high = float(maps.min()), float(maps.max())
    overlap, rate = [], []
    for step in range(200):
        binary = maps > low + step * ((high - low) / 200)
        recalls = [
            single[region.coords[:, 0], region.coords[:, 1]].sum() / region.area
            for single, mask in zip(binary, masks, strict=True)
            for region in measure.regionprops(measure.label(mask))
        ]
        overlap.append(np.mean(recalls))
        rate.append(np.logical_and(~masks, binary).sum() / (~masks).sum())
    x, y = np.array(rate), np.array(overlap)
    x, y = x[x < LIMIT], y[x < LIMIT]
    return float(np.trapezoid(y[::-1], (x[::-1] - x.min()) / (x.max() - x.min())))


def full_sort(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> float:
    """Exact AUPRO as the MVTec reference goes about it: order all pixels by score, two running sums, integrate."""
    weight = np.zeros(maps.shape)
    regions = 0
    for target, mask in zip(weight, masks, strict=True):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        sizes = np.bincount(labels.ravel())
        target[mask] = 1.0 / sizes[labels[mask]]
        regions += count
    order = np.argsort(maps.ravel())[::-1]
    scores = maps.ravel()[order]
    last = np.append(scores[1:] != scores[:-1], True)
    rate = np.append(0.0, (np.cumsum(~masks.ravel()[order]) / (~masks).sum())[last])
    overlap = np.append(0.0, (np.cumsum(weight.ravel()[order]) / regions)[last])
    inside = rate <= LIMIT
    x, y = np.append(rate[inside], LIMIT), np.append(overlap[inside], np.interp(LIMIT, rate, overlap))
    return float(np.trapezoid(y, x) / LIMIT)


def scikit_learn(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> float:
    """Pixel AUROC only: there is no AUPRO in scikit-learn."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(masks.ravel(), maps.ravel()))


def adeval(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> float:
    """Return the package's AUROC, AUPR and AUPRO over 1,000 even bins."""
    if "trapz" not in vars(np):
        vars(np)["trapz"] = np.trapezoid  # adeval 1.1 predates NumPy 2.4, which dropped the old name
    from adeval import auroc_aupr_aupro

    return float(auroc_aupr_aupro(maps, masks.astype(np.uint8))[2])


def exact_aupro(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> float:
    """Return our exact AUPRO."""
    from anomalens.metrics.summary import aupro

    return aupro(maps, masks, LIMIT) or 0.0


def exact_all(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> float:
    """Return our exact AUROC, AP, F1-max, AUPRO and 200-threshold AUPRO together."""
    from anomalens.metrics.summary import PixelAccumulator

    accumulator = PixelAccumulator("exact")
    accumulator.update(maps, masks)
    return accumulator.compute(LIMIT)["aupro"] or 0.0


WHOLE: dict[str, tuple[str, Callable[..., float]]] = {
    "loop": ("200-threshold loop, papers' way (AUPRO variant)", threshold_loop),
    "sort": ("full sort (AUPRO)", full_sort),
    "sklearn": ("scikit-learn roc_auc_score (AUROC)", scikit_learn),
    "adeval": ("adeval, 1,000 bins (AUROC, AUPR, AUPRO)", adeval),
    "exact": ("anomalens exact (AUPRO)", exact_aupro),
    "exact-all": ("anomalens exact (all six)", exact_all),
}
STREAMED = {
    "histogram": "anomalens histogram (all six)",
}


def run_candidate(name: str, count: int, size: int) -> dict[str, float]:
    """Measure seconds, value and memory of one candidate, in this process. Making the maps is not timed.

    Memory is counted above what the process held before the first map: the maps where all are needed at once, and
    whatever the method adds.
    """
    if name in WHOLE:
        run = WHOLE[name][1]
        tiny = stacked(4, 64)
        run(*tiny)  # imports and first-call costs
        before = peak_megabytes()
        maps, masks = stacked(count, size)
        begin = time.perf_counter()
        value = run(maps, masks)
        return {"seconds": time.perf_counter() - begin, "value": value, "megabytes": peak_megabytes() - before}

    from anomalens.metrics.summary import PixelAccumulator

    warm = PixelAccumulator("histogram")
    for scores, mask in pairs(4, size):
        warm.update(scores, mask)
    warm.compute(LIMIT)
    before = peak_megabytes()
    accumulator = PixelAccumulator("histogram")
    seconds = 0.0
    for scores, mask in pairs(count, size):
        begin = time.perf_counter()
        accumulator.update(scores, mask)
        seconds += time.perf_counter() - begin
    begin = time.perf_counter()
    value = accumulator.compute(LIMIT)["aupro"] or 0.0
    seconds += time.perf_counter() - begin
    return {"seconds": seconds, "value": value, "megabytes": peak_megabytes() - before}


def peak_megabytes() -> float:
    """Peak resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def measured(name: str, count: int, size: int) -> dict[str, float] | None:
    """Call `run_candidate` in a fresh process; None where its package is not installed."""
    command = [sys.executable, __file__, "--candidate", name, "--maps", str(count), "--size", str(size)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "ModuleNotFoundError" in done.stderr:
        return None
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    """Measure every candidate in turn, several rounds of the quick ones, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=100, help="maps (default: 100)")
    parser.add_argument("--size", type=int, default=518, help="edge of a map in pixels (default: 518)")
    parser.add_argument("--more", type=int, default=20, help="memory is shown again for this many times the maps")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of all but the loop; the median counts")
    parser.add_argument("--out", help="also write the table to this file")
    parser.add_argument("--candidate", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.candidate:
        print(json.dumps(run_candidate(options.candidate, options.maps, options.size)))
        return

    names = {key: label for key, (label, _) in WHOLE.items()} | STREAMED
    rounds: dict[str, list[dict[str, float]]] = {}
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("measuring", total=options.repeats * (len(names) - 1) + 2)
        for turn in range(options.repeats):
            for key, label in names.items():
                if key == "loop" and turn:
                    continue
                progress.update(task, description=label)
                if result := measured(key, options.maps, options.size):
                    rounds.setdefault(key, []).append(result)
                progress.advance(task)
        progress.update(task, description=f"{STREAMED['histogram']}, {options.more}x the maps")
        longer = measured("histogram", options.more * options.maps, options.size)
        progress.advance(task)

    seconds = {key: statistics.median(result["seconds"] for result in results) for key, results in rounds.items()}
    lines = [
        f"{options.maps} maps of {options.size} x {options.size}; Python {platform.python_version()}, "
        f"NumPy {np.__version__}, {platform.machine()}, {os.cpu_count()} cores, "
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}.",
        "",
        "| way | value | seconds | against the loop | against the full sort | peak memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    for key, results in rounds.items():
        lines.append(
            f"| {names[key]} | {results[0]['value']:.6f} | {seconds[key]:.3f} | "
            f"{seconds['loop'] / seconds[key]:.1f}x | {seconds['sort'] / seconds[key]:.2f}x | "
            f"{max(result['megabytes'] for result in results):.1f} |"
        )
    if longer:
        lines.append(
            f"| {names['histogram']}, {options.more * options.maps} maps | {longer['value']:.6f} | "
            f"{longer['seconds']:.3f} | | | {longer['megabytes']:.1f} |"
        )
    lines += [f"| {names[key]} | not installed | | | | |" for key in names if key not in rounds]
    text = "\n".join(lines)
    print(text)
    if options.out:
        from anomalens.files import atomic_write

        atomic_write(options.out, text + "\n")


if __name__ == "__main__":
    main()
