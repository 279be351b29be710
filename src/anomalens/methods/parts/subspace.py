"""Describe good patches by a mean and a few directions; what they leave unexplained is the anomaly (SubspaceAD).

    residual(x) = |(x - μ) - U Uᵀ (x - μ)|²          U: orthonormal directions that hold a share of the variance

"SubspaceAD" (CVPR 2026) fits this to the patches of a few references. All is computed in float64 and kept as float32:
two tensors, no search, so it is small as a file and cheap as a graph. Sums over patches are all that is needed, so the
fit takes two passes over blocks of patches, and little more memory than D x D.

Shapes: R patches, D channels, q directions.
"""

from dataclasses import dataclass

import numpy as np

from anomalens.errors import ConfigError, InputError
from anomalens.methods.parts.array_namespace import Array, convert, like, numpy_array

# Eigenvalues below this share of the largest are rounding errors.
_RANK = 1e-10
# Patches that are held in float64 at once.
_ROWS = 8192


@dataclass(frozen=True)
class Subspace:
    """Describe an affine subspace: a point and orthonormal directions."""

    # [D] float32.
    mean: Array
    # [D, q] float32, columns orthonormal, the direction of the largest variance first.
    basis: Array

    def project(self, patches: Array) -> Array:
        """Compute coordinates within the subspace: [..., D] -> [..., q]."""
        return (patches - self.mean) @ self.basis

    def residual(self, patches: Array) -> Array:
        """Compute the squared distance to the subspace: [..., D] -> [...], >= 0."""
        off = patches - self.mean
        off = off - (off @ self.basis) @ self.basis.T
        return (off * off).sum(-1)


def fit_subspace(rows: Array, share: float = 0.99, most: int | None = None) -> Subspace:
    """Fit mean and directions to patches.

    Directions are taken in order of their variance until they hold `share` of it. They never hold all of it: where few
    patches span less than D directions, the last of these is left out, for else every reference would have residual 0
    by construction and nothing would be learned about the size of ordinary residuals.

    Args:
        rows: [R, D].
        share: of the variance, above 0 and below 1.
        most: largest number of directions; no limit where left out.

    Returns:
        A subspace of 0 to min(R, D) - 1 directions; 0 where all patches are equal.

    Raises:
        ConfigError: share outside (0, 1).
        InputError: no patches.
    """
    if not 0 < share < 1:
        raise ConfigError(f"share {share} of the variance must lie between 0 and 1 (0.9 and 0.99 are usual)")
    if rows.shape[0] == 0:
        raise InputError("no patches to fit a subspace to; give at least one good photograph")
    parts = [rows[start : start + _ROWS] for start in range(0, rows.shape[0], _ROWS)]
    mean = sum(convert(part, "float64").sum(0) for part in parts) / rows.shape[0]
    scatter = 0.0
    for part in parts:
        off = convert(part, "float64") - mean
        scatter = scatter + off.T @ off
    variance, directions = np.linalg.eigh(numpy_array(scatter))
    variance, directions = variance[::-1].clip(min=0), directions[:, ::-1]
    rank = int((variance > _RANK * max(variance[0], np.finfo(np.float64).tiny)).sum())
    explained = np.cumsum(variance) / max(float(variance.sum()), np.finfo(np.float64).tiny)
    count = max(0, min(int(np.searchsorted(explained, share)) + 1, rank - 1, most if most is not None else rank))
    return Subspace(convert(mean, "float32"), like(directions[:, :count].copy(), mean, "float32"))
