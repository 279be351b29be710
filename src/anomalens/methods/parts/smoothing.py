"""Blur the columns of a matrix with a Gaussian, in NumPy."""

import numpy as np
import numpy.typing as npt

# Standard deviations from the middle at which the Gaussian is cut.
_CUT = 4


def smoothed(values: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    """Blur values [n, m] along their first axis, the border mirrored; equals `scipy.ndimage.gaussian_filter1d`.

    sigma: standard deviation in rows, above 0; cut at 4 of them.
    """
    count, reach = len(values), int(_CUT * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    mirrored = np.pad(values, ((reach, reach), (0, 0)), mode="symmetric")
    total = mirrored[reach : reach + count] * weights[reach]
    # From the outside inwards, pairs of equal weight together: the order in which SciPy adds, so the bits are equal.
    for step in range(reach):
        last = 2 * reach - step
        total += (mirrored[step : step + count] + mirrored[last : last + count]) * weights[step]
    return np.asarray(total)
