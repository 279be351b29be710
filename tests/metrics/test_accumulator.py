"""The accumulator: any order, any split, any process gives one result; the histogram is as good as it says."""

import itertools
import multiprocessing
import pickle
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import slow_metrics as slow
from anomalens.errors import ConfigError, InputError
from anomalens.metrics import regions
from anomalens.metrics import summary as metrics
from anomalens.metrics.accumulator import Mode
from anomalens.metrics.arrays import Array
from anomalens.metrics.counting import count_above
from anomalens.metrics.floats import key_values, order_keys, round_down
from anomalens.metrics.ranks import sweep_thresholds
from anomalens.metrics.summary import PixelAccumulator

Draw = st.DrawFn
Pairs = list[tuple[Array, Array]]

MODES: tuple[Mode, ...] = ("exact", "histogram")
METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro", "aupro_200")
FLOATS = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(-1, 1, width=32),
    st.sampled_from([0.0, -0.0, 0.5, 1e-45, -1e-45]),
)


@st.composite
def images(draw: Draw) -> Pairs:
    """Draw one to five images of different sizes, each a map and a mask; any of them may be normal or all defect."""
    pairs = []
    for _ in range(draw(st.integers(1, 5))):
        shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
        maps = draw(hnp.arrays(np.float32, shape, elements=FLOATS))
        pairs.append((maps, draw(hnp.arrays(np.bool_, shape))))
    return pairs


def fed(mode: Mode, pairs: Pairs) -> PixelAccumulator:
    accumulator = PixelAccumulator(mode)
    for maps, masks in pairs:
        accumulator.update(maps, masks)
    return accumulator


def ordinary(count: int, size: int = 48, seed: int = 0) -> Pairs:
    """Draw maps in (0, 1) with blobs, smooth enough for regions of all sizes."""
    generator = np.random.default_rng(seed)
    pairs = []
    for index in range(count):
        mask = np.zeros((size, size), bool)
        for _ in range(index % 4):
            (row, column), edge = generator.integers(0, size - 8, 2), generator.integers(1, 8)
            mask[row : row + edge, column : column + edge] = True
        logits = generator.normal(size=mask.shape) + 1.5 * mask - 1
        pairs.append(((1 / (1 + np.exp(-logits))).astype(np.float32), mask))
    return pairs


def process_result(pairs: Pairs) -> PixelAccumulator:
    return fed("histogram", pairs)


@settings(max_examples=60, deadline=None)
@given(images(), st.data())
@pytest.mark.parametrize("mode", MODES)
def test_no_order_and_no_split_changes_a_single_bit(mode: Mode, pairs: Pairs, data: st.DataObject) -> None:
    whole = fed(mode, pairs)
    shuffled = data.draw(st.permutations(pairs))
    parts = [fed(mode, [pair]) for pair in shuffled]
    while len(parts) > 1:
        into = data.draw(st.integers(0, len(parts) - 2))
        parts[into].merge(pickle.loads(pickle.dumps(parts.pop())))
    assert parts[0].compute() == whole.compute()
    for merged, direct in zip(vars(parts[0].ranks()).values(), vars(whole.ranks()).values(), strict=True):
        np.testing.assert_array_equal(merged, direct)
    assert (parts[0].images, parts[0].regions, parts[0].pixels) == (whole.images, whole.regions, whole.pixels)


def test_parts_from_other_processes_merge_to_the_same_result() -> None:
    pairs = ordinary(6)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        parts = pool.map(process_result, [pairs[4:], pairs[:1], pairs[1:4]])
    merged = PixelAccumulator("histogram")
    for part in parts:
        merged.merge(part)
    assert merged.compute() == fed("histogram", pairs).compute()


@settings(max_examples=60, deadline=None)
@given(images())
@pytest.mark.parametrize("mode", MODES)
def test_every_value_is_within_bounds_or_none(mode: Mode, pairs: Pairs) -> None:
    result = fed(mode, pairs).compute()
    threshold = result.pop("pixel_f1max_threshold")
    assert set(result) == set(METRICS)
    assert all(value is None or 0.0 <= value <= 1.0 for value in result.values())
    assert (threshold is None) == (result["pixel_f1max"] is None)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(hnp.arrays(np.int8, (4, 5), elements=st.integers(-3, 3)), min_size=1, max_size=4),
    st.sampled_from([1.0, 0.25, 1e-30, 1e30, 1 / 7]),
    st.randoms(use_true_random=False),
)
def test_the_histogram_is_exact_for_few_distinct_scores(levels: list[Array], scale: float, random: Random) -> None:
    pairs = [(np.float32(scale) * level, np.array([[random.random() < 0.3] * 5] * 4)) for level in levels]
    pairs[0][1][0], pairs[0][1][-1] = True, False
    exact, binned = fed("exact", pairs).compute(), fed("histogram", pairs).compute()
    for name in METRICS[:-1]:
        assert binned[name] == exact[name]


@settings(max_examples=30, deadline=None)
@given(st.floats(2**-7, 2**60, width=32), st.booleans(), st.integers(0, 2**31))
def test_the_histogram_is_exact_for_any_scores_close_together(start: float, negative: bool, seed: int) -> None:
    """While at most 65,536 neighbouring floats are spanned every one has a bin of its own, wherever they lie."""
    generator = np.random.default_rng(seed)
    base = np.float32(start).view(np.int32)
    maps = (base + generator.integers(0, 65_000, (3, 12, 12), dtype=np.int32)).view(np.float32)
    maps = -maps if negative else maps
    masks = generator.random(maps.shape) < 0.2
    pairs = list(zip(maps, masks, strict=True))
    assert fed("histogram", pairs).compute() == fed("exact", pairs).compute()


def distributions() -> tuple[Array, dict[str, Array]]:
    generator = np.random.default_rng(5)
    masks = np.stack([mask for _, mask in ordinary(12, 96, seed=1)])
    logits = generator.normal(size=masks.shape) + 1.5 * masks
    sigmoid = 1 / (1 + np.exp(-logits))
    return masks, {
        "sigmoid": sigmoid,
        "narrow": 0.5 + 1e-3 * sigmoid,
        "peaked": sigmoid**8,
        "logits": logits,
        "distances": np.exp(logits),
        "negative": logits - 100,
        "huge": 1e30 * logits,
        "quarters": np.round(4 * sigmoid) / 4,
        "zeros": np.maximum(logits, 0),
    }


@pytest.mark.parametrize("name", distributions()[1])
def test_the_histogram_is_close_for_any_distribution(name: str) -> None:
    masks, scores = distributions()
    pairs = list(zip(scores[name].astype(np.float32), masks, strict=True))
    exact, binned = fed("exact", pairs).compute(), fed("histogram", pairs).compute()
    crossing_zero = scores[name].min() < 0 < scores[name].max()
    for metric in ("pixel_auroc", "aupro"):
        assert binned[metric] == pytest.approx(exact[metric], abs=1e-4)
    # AP and F1-max see the ties of a bin in full, not half, and where scores cross zero half the bins lie at tiny
    # magnitudes, so that the others are up to 1/128 of a score wide.
    for metric in ("pixel_ap", "pixel_f1max"):
        assert binned[metric] == pytest.approx(exact[metric], abs=2e-3 if crossing_zero else 5e-4)
    assert binned["aupro_200"] == pytest.approx(exact["aupro_200"], abs=2e-3)


def test_the_histogram_does_not_grow_with_the_images() -> None:
    few, many = fed("histogram", ordinary(4)), fed("histogram", ordinary(80))
    assert len(pickle.dumps(many)) - len(pickle.dumps(few)) < 64
    assert many.images == 80


@pytest.mark.parametrize("mode", MODES)
def test_the_order_of_range_does_not_matter(mode: Mode) -> None:
    """A late image with far larger or smaller scores makes bins wider, as if it had come first."""
    pairs = ordinary(3)
    pairs.append((1e6 * pairs[0][0], pairs[1][1]))
    pairs.append((-1e-12 * pairs[0][0], pairs[1][1]))
    results = [fed(mode, list(order)).compute() for order in itertools.permutations(pairs, 5)]
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("mode", MODES)
def test_stacks_lists_and_single_maps_are_the_same(mode: Mode) -> None:
    pairs = ordinary(3)
    maps, masks = (np.stack(part) for part in zip(*pairs, strict=True))
    stacked, listed = PixelAccumulator(mode), PixelAccumulator(mode)
    stacked.update(maps, masks)
    listed.update(list(maps), [None, *masks[1:]])  # the first image has no defect
    assert stacked.compute() == listed.compute() == fed(mode, pairs).compute()
    assert stacked.images == 3


@pytest.mark.parametrize("mode", MODES)
def test_nothing_given_is_changed_and_a_merged_part_stays_usable(mode: Mode) -> None:
    pairs = ordinary(4)
    copies = [(maps.copy(), masks.copy()) for maps, masks in pairs]
    left, right = fed(mode, pairs[:2]), fed(mode, pairs[2:])
    before = right.compute()
    assert left.merge(right) is left
    left.update(*pairs[1])
    assert right.compute() == before
    for (maps, masks), (maps_copy, masks_copy) in zip(pairs, copies, strict=True):
        np.testing.assert_array_equal(maps, maps_copy)
        np.testing.assert_array_equal(masks, masks_copy)


@pytest.mark.parametrize("mode", MODES)
def test_results_may_be_asked_for_at_any_time(mode: Mode) -> None:
    pairs = ordinary(4)
    accumulator = PixelAccumulator(mode)
    for count, pair in enumerate(pairs, 1):
        accumulator.update(*pair)
        assert accumulator.compute() == fed(mode, pairs[:count]).compute()


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_accumulator_is_undefined_and_merges_away(mode: Mode) -> None:
    assert set(PixelAccumulator(mode).compute().values()) == {None}
    full = fed(mode, ordinary(3))
    expected = full.compute()
    assert PixelAccumulator(mode).merge(full).merge(PixelAccumulator(mode)).compute() == expected
    empty = PixelAccumulator(mode)
    empty.update(np.zeros((0, 4)), np.zeros((0, 4)))
    assert set(empty.compute().values()) == {None}


@pytest.mark.parametrize("mode", MODES)
def test_the_table_adds_up_to_the_mean_recall_of_the_regions(mode: Mode) -> None:
    pairs = ordinary(5)
    maps, masks = zip(*pairs, strict=True)
    accumulator = fed(mode, pairs)
    ranks = accumulator.ranks()
    recall = ranks.share[ranks.threshold >= 0.5].sum() / accumulator.regions
    assert recall == pytest.approx(metrics.region_recall(maps, masks, 0.5).mean(), abs=1e-3)
    assert ranks.share.sum() == pytest.approx(accumulator.regions)


@pytest.mark.parametrize("mode", MODES)
def test_a_sweep_counts_scores_strictly_above(mode: Mode) -> None:
    scores, mask = np.array([[0.0, 0.25, 0.5, 0.75, 1.0]], np.float32), np.array([[0, 0, 0, 1, 1]])
    accumulator = fed(mode, [(scores, mask)])
    rates, overlap = accumulator.sweep(np.array([-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0]))
    np.testing.assert_allclose(rates, [1, 2 / 3, 1 / 3, 0, 0, 0, 0])
    np.testing.assert_allclose(overlap, [1, 1, 1, 1, 0.5, 0, 0])


def test_a_background_of_zeros_stays_below_the_first_threshold() -> None:
    """The papers' sweep starts at the smallest score and counts what exceeds it."""
    scores, mask = np.zeros((10, 10), np.float32), np.zeros((10, 10), bool)
    mask[0, :5], scores[0, :3], scores[1] = True, 1.0, np.linspace(0.2, 1.0, 10)
    exact, binned = fed("exact", [(scores, mask)]), fed("histogram", [(scores, mask)])
    assert binned.aupro_200() == exact.aupro_200() == pytest.approx(slow.aupro_200([scores], [mask], 0.3))


def test_float64_maps_stay_exact_and_mix_with_float32() -> None:
    close = np.array([[1.0, 1.0 + 1e-12]])
    mask = np.array([[0, 1]])
    assert fed("exact", [(close, mask)]).compute()["pixel_auroc"] == 1.0
    mixed = fed("exact", [(close, mask), (np.array([[0.5, 1.0]], np.float32), np.array([[0, 1]]))])
    assert mixed.compute()["pixel_auroc"] == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    generator = np.random.default_rng(2)
    pairs = [(generator.random((6, 6)).astype(dtype), np.eye(6, dtype=bool)) for dtype in (np.float32, np.float64)]
    maps, masks = zip(*pairs, strict=True)
    assert fed("exact", pairs).aupro_200() == pytest.approx(slow.aupro_200(maps, masks, 0.3))
    assert fed("exact", pairs).compute()["aupro"] == pytest.approx(slow.aupro_by_thresholds(maps, masks, 0.3))
    # float32 cannot tell the two apart, and the histogram is one of float32 numbers.
    assert fed("histogram", [(close, mask)]).compute()["pixel_auroc"] == 0.5


def test_float64_beyond_float32_needs_the_exact_mode() -> None:
    maps, mask = np.array([[-1e300, 1e300], [1.7e308, -1.7e308]]), np.array([[0, 1], [1, 0]])
    accumulator = PixelAccumulator("histogram")
    with pytest.raises(InputError, match="exact"):
        accumulator.update(maps, mask)
    assert accumulator.pixels == 0
    exact = fed("exact", [(maps, mask)])
    assert exact.compute()["aupro"] == 1.0
    rates, _ = exact.sweep(sweep_thresholds(*exact._counts.extremes()))
    assert rates[0] == 0.5
    assert (np.diff(rates) <= 0).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_refused_map_leaves_no_trace(mode: Mode, bad: float) -> None:
    accumulator = fed(mode, ordinary(3))
    before = accumulator.compute()
    scores = np.zeros((4, 4), np.float32)
    scores[1, 1] = bad
    with pytest.raises(InputError, match="finite"):
        accumulator.update(scores, np.eye(4))
    with pytest.raises(InputError, match="shape"):
        accumulator.update(np.zeros((4, 4)), np.eye(5))
    assert accumulator.compute() == before
    assert accumulator.images == 3


def test_wrong_modes_are_refused() -> None:
    with pytest.raises(ConfigError, match="exact, histogram"):
        PixelAccumulator("binned")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cannot merge"):
        PixelAccumulator("exact").merge(PixelAccumulator("histogram"))
    with pytest.raises(ConfigError, match="limit"):
        PixelAccumulator().compute(limit=0)


def test_too_many_regions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "MAX_REGIONS", 2)
    accumulator = PixelAccumulator()
    accumulator.update(np.eye(3), np.diag([1, 0, 1]))
    with pytest.raises(InputError, match="at most 2"):
        accumulator.update(np.eye(3), np.eye(3))
    with pytest.raises(InputError, match="at most 2"):
        accumulator.merge(accumulator)


@given(st.integers(1, 2**33), st.data())
def test_region_units_are_dealt_without_remainder(size: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, size))
    units = regions._floor_units(np.array([rank, size]), np.array([size, size]))
    assert units.tolist() == [rank * regions.UNITS // size, regions.UNITS]


@given(
    hnp.arrays(np.float32, st.integers(0, 60), elements=FLOATS),
    hnp.arrays(np.float32, st.integers(0, 20), elements=FLOATS),
)
def test_counting_is_comparing_all_with_all(values: Array, thresholds: Array) -> None:
    values, thresholds = values + np.float32(0), np.unique(thresholds + np.float32(0))
    above, upto = count_above([values[:7], values[7:]], thresholds)
    np.testing.assert_array_equal(above, (values[None] > thresholds[:, None]).sum(1))
    np.testing.assert_array_equal(upto, (values[None] >= thresholds[:, None]).sum(1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counting_many_values_is_sorting_them(dtype: Any) -> None:
    generator = np.random.default_rng(8)
    values = generator.normal(size=200_000).astype(dtype)
    thresholds = np.unique(np.concatenate([values[::20], generator.normal(size=5_000).astype(dtype)]))
    above, upto = count_above(list(values.reshape(10, -1)), thresholds)
    ascending = np.sort(values)
    np.testing.assert_array_equal(above, values.size - np.searchsorted(ascending, thresholds, "right"))
    np.testing.assert_array_equal(upto, values.size - np.searchsorted(ascending, thresholds, "left"))


@given(hnp.arrays(np.float32, st.integers(1, 50), elements=FLOATS))
def test_keys_keep_the_order_and_come_back(values: Array) -> None:
    values = values + np.float32(0)
    keys = order_keys(values)
    np.testing.assert_array_equal(np.sign(np.diff(keys.astype(np.int64))), np.sign(np.diff(values.astype(float))))
    np.testing.assert_array_equal(key_values(keys.astype(np.int64)), values)


@given(hnp.arrays(np.float64, 5, elements=st.floats(-1e300, 1e300)), hnp.arrays(np.float32, 5, elements=FLOATS))
def test_rounding_a_threshold_down_keeps_what_exceeds_it(thresholds: Array, scores: Any) -> None:
    rounded = round_down(thresholds)
    inside = np.abs(thresholds) <= np.finfo(np.float32).max
    np.testing.assert_array_equal((scores > rounded)[inside], (scores.astype(np.float64) > thresholds)[inside])


@settings(max_examples=30, deadline=None)
@given(images())
def test_what_is_stored_as_arrays_comes_back_to_the_bit(pairs: Pairs) -> None:
    accumulator = PixelAccumulator("histogram")
    for scores, mask in pairs:
        accumulator.update(scores, mask)
    again = PixelAccumulator.from_arrays({name: array.copy() for name, array in accumulator.to_arrays().items()})
    assert (again.images, again.regions, again.pixels) == (accumulator.images, accumulator.regions, accumulator.pixels)
    for both in (accumulator, again):
        both.update(*pairs[0])
    assert again.compute() == accumulator.compute()


def test_arrays_of_another_form_are_refused() -> None:
    whole = PixelAccumulator("histogram").to_arrays()
    for name in whole:
        others: tuple[Any, ...] = (whole[name][:-1], whole[name].astype(np.float64))
        for other in others:
            with pytest.raises(InputError, match="another form"):
                PixelAccumulator.from_arrays(whole | {name: other})
        with pytest.raises(InputError, match="another form"):
            PixelAccumulator.from_arrays({key: value for key, value in whole.items() if key != name})
    with pytest.raises(ConfigError, match="only the mode 'histogram'"):
        PixelAccumulator("exact").to_arrays()
