"""A set of images compared with itself: from images to Predictions, with features whose twins can be told by hand."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalens.detection import together
from anomalens.detection.detector import Detector
from anomalens.detection.recipe import read_recipe
from anomalens.errors import ConfigError, InputError
from anomalens.methods.parts.mutual import FeatureStore
from anomalens.options import LoadOptions
from anomalens.prediction import Failure, Prediction
from toys import make_patches, parts, predictions


def compare(images: Any, options: dict[str, Any] | None = None, **own: Any) -> list[Prediction]:
    """Compare images by their cells alone, each with all others."""
    detector = make_patches(**own).together(**{"windows": (1,), "others": 0, **(options or {})})
    return predictions(detector.predict_many(images))


def labels(results: list[Prediction]) -> list[str]:
    return [result.label for result in results]


def test_a_square_is_found_where_it_lies_and_the_others_stay_normal() -> None:
    results = compare(parts(12, faulty=[4]))
    assert [number for number, label in enumerate(labels(results)) if label == "anomalous"] == [4]
    (region,) = results[4].regions
    x, y = region.peak_at
    assert 40 <= x < 56
    assert 16 <= y < 32
    assert results[4].method == "musc"
    assert results[4].p_value is None
    assert results[4].threshold_source == "from the 12 images of this set: holds where at least 7 of them are sound"


@pytest.mark.parametrize(("faulty", "visible"), [(4, True), (8, False)])
def test_the_same_defect_on_more_than_30_per_cent_of_the_images_is_lost(faulty: int, visible: bool) -> None:
    results = compare(parts(20, faulty=range(faulty)))
    inside = np.mean([result.anomaly_map[2:4, 5:7].mean() for result in results[:faulty]])
    outside = np.mean([result.anomaly_map[5:].mean() for result in results])
    assert bool(inside > 3 * outside) is visible
    assert (labels(results)[:faulty] == ["anomalous"] * faulty) is visible


def test_order_and_batches_change_nothing() -> None:
    images = parts(11, faulty=[2, 7])
    forward, backward = compare(images), compare(images[::-1], batch_size=3)
    for a, b in zip(forward, backward[::-1], strict=True):
        assert a.score == pytest.approx(b.score, abs=1e-5)
        np.testing.assert_allclose(a.anomaly_map, b.anomaly_map, atol=1e-5)


def test_copies_count_once(caplog: pytest.LogCaptureFixture) -> None:
    images = parts(12, faulty=[4])
    with caplog.at_level(logging.WARNING, "anomalens"):
        results = compare([*images, images[4], images[4]])
    assert labels(results) == ["normal"] * 4 + ["anomalous"] + ["normal"] * 7 + ["anomalous"] * 2
    assert results[12].score == results[4].score
    assert results[12].note == "a copy of another image of the set, with which it counts once"
    assert results[0].note is None
    assert "2 of 14 images are copies of others and count once" in caplog.text


def test_equal_images_score_zero_and_are_normal() -> None:
    results = compare([parts(1)[0]] * 12)
    assert [(result.score, result.label) for result in results] == [(0.0, "normal")] * 12


def test_what_cannot_be_read_or_judged_takes_no_part(tmp_path: Path) -> None:
    paths = []
    for number, image in enumerate(parts(12, faulty=[4])):
        paths.append(tmp_path / f"{number:02d}.png")
        Image.fromarray(image).save(paths[-1])
    alone = compare(paths)
    (tmp_path / "03x.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "05x.png")
    results = make_patches().together(windows=(1,), others=0).predict_many(tmp_path)
    failure, black = results.pop(4), results.pop(6)
    assert isinstance(failure, Failure)
    assert failure.path == str(tmp_path / "03x.png")
    assert isinstance(black, Prediction)
    assert (black.label, black.reason) == ("unusable", "Not judged: the image is black.")
    assert black.score == black.threshold
    assert not black.mask.any()
    assert [result.score for result in predictions(results)] == [result.score for result in alone]


def test_one_image_alone_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    images = parts(4, faulty=[1])
    detector = make_patches().together(windows=(1,))
    with pytest.raises(ConfigError, match="musc scores a whole set of images against each other, not one image alone"):
        detector.predict(images[0])
    black = np.zeros_like(images[0])
    with pytest.raises(InputError, match="1 of 2 images can be judged, and comparing images with each other takes at"):
        detector.predict_many([images[0], black])
    with caplog.at_level(logging.WARNING, "anomalens"):
        assert len(detector.predict_many(images)) == 4
    assert "only 4 different images are compared with each other" in caplog.text


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="not tiles"):
        make_patches(tile=32).together()
    with pytest.raises(ConfigError, match="not with each other"):
        make_patches().fit(parts(4), words_weight=0).together()
    with pytest.raises(ConfigError, match="learns nothing"):
        make_patches().together().fit(parts(4))
    with pytest.raises(ConfigError, match="unknown option 'window'"):
        make_patches().together(window=3)


def test_images_of_several_sizes_are_compared_by_the_first() -> None:
    images = parts(12, faulty=[4])
    assert compare(images)[4].score == compare(images, extra_sizes=(32,))[4].score


def test_only_the_region_of_interest_counts() -> None:
    images = parts(12, faulty=[4])
    roi = np.ones((64, 64), bool)
    roi[:, 32:] = False
    detector = make_patches().replace(roi=roi).together(windows=(1,), others=0)
    assert labels(predictions(detector.predict_many(images))) == ["normal"] * 12


def test_a_threshold_asked_for_decides() -> None:
    results = compare(parts(12), threshold=0.01, pixel_threshold=0.02)
    assert {(result.label, result.threshold_source) for result in results} == {("anomalous", "given by the user")}
    assert results[0].pixel_threshold == 0.02


def test_features_lie_on_disk_until_the_set_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = []

    def recorded(folder: Path) -> FeatureStore:
        folders.append(folder)
        return FeatureStore(folder)

    monkeypatch.setattr(together, "FeatureStore", recorded)
    results = iter(make_patches().together(windows=(1,)).predict_iter(parts(12)))
    assert not folders
    next(results)
    (folder,) = folders
    assert not folder.exists()


def test_words_join_in_robust_deviations() -> None:
    images = parts(12)
    images[3][16:32, 40:56, 0] = 255
    apart, joined = compare(images, {"share": 1.0}), compare(images, {"share": 1.0, "words_weight": 0.5})
    assert joined[3].method == "brightness + musc"
    assert np.median(np.stack([result.anomaly_map for result in joined])) == pytest.approx(0, abs=0.5)
    assert joined[3].anomaly_map[2:4, 5:7].mean() > apart[3].anomaly_map[2:4, 5:7].mean()


def test_rescoring_over_the_image_itself_is_the_score_brought_to_0_and_1() -> None:
    images = parts(11, faulty=[2])
    plain, rescored = compare(images), compare(images, {"rescore": (1,)})
    scores = np.array([result.score for result in plain])
    expected = (scores - scores.min()) / (scores.max() - scores.min())
    np.testing.assert_allclose([result.score for result in rescored], expected, atol=1e-5)
    assert [result.method_score for result in rescored] == [result.method_score for result in plain]


def test_a_folder_of_one_kind_of_part_is_told_from_a_mixed_one() -> None:
    detector = make_patches().together()
    images = parts(12, faulty=[4])
    others = [parts(1, seed=seed)[0] for seed in range(1, 13)]
    assert together.looks_like_one_part(detector, images)
    assert not together.looks_like_one_part(detector, others)
    assert not together.looks_like_one_part(detector, images[:11])


def test_good_photos_are_chosen_from_an_unlabelled_set(tmp_path: Path) -> None:
    images: list[Any] = [*parts(14, faulty=[4, 9]), np.zeros((64, 64, 3), np.uint8)]
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    detector = make_patches(threshold=0.9)
    part = detector.fit(images, mixed=True, words_weight=0, progress=step)
    assert part.lesson is not None
    assert len(part.lesson.photos) == 12
    assert [reason.partition(" (")[0] for reason in part.lesson.left_out] == [
        "photo 4: unlike the others",
        "photo 9: unlike the others",
        "photo 14: the image is black",
    ]
    assert steps == 15 + 12
    condition = "is called anomalous, provided that those chosen from the unlabelled photos are all sound"
    part = part.replace(options=LoadOptions())
    part.save(tmp_path / "part.anomalens")
    assert read_recipe(tmp_path / "part.anomalens").lesson.mixed
    again = make_patches().fit(images, mixed=True, words_weight=0)
    assert again.calibration.source.endswith(condition)
    assert [again.predict(images[number]).label for number in (4, 9)] == ["anomalous"] * 2
    with pytest.raises(ConfigError, match="good photos only"):
        again.fit(images, mixed=True)


def test_a_detector_that_compares_sets_says_so_in_its_settings() -> None:
    detector: Detector = make_patches().together(others=8)
    assert detector.settings["method"] == "musc"
    assert detector.settings["method_options"]["musc"]["others"] == 8
    assert detector.for_object("bottle").settings["object_name"] == "bottle"
