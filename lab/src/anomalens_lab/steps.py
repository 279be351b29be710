"""Define the steps of training: the scenes that each step sees, and the loss that it takes of them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anomalens.backbones.streams import Dense
from anomalens.backbones.tokenizer import tokenize
from anomalens_lab.alignment import (
    TEMPERATURE,
    caption_loss,
    dense_loss,
    directions,
    fused_loss,
    image_loss,
    kind_loss,
    rank_loss,
    target_of,
    teacher_loss,
)
from anomalens_lab.model import GatherOnce, Trained, normalise
from anomalens_lab.prompts import Lessons, Sentences
from anomalens_lab.recipe import PretrainConfig
from anomalens_lab.shards import Batch, Scenes
from anomalens_lab.synthesis.fields import Random, pick

Step = tuple[int, Batch, Random]
"""Number, scenes and generator of one step."""


def batches(config: PretrainConfig, scenes: Scenes, first: int, device: torch.device | str = "cpu") -> Iterator[Step]:
    """Yield the number, the scenes (on `device`) and the generator of every step from `first` on.

    Training passes over all twins in a new order, then again. A step moves on by `batch` scenes even where it takes
    fewer, so the scenes of a step follow from its number alone. The next step's scenes are prepared meanwhile.
    """
    pairs = len(scenes) // 2

    def prepare(step: int) -> Step:
        rng = np.random.default_rng((config.seed, 3, step))
        late = step >= config.steps - config.final_steps
        side = config.final_side if late else int(pick(rng, config.sides))
        size = (config.final_batch if late else max(2, min(config.batch, config.pixels // side**2))) // 2
        start = step * (config.batch // 2)
        epoch, offset = divmod(start, max(1, pairs - config.batch // 2))
        order = np.random.default_rng((config.seed, 4, epoch)).permutation(pairs)[offset : offset + size]
        twins = np.stack([2 * order, 2 * order + 1], axis=1).ravel()
        batch = scenes.batch(
            twins.tolist(),
            side,
            rng,
            twins=True,
            apart=config.apart,
            soft=config.soft,
            uneven=config.uneven,
            device=device,
        )
        return step, batch, rng

    if first >= config.steps:
        return
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(prepare, first)
        for following in range(first + 1, config.steps + 1):
            ready = pending.result()
            if following < config.steps:
                pending = pool.submit(prepare, following)
            yield ready


def step_loss(
    model: Trained, config: PretrainConfig, batch: Batch, rng: Random, lessons: Lessons, step: int
) -> dict[str, Tensor]:
    """Compute the parts of the loss of one step, unweighted, by the names of `Weights`.

    One pass of the image tower gives the class token and the ordinary, value-to-value and (every second step)
    self-correlation tokens; all are compared with freshly drawn sentences.
    """
    clip = model.clip
    drawn = Sentences.draw(rng, batch, config.pairs, lessons.words)
    rows = torch.from_numpy(rng.choice(len(lessons), config.taught, replace=False))
    pixels = normalise(batch.pixels)
    device = pixels.device
    streams = [Dense(), Dense("value-value", start=int(rng.integers(1, 3)))]
    streams += [Dense("self-correlation", start=int(rng.integers(1, 3)))] if step % 2 else []
    # Half precision for the towers only: the losses take small differences of unit vectors.
    with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
        features = clip.text(tokenize(drawn.texts).to(device)).float()
        taught = clip.text(lessons.ids[rows].to(device)).float()
        seen = clip.visual(pixels, streams)
    g = directions(features[drawn.parts["normal"]], features[drawn.parts["abnormal"]])
    cls = F.normalize(cast(Tensor, seen.cls).float(), dim=1)
    tokens = F.normalize(torch.stack([d[0] for d in seen.dense]).float(), dim=3)
    cover, kinds = batch.cover.flatten(1), batch.kinds.flatten(1)
    losses = dict(zip(("dense", "dice"), dense_loss(tokens, g, cover), strict=True))
    phrases = F.normalize(features[drawn.parts["kinds"]], dim=1)
    losses["kind"] = kind_loss(tokens[:2], phrases, kinds, cover)
    losses["image"] = image_loss(cls, g, batch.abnormal)
    losses["rank"] = rank_loss(cls, tokens, g, batch.abnormal)
    losses["fused"] = fused_loss(cls, tokens[-1], g, batch.abnormal)
    captions = F.normalize(features[drawn.parts["captions"]], dim=1)
    losses["caption"] = caption_loss(cls, captions, batch.captions, clip.logit_scale)
    losses["teacher"] = teacher_loss(taught, lessons.taught[rows].to(device), model.head)
    drift = cast(GatherOnce, model.stem.read).drift(pixels)
    if drift is not None:
        losses["kept"] = drift
    if step % 3 == 0:
        losses["window"] = window_loss(model, config, pixels, batch, rng, g)
    return losses


def window_loss(model: Trained, config: PretrainConfig, pixels: Tensor, batch: Batch, rng: Random, g: Tensor) -> Tensor:
    """Compute the loss of class tokens that see a window of 2 x 2 or 3 x 3 patches alone (WinCLIP).

    Args:
        pixels: [B, 3, H, W], normalised.
        g: directions [K, E], see `directions`.
    """
    h, w = batch.cover.shape[1:]
    side, count = int(rng.integers(2, 4)), config.windows
    top, left = rng.integers(0, h - side + 1, count), rng.integers(0, w - side + 1, count)
    inner = (np.arange(side)[:, None] * w + np.arange(side)).ravel()
    index = torch.from_numpy((top * w + left)[:, None] + inner).to(pixels.device)
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=config.bf16):
        windows = model.clip.visual.windows(pixels, index)
    cover = batch.cover.flatten(1)[:, index].mean(2)
    logits = F.normalize(windows.float(), dim=2) @ (g / TEMPERATURE).T
    return F.binary_cross_entropy_with_logits(logits, target_of(cover)[..., None].expand_as(logits))
