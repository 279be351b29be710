"""Naming the kind of a defect among words given at run time: top-1 accuracy and a confusion matrix as a picture.

    python lab/benchmarks/naming.py runs/held --picture docs/naming.png
    python lab/benchmarks/naming.py runs/held --tiles ../shared/data/magnetic_tile

The first argument holds scenes of held-out families (`paint_scenes(..., held_out=True)`). A defect is read where it is:
its value-to-value tokens, weighted by the share of each patch that the true mask covers, against the mean of each
kind's phrases. Chance is one in the number of kinds.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from anomalens.backbones.streams import Dense
from anomalens.backbones.tokenizer import tokenize
from anomalens.backbones.tower import Clip
from anomalens.backbones.weights import load_weights
from anomalens_lab.model import normalise
from anomalens_lab.shards import Scenes
from anomalens_lab.synthesis.captions import kind_phrases
from anomalens_lab.synthesis.words import KINDS

TILES = {
    "blowhole": ("a blowhole", "a small hole", "a pit"),
    "break": ("a break", "a broken part", "a chipped edge"),
    "crack": ("a crack", "a cracked surface", "a fissure"),
    "fray": ("fraying", "a frayed edge", "a worn area"),
    "uneven": ("an uneven surface", "uneven colour", "a discoloured area"),
}


@torch.inference_mode()
def words(clip: Clip, phrases: Mapping[str, Sequence[str]]) -> Tensor:
    """Compute the unit mean [K, E] of each kind's phrases."""
    return torch.stack([F.normalize(clip.text(tokenize(p)).mean(0), dim=0) for p in phrases.values()])


@torch.inference_mode()
def read(clip: Clip, image: np.ndarray, mask: np.ndarray) -> Tensor:
    """Compute the unit mean [E] of the tokens under the mask. Sides are multiples of 16."""
    pixels = normalise(torch.tensor(image).permute(2, 0, 1)[None].float() / 255)
    tokens = F.normalize(clip.visual(pixels, (Dense("value-value"),), cls=None).dense[0][0][0], dim=1)
    cover = F.avg_pool2d(torch.tensor(mask, dtype=torch.float32)[None], 16).flatten()
    return F.normalize((tokens * cover[:, None]).sum(0), dim=0)


def report(title: str, names: list[str], confusion: np.ndarray) -> None:
    """Accuracy over all, and the mean over kinds."""
    each = np.diag(confusion) / np.maximum(confusion.sum(1), 1)
    present = confusion.sum(1) > 0
    print(
        f"{title}: top-1 {100 * np.trace(confusion) / confusion.sum():.1f} % of {confusion.sum()}, mean over kinds ",
        end="",
    )
    print(f"{100 * each[present].mean():.1f} %, chance {100 / len(names):.1f} %")
    for name, row, share in zip(names, confusion, each, strict=True):
        if row.sum():
            print(f"  {name:15s} {100 * share:5.1f} % of {row.sum():3d}, most often called {names[int(row.argmax())]}")


def draw(path: Path, names: list[str], confusion: np.ndarray) -> None:
    """Return the confusion matrix, rows in per cent."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shares = 100 * confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    figure, axes = pyplot.subplots(figsize=(8, 7), constrained_layout=True)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(names)), [f"{n} ({int(c)})" for n, c in zip(names, confusion.sum(1), strict=True)])
    for (row, column), value in np.ndenumerate(shares):
        if value >= 1:
            axes.text(
                column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color="w" if value > 50 else "k"
            )
    axes.set_xlabel("named")
    axes.set_ylabel("true kind (defects)")
    axes.set_title("Naming defects of held-out procedural families, % of each row")
    figure.savefig(path, dpi=90)


def main() -> None:
    """Name, count, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--tiles", type=Path, help="the magnetic tile set in MVTec layout")
    arguments = parser.parse_args()
    loaded = load_weights("bundled")
    clip = loaded.clip()
    kinds = {k: kind_phrases(k) for k in KINDS[1:]}
    names, texts = list(kinds), words(clip, kinds)
    scenes, confusion = Scenes(arguments.scenes), np.zeros((len(kinds), len(kinds)), int)
    for index in range(len(scenes)):
        where = scenes.kind(index)
        for kind in np.unique(where[where > 0]):
            feature = read(clip, scenes.image(index), where == kind)
            confusion[kind - 1, int((texts @ feature).argmax())] += 1
    report("held-out procedural defects", names, confusion)
    if arguments.picture:
        draw(arguments.picture, names, confusion)
    if arguments.tiles:
        texts, names = words(clip, TILES), list(TILES)
        confusion = np.zeros((len(names), len(names)), int)
        for mask_path in sorted(arguments.tiles.rglob("*_mask.png")):
            kind = next((k for k in names if k in mask_path.parent.name.lower()), None)
            stem = mask_path.name.removesuffix("_mask.png")
            source = next((mask_path.parents[2] / "test" / mask_path.parent.name).glob(f"{stem}.*"), None)
            if kind is None or source is None:
                continue
            with Image.open(source) as opened, Image.open(mask_path) as masked:
                image = np.array(opened.convert("RGB").resize((448, 448), Image.Resampling.BICUBIC))
                mask = np.array(masked.convert("L").resize((448, 448), Image.Resampling.BOX)) > 60
            if mask.any():
                confusion[names.index(kind), int((texts @ read(clip, image, mask)).argmax())] += 1
        report("magnetic tile", names, confusion)


if __name__ == "__main__":
    main()
