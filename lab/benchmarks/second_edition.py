"""A backbone on clean papers, in stages: train each, judge it by what may choose.

    apt-get download ufoai-textures && dpkg -x ufoai-textures*.deb unpacked
    python lab/benchmarks/second_edition.py WORK unpacked --photographs mvtec:../shared/data/peeled_hazelnut

Photographs of surfaces are those of the package whose licence, as its copyright file states for each, asks for nothing
or for attribution. Each stage begins with the weights of the one before:

    halved    from nothing: the stem reads the picture at half its size too; a quarter of the twins framed apart, their
              order weighing twice as much
    soft      60 % of the twins as soft as photographs which were enlarged, sides up to 448 pixels
    uneven    half of the twins soft, half of the images lit unevenly

    python lab/benchmarks/second_edition.py WORK unpacked --photographs ... --wide 0.3 --stages 1

With --wide, that share of the defects spreads over much of the thing: long cracks, nets of cracks, unevenly finished
areas. 20,480 scenes of 320 pixels are painted in WORK once (8 GB, eight minutes of two cores). A run of all stages
takes one core about an hour and a half, the first alone 45 minutes. What is finished in WORK stays, and a stopped run
goes on.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from variants import judged

from anomalens_lab import calibrate, recipe
from anomalens_lab.painting import paint_scenes, sort_materials
from anomalens_lab.pretraining import PAINTED, SCENES, SHARE, pretrain
from anomalens_lab.textures import take_clean

NARROW, WIDE, _ = recipe.STAGES
FIRST = NARROW.config
LATER = replace(FIRST, sides=(224, 256, 320, 384, 448), average=0.99, warmup=20, final_steps=30, checkpoint_every=80)
STAGES = {
    "halved": FIRST,
    "soft": replace(LATER, soft=0.6, rate=7e-4, steps=320),
    "uneven": replace(LATER, soft=0.5, uneven=0.5, rate=6e-4, steps=260),
}


def main() -> None:
    """Print a line of JSON for each seed, stage and set of sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of scenes and runs")
    parser.add_argument("package", type=Path, help="folder that ufoai-textures was unpacked into")
    parser.add_argument("--photographs", required=True, help="LAYOUT:PATH of one labelled class")
    parser.add_argument("--seed", type=int, action="append", help="may be repeated; default: 0 and 1")
    parser.add_argument("--wide", type=float, default=0.0, help="share of the defects that spread (default: 0)")
    parser.add_argument(
        "--stages", type=int, default=len(STAGES), choices=range(1, 4), help="how many, from the first on"
    )
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    suffix = f"-wide-{asked.wide}" if asked.wide else ""
    materials, painted = asked.work / "materials", asked.work / f"scenes{suffix}"
    take_clean(asked.package, asked.work / "textures")
    sort_materials([asked.work / "textures"], materials)
    paint_scenes(
        painted,
        SCENES,
        size=PAINTED,
        seed=(WIDE if asked.wide else NARROW).scenes_seed,
        materials=materials,
        share=SHARE,
        wide=asked.wide,
        workers=2,
    )
    held_out = calibrate.held_out_scenes(asked.work / "held-out", workers=2)
    photographs = calibrate.labelled_images(asked.photographs)
    for seed in asked.seed or (0, 1):
        start = None
        for number, (name, config) in enumerate(list(STAGES.items())[: asked.stages]):
            out = asked.work / f"{name}-{seed}{suffix}"
            weights = pretrain(replace(config, seed=10 * number + seed), painted, out, initial=start)
            start = out / "checkpoint.pt"
            for sizes, numbers in judged(str(weights), held_out, photographs, "cpu").items():
                print(json.dumps({"seed": seed, "stage": name, "sizes": sizes, **numbers}), flush=True)


if __name__ == "__main__":
    main()
