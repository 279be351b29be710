"""Describe good patches by a mean and the directions of most of their variance; the rest is the anomaly: SubspaceAD.

Paper: "SubspaceAD", CVPR 2026. Code: github.com/CLendering/SubspaceAD.

    x      mean of seven layers in the second half of the tower (23 to 29 of 40 blocks), not normalised
    fit    μ and U: mean of all patches of all photographs, each turned to 30 angles, and the principal directions
           that hold 99 % of the variance, in float64
    e(x)   |(x - μ) - U Uᵀ (x - μ)|²
    map    e, bilinear to pixels, Gaussian of 4 pixels
    score  mean of the largest 1 %

The same as the code: features on DINOv2, the fit, residuals. Different: turns are equal steps of a full turn instead of
drawn ones, and the same for every class (the paper leaves them out where the fault is a turn: `turns=1`); the score is
taken of the blurred map on the grid of the patches. The last direction is left out where few patches span less than all
channels: with all of them every photograph would have residual 0.
Ours: words on request; towers of another depth give the blocks at the same shares of it; the levels of a convolutional
stem, whose sizes differ, are joined at unit length on the grid of the middle one instead of averaged.

Input: DINOv2 with registers, ViT-g/14, 672 pixels. Published (image AUROC at 1, 2, 4 photographs): MVTec AD 97.1, 97.5,
98.0; VisA 93.2, 93.8, 94.7.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from anomalens.errors import ConfigError
from anomalens.methods.parts.array_namespace import Array, convert
from anomalens.methods.parts.patches import describe
from anomalens.methods.parts.subspace import Subspace, fit_subspace
from anomalens.methods.references.distances import DistanceConfig, DistanceMethod
from anomalens.methods.references.reference_method import Compared, Descriptors, Owners, register_reference


@dataclass(frozen=True)
class Config(DistanceConfig):
    """Hold SubspaceAD's settings."""

    turns: int = 30
    # Share of the variance that the directions hold.
    variance: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.variance < 1:
            raise ConfigError(f"variance {self.variance} must be a share between 0 and 1; the paper has 0.99")


@register_reference(
    "subspacead",
    title="SubspaceAD: what the principal directions of good patches leave unexplained",
    source="CVPR 2026",
    year=2026,
    config=Config,
)
class SubspaceAD(DistanceMethod[Subspace]):
    """Implement SubspaceAD. Distances are squared residuals, so their scale is that of the features."""

    config: Config
    depths = tuple(block / 40 for block in range(23, 30))
    pixels = 672
    remembers = Subspace

    def describe(self, levels: Sequence[Array]) -> Descriptors:
        """Average levels of one shape; join others at unit length on the middle one's grid: [V, h, w, D]."""
        if len({tuple(level.shape[1:]) for level in levels}) == 1:
            return (sum(convert(level, "float32") for level in levels) / len(levels),)
        middle = levels[len(levels) // 2]
        return (describe(levels, (middle.shape[1], middle.shape[2]), window=1),)

    def remember(self, descriptors: Descriptors, owners: Owners, seed: int) -> Subspace:
        """Fit mean and directions to the patches of all views."""
        (patches,) = descriptors
        return fit_subspace(patches.reshape(-1, patches.shape[-1]), self.config.variance)

    def compare(self, descriptors: Descriptors, remembered: Subspace) -> Compared:
        """Measure and blur residuals, for the score too."""
        residuals = self.blurred(self.distances(descriptors, remembered))
        return Compared(residuals, residuals)

    def distances(self, descriptors: Descriptors, remembered: Subspace) -> Array:
        """Compute the residual of each patch."""
        return remembered.residual(convert(descriptors[0], "float32"))
