"""Thresholds from images: the toy's scores are the brightness, so every threshold is known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalens.backbones.tower import Clip
from anomalens.datasets.layouts import open_dataset
from anomalens.decision.calibration import Calibration, SavedCalibration
from anomalens.decision.pooling import ScorePooling
from anomalens.detection.calibrating import calibrate, calibrate_on_labels
from anomalens.detection.loading import load_detector
from anomalens.errors import ConfigError, InputError
from parts import good_parts
from toys import grey, make, predictions, toy_of

pytestmark = pytest.mark.usefixtures("blank_images_count")


def labelled(root: Path, normal: list[int], anomalous: list[int]) -> Path:
    for label, values in (("normal", normal), ("anomalous", anomalous)):
        (root / label).mkdir(parents=True)
        for value in values:
            Image.fromarray(grey(value, 8, 8)).save(root / label / f"{label}{value}.png")
    return root


def test_normals_give_both_thresholds_and_p_values(tiny_clip: Clip) -> None:
    detector = make(tiny_clip)
    saved = calibrate(detector, [grey(v) for v in range(19, 0, -1)], fpr=0.1)
    assert saved.left_out == ()
    assert saved.calibration.threshold == pytest.approx(18 / 255)
    assert saved.calibration.pixel_threshold == pytest.approx(18 / 255)
    assert "19 normal images: at most 1 in 10 sound images is called anomalous" in saved.calibration.source
    assert "provided that they are exchangeable" in saved.made_from["guarantee"]
    assert saved.made_from["n_equal_scores"] == 0
    decided = detector.replace(calibration=saved.calibration)
    assert detector.predict(grey(1)).p_value is None
    results = predictions(decided.predict([grey(0), grey(18), grey(19), grey(200)]))
    assert [prediction.p_value for prediction in results] == [1.0, 3 / 20, 2 / 20, 1 / 20]
    assert [prediction.label for prediction in results] == ["normal", "normal", "anomalous", "anomalous"]
    assert [prediction.mask.any() for prediction in results] == [False, False, True, True]
    assert "p_value" in results[0].to_dict()
    assert "p_value" not in detector.predict(grey(1)).to_dict()


def test_the_promise_is_kept_by_the_whole_chain(tiny_clip: Clip) -> None:
    random = np.random.default_rng(0)
    alarms = []
    for _ in range(60):
        values = random.integers(0, 256, 9 + 20)
        saved = calibrate(make(tiny_clip), [grey(int(v), 4, 4) for v in values[:9]], fpr=0.2)
        alarms += [v / 255 > saved.calibration.threshold + 1e-6 for v in values[9:]]
    assert np.mean(alarms) <= 0.2 + 4 * np.sqrt(0.2 * 0.8 / 60)


def test_unreadable_normals_count_nowhere(tiny_clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"nothing")
    images: list[Any] = [grey(v) for v in range(9)]
    ticks: list[None] = []
    saved = calibrate(make(tiny_clip), [tmp_path / "broken.png", *images], fpr=0.1, progress=lambda: ticks.append(None))
    assert (saved.made_from["n_normal"], saved.made_from["n_failed"], len(saved.left_out), len(ticks)) == (9, 1, 1, 10)
    with pytest.raises(InputError, match=r"needs at least 9 normal images, found 8.*1 more could not be read.*broken"):
        calibrate(make(tiny_clip), [tmp_path / "broken.png", *images[1:]], fpr=0.1)


def test_copies_are_noticed(tiny_clip: Clip) -> None:
    saved = calibrate(make(tiny_clip), [grey(7)] * 12, fpr=0.1)
    assert saved.made_from["n_equal_scores"] == 11


def test_a_wrong_rate_costs_no_pass(tiny_clip: Clip) -> None:
    detector = make(tiny_clip)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        calibrate(detector, [grey(1)], fpr=1.5)
    assert not hasattr(toy_of(detector), "batches")


@pytest.mark.parametrize("options", [{"recall": 2.0}, {"miss": 0.0}, {"alarm": -1.0}])
def test_wrong_wishes_cost_no_pass(tiny_clip: Clip, tmp_path: Path, options: dict[str, Any]) -> None:
    detector = make(tiny_clip)
    with pytest.raises(ConfigError, match=r"recall|costs"):
        calibrate_on_labels(detector, open_dataset(labelled(tmp_path, normal=[1], anomalous=[9])), "f1", **options)
    assert not hasattr(toy_of(detector), "batches")


@pytest.mark.parametrize(
    ("rule", "options", "threshold", "words"),
    [
        ("f1", {}, 55, "the best balance of finds and false alarms (F1)"),
        ("recall", {"recall": 1.0}, 55, "100 % of the anomalous found"),
        ("recall", {"recall": 0.5}, 125, "50 % of the anomalous found"),
        ("cost", {"miss": 100.0, "alarm": 1.0}, 55, "least cost"),
        ("cost", {"miss": 1.0, "alarm": 10.0}, 125, "least cost"),
    ],
)
def test_labels_give_a_threshold(
    tiny_clip: Clip, tmp_path: Path, rule: Any, options: dict[str, Any], threshold: int, words: str
) -> None:
    data = open_dataset(labelled(tmp_path, normal=[10, 50, 100], anomalous=[60, 150, 200]))
    saved = calibrate_on_labels(make(tiny_clip), data, rule, **options)
    assert saved.left_out == ()
    assert saved.calibration.threshold == pytest.approx(threshold / 255)
    assert words in saved.calibration.source
    assert saved.calibration.pixel_threshold == 0.6
    assert saved.calibration.normal_scores == pytest.approx([10 / 255, 50 / 255, 100 / 255])
    made = saved.made_from
    assert (made["n_normal"], made["n_anomalous"], made["guarantee"]) == (3, 3, None)
    assert (made["missed"], made["false_alarms"]) == ((0, 1) if threshold == 55 else (1, 0))


def test_labels_of_one_kind(tiny_clip: Clip, tmp_path: Path) -> None:
    data = open_dataset(labelled(tmp_path, normal=[1], anomalous=[]))
    with pytest.raises(InputError, match="no anomalous one"):
        calibrate_on_labels(make(tiny_clip), data, "f1")


def test_the_file_holds_for_its_settings_alone(tiny_clip: Clip, tmp_path: Path) -> None:
    saved = calibrate(make(tiny_clip), [grey(v) for v in range(9)], fpr=0.1)
    saved.write(tmp_path / "c.json")
    again = SavedCalibration.read(tmp_path / "c.json")
    assert again == saved
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["settings"]["method"] == "brightness"
    assert content["calibration"]["normal_scores"] == sorted(content["calibration"]["normal_scores"])
    again.check(make(tiny_clip).settings)
    again.check(make(tiny_clip).settings | {"backbone": "the same weights elsewhere"})
    for option, words in (({"tile": 32}, "--tile was not given then, 32 now"), ({"object_name": "nut"}, "nut now")):
        with pytest.raises(ConfigError, match=f"other settings.*{words}"):
            again.check(make(tiny_clip, **option).settings)
    other_weights = make(tiny_clip).settings | {"backbone": "large", "weights": "abc"}
    with pytest.raises(ConfigError, match="--backbone was tiny then, large now; weights was not set then, abc now"):
        again.check(other_weights)
    pooled = make(tiny_clip, pooling=ScorePooling(0.5))
    with pytest.raises(ConfigError, match=r"pooling was 0 then, 0\.5 now"):
        again.check(pooled.settings)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema": 1}', '{"schema": 1, "calibration": {}, "settings": {}}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ConfigError, match=r"c\.json was not written by|not a calibration"):
        SavedCalibration.read(tmp_path / "c.json")


def test_files_of_another_version_and_missing_ones(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"schema": 9}')
    with pytest.raises(ConfigError, match="schema 9"):
        SavedCalibration.read(tmp_path / "c.json")
    with pytest.raises(ConfigError, match=r"d\.json: No such file"):
        SavedCalibration.read(tmp_path / "d.json")


def test_scores_of_a_file_must_be_in_order() -> None:
    for scores in ((0.2, 0.1), (float("nan"),)):
        with pytest.raises(ConfigError, match="ascending"):
            Calibration(0.5, 0.5, (0.0, 1.0), "", normal_scores=scores)


def test_photographs_that_a_part_was_taught_with_do_not_count() -> None:
    detector = load_detector(size=160, device="cpu").fit(good_parts(3))
    saved = calibrate(detector, good_parts(6), fpr=0.25)
    assert saved.left_out == tuple(["image: the part was taught with it"] * 3)
    assert saved.made_from["n_normal"] == 3
    with pytest.raises(InputError, match=r"found 0.*3 more .* do not count: image: the part was taught with it"):
        calibrate(detector, good_parts(3), fpr=0.25)
