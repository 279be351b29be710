"""Bootstrap intervals: the resamples are the ones a slow loop would evaluate, and the intervals cover."""

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from anomalens.errors import ConfigError
from anomalens.metrics import bootstrap
from anomalens.metrics import summary as metrics
from anomalens.metrics.arrays import Array
from anomalens.metrics.summary import image_intervals, pixel_intervals
from slow_metrics import known


def image_scores(count: int = 40, seed: int = 0) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3 == 0
    return np.round(generator.normal(size=count) + labels, 1), labels


def pixel_maps(count: int = 8, size: int = 32, seed: int = 0) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    masks = np.zeros((count, size, size), bool)
    for index in range(1, count, 2):
        masks[index, 3 : 5 + index, 4:12] = masks[index, 20:22, 20 : 22 + index] = True
    return generator.random(masks.shape).astype(np.float32) + np.float32(0.3) * masks, masks


def test_image_intervals_are_percentiles_of_resampled_metrics() -> None:
    scores, labels = image_scores()
    intervals = image_intervals(scores, labels, resamples=200, seed=7)
    order = np.argsort(-scores, kind="stable")
    values = []
    for draw in bootstrap._draw(np.asarray(labels[order]), 200, True, 7):
        picked = np.repeat(order, draw)
        values.append(
            (
                sk.roc_auc_score(labels[picked], scores[picked]),
                sk.average_precision_score(labels[picked], scores[picked]),
                known(metrics.f1_max(scores[picked], labels[picked])).value,
            )
        )
    for interval, column in zip(map(known, intervals.values()), np.array(values).T, strict=True):
        assert (interval.low, interval.high) == pytest.approx(np.quantile(column, [0.025, 0.975]), abs=1e-12)
    assert known(intervals["image_auroc"]).value == pytest.approx(sk.roc_auc_score(labels, scores))
    assert known(intervals["image_ap"]).value == pytest.approx(sk.average_precision_score(labels, scores))
    assert known(intervals["image_f1max"]).value == pytest.approx(known(metrics.f1_max(scores, labels)).value)


def test_pixel_intervals_are_percentiles_of_resampled_metrics() -> None:
    maps, masks = pixel_maps()
    intervals = pixel_intervals(maps, masks, resamples=30, seed=5)
    values = []
    for draw in bootstrap._draw(np.asarray(masks.any(axis=(1, 2))), 30, True, 5):
        picked = np.repeat(np.arange(len(maps)), draw)
        accumulator = metrics.PixelAccumulator("exact")
        accumulator.update(maps[picked], masks[picked])
        result = accumulator.compute()
        values.append([result[name] for name in intervals])
    for interval, column in zip(map(known, intervals.values()), np.array(values).T, strict=True):
        assert (interval.low, interval.high) == pytest.approx(np.quantile(column, [0.025, 0.975]), abs=2e-3)
    whole = metrics.PixelAccumulator("histogram")
    whole.update(maps, masks)
    assert {name: known(interval).value for name, interval in intervals.items()} == pytest.approx(
        {name: value for name, value in whole.compute().items() if name in intervals}
    )


def test_a_seed_is_a_result() -> None:
    scores, labels = image_scores()
    maps, masks = pixel_maps(4, 16)
    assert image_intervals(scores, labels, seed=1) == image_intervals(scores, labels, seed=1)
    assert image_intervals(scores, labels, seed=1) != image_intervals(scores, labels, seed=2)
    once, again = (pixel_intervals(maps, masks, seed=3, resamples=20) for _ in range(2))
    assert once == again


def test_many_resamples_are_the_same_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels = image_scores()
    at_once = image_intervals(scores, labels, resamples=50)
    monkeypatch.setattr(bootstrap, "_CELLS", 100)
    assert image_intervals(scores, labels, resamples=50) == at_once


def test_stratified_draws_keep_the_numbers_of_each_kind() -> None:
    labels = np.arange(20) < 5
    draws = bootstrap._draw(labels, 100, True, 0)
    assert (draws[:, labels].sum(1) == 5).all()
    assert (draws[:, ~labels].sum(1) == 15).all()
    free = bootstrap._draw(labels, 100, False, 0)
    assert (free.sum(1) == 20).all()
    assert len(set(free[:, labels].sum(1))) > 3


def test_resamples_without_both_kinds_are_left_out_and_counted() -> None:
    scores, labels = np.array([0.1, 0.2, 0.9]), np.array([0, 0, 1])
    free = known(image_intervals(scores, labels, stratified=False, resamples=300)["image_auroc"])
    assert 0 < free.resamples < 300
    assert known(image_intervals(scores, labels, resamples=300)["image_auroc"]).resamples == 300
    assert (free.low, free.high) == (1.0, 1.0)


@pytest.mark.parametrize("labels", [[], [0, 0], [1, 1, 1]])
def test_undefined_metrics_have_no_interval(labels: Any) -> None:
    assert set(image_intervals(np.arange(len(labels)) / 3, labels).values()) == {None}


@pytest.mark.parametrize("masks", [np.zeros((2, 3, 3), bool), np.ones((2, 3, 3), bool)])
def test_undefined_pixel_metrics_have_no_interval(masks: Any) -> None:
    assert set(pixel_intervals(np.zeros((2, 3, 3)), masks).values()) == {None}
    assert set(pixel_intervals([], []).values()) == {None}


@pytest.mark.parametrize("options", [{"resamples": 0}, {"level": 1.0}, {"level": 0.0}])
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        image_intervals([0.1, 0.2], [0, 1], **options)
    with pytest.raises(ConfigError):
        pixel_intervals(np.eye(3), np.eye(3), **options)


def test_a_wider_level_is_a_wider_interval() -> None:
    scores, labels = image_scores()
    narrow, wide = (known(image_intervals(scores, labels, level=level)["image_auroc"]) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """The AUROC of two unit normals one apart is Phi(1 / sqrt 2) = 0.7602; 90 per cent of intervals should hold it."""
    generator = np.random.default_rng(0)
    labels = np.arange(120) < 60
    hits = 0
    for trial in range(200):
        scores = generator.normal(size=120) + labels
        interval = known(image_intervals(scores, labels, level=0.9, resamples=200, seed=trial)["image_auroc"])
        hits += interval.low <= 0.7602 <= interval.high
    assert 0.82 <= hits / 200 <= 0.97
