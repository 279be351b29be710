"""Ways to a better backbone, in one schedule: train each with several seeds, judge it by what may choose.

    python lab/benchmarks/variants.py WORK --photographs mvtec:../shared/data/peeled_hazelnut --device cuda --workers 16
    python lab/benchmarks/variants.py WORK --photographs ... --only thawed --seed 1 --steps 1900

    base      drawn scenes alone, the stem and the transformer of the shipped weights
    halved    the stem reads the picture at half its size too
    wide      halved, with 6 blocks of width 256 instead of 4 of 192
    rank      wide, with twice the weight on twins in order, half of the twins framed apart
    thawed    wide, with the last five blocks of the stem learning, held near what ImageNet taught them

Each is read by AnoCLIP, which learns nothing, at 448 pixels and as the mean of 448 with 320 or 224. It is judged by
drawn scenes of families that it did not see and by the photographs; pooling and threshold are chosen on these as for
shipped weights. Scenes are painted in WORK once (28,672 of 448 pixels, 23 GB). What is finished in WORK stays.

One run of 400 steps takes a core two to three hours; ten runs side by side took three minutes of an H200.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from anomalens.datasets.layouts import Sample
from anomalens.detection.loading import load_detector
from anomalens.metrics.summary import auroc
from anomalens.options import BUNDLED
from anomalens_lab import calibrate
from anomalens_lab.alignment import Weights
from anomalens_lab.calibrate import Judged
from anomalens_lab.painting import paint_scenes
from anomalens_lab.pretraining import PAINTED, SCENES, pretrain
from anomalens_lab.recipe import PretrainConfig
from anomalens_lab.shards import Scenes

BASE = PretrainConfig(batch=48, pixels=48 * 288 * 288, final_batch=24, rate=1.2e-3)
HALVED = replace(BASE, stem="efficientnet-lite0-halved")
WIDE = replace(HALVED, image_width=256, layers=6, rate=1e-3)
VARIANTS = {
    "base": BASE,
    "halved": HALVED,
    "wide": WIDE,
    "rank": replace(WIDE, apart=0.5, weights=Weights(rank=1.0)),
    "thawed": replace(WIDE, thawed=5),
}
SIZES = ((448,), (448, 320), (448, 224))
"""Sides in pixels at which the picture is looked at, one set after the other."""


def scheduled(config: PretrainConfig, steps: int, seed: int) -> PretrainConfig:
    """Return the config for a number of steps, of which a tenth at the size that the weights are used at."""
    return replace(
        config,
        steps=steps,
        seed=seed,
        warmup=min(200, max(1, steps // 10)),
        final_steps=steps // 10,
        average=0.998 if steps > 1500 else 0.99,
        checkpoint_every=max(1, steps // 4),
    )


def mean(answers: Sequence[Judged]) -> Judged:
    """Return what a detector that looks at several sizes gives: the mean of scores and of maps."""
    scores, maps = (np.mean([getattr(one, part) for one in answers], axis=0) for part in ("scores", "maps"))
    return Judged(np.asarray(scores, np.float32), np.asarray(maps, np.float32), answers[0].masks)


def row(scenes: Judged, photographs: Judged) -> dict[str, float]:
    """Compute the numbers that may choose, in percent, with pooling and threshold chosen as for shipped weights."""
    chosen = calibrate.fit(scenes, photographs, "")
    scores, real = (chosen.pooling(part.scores, part.maps) for part in (scenes, photographs))
    shares = {
        "pixel AUROC": auroc(scenes.maps.ravel(), scenes.masks.ravel()),
        "twins in order": calibrate.twins_in_order(scores, scenes.labels),
        "quality": calibrate.quality(scenes, chosen.pooling),
        "image AUROC": auroc(scores, scenes.labels),
        "sound called faulty": float(np.mean(scores[~scenes.labels] > chosen.calibration.threshold)),
        "photographs, image AUROC": auroc(real, photographs.labels),
        "photographs, pixel AUROC": auroc(photographs.maps.ravel(), photographs.masks.ravel()),
    }
    return {name: round(100 * (share or 0.0), 1) for name, share in shares.items()}


def judged(weights: str, scenes: Scenes, photographs: list[Sample], device: str) -> dict[str, dict[str, float]]:
    """Return the rows of weights by the sizes that AnoCLIP looks at."""
    answers: dict[int, list[Judged]] = {}
    for side in sorted({side for sizes in SIZES for side in sizes}):
        detector = load_detector("anoclip", weights, device=device, batch_size=8, views=1, size=side)
        answers[side] = [part for part in calibrate.judge_both(detector, scenes, photographs) if part]

    def together(sizes: tuple[int, ...]) -> dict[str, float]:
        drawn, real = (mean([answers[side][part] for side in sizes]) for part in (0, 1))
        return row(drawn, real)

    return {" and ".join(map(str, sizes)): together(sizes) for sizes in SIZES}


def main() -> None:
    """Print a line of JSON for each backbone and size, the shipped weights first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of scenes and runs")
    parser.add_argument("--photographs", required=True, help="LAYOUT:PATH of one labelled class")
    parser.add_argument("--only", choices=sorted(VARIANTS), action="append", help="may be repeated; default: all")
    parser.add_argument("--seed", type=int, action="append", help="may be repeated; default: 0 and 1")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=2, help="processes that paint")
    arguments = parser.parse_args()
    painted = arguments.work / "scenes"
    paint_scenes(painted, SCENES, size=PAINTED, seed=1, workers=arguments.workers)
    held_out = calibrate.held_out_scenes(arguments.work / "held-out", arguments.workers)
    photographs = calibrate.labelled_images(arguments.photographs)

    def show(name: str, weights: str) -> None:
        for sizes, numbers in judged(weights, held_out, photographs, arguments.device).items():
            print(json.dumps({"backbone": name, "sizes": sizes, **numbers}), flush=True)

    show("shipped", BUNDLED)
    for seed in arguments.seed or (0, 1):
        for name in arguments.only or VARIANTS:
            config = scheduled(VARIANTS[name], arguments.steps, seed)
            out = arguments.work / f"{name}-{seed}-{arguments.steps}"
            show(f"{name}, seed {seed}", str(pretrain(config, painted, out, device=arguments.device)))


if __name__ == "__main__":
    main()
