"""Accuracy of the bundled backbone on real sets, by class, beside a baseline that learns nothing: a Markdown table.

    python lab/benchmarks/accuracy.py ../shared/data --method anoclip --method crane
    python lab/benchmarks/accuracy.py ../shared/data --saliency
    python lab/benchmarks/accuracy.py ../shared/data --method anoclip --backbone runs/backbone/backbone.safetensors \\
        --calibrate runs/held-out --photographs mvtec:../shared/data/peeled_hazelnut

Every folder below the given one that holds classes in MVTec layout is a set. The baseline is the local contrast of
colour: how far the blurred picture at 1/128 of its side is from itself at 1/12, image score the mean of its top 1 %.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from anomalens.datasets.layouts import Dataset, open_dataset
from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector
from anomalens.evaluation.evaluator import EvaluationConfig, evaluate, tested
from anomalens.metrics.accumulator import PixelAccumulator
from anomalens.metrics.summary import summarise
from anomalens_lab import calibrate

COLUMNS = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max", "aupro")
Values = dict[str, float | int | None]
Look = Callable[[Path, int], npt.NDArray[np.float32]]


def contrast(path: Path, side: int) -> npt.NDArray[np.float32]:
    """Compute the local contrast map [side, side] of a picture."""
    with Image.open(path) as opened:
        pixels = np.asarray(opened.convert("RGB").resize((side, side)), np.float32) / 255
    near, far = (gaussian_filter(pixels, (side / part, side / part, 0)) for part in (128, 12))
    return np.asarray(np.sqrt(np.square(near - far).sum(axis=2)), np.float32)


def untrained(dataset: Dataset, side: int, look: Look = contrast) -> dict[str, Values]:
    """Compute metrics by class of maps [side, side] that `look` makes of pictures."""
    numbers: dict[str, Values] = {}
    for name, samples in tested(dataset).items():
        pixels, scores = PixelAccumulator("histogram"), []
        for sample in samples:
            contrast_map = look(sample.image, side)
            mask = np.zeros((side, side), bool)
            if sample.mask is not None:
                with Image.open(sample.mask) as opened:
                    small = opened.convert("L").resize((side, side), Image.Resampling.NEAREST)
                    mask = np.asarray(small) > 127
            pixels.update(contrast_map[None], mask[None])
            scores.append(float(np.sort(contrast_map, axis=None)[-contrast_map.size // 100 :].mean()))
        labels = np.array([sample.label == 1 for sample in samples])
        counts: Values = {"n_normal": int((~labels).sum()), "n_anomalous": int(labels.sum())}
        numbers[name] = {**counts, **summarise(np.array(scores), labels, pixels, 0.3)}
    return numbers


def real_sets(folder: Path) -> list[Dataset]:
    """Open every folder below `folder` that holds classes in MVTec layout."""
    return [open_dataset(f"mvtec:{path}") for path in sorted(folder.iterdir()) if path.is_dir()]


def measured(detector: Detector, datasets: list[Dataset], side: int) -> dict[str, Values]:
    """Compute metrics by class of a detector."""
    rows: dict[str, Values] = {}
    for dataset in datasets:
        result = evaluate(detector, dataset, EvaluationConfig(size=side, gallery=0))
        rows |= {name: dict(values) for name, values in result.classes.items()}
    return rows


def calibrated(detector: Detector, scenes: Path, photographs: str | None) -> Detector:
    """Choose the detector's pooling as that of the shipped weights was, on scenes (painted where missing)."""
    known, real = calibrate.held_out_scenes(scenes), calibrate.labelled_images(photographs)
    chosen, quality = calibrate.calibrate_method(detector, known, real)
    print(f"{chosen.pooling}; quality on scenes {100 * quality:.1f}", flush=True)
    return detector.replace(calibration=chosen.calibration, pooling=chosen.pooling)


def means(rows: dict[str, Values]) -> str:
    """Return the cells of a Markdown row: each metric's mean over the classes where it is defined."""
    columns = ([float(v) for row in rows.values() if (v := row[c]) is not None] for c in COLUMNS)
    return " | ".join(f"{np.mean(values):.1f}" if values else "-" for values in columns)


def table(rows: dict[str, Values]) -> str:
    """Markdown, with the mean over classes where each metric is defined."""
    names = [c.replace("_", " ") for c in COLUMNS]
    lines = ["| class | normal / anomalous | " + " | ".join(names) + " |", "|---" * (2 + len(COLUMNS)) + "|"]
    for name, row in rows.items():
        cells = ["-" if row[c] is None else f"{row[c]:.1f}" for c in COLUMNS]
        lines.append(f"| {name} | {row['n_normal']} / {row['n_anomalous']} | " + " | ".join(cells) + " |")
    lines.append(f"| mean | | {means(rows)} |")
    return "\n".join(lines)


def main() -> None:
    """Print one table a method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of data sets in MVTec layout")
    parser.add_argument("--method", action="append", default=[], help="may be repeated")
    parser.add_argument("--saliency", action="store_true", help="the baseline without learning")
    parser.add_argument("--backbone", default="bundled", help="name or file of weights")
    parser.add_argument("--checkpoint", help="FILE that was learned with these weights (default: as shipped)")
    parser.add_argument("--calibrate", type=Path, help="folder of scenes: calibrate first, as the shipped weights were")
    parser.add_argument("--photographs", help="LAYOUT:PATH, with --calibrate")
    parser.add_argument("--size", type=int, help="side in pixels at which the tower looks")
    parser.add_argument("--extra-size", type=int, action="append", default=[], help="a further side; maps are averaged")
    parser.add_argument("--eval-size", type=int, default=256, help="side at which maps meet masks")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="precision of the tower")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    datasets = real_sets(arguments.folder)
    if arguments.saliency:
        numbers: dict[str, Values] = {}
        for dataset in datasets:
            numbers |= untrained(dataset, arguments.eval_size)
        print(f"\nlocal contrast, no learning\n\n{table(numbers)}", flush=True)
    for method in arguments.method:
        settings = {
            "size": arguments.size,
            "extra_sizes": arguments.extra_size,
            "checkpoint": arguments.checkpoint,
            "dtype": arguments.dtype,
            "batch_size": 4,
        }
        detector = load_detector(method, arguments.backbone, **settings, **calibrate.METHODS.get(method, {}))
        if arguments.calibrate:
            detector = calibrated(detector, arguments.calibrate, arguments.photographs)
        rows = measured(detector, datasets, arguments.eval_size)
        sizes = " and ".join(str(look.size) for look in detector.sizes)
        place = f"{arguments.backbone} at {sizes} pixels, {arguments.dtype}"
        print(f"\n{method} on {place}\n\n{table(rows)}", flush=True)


if __name__ == "__main__":
    main()
