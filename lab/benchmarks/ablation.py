"""What each part of the backbone's recipe buys: one short schedule with parts left out, and three seeds of the whole.

    python lab/benchmarks/ablation.py WORK ../shared/data --materials photographs
    python lab/benchmarks/ablation.py WORK ../shared/data --only text          one variant, beside other processes

    stem            nothing trained: how unlike the rest of its image a place is to the frozen ImageNet stem
    text            trained on words for whole images alone: captions, states of the class token, the sentence teacher
    dense, -1, -2   all losses, on surfaces drawn by procedure only; seeds 0, 1, 2
    halved, -1, -2  as dense, and the stem reads the picture at half its size too; seeds 0, 1, 2
    whole, -1, -2   the recipe: all losses, 55 % of the surfaces from photographs; seeds 0, 1, 2

All trained variants see the same number of scenes from scratch, a small part of what the shipped weights saw, so they
compare with each other only. They are read by AnoCLIP, which learns nothing, with its own image score (class token).
What is finished in WORK stays; a stopped variant goes on where it stood. One thread, so that two processes do not wait.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from accuracy import COLUMNS, Values, means, measured, real_sets, untrained

from anomalens.backbones.stem import LiteStem
from anomalens.backbones.weights import LoadedWeights, load_weights
from anomalens.detection.loading import load_detector
from anomalens.files import write_json
from anomalens.images.decoding import decode
from anomalens.images.preprocessing import Preprocess, preprocess
from anomalens_lab.alignment import Weights
from anomalens_lab.painting import paint_scenes, sort_materials
from anomalens_lab.pretraining import pretrain
from anomalens_lab.recipe import PretrainConfig

SIDE = 256  # at which maps meet masks
PAINTED = 320  # pixels a side of the training scenes
SHORT = PretrainConfig(
    steps=300,
    batch=24,
    sides=(224, 256),
    final_steps=20,
    final_side=416,
    final_batch=8,
    warmup=30,
    average=0.98,
    checkpoint_every=50,
)
WORDS = Weights(dense=0, dice=0, kind=0, rank=0, fused=0, window=0)  # what is left looks at no patch
SEEDED: dict[str, tuple[str, PretrainConfig]] = {  # scenes, config
    "dense": ("procedural", SHORT),
    "halved": ("procedural", replace(SHORT, stem="efficientnet-lite0-halved")),
    "whole": ("photographs", SHORT),
}
VARIANTS = {"text": ("photographs", replace(SHORT, weights=WORDS))} | {
    f"{name}-{seed}" if seed else name: (scenes, replace(config, seed=seed))
    for name, (scenes, config) in SEEDED.items()
    for seed in range(3)
}


def shipped_stem() -> tuple[LiteStem, LoadedWeights]:
    """Return the stem of the shipped backbone, and the weights it is of."""
    loaded = load_weights("bundled")
    stem = loaded.clip().visual.stem
    assert isinstance(stem, LiteStem)
    return stem, loaded


class StemAlone:
    """Compute maps of the shipped backbone's stem: its standardised novelty channels, summed."""

    def __init__(self) -> None:
        self.stem, loaded = shipped_stem()
        self.preprocess = Preprocess(loaded.image_size, mean=loaded.pixels.mean, std=loaded.pixels.std)

    @torch.inference_mode()
    def __call__(self, path: Path, side: int) -> npt.NDArray[np.float32]:
        """Return the map [side, side]."""
        gathered = self.stem.gather(torch.from_numpy(preprocess(decode(path).rgb, self.preprocess))[None])
        count = len(self.stem.SHARPNESS) * 6  # the last channels: those beside themselves in units of their spread
        differing = gathered[:, -count:].sum(dim=1, keepdim=True)
        spread = F.interpolate(differing, size=(side, side), mode="bilinear")
        return np.asarray(spread[0, 0].numpy(), np.float32)


def accuracy(name: str, work: Path, data: Path) -> dict[str, Values]:
    """Compute metrics by class of one variant, trained first where it is one that is."""
    if name == "stem":
        look = StemAlone()
        return {k: v for dataset in real_sets(data) for k, v in untrained(dataset, SIDE, look).items()}
    scenes, config = VARIANTS[name]
    weights = pretrain(config, work / scenes, work / name)
    return measured(load_detector("anoclip", str(weights), batch_size=2, views=1), real_sets(data), SIDE)


def main() -> None:
    """Paint, train and measure what is missing, then print the table of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of everything made")
    parser.add_argument("data", type=Path, help="folder of data sets in MVTec layout")
    parser.add_argument("--materials", type=Path, nargs="+", help="folders of photographs of surfaces")
    parser.add_argument("--only", nargs="+", choices=["stem", *VARIANTS], default=["stem", *VARIANTS])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    count = SHORT.steps * SHORT.batch
    for name in dict.fromkeys(VARIANTS[variant][0] for variant in asked.only if variant in VARIANTS):
        sorted_out = asked.work / "materials"
        if name == "photographs":
            if not asked.materials:
                parser.error("the variants with photographs need --materials")
            sort_materials(asked.materials, sorted_out)
        paint_scenes(
            asked.work / name, count, size=PAINTED, seed=21, materials=sorted_out if name == "photographs" else None
        )
    for name in asked.only:
        kept = asked.work / f"{name}.json"
        if not kept.exists():
            classes = accuracy(name, asked.work, asked.data)
            write_json(kept, {"config": asdict(VARIANTS[name][1]) if name in VARIANTS else None, "classes": classes})
    print("| variant | " + " | ".join(c.replace("_", " ") for c in COLUMNS) + " |\n|---" + "|---" * len(COLUMNS) + "|")
    for name in ("stem", *VARIANTS):
        if (asked.work / f"{name}.json").exists():
            print(f"| {name} | {means(json.loads((asked.work / f'{name}.json').read_text())['classes'])} |")


if __name__ == "__main__":
    main()
