"""What learned methods share: a recipe, a loss, and how the published settings carry over to smaller backbones."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from anomalens.backbones.config import ClipConfig
from anomalens.backbones.tower import Features
from anomalens.methods.base import Method
from anomalens.methods.parts.losses import Loss, focal, overlap_separable
from anomalens.methods.parts.upsampling import apply, resampler

PAPER_SIZE = 518  # pixels a side in all four papers: 37 x 37 patches of 14


@dataclass(frozen=True)
class Recipe:
    """How a paper trains its method; the defaults are AnomalyCLIP's."""

    optimiser: Literal["adam", "adamw"] = "adam"
    lr: float = 1e-3  # constant: no schedule, no warm-up, no clipping in any of the papers
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 0.0
    epochs: int = 15
    batch: int = 8  # images a step; the last batch of an epoch may be smaller
    seed: int = 111


class LearnedMethod(Method):
    """A method with parameters: exactly what is learned, so that `state_dict()` is the checkpoint.

    In training mode (`train()`), `text` gives the text side with gradient for `loss`; in eval mode the one that `score`
    takes. Both come from the current parameters and are not kept here.
    """

    learned: ClassVar[bool] = True
    recipe: ClassVar[Recipe] = Recipe()
    frozen_features: ClassVar[bool] = True  # nothing learned on the image side: features may be computed once and kept
    uses_names: ClassVar[bool] = False  # whether the object name reaches the prompts

    def working_size(self, native: int) -> int:
        """518 pixels where the patch divides it (as published), else the size the weights prefer."""
        return native if PAPER_SIZE % self.clip.vision.patch else PAPER_SIZE

    @abstractmethod
    def loss(self, features: Features, text: Any, masks: Tensor, labels: Tensor) -> Loss:
        """The training loss of a batch.

        Args:
            features: of B images, from `encode`.
            text: from `text` in training mode.
            masks: [B, H, W] float, 1 = abnormal, at the size of the images the tower saw.
            labels: [B] 1 = abnormal image.
        """


def stream_start(clip: ClipConfig, start: int | None) -> int:
    """First block of a second stream: as asked, else a quarter of the tower (block 6 of 24, as published)."""
    return start or max(1, clip.vision.layers // 4)


def quarter_taps(clip: ClipConfig) -> tuple[int, ...]:
    """Blocks at the end of each quarter of the tower (6, 12, 18, 24 of 24, as published)."""
    return tuple(max(1, clip.vision.layers * k // 4) for k in (1, 2, 3, 4))


def enlarge(values: Tensor, size: tuple[int, int], sigma: float = 0.0, *, align_corners: bool = False) -> Tensor:
    """Bilinear upsampling, then a Gaussian blur of `sigma` pixels: [..., h, w] -> [..., H, W] in two products."""
    rows, columns = _sides(values, size, sigma, align_corners)
    return apply(rows, values, columns)


def separable_loss(p: Tensor, masks: Tensor) -> Tensor:
    """Focal(P) + Dice(P, G) + Dice(1 - P, 1 - G) of P = Up(p), bilinear (AnomalyCLIP, TokenCLIP, AdaCLIP).

    p: [B, h, w] probabilities "abnormal"; masks: [B, H, W], 1 = abnormal. Dice never leaves the patch grid (exact).
    """
    rows, columns = _sides(p, (masks.shape[-2], masks.shape[-1]), 0.0, False)
    sums = overlap_separable(p, masks, rows, columns)
    return focal(apply(rows, p, columns), masks) + sums.dice() + sums.complement().dice()


def _sides(values: Tensor, size: tuple[int, int], sigma: float, align_corners: bool) -> tuple[Tensor, Tensor]:
    height, width = values.shape[-2:]
    kind: dict[str, Any] = {"align_corners": align_corners, "sigma": sigma, "dtype": values.dtype}
    return tuple(  # type: ignore[return-value]
        resampler(source, target, device=values.device, **kind)
        for source, target in ((height, size[0]), (width, size[1]))
    )
