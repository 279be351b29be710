"""State the recipe: sizes of the model, schedule, batches. With the scenes it decides the weights."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from anomalens.backbones.config import ClipConfig, TextConfig, VisionConfig
from anomalens.backbones.stem import STEMS, EfficientNetLite0
from anomalens.errors import ConfigError
from anomalens_lab.alignment import Weights
from anomalens_lab.shards import PATCH

VERSION = "2.0"
"""Version of the weights that this recipe makes."""
STEM_BLOCKS = sum(repeats for repeats, *_ in EfficientNetLite0.STAGES)


@dataclass(frozen=True)
class PretrainConfig:
    """Hold the numbers of one run. Raises ConfigError where they make no schedule."""

    # D of the text tower and E, which are equal so that Crane can put image features among words.
    width: int = 192
    # D of the image tower; None: as `width`.
    image_width: int | None = None
    # Blocks of the image tower.
    layers: int = 4
    # Stem of the image tower, by its name in `anomalens.backbones.stem`.
    stem: str = "efficientnet-lite0"
    # Last blocks of the stem's 16 that learn too; `Weights.kept` holds them near what ImageNet taught them.
    thawed: int = 0
    text_layers: int = 4
    # Pixels a side the backbone prefers: 28 x 28 tokens.
    native: int = 448
    steps: int = 1500
    # Most scenes a step, an even number: they stand in twins.
    batch: int = 32
    # Most pixels a step: larger sides come in smaller batches, at equal cost.
    pixels: int = 32 * 256 * 256
    # Pixels a side; one of them is drawn each step.
    sides: tuple[int, ...] = (224, 256, 320, 384, 448)
    # Last steps at `final_side`, the size the weights are used at.
    final_steps: int = 90
    final_side: int = 448
    final_batch: int = 10
    # Share of the twins whose two scenes are cropped and turned each in its own way, as by a camera that moved.
    apart: float = 0.0
    # Share of the twins that are made as soft as photographs which were enlarged: real ones often are.
    soft: float = 0.0
    # Share of the images that are lit unevenly.
    uneven: float = 0.0
    # AdamW's peak learning rate.
    rate: float = 1e-3
    # Steps in which the learning rate rises to its peak.
    warmup: int = 100
    # AdamW's weight decay, matrices only.
    decay: float = 0.05
    # Share of the old value in the running average of the weights, a step.
    average: float = 0.997
    # Pairs of state prompts a step.
    pairs: int = 6
    # Sentences the teacher reads once.
    sentences: int = 4096
    # Sentences of these that are compared each step.
    taught: int = 48
    # Windows of an image on every third step.
    windows: int = 10
    # Scenes that the channels of the stem are whitened and standardised on.
    measured: int = 192
    # Steps from one checkpoint to the next.
    checkpoint_every: int = 100
    seed: int = 0
    weights: Weights = field(default_factory=Weights)
    # Autocast; 1.5 times faster on CPUs with AVX512-BF16.
    bf16: bool = True

    def __post_init__(self) -> None:
        if self.seed < 0 or self.checkpoint_every < 1:
            raise ConfigError(f"seed {self.seed} must be 0 or more, checkpoint_every {self.checkpoint_every} 1 or more")
        if self.steps < 1 or self.final_steps >= self.steps or self.warmup >= self.steps:
            raise ConfigError(
                f"{self.steps} steps leave nothing between warm-up ({self.warmup}) and the last {self.final_steps}"
            )
        if any(side < PATCH or side % PATCH for side in (*self.sides, self.final_side)):
            raise ConfigError(f"sides {self.sides} and {self.final_side} must be multiples of {PATCH} pixels")
        if any(batch < 2 or batch % 2 for batch in (self.batch, self.final_batch)):
            raise ConfigError(f"batches of {self.batch} and {self.final_batch} must be even: scenes stand in twins")
        if self.image_width is not None and (self.image_width < 64 or self.image_width % 64):
            raise ConfigError(f"image_width {self.image_width} must be a multiple of 64, the width of a head")
        if self.stem not in STEMS:
            raise ConfigError(f"unknown stem {self.stem!r}; known: {', '.join(sorted(STEMS))}")
        if not 0 <= self.thawed <= STEM_BLOCKS:
            raise ConfigError(f"thawed {self.thawed} must lie in [0, {STEM_BLOCKS}], the blocks of the stem")
        for name, share in {"apart": self.apart, "soft": self.soft, "uneven": self.uneven}.items():
            if not 0 <= share <= 1:
                raise ConfigError(f"{name} {share} must lie in [0, 1]")
        if self.taught > self.sentences:
            raise ConfigError(f"{self.taught} sentences a step are more than the {self.sentences} there are")

    def clip(self) -> ClipConfig:
        """Return the sizes of the model that is trained."""
        image_width = self.image_width or self.width
        return ClipConfig(
            VisionConfig(self.native, PATCH, image_width, self.layers, image_width // 64, stem=self.stem),
            TextConfig(self.width, self.text_layers, self.width // 64),
            joint=self.width,
            activation="gelu",
        )


@dataclass(frozen=True)
class Stage:
    """Hold one stage of the training: a run over scenes of its own, from the weights of the stage before."""

    name: str
    config: PretrainConfig
    # Seed of the scenes.
    scenes_seed: int
    # Share of the scenes' defects that spread over much of the thing.
    wide: float = 0.0

    def varied(self, seed: int = 0, steps: int | None = None) -> "Stage":
        """Return the stage with its seed raised by `seed`, and of `steps` steps where they are given."""
        return replace(
            self, config=replace(self.config, seed=self.config.seed + seed, steps=steps or self.config.steps)
        )


FIRST = PretrainConfig(
    stem="efficientnet-lite0-halved",
    apart=0.25,
    weights=Weights(rank=1.0),
    sides=(192, 224, 256, 288, 320),
    rate=1.1e-3,
    steps=1100,
    final_steps=78,
    seed=1,
)
"""From nothing: the stem reads the picture at half its size too, twins framed apart, their order weighing more."""
WIDE = replace(FIRST, rate=7e-4, steps=420, warmup=20, final_steps=30, average=0.99, seed=17)
LAST = replace(FIRST, rate=8e-4, steps=1000, warmup=30, final_steps=71, average=0.995, seed=23)
STAGES = (
    Stage("narrow", FIRST, scenes_seed=31),
    Stage("wide", WIDE, scenes_seed=51, wide=0.3),
    Stage("last", LAST, scenes_seed=51, wide=0.3),
)
"""What weights of `VERSION` go through; they are the mean of the weights after the first stage and after the last."""


def rate_at(config: PretrainConfig, step: int) -> float:
    """Return the learning rate of a step: linear warm-up, then half a cosine down to 2 %."""
    if step < config.warmup:
        return config.rate * (step + 1) / config.warmup
    along = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.rate * (0.02 + 0.98 * (1 + math.cos(math.pi * along)) / 2)


def parameter_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Group the trained parameters for AdamW: matrices decay; vectors, tables and temperatures do not."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if p.ndim > 1 and "embedding" not in name]
    others = [p for name, p in named if p.ndim <= 1 or "embedding" in name]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
