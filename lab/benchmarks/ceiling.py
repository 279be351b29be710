"""What words cost the bundled backbone: heads of the same size on the same frozen stem, trained on pixels alone.

    python lab/benchmarks/ceiling.py runs/ceiling --materials textures
    python lab/benchmarks/ceiling.py runs/ceiling --only fine                  one head, beside another process

    coarse   the stem's fused channels, four transformer blocks, one logit for each patch of 16 pixels
    fine     the same with two convolutions behind that see the stem's own stride of 8: four logits a patch
    shipped  AnoCLIP on the shipped weights: text, three kinds of tokens, class token and windows at once

The heads know no text and have one task, so they say how much is in the stem's channels for scenes like these. All are
tested on the same drawn scenes: of families that training knows, and of families it does not. One thread.
"""

import argparse
import math
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from ablation import shipped_stem
from rich.progress import track
from torch import Tensor, nn

from anomalens.backbones.stem import LiteStem
from anomalens.backbones.transformer import Transformer
from anomalens.detection.loading import load_detector
from anomalens.files import write_json
from anomalens.images.maps import resize_map
from anomalens.metrics.accumulator import PixelAccumulator
from anomalens.metrics.summary import summarise
from anomalens.prediction import Prediction
from anomalens_lab.alignment import soft_dice, soft_focal, target_of
from anomalens_lab.model import normalise
from anomalens_lab.painting import paint_scenes, sort_materials
from anomalens_lab.shards import PATCH, Scenes

SIDE, BATCH, STEPS, WARMUP, RATE = 320, 32, 200, 30, 1e-3
TESTED, EVALUATED = 256, 256  # scenes of either kind, side at which maps meet masks
WIDTH, LAYERS, NARROW = 192, 4, 48  # the first two as the backbone has them
NAMES = ("coarse", "fine", "shipped")


def _smooth(outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.GELU(), nn.Conv2d(NARROW, outputs, 3, padding=1)


class Head(nn.Module):
    """Compute a map of logits from what a frozen stem gathered."""

    def __init__(self, stem: LiteStem, fine: bool) -> None:
        super().__init__()
        self.stem = stem.requires_grad_(False)
        self.proj = nn.Conv2d(stem.channels, WIDTH, 1)
        self.mix = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.places = nn.Parameter(torch.randn(1, WIDTH, SIDE // PATCH, SIDE // PATCH) * 0.02)
        self.transformer = Transformer(WIDTH, LAYERS, WIDTH // 64, 4.0, "gelu")
        for block in self.transformer.blocks:
            nn.init.normal_(block.attn.out_proj.weight, std=WIDTH**-0.5 * (2 * LAYERS) ** -0.5)
        self.norm = nn.LayerNorm(WIDTH)
        self.out = nn.Conv2d(WIDTH, 4 * NARROW if fine else 1, 1)
        self.skip = nn.Conv2d(stem.channels, 4 * NARROW, 1) if fine else None
        self.join = nn.Sequential(*_smooth(NARROW), *_smooth(1)) if fine else None

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels [B, 3, SIDE, SIDE] in 0..1 -> logits [B, h, w] at stride 16, or at 8 where fine."""
        with torch.no_grad():
            seen = (self.stem.gather(normalise(pixels)) - self.stem.shift) * self.stem.scale
        x = self.proj(seen)
        x = x + self.mix(F.gelu(x)) + self.places
        rows = x.flatten(2).transpose(1, 2)
        for block in self.transformer.blocks:
            rows = block(rows)
        delta = self.out(self.norm(rows).transpose(1, 2).reshape(x.shape))
        if self.skip is not None and self.join is not None:
            delta = self.join(F.pixel_shuffle(delta + self.skip(seen), 2))
        return cast(Tensor, delta[:, 0])


def trained(name: str, scenes: Scenes) -> Head:
    """Train the head called `name` by one schedule: focal and Dice loss, twins, the running average of the weights."""
    torch.manual_seed(0)
    head = Head(shipped_stem()[0], name == "fine")
    learned = {n: p for n, p in head.named_parameters() if p.requires_grad}
    average = {n: p.detach().clone() for n, p in learned.items()}
    optimiser = torch.optim.AdamW(learned.values(), lr=RATE, weight_decay=0.05, betas=(0.9, 0.98))
    order = np.random.default_rng(0).permutation(len(scenes) // 2)
    for step in track(range(STEPS), f"training {name}"):
        optimiser.param_groups[0]["lr"] = (
            RATE * min(1.0, (step + 1) / WARMUP) * (1 + math.cos(math.pi * step / STEPS)) / 2
        )
        first = 2 * order[np.arange(step * BATCH // 2, (step + 1) * BATCH // 2) % len(order)]
        twins = np.stack([first, first + 1], axis=1).ravel().tolist()
        rng = np.random.default_rng((0, step))
        batch = scenes.batch(twins, SIDE, rng, twins=True, patch=PATCH // 2 if name == "fine" else PATCH)
        with torch.autocast("cpu", torch.bfloat16):
            logits = head(batch.pixels)
        logits, wanted = logits.float().flatten(1), target_of(batch.cover).flatten(1)
        loss = 10 * soft_focal(logits, wanted).mean() + 0.5 * soft_dice(logits, wanted, dim=1)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(list(learned.values()), 1.0)
        optimiser.step()
        with torch.no_grad():
            for key, value in learned.items():
                average[key].lerp_(value, 1 - min(0.98, (step + 1) / (step + 10)))
    head.load_state_dict(average, strict=False)
    return head.eval()


@torch.inference_mode()
def measured(head: Head | None, scenes: Scenes) -> dict[str, float | None]:
    """Pixel metrics in per cent; None reads the shipped weights."""
    pixels, labels = PixelAccumulator("histogram"), []
    count = min(TESTED, len(scenes))
    if head is None:
        detector = load_detector("anoclip", "bundled", size=SIDE, batch_size=4, views=1)
        maps = (
            cast(Prediction, prediction).anomaly_map
            for prediction in detector.predict_iter(map(scenes.image, range(count)))
        )
    else:
        maps = (probabilities(head, scenes, i) for i in range(count))
    for index, anomaly_map in enumerate(maps):
        mask = torch.from_numpy((scenes.kind(index) > 0).astype(np.float32))[None, None]
        truth = F.interpolate(mask, size=(EVALUATED, EVALUATED), mode="nearest")[0].numpy() > 0
        pixels.update(resize_map(anomaly_map, (EVALUATED, EVALUATED))[None], truth)
        labels.append(bool(truth.any()))
    return summarise(np.zeros(count), np.array(labels), pixels, 0.3)


def probabilities(head: Head, scenes: Scenes, index: int) -> npt.NDArray[np.float32]:
    """Return the map of one scene, as large as the head gives it."""
    image = torch.from_numpy(scenes.image(index).copy()).permute(2, 0, 1)[None].float() / 255
    small = F.interpolate(image, size=(SIDE, SIDE), mode="bilinear", antialias=True).clamp(0, 1)
    return np.asarray(head(small)[0].sigmoid().numpy(), np.float32)


def main() -> None:
    """Paint what is missing, train, measure, print a Markdown row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of everything made")
    parser.add_argument("--materials", type=Path, nargs="+", help="folders of photographs of surfaces")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    materials = None
    if asked.materials:
        sort_materials(asked.materials, asked.work / "materials")
        materials = asked.work / "materials"
    paint_scenes(asked.work / "train", STEPS * BATCH, size=SIDE, seed=21, materials=materials)
    paint_scenes(asked.work / "known", TESTED, size=512, seed=31, materials=materials)
    paint_scenes(asked.work / "unknown", TESTED, size=512, seed=8, held_out=True)
    for name in asked.only:
        head = None if name == "shipped" else trained(name, Scenes(asked.work / "train"))
        numbers = {kind: measured(head, Scenes(asked.work / kind)) for kind in ("known", "unknown")}
        write_json(asked.work / f"{name}.json", numbers)
        cells = (f"{numbers[kind][m]:.1f}" for kind in numbers for m in ("pixel_auroc", "pixel_ap", "aupro"))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
