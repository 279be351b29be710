"""Several backbones as one: the mean of their maps, or one file with the mean of their weights.

    python lab/benchmarks/together.py maps A.safetensors B.safetensors --scenes runs/held-out \\
        --photographs mvtec:../shared/data/peeled_hazelnut --real ../shared/data
    python lab/benchmarks/together.py weights OUT.safetensors A.safetensors B.safetensors

`maps` reads with AnoCLIP and prints a line of JSON with what may choose, drawn scenes and labelled photographs, and one
for each real class; maps meet masks at 128 x 128 pixels. The mean of weights needs backbones that were trained on from
the same one, as stages of a recipe are: the mean of two runs from nothing sees nothing.
"""

import argparse
import json
from pathlib import Path

import torch
from accuracy import real_sets
from variants import mean, row

from anomalens.decision.calibration import ShippedMethod
from anomalens.detection.loading import load_detector
from anomalens.evaluation.evaluator import tested
from anomalens.metrics.summary import auroc
from anomalens_lab import calibrate
from anomalens_lab.averaging import mean_of_weights
from anomalens_lab.calibrate import Judged


def real_row(judged: Judged, chosen: ShippedMethod) -> dict[str, float | None]:
    """Compute the numbers of one real class, in percent; None where only sound or only faulty images are there."""
    scores = chosen.pooling(judged.scores, judged.maps)
    called = scores[~judged.labels] > chosen.calibration.threshold
    shares = {
        "image AUROC": auroc(scores, judged.labels),
        "pixel AUROC": auroc(judged.maps.ravel(), judged.masks.ravel()),
        "sound called faulty": float(called.mean()) if called.size else None,
    }
    return {name: None if share is None else round(100 * share, 1) for name, share in shares.items()}


def show_maps(asked: argparse.Namespace) -> None:
    """Print what the mean of the maps of all backbones is worth."""
    scenes = calibrate.held_out_scenes(asked.scenes, workers=2)
    photographs = calibrate.labelled_images(asked.photographs)
    side, *further = asked.size
    detectors = [
        load_detector("anoclip", str(file), views=1, batch_size=2, size=side, extra_sizes=tuple(further))
        for file in asked.files
    ]
    both = [calibrate.judge_both(detector, scenes, photographs) for detector in detectors]
    drawn, real = mean([one for one, _ in both]), mean([other for _, other in both if other])
    chosen = calibrate.fit(drawn, real, "")
    files = [str(file) for file in asked.files]
    print(json.dumps({"files": files, "sizes": asked.size, **row(drawn, real)}), flush=True)
    for dataset in real_sets(asked.real) if asked.real else []:
        for name, samples in tested(dataset).items():
            judged = mean([calibrate.judge_labelled(detector, samples) for detector in detectors])
            print(json.dumps({"class": name, **real_row(judged, chosen)}), flush=True)


def main() -> None:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    commands = parser.add_subparsers(dest="command", required=True)
    maps = commands.add_parser("maps", help="judge the mean of the maps")
    maps.add_argument("files", type=Path, nargs="+", help="weights")
    maps.add_argument("--scenes", type=Path, required=True, help="held-out scenes; painted where missing")
    maps.add_argument("--photographs", required=True, help="LAYOUT:PATH of one labelled class")
    maps.add_argument("--real", type=Path, help="folder of data sets in MVTec layout, which choose nothing")
    maps.add_argument("--size", type=int, nargs="+", default=[448, 224], help="sides in pixels (default: 448 224)")
    weights = commands.add_parser("weights", help="write the mean of the weights")
    weights.add_argument("out", type=Path)
    weights.add_argument("files", type=Path, nargs="+")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.command == "maps":
        show_maps(asked)
    else:
        mean_of_weights(asked.out, asked.files)


if __name__ == "__main__":
    main()
