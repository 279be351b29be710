"""Learn what ships for a method with several seeds, and judge each by what may choose: a Markdown table.

    python lab/benchmarks/seeds.py runs --photographs mvtec:../shared/data/peeled_hazelnut --method aprilgan

Judges are 256 drawn scenes of families that nothing was learned from, and photographs of one kind of thing: with the
pooling that suits them best, the quality that also chooses the best method (mean of pixel AUROC and share of twins in
order on the scenes), and both AUROCs of the photographs. Scenes and features are kept in WORK, which may be that of
`ship`. What is finished in WORK stays, and a stopped seed goes on.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from anomalens.datasets.layouts import Sample
from anomalens.detection.loading import load_detector
from anomalens.learning.training import TrainingPlan
from anomalens.metrics.summary import auroc
from anomalens.options import BUNDLED
from anomalens_lab import calibrate, ship
from anomalens_lab.painting import paint_scenes
from anomalens_lab.shards import Scenes

JUDGES = 256  # drawn scenes, half of those that thresholds are chosen on


def judged(method: str, checkpoint: Path, scenes: Scenes, photographs: list[Sample]) -> str:
    """Return the cells of a seed's row."""
    detector = load_detector(method, BUNDLED, checkpoint=checkpoint, batch_size=4)
    drawn, real = calibrate.judge_both(detector, scenes, photographs)
    pooling = calibrate.fit(drawn, real, "seeds").pooling
    scores = pooling(drawn.scores, drawn.maps)
    numbers = [
        calibrate.quality(drawn, pooling),
        auroc(drawn.maps.ravel(), drawn.masks.ravel()),
        calibrate.twins_in_order(scores, drawn.labels),
    ]
    if real is not None:
        numbers += [auroc(pooling(real.scores, real.maps), real.labels), auroc(real.maps.ravel(), real.masks.ravel())]
    return " | ".join("-" if number is None else f"{100 * number:.1f}" for number in numbers)


def main() -> None:
    """Learn what is missing and print a row for each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for scenes, features and checkpoints")
    parser.add_argument("--method", action="append", default=[], choices=ship.METHODS, help="may be repeated")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--photographs", help="LAYOUT:PATH of one labelled class no result is claimed on")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    paint_scenes(asked.work / "judges", JUDGES, size=512, seed=calibrate.SEED, held_out=True)
    scenes = Scenes(asked.work / "judges")
    photographs = calibrate.labelled_images(asked.photographs)
    print("| | quality | scenes: pixel AUROC | twins in order | photographs: image AUROC | pixel AUROC |")
    print("|---|---|---|---|---|---|", flush=True)
    for method in asked.method:
        for seed in range(asked.seeds):
            out = asked.work / "seeds" / f"{method}-{seed}.safetensors"
            if not out.exists():
                ship.learn(method, asked.work, out, plan=replace(ship.PLANS.get(method, TrainingPlan()), seed=seed))
            print(f"| {method}, seed {seed} | {judged(method, out, scenes, photographs)} |", flush=True)


if __name__ == "__main__":
    main()
