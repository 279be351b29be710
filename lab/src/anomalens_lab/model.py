"""Build the model in training: its start, and the frozen stem that it looks through.

The stem is EfficientNet-Lite0 with its ImageNet weights; its channels are whitened and standardised on scenes. It is
frozen, but for the last blocks where the recipe thaws some, and these are held near what ImageNet taught them.
"""

import copy
import math
from contextlib import nullcontext
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from anomalens.backbones.stem import LiteStem
from anomalens.backbones.tower import Clip
from anomalens_lab.alignment import TEMPERATURE
from anomalens_lab.recipe import PretrainConfig
from anomalens_lab.shards import Scenes
from anomalens_lab.teacher import STEM_MEAN, STEM_STD, TAUGHT_WIDTH, load_imagenet_stem

_MEASURED_SIDE = 256  # pixels a side of the scenes that the stem's channels are measured on


class Trained(nn.Module):
    """Hold the model, and the linear map from its text features to the teacher's."""

    def __init__(self, config: PretrainConfig) -> None:
        """Draw the weights of the start from torch's generator; the token table is to be filled and stays frozen."""
        super().__init__()
        self.clip = Clip(config.clip())
        self.head = nn.Parameter(torch.randn(config.width, TAUGHT_WIDTH) * config.width**-0.5)
        nn.init.constant_(self.clip.logit_scale, math.log(1 / TEMPERATURE))
        nn.init.normal_(self.clip.visual.positional_embedding, std=0.02)
        for block in [*self.clip.visual.transformer.blocks, *self.clip.text.transformer.blocks]:
            nn.init.normal_(block.attn.out_proj.weight, std=config.width**-0.5 * (2 * config.layers) ** -0.5)
        self.clip.text.token_embedding.requires_grad_(False)
        stem_blocks = self.stem.backbone.blocks
        for learning in list(stem_blocks)[len(stem_blocks) - config.thawed :]:
            learning.requires_grad_(True)

    @property
    def stem(self) -> LiteStem:
        """Return the image tower's stem."""
        return cast(LiteStem, self.clip.visual.stem)


class GatherOnce:
    """Run a stem once for the same pixels, with gradients only where some of its blocks learn."""

    def __init__(self, stem: LiteStem) -> None:
        self._read = stem.read
        self._learns = any(p.requires_grad for p in stem.backbone.parameters())
        self._frozen = copy.deepcopy(stem) if self._learns else None
        self._pixels: Tensor | None = None
        self._answer: tuple[Tensor, tuple[Tensor, ...]] | None = None

    def __call__(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute what `LiteStem.read` does, or return it again where `pixels` is the tensor of the last call."""
        if pixels is not self._pixels or self._answer is None:
            # Full precision on an accelerator, where it costs little; on a CPU half of it saves a third of the time.
            exact = torch.autocast(pixels.device.type, enabled=False) if pixels.device.type != "cpu" else nullcontext()
            with torch.set_grad_enabled(self._learns), exact:
                self._answer = self._read(pixels)
                self._pixels = pixels
        return self._answer

    def drift(self, pixels: Tensor) -> Tensor | None:
        """Return the mean squared change of the standardised channels since the start; None where no block learns."""
        if self._frozen is None:
            return None
        with torch.no_grad():
            before = self._frozen.gather(pixels)
        return ((self(pixels)[0] - before) * self._frozen.scale).square().mean()


def prepare_stem(stem: LiteStem, scenes: Scenes, seed: int, count: int) -> None:
    """Fill the stem: ImageNet weights, whitening of the compared channels and standardisation of all.

    The last two are measured on `count` scenes, or all where there are fewer.
    """
    load_imagenet_stem(stem)
    rng = np.random.default_rng((seed, 1))
    indices = rng.choice(len(scenes), min(count, len(scenes)), replace=False).tolist()
    pixels = normalise(scenes.batch(indices, _MEASURED_SIDE, rng, device=stem.shift.device).pixels)
    with torch.no_grad():
        features = [stem.backbone(part) for part in torch.split(pixels, 32)]
        for conv, level in zip(stem.whiten, (1, 2, 3), strict=True):
            rows = torch.cat([f[level].transpose(0, 1).flatten(1)[:, ::7] for f in features], dim=1).T
            mean, covariance = rows.mean(0), torch.cov(rows.T)
            values, axes = torch.linalg.eigh(covariance)
            kept = cast(nn.Conv2d, conv).out_channels
            values, axes = values[-kept:], axes[:, -kept:]
            # Shrunk: the smallest directions are noise and would drown the rest if made equal to them.
            matrix = (axes / (values + 0.1 * values.mean()).sqrt()).T
            conv.load_state_dict({"weight": matrix[:, :, None, None], "bias": -matrix @ mean})
        gathered = stem.gather(pixels)
        spread, mean = torch.std_mean(gathered, dim=(0, 2, 3), keepdim=True)
        stem.shift.copy_(mean)
        stem.scale.copy_(1 / (spread + 1e-3))


def normalise(pixels: Tensor) -> Tensor:
    """Map pixels of any shape from 0..1 to the range that the stem was trained on."""
    return (pixels - STEM_MEAN) / STEM_STD
