"""Every metric against scikit-learn and against slow, obvious code, on ordinary and on hostile input."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import measure
from sklearn import metrics as sk

import slow_metrics as slow
from anomalens.errors import ConfigError, InputError
from anomalens.metrics import summary as metrics
from anomalens.metrics.arrays import Array

Draw = st.DrawFn
Pair = tuple[Array, Array]

# Any float32, the awkward ones often: both zeros, denormals, the ends of the range.
ANY_FLOAT = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1e-40, 3.4e38, -3.4e38, 1.0, np.float32(1) - np.float32(6e-8)]),
)
TIED = st.sampled_from([-1.0, -0.0, 0.0, 0.25, 0.5])
SCORES = st.one_of(
    hnp.arrays(np.float32, st.integers(2, 40), elements=ANY_FLOAT),
    hnp.arrays(np.float32, st.integers(2, 40), elements=TIED),
    hnp.arrays(np.float64, st.integers(2, 40), elements=st.floats(-1e300, 1e300)),
)


@st.composite
def scored(draw: Draw) -> Pair:
    """Draw scores and labels of both kinds."""
    scores = draw(SCORES)
    labels = draw(hnp.arrays(np.bool_, scores.shape))
    labels[0], labels[-1] = False, True
    return scores, labels


@st.composite
def mapped(draw: Draw, elements: Any = None) -> Pair:
    """Draw one to three small maps and masks, with a normal pixel and a region among them."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(2, 6), st.integers(2, 6)))
    kind = draw(st.sampled_from([TIED, ANY_FLOAT, st.just(0.5)])) if elements is None else elements
    maps = draw(hnp.arrays(np.float32, shape, elements=kind))
    masks = draw(hnp.arrays(np.bool_, shape))
    masks[0, 0, 0], masks[-1, -1, -1] = False, True
    return maps, masks


@given(scored())
def test_auroc_and_average_precision_are_scikit_learns(given_: Pair) -> None:
    scores, labels = given_
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scikit-learn subtracts neighbouring scores
        expected_auroc, expected_ap = sk.roc_auc_score(labels, scores), sk.average_precision_score(labels, scores)
    assert metrics.auroc(scores, labels) == pytest.approx(expected_auroc, abs=1e-12)
    assert metrics.average_precision(scores, labels) == pytest.approx(expected_ap, abs=1e-12)


@given(scored())
def test_auroc_is_the_chance_to_outscore_with_ties_half(given_: Pair) -> None:
    scores, labels = given_
    high, low = scores[labels][:, None], scores[~labels][None, :]
    assert metrics.auroc(scores, labels) == pytest.approx(np.mean((high > low) + 0.5 * (high == low)), abs=1e-12)


@given(scored())
def test_f1_max_and_its_threshold(given_: Pair) -> None:
    scores, labels = given_
    best = slow.known(metrics.f1_max(scores, labels))
    value, threshold = slow.f1_max(scores, labels)
    assert best.value == pytest.approx(value, abs=1e-12)
    assert best.threshold == threshold
    called = scores >= best.threshold
    assert sk.f1_score(labels, called) == pytest.approx(best.value, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(mapped(), st.sampled_from([0.01, 0.05, 0.3, 0.7, 1.0]))
def test_aupro_is_the_area_over_all_thresholds_and_the_closed_form(given_: Pair, limit: float) -> None:
    maps, masks = given_
    area = slow.known(metrics.aupro(maps, masks, limit))
    assert area == pytest.approx(slow.aupro_by_thresholds(maps, masks, limit), abs=1e-9)
    assert area == pytest.approx(slow.aupro_closed_form(maps, masks, limit), abs=1e-9)
    assert 0.0 <= area <= 1.0


@settings(max_examples=25, deadline=None)
@given(mapped(), st.sampled_from([0.1, 0.3, 1.0]))
def test_aupro_200_is_the_papers_sweep(given_: Pair, limit: float) -> None:
    maps, masks = given_
    area, expected = metrics.aupro_200(maps, masks, limit), slow.aupro_200(maps, masks, limit)
    assert (area is None) == (expected is None)
    if area is not None:
        assert area == pytest.approx(expected, abs=1e-9)
        assert 0.0 <= area <= 1.0


@settings(max_examples=50, deadline=None)
@given(mapped())
def test_region_recall_region_by_region(given_: Pair) -> None:
    maps, masks = given_
    threshold = float(np.median(maps))
    expected = [
        np.mean([scores[place] >= threshold for place in region])
        for scores, mask in zip(maps, masks, strict=True)
        for region in slow.regions_of(mask)
    ]
    recalls = metrics.region_recall(maps, masks, threshold)
    assert sorted(recalls) == pytest.approx(sorted(expected))


@settings(max_examples=50, deadline=None)
@given(mapped(), st.sampled_from([(1e-5, 1e-4), (0.05, 0.4), (0.3, 1.0)]))
def test_aupimo_is_the_integral_over_the_log_rate(given_: Pair, bounds: tuple[float, float]) -> None:
    maps, masks = given_
    maps, masks = np.concatenate([maps, maps[::-1] * 0.5]), np.concatenate([masks, np.zeros_like(masks)])
    aupimo = metrics.aupimo(maps, masks, bounds)
    expected = slow.aupimo(maps, masks, *bounds)
    np.testing.assert_allclose(aupimo.per_image, expected, atol=1e-9)
    assert aupimo.value == pytest.approx(np.mean(expected), abs=1e-9)
    assert aupimo.images.tolist() == [index for index, mask in enumerate(masks) if mask.any()]


def test_aupimo_weighs_normal_images_alike_whatever_their_size() -> None:
    anomalous = np.array([[5.0, 3.0]])
    large, small = np.zeros((10, 10)), np.zeros((2, 2))
    large[0, 0] = small[0, 0] = 4.0  # above the score 3: rates 1/100 and 1/4, mean 0.13
    aupimo = metrics.aupimo([anomalous, large, small], [np.ones((1, 2), bool), None, None], (0.01, 1.0))
    assert aupimo.value == pytest.approx((1.0 + np.log(1.0 / 0.13) / np.log(100)) / 2)


def test_known_values_of_aupro() -> None:
    mask = np.zeros((10, 10), bool)
    mask[:2, :5] = True
    perfect = mask.astype(float)
    assert metrics.aupro(perfect, mask) == 1.0
    assert metrics.aupro(1.0 - perfect, mask) == 0.0
    # A constant map gives the diagonal: the area up to L is L^2 / 2, divided by L.
    assert metrics.aupro(np.full((10, 10), 0.7), mask, 0.3) == pytest.approx(0.15)
    assert metrics.aupro_200(np.full((10, 10), 0.7), mask) is None


def test_regions_count_alike_whatever_their_size() -> None:
    mask = np.zeros((10, 10), bool)
    mask[:3, :3], mask[9, 9] = True, True
    scores = np.zeros((10, 10))
    scores[9, 9] = 1.0
    assert metrics.aupro(scores, mask, 1.0) == pytest.approx(0.5 + 0.5 * 0.5)
    assert metrics.region_recall(scores, mask, 0.5).tolist() == [0.0, 1.0]
    assert metrics.auroc(scores, mask) == pytest.approx(0.1 + 0.9 * 0.5)


def test_corners_connect_regions() -> None:
    mask = np.eye(4, dtype=bool)
    assert metrics.region_recall(np.eye(4), mask, 0.5).size == 1


def test_regions_are_those_of_scikit_image() -> None:
    generator = np.random.default_rng(0)
    for density in (0.05, 0.3, 0.6):
        mask = generator.random((40, 30)) < density
        scores = generator.random((40, 30))
        labels: Array = measure.label(mask, connectivity=2)
        expected = [np.mean(scores[labels == index] >= 0.5) for index in range(1, labels.max() + 1)]
        assert sorted(metrics.region_recall(scores, mask, 0.5)) == pytest.approx(sorted(expected))


def test_pixel_metrics_on_ordinary_maps_are_scikit_learns() -> None:
    generator = np.random.default_rng(3)
    masks = generator.random((4, 60, 50)) < 0.05
    maps = (generator.normal(size=masks.shape) + masks).astype(np.float32)
    assert metrics.auroc(maps, masks) == pytest.approx(sk.roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    assert metrics.average_precision(maps, masks) == pytest.approx(
        sk.average_precision_score(masks.ravel(), maps.ravel()), abs=1e-12
    )
    precision, recall, _ = sk.precision_recall_curve(masks.ravel(), maps.ravel())
    expected = np.nanmax(2 * precision * recall / (precision + recall))
    assert slow.known(metrics.f1_max(maps, masks)).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("labels", [[], [0], [1], [0, 0, 0], [1, 1]])
def test_image_metrics_are_none_without_both_kinds(labels: Any) -> None:
    scores = np.arange(len(labels)) / 7
    assert metrics.auroc(scores, labels) is None
    assert metrics.average_precision(scores, labels) is None
    assert metrics.f1_max(scores, labels) is None


@pytest.mark.parametrize("masks", [np.zeros((2, 3, 3), bool), np.ones((2, 3, 3), bool), None])
def test_pixel_metrics_are_none_without_both_kinds(masks: Any) -> None:
    maps = np.random.default_rng(0).random((2, 3, 3))
    assert metrics.aupro(maps, masks) is None
    assert metrics.aupro_200(maps, masks) is None
    assert metrics.aupimo(maps, masks).value is None
    assert metrics.aupro(np.zeros((0, 3, 3)), np.zeros((0, 3, 3))) is None


def test_region_recall_of_no_region_is_empty() -> None:
    assert metrics.region_recall(np.zeros((2, 3)), None, 0.5).shape == (0,)


@given(scored())
def test_scores_are_ranked_never_changed(given_: Pair) -> None:
    """Any order-preserving view of the scores gives the same numbers; the arrays given stay as they are."""
    scores, labels = given_
    before = scores.copy()
    ranked = np.unique(scores, return_inverse=True)[1].reshape(scores.shape)
    assert metrics.auroc(scores, labels) == metrics.auroc(ranked, labels)
    assert metrics.average_precision(scores, labels) == metrics.average_precision(ranked, labels)
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint16, np.int32, np.int64, bool])
def test_every_real_kind_of_score_is_taken(dtype: Any) -> None:
    labels = [0, 1, 0, 1]
    assert metrics.auroc(np.array([0, 1, 1, 1], dtype), labels) == 0.75


def test_both_zeros_are_one_score() -> None:
    assert metrics.auroc([0.0, -0.0], [0, 1]) == 0.5
    assert metrics.auroc(np.array([0.0, -0.0], np.float32), [0, 1]) == 0.5


@pytest.mark.parametrize("encoding", [bool, np.uint8, np.float32, np.int64])
@pytest.mark.parametrize("high", [1, 255])
def test_masks_of_any_usual_encoding(encoding: Any, high: int) -> None:
    mask = (np.eye(5) * high).astype(encoding)
    assert metrics.aupro(np.eye(5), mask) == 1.0


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        ([0.1, float("nan")], [0, 1], "finite"),
        ([0.1, float("inf")], [0, 1], "1 NaN or infinite of 2"),
        ([0.1, float("-inf")], [0, 1], "finite"),
        ([0.1, 0.2, 0.3], [0, 1], "shape"),
        ([0.1, 0.2], [0, 2], "0 and 1"),
        ([0.1, 0.2], [-1, 1], "0 and 1"),
        ([0.1, 0.2], ["no", "yes"], "0 and 1"),
        ([1j, 0.2], [0, 1], "real"),
        (["a", "b"], [0, 1], "real"),
        ([[0.1], [0.2, 0.3]], [0, 1], "array"),
        ([0.1, 0.2], [[0], [1, 1]], "array"),
        ([2**60 + 1, 2**60], [0, 1], "2\\^53"),
    ],
)
def test_bad_scores_and_labels_are_refused(scores: Any, labels: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        metrics.auroc(scores, labels)


@pytest.mark.parametrize(
    ("maps", "masks", "words"),
    [
        (np.zeros((2, 2, 2, 2)), np.zeros((2, 2, 2, 2)), r"\[H, W\]"),
        (np.zeros(4), np.zeros(4), r"\[H, W\]"),
        (np.zeros((2, 2)), np.zeros((2, 3)), "resize"),
        ([np.zeros((2, 2))], [np.zeros((2, 2))] * 2, "as many"),
        ([np.zeros((2, 2))] * 2, [np.zeros((2, 2))], "as many"),
        (0.5, 1, "iterable"),
        (np.full((2, 2), np.nan), np.eye(2), "finite"),
    ],
)
def test_bad_maps_are_refused(maps: Any, masks: Any, words: str) -> None:
    for function in (metrics.aupro, metrics.aupro_200, metrics.aupimo):
        with pytest.raises(InputError, match=words):
            function(maps, masks)


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.01, float("nan")])
def test_bad_limits_are_refused(limit: float) -> None:
    for function in (metrics.aupro, metrics.aupro_200):
        with pytest.raises(ConfigError, match=r"\(0, 1\]"):
            function(np.eye(3), np.eye(3), limit)


@pytest.mark.parametrize("bounds", [(0.0, 1e-4), (1e-4, 1e-5), (1e-5, 1.5), (1e-4, 1e-4)])
def test_bad_bounds_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="lower < upper"):
        metrics.aupimo(np.eye(3), np.eye(3), bounds)


def test_roc_and_pr_curves_are_scikit_learns() -> None:
    generator = np.random.default_rng(1)
    labels = generator.random(300) < 0.3
    scores = np.round(generator.normal(size=300) + labels, 1)
    ranks = metrics.rank(scores, labels)
    curve = metrics.roc_curve(ranks, points=10_000)
    fpr, tpr, _ = sk.roc_curve(labels, scores)
    np.testing.assert_allclose(np.interp(fpr[1:-1], curve.x, curve.y), tpr[1:-1], atol=0.05)
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(sk.auc(fpr, tpr))
    precision, recall, _ = sk.precision_recall_curve(labels, scores)
    curve = metrics.pr_curve(ranks, points=10_000)
    expected = {(round(r, 9), round(p, 9)) for r, p in zip(recall, precision, strict=True)}
    assert {(round(x, 9), round(y, 9)) for x, y in zip(curve.x, curve.y, strict=True)} <= expected


def test_curve_points_are_what_their_thresholds_give() -> None:
    generator = np.random.default_rng(2)
    labels = generator.random(200) < 0.4
    scores = np.round(generator.normal(size=200) + labels, 1)
    curve = metrics.roc_curve(metrics.rank(scores, labels), points=50)
    for x, y, threshold in zip(curve.x, curve.y, curve.threshold, strict=True):
        assert np.mean(scores[~labels] >= threshold) == pytest.approx(x)
        assert np.mean(scores[labels] >= threshold) == pytest.approx(y)


@pytest.mark.parametrize("points", [2, 5, 60])
def test_thinned_curves_keep_their_ends_and_their_length(points: int) -> None:
    generator = np.random.default_rng(3)
    masks = generator.random((3, 40, 40)) < 0.1
    accumulator = metrics.PixelAccumulator()
    maps = generator.random(masks.shape) + 0.3 * masks
    accumulator.update(maps, masks)
    ranks = accumulator.ranks()
    final_precision = masks[maps >= maps[masks].min()].mean()  # nothing is left to find below it
    for curve, end in (
        (metrics.roc_curve(ranks, points), (1.0, 1.0)),
        (metrics.pro_curve(ranks, points), (1.0, 1.0)),
        (metrics.pr_curve(ranks, points), (1.0, final_precision)),
    ):
        assert 2 <= curve.x.size == curve.y.size == curve.threshold.size <= points
        assert (curve.x[-1], curve.y[-1]) == pytest.approx(end)
        assert curve.threshold[0] == np.inf
        assert (np.diff(curve.x) >= 0).all()


def test_area_under_the_pro_curve_up_to_the_limit_is_aupro() -> None:
    generator = np.random.default_rng(4)
    masks = generator.random((3, 30, 30)) < 0.1
    accumulator = metrics.PixelAccumulator()
    accumulator.update(np.round(generator.random(masks.shape) + 0.3 * masks, 2), masks)
    ranks = accumulator.ranks()
    curve = metrics.pro_curve(ranks, points=100_000, limit=0.3)
    assert curve.x[-1] == 0.3
    assert np.trapezoid(curve.y, curve.x) / 0.3 == pytest.approx(accumulator.compute()["aupro"], abs=1e-12)
    thin = metrics.pro_curve(ranks, points=200, limit=0.3)
    assert np.trapezoid(thin.y, thin.x) / 0.3 == pytest.approx(accumulator.compute()["aupro"], abs=0.01)


def test_curves_of_a_single_kind_are_empty_and_too_few_points_refused() -> None:
    ranks = metrics.rank([0.1, 0.2], [0, 0])
    for curve in (metrics.roc_curve(ranks), metrics.pr_curve(ranks), metrics.pro_curve(ranks)):
        assert curve.x.size == 0
    with pytest.raises(ConfigError, match="2 points"):
        metrics.roc_curve(metrics.rank([0.1, 0.2], [0, 1]), points=1)


def test_summary_is_in_per_cent_with_none_where_undefined() -> None:
    accumulator = metrics.PixelAccumulator()
    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:4] = True
    accumulator.update(mask + 0.1 * np.eye(8), mask)
    summary = metrics.summarise([0.2, 0.9], [0, 1], accumulator)
    assert tuple(summary) == metrics.SUMMARY_KEYS
    assert summary["image_auroc"] == summary["image_ap"] == summary["image_f1max"] == 100.0
    assert summary["pixel_auroc"] == summary["aupro"] == 100.0
    assert set(metrics.summarise([], [])) == set(metrics.SUMMARY_KEYS)
    assert set(metrics.summarise([0.5], [1]).values()) == {None}
    images_only = metrics.summarise([0.2, 0.9], [0, 1])
    assert images_only["image_ap"] == 100.0
    assert images_only["aupro"] is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.booleans()), min_size=2, max_size=30))
def test_the_area_under_straight_lines_is_scikit_learns(pairs: list[tuple[float, bool]]) -> None:
    scores, labels = zip(*pairs, strict=True)
    if len(set(labels)) < 2:
        assert metrics.trapezoid_precision(scores, labels) is None
        return
    precision, recall, _ = sk.precision_recall_curve(labels, scores)
    assert metrics.trapezoid_precision(scores, labels) == pytest.approx(sk.auc(recall, precision), abs=1e-12)
