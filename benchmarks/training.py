"""Prompt training with features computed once and losses on the patch grid, against the straightforward loop.

    python benchmarks/training.py                        ViT-L/14 at 518, Crane, batches of 2
    python benchmarks/training.py --size 266 --layers 8  a quick look

The straightforward loop is what the papers' repositories do: the tower in every step with attention maps written out,
text padded to 77 rows for every image, losses on maps of the input's size. The same loop on our tower is shown beside
it, to tell apart what caching and what attention saves. All loops give the same loss (checked). Single steps are timed
in turns and put together to whole runs: E epochs over M images cost E M straightforward image-steps, or M tower passes
and E M cheap ones. Target: at least 20x for 15 epochs.
"""

import argparse
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from anomalens.backbones import streams, transformer
from anomalens.backbones.config import ClipConfig, TextConfig, VisionConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip, Features, TextTower
from anomalens.methods import base
from anomalens.methods.crane import Crane
from anomalens.methods.parts.losses import Loss, focal, overlap
from measure import interleaved, machine
from tower import written_out


def padded_encode(text: TextTower, x: Tensor, end: Tensor, deep: Tensor | None = None) -> Tensor:
    """Run `TextTower.encode` on 77 rows, as the published code runs it."""
    return ENCODE(text, F.pad(x, (0, 0, 0, 77 - x.shape[1])), end, deep)


ENCODE = TextTower.encode


def pixel_loss(method: Crane, features: Features, encoder: PromptEncoder, masks: Tensor, labels: Tensor) -> Loss:
    """Compute Crane's loss with whole sentences of 77 rows for every image and maps of the masks' size."""
    text = method.text(encoder, "object")
    text.prefix = None
    with mock.patch.object(TextTower, "encode", padded_encode):
        aligned = method.align(features, text)
    size, config = masks.shape[-2:], method.config
    maps = [F.interpolate(a.sigmoid().view(len(masks), 1, *features.grid), size)[:, 0] for a in aligned.logits]
    focals = config.map_weight * torch.stack([focal(p, masks) for p in maps]).sum()
    dices = config.map_weight * torch.stack([overlap(p, masks).dice() for p in maps]).sum()
    logits = torch.einsum("be,bce->bc", aligned.image, aligned.text)
    ce = F.cross_entropy(logits / config.train_temperature, labels)
    return Loss(config.pixel_weight * (focals + dices) + config.image_weight * ce, {})


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=518)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()

    torch.manual_seed(0)
    vision = VisionConfig(image_size=336, patch=14, width=1024, layers=asked.layers, heads=16)
    clip = Clip(ClipConfig(vision, TextConfig(768, 12, 12, vocab=49408), 768)).eval().requires_grad_(False)
    method, encoder = base.create("crane", clip.config), PromptEncoder(clip)
    assert isinstance(method, Crane)
    method.train()
    pixels = torch.randn(asked.batch, 3, asked.size, asked.size)
    masks = torch.zeros(asked.batch, asked.size, asked.size)
    masks[0, 20:90, 30:100] = 1
    labels = torch.arange(asked.batch) % 2

    def tower() -> Features:
        with torch.no_grad():
            return method.encode(clip, pixels)

    kept = tower()

    def published() -> Tensor:
        with (
            mock.patch.object(streams, "fused_attention", written_out),
            mock.patch.object(transformer, "fused_attention", written_out),
        ):
            return straightforward()

    def straightforward() -> Tensor:
        loss = pixel_loss(method, tower(), encoder, masks, labels).total
        loss.backward()
        return loss.detach()

    def cheap() -> Tensor:
        loss = method.loss(kept, method.text(encoder, "object"), masks, labels).total
        loss.backward()
        return loss.detach()

    expected = cheap()
    torch.testing.assert_close(published(), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(straightforward(), expected, rtol=1e-3, atol=1e-3)
    candidates = {
        "straightforward step, attention written out": published,
        "straightforward step, our tower": straightforward,
        "tower pass": tower,
        "step on kept features": cheap,
    }
    taken = interleaved(candidates, asked.repeats, warm_up=False)
    with_cache = taken["tower pass"] + asked.epochs * taken["step on kept features"]
    print(machine())
    print(f"Crane, {asked.layers} blocks, {asked.size} pixels, batches of {asked.batch}\n")
    print("| | time a batch |\n|---|---|")
    for name, seconds in taken.items():
        print(f"| {name} | {seconds:.3f} s |")
    print(f"\n{asked.epochs} epochs with kept features: {with_cache:.1f} s for each batch of data")
    for name in list(candidates)[:2]:
        whole = asked.epochs * taken[name]
        print(f"{name}: {whole:.1f} s, {whole / with_cache:.1f} times as long")


if __name__ == "__main__":
    main()
