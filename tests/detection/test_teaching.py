"""A detector learns a part from good photographs, decides by them, and says what it cannot judge."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector
from anomalens.engines.taught import TaughtEngine
from anomalens.errors import ConfigError, InputError
from anomalens.prediction import Prediction, predictions_of
from parts import faulty_part, good_part, good_parts

SIZE = 160


@pytest.fixture(scope="module")
def words() -> Detector:
    return load_detector(size=SIZE, device="cpu")


@pytest.fixture(scope="module")
def taught(words: Detector) -> Detector:
    return words.fit(good_parts(6))


def of(detector: Detector, *images: np.ndarray) -> list[Prediction]:
    return predictions_of(detector.predict_many(list(images)))


def engine_of(detector: Detector) -> TaughtEngine:
    assert isinstance(detector.engine, TaughtEngine)
    return detector.engine


def test_good_parts_pass_and_faulty_ones_are_found_where_they_are_faulty(taught: Detector) -> None:
    good = of(taught, *good_parts(4, first=50))
    faulty = of(taught, *(faulty_part(seed) for seed in range(60, 64)))
    assert max(prediction.score for prediction in good) < min(prediction.score for prediction in faulty)
    for prediction in faulty:
        assert prediction.label == "anomalous"
        assert prediction.sure
        x, y = prediction.regions[0].peak_at
        assert 40 <= x <= 100
        assert 86 <= y <= 114
        assert prediction.mask.any()
    for prediction in good:
        if prediction.label == "normal":
            assert not prediction.mask.any()


def test_words_alone_stay_as_they_are(words: Detector, taught: Detector) -> None:
    assert words.lesson is None
    assert taught.lesson is not None
    assert words.method_name != taught.method_name
    assert "memory" in taught.method_name


def test_a_reference_is_at_no_distance(words: Detector) -> None:
    taught = words.fit(good_parts(3), words_weight=0, position=0, rows=0)
    engine = engine_of(taught)
    pixels = taught.prepare(good_part(1)).pixels[0][0][None]
    levels = engine.words.score_batch(pixels, [0]).levels
    distances = engine.method.compare(engine.method.describe(levels), engine.sizes[SIZE].remembered)
    assert np.abs(distances.for_map).max() == 0


def test_order_and_batches_change_nothing(taught: Detector) -> None:
    images = [good_part(70), faulty_part(71), good_part(72)]
    scores = [prediction.score for prediction in of(taught, *images)]
    single = taught.replace(options=taught.options.replace(batch_size=1))
    again = [prediction.score for prediction in of(single, *reversed(images))]
    np.testing.assert_allclose(scores, again[::-1], rtol=1e-5)


def test_the_threshold_holds_for_the_photos_and_says_its_rate(taught: Detector) -> None:
    assert taught.lesson is not None
    assert len(taught.lesson.scores) == 6
    # Of few photos the largest score is raised, by a deviation at most.
    assert max(taught.lesson.scores) <= taught.calibration.threshold <= max(taught.lesson.scores) + 1
    assert "6 good photos" in taught.calibration.source
    assert "at most 1 in 7" in taught.calibration.source


def test_a_rate_needs_enough_photos(words: Detector) -> None:
    with pytest.raises(InputError, match="needs at least 19"):
        words.fit(good_parts(4), fpr=0.05)


def test_two_photos_are_enough_for_a_first_try(words: Detector) -> None:
    taught = words.fit(good_parts(2))
    good, faulty = of(taught, good_part(80), faulty_part(81))
    assert good.score < faulty.score
    assert faulty.label == "anomalous"


def test_one_photo_is_enough_to_begin_with(words: Detector) -> None:
    taught = words.fit(good_parts(1))
    good, faulty = of(taught, good_part(80), faulty_part(81))
    assert good.score < faulty.score
    assert faulty.label == "anomalous"
    assert "1 good photo" in taught.calibration.source


def test_teaching_more_equals_teaching_all(words: Detector) -> None:
    together = words.fit(good_parts(5), turns=1, position=0)
    stepwise = words.fit(good_parts(3), turns=1, position=0).fit(good_parts(2, first=3))
    assert together.lesson is not None
    assert stepwise.lesson is not None
    assert [photo.key for photo in together.lesson.photos] == [photo.key for photo in stepwise.lesson.photos]
    before, after = of(together, faulty_part(1))[0], of(stepwise, faulty_part(1))[0]
    # Words are read in other batches, which moves the last digits.
    assert before.score == pytest.approx(after.score, rel=1e-3)
    assert together.calibration.threshold == pytest.approx(stepwise.calibration.threshold, rel=1e-3)


def test_what_cannot_be_used_is_left_out_and_named(words: Detector, tmp_path: Path) -> None:
    for number, rgb in enumerate(good_parts(3)):
        Image.fromarray(rgb).save(tmp_path / f"{number}.png")
    Image.fromarray(good_part(0)).save(tmp_path / "copy.png")
    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(tmp_path / "lens cap.png")
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    lesson = words.fit(tmp_path).lesson
    assert lesson is not None
    assert len(lesson.photos) == 3
    reasons = " | ".join(lesson.left_out)
    for part in ("a copy of another photo", "lens cap.png': the image is black", "broken.jpg"):
        assert part in reasons


def test_a_default_type_of_the_program_changes_nothing(words: Detector, taught: Detector) -> None:
    images = [*good_parts(2), faulty_part(60)]
    together = [prediction.score for prediction in of(words.together(), *images)]
    torch.set_default_dtype(torch.float64)
    try:
        learned = words.fit(good_parts(6))
        assert of(learned, faulty_part(60))[0].score == of(taught, faulty_part(60))[0].score
        assert [prediction.score for prediction in of(words.together(), *images)] == together
    finally:
        torch.set_default_dtype(torch.float32)


def test_photos_are_read_as_images_are(words: Detector, tmp_path: Path) -> None:
    colours = [good_part(seed) * np.array([255, 200, 120]) // 255 for seed in range(3)]
    photos = [colour.astype(np.uint8) for colour in colours]
    frames = [np.ascontiguousarray(photo[:, :, ::-1]) for photo in photos]
    for mixed in (False, True):
        lessons = [
            words.fit(photos, mixed=mixed).lesson,
            words.fit(frames, channels="bgr", mixed=mixed).lesson,
        ]
        keys = [[photo.key for photo in lesson.photos] for lesson in lessons if lesson]
        assert keys[0] == keys[1]
    for number, photo in enumerate(photos):
        Image.fromarray(photo).save(tmp_path / f"{number}.jpg", quality=95)
    cut = tmp_path / "0.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    asking = words.replace(options=words.options.replace(truncated_jpeg=True))
    for detector, count in ((words, 2), (asking, 3)):
        lesson = detector.fit(tmp_path).lesson
        assert lesson is not None
        assert len(lesson.photos) == count
    with pytest.raises(InputError, match="above the limit of 1,000"):
        words.replace(options=words.options.replace(max_pixels=1000)).fit(tmp_path)


def test_no_photo_at_all(words: Detector) -> None:
    with pytest.raises(InputError, match="no good photo to learn from"):
        words.fit([])
    with pytest.raises(InputError, match="black"):
        words.fit([np.zeros((50, 50, 3), np.uint8)])


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((90, 90, 3), np.uint8), "black"),
        (np.full((90, 90, 3), 255, np.uint8), "white"),
        (good_part(0) // 12, "far too dark"),
        (np.random.default_rng(0).integers(0, 255, (160, 160, 3)).astype(np.uint8), "something else|noisier"),
    ],
)
def test_what_cannot_be_judged_is_never_normal(taught: Detector, image: np.ndarray, reason: str) -> None:
    import re

    (prediction,) = of(taught, image)
    assert prediction.label == "unusable"
    assert re.search(reason, prediction.reason)
    assert prediction.regions == ()


def test_only_the_region_of_interest_counts(words: Detector, tmp_path: Path) -> None:
    inside = np.zeros((80, 80), np.uint8)
    inside[:40] = 255
    Image.fromarray(inside).save(tmp_path / "roi.png")
    watching_top = load_detector(size=SIZE, device="cpu", roi=tmp_path / "roi.png").fit(good_parts(6))
    everywhere = words.fit(good_parts(6))
    (below,) = of(watching_top, faulty_part(3))
    assert not below.mask[84:].any()
    assert below.score < of(everywhere, faulty_part(3))[0].score
    assert watching_top.settings["roi"] != everywhere.settings["roi"]


def test_the_threshold_keeps_its_promise_in_the_region_of_interest(words: Detector) -> None:
    photos, roi = good_parts(6), np.zeros((16, 16), bool)
    roi[:8] = True
    watching = words.replace(roi=roi)
    lesson = watching.fit(photos).lesson
    assert lesson is not None
    # Each photograph scores about as it does for a detector that was taught from the others. What lies below the
    # region would make the last one's score twice as large.
    (alone,) = of(watching.fit(photos[:5]), photos[5])
    assert lesson.scores[5] == pytest.approx(alone.score, rel=0.25)


def test_a_region_of_interest_that_is_the_whole_image_changes_nothing(words: Detector, taught: Detector) -> None:
    whole = words.replace(roi=np.ones((4, 4), bool)).fit(good_parts(6))
    assert whole.calibration.threshold == pytest.approx(taught.calibration.threshold, rel=1e-6)
    assert whole.calibration.pixel_threshold == pytest.approx(taught.calibration.pixel_threshold, rel=1e-6)


def test_the_region_of_interest_is_turned_with_the_copies_of_a_single_photo(words: Detector) -> None:
    photo = good_part(0)
    # An even upper half, whose copies are much alike.
    photo[: len(photo) // 2] = 150
    top, bottom = np.zeros((16, 16), bool), np.zeros((16, 16), bool)
    top[:6], bottom[-6:] = True, True
    even, uneven = (words.replace(roi=roi).fit([photo]).calibration.pixel_threshold for roi in (top, bottom))
    assert even < 0.8 * uneven


def test_a_region_of_interest_that_no_place_lies_in(words: Detector) -> None:
    roi = np.zeros((1000, 1000), bool)
    roi[0, 0] = True
    with pytest.raises(ConfigError, match="mark a larger one"):
        words.replace(roi=roi).fit(good_parts(2))


def test_a_region_of_interest_that_is_black_everywhere(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "roi.png")
    with pytest.raises(ConfigError, match="black everywhere"):
        load_detector(size=SIZE, roi=tmp_path / "roi.png")


def test_small_regions_count_nowhere(taught: Detector) -> None:
    (prediction,) = of(taught, faulty_part(5))
    largest = max(region.area for region in prediction.regions)
    strict = taught.replace(options=taught.options.replace(min_area=largest + 1))
    (ignored,) = of(strict, faulty_part(5))
    assert (ignored.label, ignored.regions) == ("normal", ())
    assert not ignored.mask.any()
    assert "pixels stands out" in ignored.reason


def test_sizes_in_millimetres(taught: Detector) -> None:
    measuring = taught.replace(options=taught.options.replace(mm_per_px=0.5))
    (prediction,) = of(measuring, faulty_part(5))
    region = prediction.regions[0]
    assert region.area_mm2 == region.area * 0.25
    assert region.to_dict()["width_mm"] == (region.box[2] - region.box[0]) * 0.5
    assert "mm" in prediction.reason


def test_parts_at_any_angle_are_recognised(words: Detector) -> None:
    angles = (0, 90, 180, 270, 45, 135)
    loose = words.fit([good_part(seed, angle) for seed, angle in enumerate(angles)]).lesson
    fixed = words.fit(good_parts(6)).lesson
    assert loose is not None
    assert fixed is not None
    assert fixed.options["turns"] == 1
    assert loose.turn_ratio is not None
    assert fixed.turn_ratio is not None
    assert loose.turn_ratio < fixed.turn_ratio


def test_tiles_and_sizes_are_taught_as_they_are_used() -> None:
    detector = load_detector(size=96, extra_sizes=(128,), tile=100, device="cpu").fit(good_parts(3))
    assert set(engine_of(detector).sizes) == {96, 128}
    good, faulty = of(detector, good_part(20), faulty_part(21))
    assert good.score < faulty.score


def test_a_taught_detector_can_be_pickled(taught: Detector) -> None:
    copy = pickle.loads(pickle.dumps(taught))
    assert of(copy, faulty_part(2))[0].score == of(taught, faulty_part(2))[0].score


def test_wrong_use_is_named(taught: Detector, words: Detector) -> None:
    with pytest.raises(ConfigError, match=r"unknown option 'colour'.*memory has"):
        words.fit(good_parts(2), colour=1)
    with pytest.raises(ConfigError, match="keeps its options"):
        taught.fit(good_parts(2, first=30), turns=4)
    with pytest.raises(ConfigError, match="taught as 'object', not 'screw'"):
        taught.for_object("screw")
    with pytest.raises(ConfigError, match="nothing was taught at 96 pixels"):
        of(taught.replace(preprocess=load_detector(size=96).preprocess), good_part(0))
    with pytest.raises(ConfigError, match="nothing was taught"):
        words.save("x.anomalens")


def test_a_photograph_of_another_thing_is_named(words: Detector) -> None:
    lesson = words.fit(good_parts(5)).lesson
    assert lesson is not None
    assert lesson.odd == ()
    other = np.random.default_rng(0).integers(0, 255, good_part(0).shape, np.uint8)
    lesson = words.fit([*good_parts(5), other]).lesson
    assert lesson is not None
    assert lesson.odd == ("photo 5",)
