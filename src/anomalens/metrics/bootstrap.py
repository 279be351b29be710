"""Estimate how far numbers would move with other images of the same kind: bootstrap intervals over images.

Images are drawn with replacement and whole, because the pixels of one image are not independent. A resample is a count
per image, so a thousand of them are one matrix product with the images' score histograms.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from anomalens.errors import ConfigError
from anomalens.metrics import ranks as table
from anomalens.metrics.accumulator import check_limit, defined
from anomalens.metrics.arrays import Floats, Integers, Truth, each_map, flat_pair
from anomalens.metrics.histogram import OrderedHistogram
from anomalens.metrics.ranks import Ranks
from anomalens.metrics.regions import UNITS, check_region_count, label_regions

Statistics = dict[str, Callable[[Ranks], Floats]]

# Score groups of equal weight that a pixel resample is counted in; they move a metric by less than 1e-3.
_GROUPS = 2048
# Resamples x groups handled at once: 4 MB an array.
_CELLS = 1 << 19


@dataclass(frozen=True)
class Interval:
    """Hold a metric on all images, and the percentile interval of its resamples; all in [0, 1]."""

    # On all images as they are.
    value: float
    low: float
    high: float
    # Nominal coverage of low .. high.
    level: float
    # Resamples in which the metric was defined (a resample may hold a single kind of image).
    resamples: int


def image_intervals(
    scores: Any,
    labels: Any,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    stratified: bool = True,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """Return intervals of image_auroc, image_ap and image_f1max; None where the metric is undefined.

    Args:
        scores, labels: [n].
        resamples: at least 1.
        level: coverage, in (0, 1).
        stratified: draw normal and anomalous images separately, as many as there are of each.
        seed: the same seed gives the same intervals.

    Raises InputError for bad scores or labels, ConfigError for bad options.
    """
    _check_options(resamples, level)
    values, truth = flat_pair(scores, labels)
    order = np.argsort(-values, kind="stable")
    values, truth = values[order], truth[order]
    threshold, starts = np.unique(-values, return_index=True)
    draws = _draw(truth, resamples, stratified, seed)

    def ranks(count: Integers) -> Ranks:
        anomalous = np.add.reduceat(count * truth, starts, axis=-1)
        normal = np.add.reduceat(count * ~truth, starts, axis=-1)
        nothing = np.zeros((*count.shape[:-1], 0))
        return _ranks(-threshold, normal, anomalous, nothing, np.zeros(count.shape[:-1]))

    statistics: Statistics = {
        "image_auroc": table.auroc,
        "image_ap": table.average_precision,
        "image_f1max": lambda r: table.f1_max(r)[0],
    }
    if values.size == 0:
        return dict.fromkeys(statistics)
    point = _evaluate(statistics, ranks(np.ones(values.size, np.int64)))
    return _intervals(point, statistics, ranks, draws, starts.size, level)


def pixel_intervals(
    maps: Any,
    masks: Any,
    *,
    limit: float = 0.3,
    resamples: int = 1000,
    level: float = 0.95,
    stratified: bool = True,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """Return intervals of pixel_auroc, pixel_ap, pixel_f1max and aupro over images; None where undefined.

    Resamples are counted in 2,048 groups of scores; the value is that of the histogram mode. Memory besides the maps:
    48 KB an image, and O(resamples x images).

    Args:
        maps, masks: stacks [B, H, W] or sequences of [H, W].
        limit: as for `aupro`.
        stratified: as for `image_intervals`; an image with any anomalous pixel counts as anomalous.
        resamples, level, seed: as for `image_intervals`.
    """
    _check_options(resamples, level)
    check_limit(limit)
    images = [(scores.ravel(), *label_regions(mask)) for scores, mask in each_map(maps, masks)]
    regions = np.array([sizes.size for *_, sizes in images], np.int64)
    check_region_count(int(regions.sum()))
    pool = OrderedHistogram()
    for image in images:
        pool.add(*image)
    statistics: Statistics = {
        "pixel_auroc": table.auroc,
        "pixel_ap": table.average_precision,
        "pixel_f1max": lambda r: table.f1_max(r)[0],
        "aupro": lambda r: table.aupro(r, limit),
    }
    if pool.normals == 0 or pool.anomalies == 0:
        return dict.fromkeys(statistics)
    starts = _equal_groups(pool)
    # Normal pixels, anomalous pixels, region share.
    parts = np.zeros((3, len(images), starts.size))
    for index, image in enumerate(images):
        histogram = pool.empty_like()
        histogram.add(*image)
        parts[:, index] = np.add.reduceat(np.stack(histogram.descending()[1:]), starts, axis=-1)
    parts[2] /= UNITS
    threshold = pool.descending()[0][starts].astype(np.float64)

    def ranks(count: Integers) -> Ranks:
        normal, anomalous, share = (count @ part for part in parts)
        return _ranks(threshold, normal, anomalous, share, count @ regions)

    draws = _draw(regions > 0, resamples, stratified, seed)
    point = _evaluate(statistics, pool.ranks(int(regions.sum())))
    return _intervals(point, statistics, ranks, draws, starts.size, level)


def _equal_groups(pool: OrderedHistogram) -> Integers:
    """Return where to cut the pool's descending bins into runs that weigh about the same in every metric."""
    counts = np.stack(pool.descending()[1:]).astype(np.float64)
    weight = (counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)).sum(axis=0)
    before = np.cumsum(weight) - weight
    group = np.floor(before * (_GROUPS / weight.sum()))
    return np.flatnonzero(np.diff(group, prepend=-1.0))


def _draw(anomalous: Truth, resamples: int, stratified: bool, seed: int) -> Integers:
    """Return how often each of n images is drawn in each resample, [resamples, n]."""
    generator = np.random.default_rng(seed)
    pools = [~anomalous, anomalous] if stratified else [np.ones_like(anomalous)]
    draws = np.zeros((resamples, anomalous.size), np.int64)
    for members in map(np.flatnonzero, pools):
        if members.size:
            picks = generator.integers(0, members.size, (resamples, members.size))
            offset = np.arange(resamples)[:, None] * members.size
            counts = np.bincount((picks + offset).ravel(), minlength=resamples * members.size)
            draws[:, members] = counts.reshape(resamples, members.size)
    return draws


def _ranks(threshold: Floats, normal: Any, anomalous: Any, share: Any, regions: Any) -> Ranks:
    """Return the metrics' table of counts [..., K] by descending score."""
    upto = np.cumsum(normal, axis=-1)
    return Ranks(
        threshold=threshold,
        anomalous=anomalous,
        above=upto - normal,
        upto=upto,
        normals=upto[..., -1],
        anomalies=anomalous.sum(axis=-1),
        share=share,
        regions=regions,
    )


def _intervals(
    point: dict[str, float | None],
    statistics: Statistics,
    ranks: Callable[[Integers], Ranks],
    draws: Integers,
    groups: int,
    level: float,
) -> dict[str, Interval | None]:
    """Evaluate every statistic on every resample, some at a time, and take percentiles."""
    values_of: dict[str, list[Floats]] = {name: [] for name in statistics}
    step = max(1, _CELLS // groups)
    for begin in range(0, len(draws), step):
        resampled = ranks(draws[begin : begin + step])
        for name, statistic in statistics.items():
            values_of[name].append(statistic(resampled))
    result: dict[str, Interval | None] = {}
    for name, parts in values_of.items():
        values = np.concatenate(parts)
        values = values[~np.isnan(values)]
        value = point[name]
        if value is None or values.size == 0:
            result[name] = None
            continue
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        result[name] = Interval(value, float(low), float(high), level, int(values.size))
    return result


def _evaluate(statistics: Statistics, ranks: Ranks) -> dict[str, float | None]:
    return {name: defined(statistic(ranks)) for name, statistic in statistics.items()}


def _check_options(resamples: int, level: float) -> None:
    if resamples < 1:
        raise ConfigError(f"resamples must be at least 1, found {resamples}; 1000 is usual")
    if not 0.0 < level < 1.0:
        raise ConfigError(f"level is a coverage in (0, 1), found {level!r}; 0.95 is usual")
