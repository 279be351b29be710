"""A set of images compared with itself: from images to Predictions, with features whose twins can be told by hand."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalens.decision.folder_threshold import folder_threshold
from anomalens.detection import together
from anomalens.detection.detector import Detector
from anomalens.detection.looking import look, turns_of
from anomalens.detection.recipe import read_recipe
from anomalens.engines.contract import Floats, Scored
from anomalens.errors import ConfigError, InputError
from anomalens.methods.parts.mutual import FeatureStore
from anomalens.methods.references.reference_method import QUARTERS
from anomalens.options import LoadOptions
from anomalens.prediction import Failure, Prediction
from toys import Patches, make_patches, parts, predictions


def compare(images: Any, options: dict[str, Any] | None = None, **own: Any) -> list[Prediction]:
    """Compare images by their cells alone, each with all others, without words."""
    detector = make_patches(**own).together(**{"windows": (1,), "others": 0, "words_weight": 0.0, **(options or {})})
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
    assert results[4].threshold_source == "from the 12 images of this set: holds where at least 60 of 100 are sound"


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
    results = make_patches().together(windows=(1,), others=0, words_weight=0).predict_many(tmp_path)
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
    detector = make_patches().replace(roi=roi).together(windows=(1,), others=0, words_weight=0)
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


def test_a_few_images_are_asked_by_their_turns_whether_places_count() -> None:
    """A part that differs from its turned copies as from strangers always lies alike; one of four turns does not."""
    asked = make_patches().together(windows=(1,))
    for images, alike in (
        (parts(12), True),
        ([np.rot90(image, n % 4).copy() for n, image in enumerate(parts(12))], False),
    ):
        looked = [look(asked, some, FeatureStore()) for some in (images, images[::-1])]
        ratios = [turns_of(asked, one_way) for one_way in looked]
        assert ratios[0] == pytest.approx(ratios[1], rel=1e-4)
        assert len(looked[0].drawn) == 4
        assert ratios[0] is not None
        assert (ratios[0] > 1.25) is alike
    assert turns_of(asked, look(asked, parts(1), FeatureStore())) is None


def test_images_that_are_asked_are_read_as_all_others(tmp_path: Path) -> None:
    for number, image in enumerate(parts(4)):
        path = tmp_path / f"{number}.jpg"
        Image.fromarray(image).save(path, quality=95)
        path.write_bytes(path.read_bytes()[:-20])
    words = make_patches()
    asked = words.replace(options=words.options.replace(truncated_jpeg=True)).together(windows=(1,), others=0)
    results = predictions(asked.predict_many(tmp_path))
    assert len(results) == 4
    assert turns_of(asked, look(asked, sorted(tmp_path.iterdir()), FeatureStore())) is not None


def test_rescoring_over_the_image_itself_is_the_score_brought_to_0_and_1() -> None:
    images = parts(11, faulty=[2])
    plain, rescored = compare(images), compare(images, {"rescore": (1,)})
    scores = np.array([result.score for result in plain])
    expected = (scores - scores.min()) / (scores.max() - scores.min())
    np.testing.assert_allclose([result.score for result in rescored], expected, atol=1e-5)
    assert [result.method_score for result in rescored] == [result.method_score for result in plain]


class Wholes(Patches):
    """Describe an image as a whole by an angle in degrees, the red of its first pixel."""

    def with_levels(self, depths: Sequence[float] = QUARTERS) -> "Wholes":
        return Wholes(self.identity, hands_out=True)

    def score_batch(self, pixels: Floats, keys: Sequence[int], sharing: int = 1) -> Scored:
        angle = np.deg2rad(np.round(pixels[:, 0, 0, 0] * 255))
        level = np.stack([np.cos(angle), np.sin(angle)], -1)[:, None, None].astype(np.float32)
        return super().score_batch(pixels, keys, sharing)._replace(levels=(level, level))


def at_angles(*degrees: int) -> list[np.ndarray]:
    """Return images whose global features lie at angles, in degrees."""
    images = parts(len(degrees))
    for image, angle in zip(images, degrees, strict=True):
        image[0, 0, 0] = angle
    return images


@pytest.mark.parametrize(
    ("degrees", "alike"),
    [
        ([20] * 12, True),
        # 1 - cos 45° is .293, 1 - cos 46° is .305.
        ([20] * 11 + [65], True),
        ([20] * 11 + [66], False),
        ([20] * 19 + [110], True),
        ([20] * 18 + [110] * 2, False),
        ([20] * 11, False),
        ([20] * 6 + [110] * 6, False),
    ],
)
def test_a_folder_of_one_kind_of_part_has_19_of_20_images_near_its_middle(degrees: list[int], alike: bool) -> None:
    plain = make_patches()
    detector = plain.replace(engine=Wholes(plain.identity)).together()
    assert together.looks_like_one_part(detector, at_angles(*degrees)) is alike


def test_a_part_is_learned_from_the_70_in_100_most_like_the_others(tmp_path: Path) -> None:
    images: list[Any] = [*parts(14, faulty=[4, 9]), np.zeros((64, 64, 3), np.uint8)]
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    part = make_patches(threshold=0.9).fit(images, mixed=True, words_weight=0, progress=step)
    assert part.lesson is not None
    assert len(part.lesson.photos) == 9
    assert len(part.lesson.unlearned) == 5
    reasons = dict(reason.split(": ", 1) for reason in part.lesson.left_out)
    assert reasons.pop("photo 14") == "the image is black"
    assert {"photo 4", "photo 9"} < reasons.keys()
    assert set(reasons.values()) == {"among the 30 in 100 least like the others"}
    assert steps == 15 + 9
    assert part.calibration.threshold == 0.9
    part = part.replace(options=LoadOptions())
    part.save(tmp_path / "part.anomalens")
    assert part.lesson is not None
    assert read_recipe(tmp_path / "part.anomalens").lesson.unlearned == part.lesson.unlearned


def test_the_threshold_of_unsorted_photos_comes_from_all_of_them() -> None:
    images = parts(14, faulty=[4, 9])
    part = make_patches().fit(images, mixed=True, words_weight=0)
    assert part.lesson is not None
    scores = [*part.lesson.scores, *part.lesson.unlearned]
    assert part.calibration.threshold == folder_threshold(scores)
    assert (
        part.calibration.source
        == "from 14 unsorted photos, 9 of them learned: holds where at least 60 of 100 are sound"
    )
    assert part.predict(images[4]).p_value is None
    assert [part.predict(images[number]).label for number in (4, 9)] == ["anomalous"] * 2
    assert [number for number in range(14) if part.predict(images[number]).label == "anomalous"] == [4, 9]
    more = part.fit(parts(15)[14:])
    assert more.lesson is not None
    assert more.lesson.unlearned == part.lesson.unlearned
    assert more.calibration.source.startswith("from 15 unsorted photos, 10 of them learned")


def test_unsorted_photos_promise_no_rate() -> None:
    with pytest.raises(ConfigError, match="no rate of false alarms can be promised of unsorted photos"):
        make_patches().fit(parts(14), mixed=True, fpr=0.2)
    with pytest.raises(ConfigError, match="good photos only"):
        make_patches().fit(parts(4), words_weight=0).fit(parts(4), mixed=True)


def test_a_detector_that_compares_sets_says_so_in_its_settings() -> None:
    detector: Detector = make_patches().together(others=8)
    assert detector.settings["method"] == "brightness + musc"
    assert detector.settings["method_options"]["musc"]["others"] == 8
    assert detector.for_object("bottle").settings["object_name"] == "bottle"
