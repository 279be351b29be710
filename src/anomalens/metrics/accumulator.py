"""Compute pixel metrics map by map: exactly, or in memory that does not grow with the number of images.

Both modes take and give the same; both can be pickled, sent between processes and merged in any order with a result
that is identical to the last bit, because everything kept is a whole number or a score.

    accumulator = PixelAccumulator("histogram")
    for anomaly_map, mask in pairs:
        accumulator.update(anomaly_map, mask)
    accumulator.compute()["aupro"]
"""

from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

import numpy as np

from anomalens.errors import ConfigError, InputError
from anomalens.metrics import ranks as table
from anomalens.metrics.arrays import Floats, Integers, each_map
from anomalens.metrics.exact import ExactScores
from anomalens.metrics.histogram import OrderedHistogram
from anomalens.metrics.ranks import Ranks
from anomalens.metrics.regions import check_region_count, label_regions

Mode = Literal["exact", "histogram"]


class PixelAccumulator:
    """Gather maps for pixel AUROC, AP, F1-max, AUPRO and its 200-threshold variant.

    With P pixels, A of them anomalous:

    ========= ============================================ =======================================
    mode      memory                                       result
    ========= ============================================ =======================================
    exact     O(P): 4 bytes a normal, 12 an anomalous one  exact
    histogram O(1): 1.5 MB                                 exact while the scores span at most 65,536
                                                           neighbouring floats, else binned
    ========= ============================================ =======================================

    Scores may be any finite numbers of any sign; none is transformed. (float64 maps: exact mode keeps them
    whole in twice the memory, histogram mode counts them as float32.)
    """

    def __init__(self, mode: Mode = "exact") -> None:
        """Start without a map. Raises ConfigError for another `mode`."""
        if mode not in get_args(Mode):
            raise ConfigError(f"mode must be one of {', '.join(get_args(Mode))}; found {mode!r}")
        self.mode: Mode = mode
        self.images = 0
        self.regions = 0
        self._counts: ExactScores | OrderedHistogram = ExactScores() if mode == "exact" else OrderedHistogram()

    @property
    def pixels(self) -> int:
        """Return the number of pixels seen."""
        return self._counts.normals + self._counts.anomalies

    def update(self, maps: Any, masks: Any = None) -> None:
        """Add one anomaly map [H, W], a stack [B, H, W] or a sequence of maps of any sizes, with their masks.

        maps: finite scores, higher = more anomalous. masks: same shapes; booleans, 0/1 or 0/255; None for
        normal images. Raises InputError for anything else, and then has added nothing of the faulty map.
        """
        for scores, mask in each_map(maps, masks):
            positions, region, sizes = label_regions(mask)
            check_region_count(self.regions + sizes.size)
            self._counts.add(scores.ravel(), positions, region, sizes)
            self.images += 1
            self.regions += sizes.size

    def merge(self, other: "PixelAccumulator") -> Self:
        """Add everything another accumulator of the same mode holds, and return self. `other` is not changed.

        Raises ConfigError when the modes differ.
        """
        if other.mode != self.mode:
            raise ConfigError(f"cannot merge mode {other.mode!r} into mode {self.mode!r}; use one mode in all parts")
        check_region_count(self.regions + other.regions)
        self._counts.merge(other._counts)  # type: ignore[arg-type]  # equal modes, so equal types
        self.images += other.images
        self.regions += other.regions
        return self

    def to_arrays(self) -> dict[str, Integers]:
        """Return all that it holds as arrays of whole numbers, for a file. Raises ConfigError in exact mode."""
        if isinstance(self._counts, ExactScores):
            raise ConfigError("only the mode 'histogram' can be stored")
        return self._counts.to_arrays() | {"counts": np.array([self.images, self.regions], np.int64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Integers]) -> "PixelAccumulator":
        """Return the accumulator that `to_arrays` was asked of. Raises InputError for arrays of another form."""
        form = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        if form != {name: (array.shape, array.dtype) for name, array in cls("histogram").to_arrays().items()}:
            raise InputError("stored pixel counts have another form")
        counts = OrderedHistogram.from_arrays(arrays["rings"], arrays["numbers"])
        images, regions = map(int, arrays["counts"])
        accumulator = cls("histogram")
        accumulator.images, accumulator.regions, accumulator._counts = images, regions, counts
        return accumulator

    def ranks(self) -> Ranks:
        """Return the table behind all metrics and curves but `aupro_200`."""
        return self._counts.ranks(self.regions)

    def compute(self, limit: float = 0.3) -> dict[str, float | None]:
        """Return all pixel metrics in [0, 1], by name; None where undefined.

        A metric is undefined without normal or without anomalous pixels; `aupro_200` also where fewer than two
        false-positive rates lie below the limit.

        Args:
            limit: largest false-positive rate of `aupro` and `aupro_200`, in (0, 1].

        Returns:
            pixel_auroc, pixel_ap, pixel_f1max, pixel_f1max_threshold (in units of the score), aupro, aupro_200.
        """
        check_limit(limit)
        ranks = self.ranks()
        f1, threshold = table.f1_max(ranks)
        return {
            "pixel_auroc": defined(table.auroc(ranks)),
            "pixel_ap": defined(table.average_precision(ranks)),
            "pixel_f1max": defined(f1),
            "pixel_f1max_threshold": defined(threshold),
            "aupro": defined(table.aupro(ranks, limit)),
            "aupro_200": self.aupro_200(limit),
        }

    def aupro_200(self, limit: float = 0.3) -> float | None:
        """Return the papers' variant of AUPRO, see `anomalens.metrics.summary.aupro_200`."""
        check_limit(limit)
        if self._counts.normals == 0 or self.regions == 0:
            return None
        rates, overlap = self.sweep(table.sweep_thresholds(*self._counts.extremes()))
        return defined(table.aupro_200(rates, overlap, limit))

    def sweep(self, thresholds: Floats) -> tuple[Floats, Floats]:
        """Return false-positive rate and mean region overlap of calling scores > each threshold anomalous."""
        normal, share = self._counts.above(np.asarray(thresholds, np.float64))
        return normal / max(self._counts.normals, 1), share / max(self.regions, 1)


def check_limit(limit: float) -> None:
    """Raise ConfigError unless 0 < limit <= 1."""
    if not 0.0 < limit <= 1.0:
        raise ConfigError(f"limit is a false-positive rate in (0, 1], found {limit!r}; the usual value is 0.3")


def defined(value: Any) -> float | None:
    """Return a number as float, NaN as None."""
    number = float(value)
    return None if np.isnan(number) else number
