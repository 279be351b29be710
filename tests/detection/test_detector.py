"""The detector's own work: batches, order, tiles, failures, decisions. The method here is a toy with known answers."""

from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anomalens.backbones.tower import Clip
from anomalens.decision.calibration import bundled_calibration
from anomalens.decision.pooling import ScorePooling
from anomalens.detection.loading import load_detector
from anomalens.engines.torch_engine import pick_device
from anomalens.errors import ConfigError, InputError, WeightsError
from anomalens.images.maps import merge_tiles, resize_map, tiles
from anomalens.images.preprocessing import Preprocess
from anomalens.options import LoadOptions
from anomalens.prediction import Failure, Prediction
from toys import NO_CHANGE, grey, make, predictions, torch_engine, toy_of

pytestmark = pytest.mark.usefixtures("blank_images_count")


def test_one_image_gives_one_prediction(tiny_clip: Clip) -> None:
    prediction = make(tiny_clip).predict(grey(204))
    assert isinstance(prediction, Prediction)
    assert prediction.score == pytest.approx(0.8)
    assert (prediction.label, prediction.threshold, prediction.threshold_source) == ("anomalous", 0.5, "by hand")
    assert (prediction.method, prediction.backbone, prediction.path) == ("brightness", "tiny", None)
    assert prediction.mask.all()


def test_many_images_in_order_whatever_the_batch(tiny_clip: Clip) -> None:
    images = [grey(v) for v in (0, 51, 102, 153, 204)]
    for batch_size in (1, 2, 8):
        results = predictions(make(tiny_clip, batch_size=batch_size).predict(images))
        assert [result.score for result in results] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8], abs=1e-6)
        assert [result.label for result in results] == ["normal"] * 3 + ["anomalous"] * 2


def test_every_kind_of_source(tiny_clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "ein Bild.png"
    Image.fromarray(grey(204)).save(path)
    detector = make(tiny_clip)
    sources: list[Any] = [path, str(path), path.read_bytes(), Image.open(path), grey(204), torch.full((3, 64, 64), 0.8)]
    for source in sources:
        assert detector.predict(source).score == pytest.approx(0.8), type(source)
    assert [prediction.path for prediction in detector.predict_many(tmp_path)] == [str(path)]
    assert [prediction.path for prediction in detector.predict_many(str(tmp_path / "*.png"))] == [str(path)]
    for several in (tmp_path, str(tmp_path / "*.png")):
        with pytest.raises(ConfigError, match="use predict_many"):
            detector.predict(several)
    with pytest.raises(ConfigError, match="not int"):
        detector.predict_many(7)


def test_the_text_side_is_computed_once(tiny_clip: Clip) -> None:
    detector = make(tiny_clip, object_name="bottle")
    detector.predict([grey(1), grey(2)])
    detector.predict(grey(3))
    assert toy_of(detector).asked == ["bottle"]


def test_one_pass_a_batch_and_content_keys(tiny_clip: Clip) -> None:
    detector = make(tiny_clip, batch_size=2)
    detector.predict([grey(1), grey(2), grey(1)])
    # Batches are scored side by side, so either may come first.
    (larger, keys), (smaller, last) = sorted(toy_of(detector).batches, reverse=True)
    assert (larger, smaller) == (2, 1)
    assert keys[0] == last[0] != keys[1]


def test_a_bad_image_keeps_its_place(tiny_clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"no image")
    Image.fromarray(grey(204)).save(tmp_path / "0.png")
    Image.fromarray(grey(51)).save(tmp_path / "2.png")
    detector = make(tiny_clip)
    good, bad, other = detector.predict_iter(tmp_path)
    assert isinstance(good, Prediction)
    assert isinstance(other, Prediction)
    assert isinstance(bad, Failure)
    assert bad.path == str(tmp_path / "1.png")
    assert "\n" not in bad.error
    assert [good.score, other.score] == pytest.approx([0.8, 0.2])
    assert [type(answer) for answer in detector.predict_many(tmp_path)] == [Prediction, Failure, Prediction]
    with pytest.raises(InputError, match=r"1\.png"):
        detector.predict(tmp_path / "1.png")


def test_a_surprise_while_loading_is_a_row_too(tiny_clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(*_: object, **__: object) -> None:
        raise MemoryError("no room\nfor this")

    monkeypatch.setattr("anomalens.detection.reading.decode", surprise)
    (answer,) = make(tiny_clip).predict_iter([grey(1)])
    assert isinstance(answer, Failure)
    assert answer.error == "MemoryError: no room for this"


def test_streams_lazily_and_without_end(tiny_clip: Clip) -> None:
    taken = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield grey(taken % 256)

    results = make(tiny_clip, batch_size=2).predict_iter(endless())
    for _ in range(5):
        next(results)
    assert isinstance(results, Generator)
    results.close()
    decoding, scoring = 2 * 2, (torch.get_num_threads() + 1) * 2
    assert taken <= 5 + decoding + scoring + 2


def test_tiles_cover_the_image_and_find_what_is_small(tiny_clip: Clip) -> None:
    image = grey(51, 100, 230)
    image[90:, 220:] = 255
    whole, tiled = make(tiny_clip).predict(image), make(tiny_clip, tile=64).predict(image)
    assert tiled.anomaly_map.shape == (100, 230)
    assert np.allclose(tiled.anomaly_map[:80, :200], 0.2, atol=1e-6)
    assert tiled.anomaly_map[95, 225] == pytest.approx(1.0, abs=1e-6)
    assert tiled.score > whole.score
    flat = make(tiny_clip, tile=64).predict(grey(51, 100, 230))
    assert flat.score == pytest.approx(0.2)
    assert np.ptp(flat.anomaly_map) == 0


def test_large_tiles_shrink_the_map_alike(tiny_clip: Clip) -> None:
    prediction = make(tiny_clip, tile=128).predict(grey(51, 200, 300))
    assert prediction.anomaly_map.shape == (100, 150)
    assert prediction.mask.shape == (200, 300)


def test_draft_decodes_large_photographs_smaller(tiny_clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    grain = np.linspace(40, 200, 640) + np.random.default_rng(0).normal(0, 15, (512, 640))
    Image.fromarray(grain.astype(np.uint8)).convert("RGB").save(path, quality=95)
    whole, draft = make(tiny_clip).predict(path), make(tiny_clip, fast_jpeg=True).predict(path)
    assert (draft.width, draft.height) == (whole.width, whole.height) == (640, 512)
    assert draft.mask.shape == (512, 640)
    assert draft.score == pytest.approx(whole.score, abs=0.01)
    assert 0 < np.abs(draft.anomaly_map - whole.anomaly_map).max() < 0.05
    # Tiles are cut in source pixels: nothing is decoded smaller for them.
    exact, fast = (make(tiny_clip, fast_jpeg=d, tile=256).predict(path).anomaly_map for d in (False, True))
    assert np.array_equal(exact, fast)
    assert make(tiny_clip, fast_jpeg=True).settings != make(tiny_clip).settings


def test_pooling_mixes_the_highest_pixels_into_the_score(tiny_clip: Clip) -> None:
    image = grey(51)
    image[:8, :8] = 255
    mixed = make(tiny_clip, pooling=ScorePooling(0.5, top=64 / 4096)).predict(image)
    plain = make(tiny_clip).predict(image)
    assert mixed.score == pytest.approx(0.5 * plain.score + 0.5 * 1.0, abs=1e-6)
    assert mixed.method_score == plain.method_score == plain.score
    assert np.array_equal(mixed.anomaly_map, plain.anomaly_map)


def test_other_shapes_make_other_batches(tiny_clip: Clip) -> None:
    shorter = Preprocess(size=64, multiple=16, geometry="shorter-side", **NO_CHANGE)
    detector = make(tiny_clip).replace(preprocess=shorter)
    images = [grey(10), grey(20, 64, 128), grey(30, 128, 64), grey(40)]
    scores = [prediction.score * 255 for prediction in predictions(detector.predict(images))]
    assert scores == pytest.approx([10, 20, 30, 40], abs=1e-3)


def ramp(height: int, width: int) -> np.ndarray:
    """Bright to the right, with a dot: what it looks like depends on the size it is looked at with."""
    image = np.broadcast_to(np.linspace(0, 200, width)[None, :, None], (height, width, 3)).astype(np.uint8)
    image[height // 3, width // 3] = 255
    return image


@pytest.mark.parametrize("options", [{}, {"tile": 64}], ids=["whole", "tiles"])
def test_several_looks_give_the_mean_of_their_maps_and_scores(tiny_clip: Clip, options: dict[str, Any]) -> None:
    image = ramp(96, 128)
    sizes = [Preprocess(size=side, multiple=16, **NO_CHANGE) for side in (64, 32, 48)]
    alone = [make(tiny_clip).replace(preprocess=size) for size in sizes]
    detector = make(tiny_clip, extra_sizes=(32, 50), batch_size=2, **options)
    _, prediction, _ = predictions(detector.predict([grey(9), image, grey(9)]))

    def mean_of(part: np.ndarray) -> tuple[float, np.ndarray]:
        each = [look.predict(part) for look in alone]
        maps = [resize_map(look.anomaly_map, each[0].anomaly_map.shape) for look in each]
        return float(np.mean([look.score for look in each])), np.mean(maps, axis=0)

    # Looks are averaged tile by tile; tiles are joined as ever.
    boxes = tiles(96, 128, options.get("tile", 128), 0.25)
    scores, maps = zip(*(mean_of(image[box.slices]) for box in boxes), strict=True)
    assert prediction.score == pytest.approx(max(scores), abs=1e-6)
    want = merge_tiles(maps, boxes, (96, 128)) if options else maps[0]
    assert np.allclose(prediction.anomaly_map, want, atol=1e-6)
    assert np.ptp(prediction.anomaly_map) > 0.5


def test_looks_are_batched_each_by_itself_and_results_stay_in_order(tiny_clip: Clip) -> None:
    detector = make(tiny_clip, extra_sizes=(32,), batch_size=2)
    answers = list(detector.predict_iter([grey(v) for v in (10, 20, 30)] + ["missing.png", grey(40), grey(50)]))
    assert [type(answer) for answer in answers] == [Prediction] * 3 + [Failure] + [Prediction] * 2
    scores = [answer.score * 255 for answer in answers if isinstance(answer, Prediction)]
    assert scores == pytest.approx([10, 20, 30, 40, 50], abs=1e-3)
    assert sorted(count for count, _ in toy_of(detector).batches) == [1, 1, 2, 2, 2, 2]
    assert detector.settings["extra_sizes"] == [32]
    assert make(tiny_clip).settings["extra_sizes"] == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"extra_sizes": (448, 8)}, "extra_sizes .* the least is 16"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"workers": 0}, "workers 0"),
        ({"tile": 4}, "too small"),
        ({"overlap": 1.0}, "overlap"),
        ({"object_name": "  "}, "object_name"),
        ({"threshold": float("nan")}, "finite"),
        ({"size": "448"}, "size must be a whole number"),
        ({"fast_jpeg": 1}, "fast_jpeg"),
        ({"checkpoint": 3}, "checkpoint"),
    ],
)
def test_bad_settings_are_named(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        LoadOptions(**options)


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("auto").type in ("cpu", "cuda")
    for name in ("nonsense", "cuda:77"):
        with pytest.raises(ConfigError, match=name):
            pick_device(name)


# ---------------------------------------------------------------------------------------------- load_detector


def test_load_detector_from_a_file(tiny_weights: Path) -> None:
    detector = load_detector("anoclip", str(tiny_weights), object_name="bottle", size=64)
    dark, bright = predictions(detector.predict([grey(10), grey(200)]))
    assert 0 <= dark.score <= 1
    assert dark.score != bright.score
    assert dark.threshold_source.startswith("neutral")
    assert dark.object_name == "bottle"
    assert detector.identity.weights
    assert "anoclip" in repr(detector)


def test_a_shipped_threshold_says_where_it_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    def source(**options: Any) -> str:
        return load_detector("anoclip", **options).calibration.words(tiled=True)

    plain = source()
    assert "drawn scenes" in plain
    assert source(views=1, size=448) == plain
    assert source(size=70, views=22, tile=300, extra_sizes=[96]) == (
        f"{plain}; not made for views=22, size=64, extra_sizes=96, tile=300"
    )
    other = replace(bundled_calibration(), weights="of another backbone")
    for engine in ("light", "torch_engine"):
        monkeypatch.setattr(f"anomalens.engines.{engine}.bundled_calibration", lambda: other)
    assert source(tile=300).startswith("neutral point")
    assert load_detector().method_name == "anoclip"


def test_scores_do_not_depend_on_batch_size_or_threads(tiny_weights: Path) -> None:
    images = [np.random.default_rng(i).integers(0, 256, (90, 70, 3), dtype=np.uint8) for i in range(3)]
    for method in ("anoclip", "anoclip+"):
        detector = load_detector(method, str(tiny_weights), size=64, views=1)
        want = [prediction.score for prediction in predictions(detector.predict(images))]
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(2 if threads == 1 else 1)
            detector = load_detector(method, str(tiny_weights), size=64, batch_size=2, views=1)
            again = predictions(detector.predict(images[::-1]))[::-1]
        finally:
            torch.set_num_threads(threads)
        assert [prediction.score for prediction in again] == pytest.approx(want, abs=1e-5)


def test_text_features_are_kept_between_detectors(tiny_weights: Path, tmp_path: Path) -> None:
    first = load_detector("anoclip", str(tiny_weights), size=64, cache=tmp_path)
    assert torch_engine(first).encoder.encoded > 0
    again = load_detector("anoclip", str(tiny_weights), size=64, cache=tmp_path)
    assert torch_engine(again).encoder.encoded == 0


def test_bfloat16_by_one_word(tiny_weights: Path) -> None:
    detector = load_detector("anoclip", str(tiny_weights), size=64, dtype="bfloat16")
    assert torch_engine(detector).clip.visual.dtype == torch.bfloat16
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    exact = load_detector("anoclip", str(tiny_weights), size=64).predict(image)
    rounded = detector.predict(image)
    assert rounded.score != exact.score
    assert np.abs(rounded.anomaly_map - exact.anomaly_map).max() < 0.5 * np.ptp(exact.anomaly_map)


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"method": "nonsense"}, ConfigError, "unknown method"),
        ({"dtype": "float8"}, ConfigError, "float8"),
        ({"device": "cuda:77"}, ConfigError, "cuda:77"),
        ({"backbone": "/nowhere/at-all.safetensors"}, WeightsError, "at-all"),
        ({"nonsense": 3}, ConfigError, "nonsense"),
        ({"checkpoint": "x.safetensors"}, ConfigError, "no checkpoint"),
    ],
)
def test_wrong_options_are_named(tiny_weights: Path, options: dict[str, Any], error: type, reason: str) -> None:
    with pytest.raises(error, match=reason):
        load_detector(**{"method": "anoclip", "backbone": str(tiny_weights), **options})


def test_an_option_without_effect_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="anomalens"):
        load_detector("anoclip", views=1)
        assert caplog.messages == []
        load_detector("anoclip", views=22)
        load_detector("anoclip", size=450)
    assert "views" in caplog.messages[0]
    assert "448 is used" in caplog.messages[1]
