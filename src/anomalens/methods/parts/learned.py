"""Hold what learned methods share: a recipe, a loss, and how the published settings carry over to smaller backbones."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from anomalens.backbones.config import ClipConfig
from anomalens.methods.base import Method
from anomalens.methods.parts.losses import Loss, focal, overlap_separable
from anomalens.methods.parts.upsampling import apply, operators

PAPER_SIZE = 518
"""Pixels a side in all papers of learned methods: 37 x 37 patches of 14."""


@dataclass(frozen=True)
class Recipe:
    """State how a paper trains its method; the defaults are AnomalyCLIP's."""

    optimiser: Literal["adam", "adamw"] = "adam"
    # Constant: none of the papers has a schedule, a warm-up or clipping.
    lr: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 0.0
    epochs: int = 15
    # Images a step; the last batch of an epoch may be smaller.
    batch: int = 8
    seed: int = 111


class LearnedMethod(Method):
    """Learn on auxiliary data. Parameters are exactly what is learned, so `state_dict()` is the checkpoint.

    In training mode (`train()`), `text` gives the text side with gradient for `loss`; in eval mode the one that `score`
    takes. Both come from the current parameters and are not kept here.
    """

    learned: ClassVar[bool] = True
    recipe: ClassVar[Recipe] = Recipe()
    # Options, besides those behind `dense`, that change what `encode` gives: features are kept by them too.
    image_options: ClassVar[tuple[str, ...]] = ()
    # Whether the object name reaches the prompts.
    uses_names: ClassVar[bool] = False

    def working_size(self, native: int) -> int:
        """Return 518 pixels where the patch divides it (as published), else the size the weights prefer."""
        return native if PAPER_SIZE % self.clip.vision.patch else PAPER_SIZE

    @abstractmethod
    def loss(self, features: Any, text: Any, masks: Tensor, labels: Tensor) -> Loss:
        """Compute the training loss of a batch.

        Args:
            features: of B images, from `encode`.
            text: from `text` in training mode.
            masks: [B, H, W] float, 1 = abnormal, at the size of the images the tower saw.
            labels: [B] 1 = abnormal image.
        """


def stream_start(clip: ClipConfig, start: int | None) -> int:
    """Return the first block of a second stream: as asked, else a quarter in (block 6 of 24, as published)."""
    return start or max(1, clip.vision.layers // 4)


def quarter_taps(clip: ClipConfig) -> tuple[int, ...]:
    """Return the last block of each quarter of the tower (6, 12, 18, 24 of 24, as published)."""
    return tuple(max(1, clip.vision.layers * k // 4) for k in (1, 2, 3, 4))


def separable_loss(p: Tensor, masks: Tensor) -> Tensor:
    """Compute Focal(P) + Dice(P, G) + Dice(1 - P, 1 - G) of P = Up(p), bilinear (AnomalyCLIP, TokenCLIP).

    p: [B, h, w] probabilities "abnormal"; masks: [B, H, W], 1 = abnormal. Dice never leaves the patch grid (exact).
    """
    rows, columns = operators(p, (masks.shape[-2], masks.shape[-1]))
    sums = overlap_separable(p, masks, rows, columns)
    return focal(apply(rows, p, columns), masks) + sums.dice() + sums.complement().dice()
