"""A backbone that knows images only: DINOv2 with random weights, from a folder to decisions."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anomalens.detection.loading import load_detector
from anomalens.engines.contract import NO_WORDS
from anomalens.engines.image_engine import ImageEngine
from anomalens.errors import ConfigError, WeightsError
from anomalens.export.exporter import export
from parts import coloured_part, part_with_square
from toys import predictions

GOOD = [coloured_part(number) for number in range(3)]


@pytest.fixture(scope="module")
def weights(tiny_dinov2: Path) -> str:
    return str(tiny_dinov2)


@pytest.mark.parametrize("name", ["auto", "memory", "anomalydino", "patchcore", "subspacead"])
def test_taught_it_decides_and_is_kept(weights: str, tmp_path: Path, name: str) -> None:
    taught = load_detector(name, weights, size=98).fit(GOOD, turns=1)
    faulty = taught.predict(part_with_square(7))
    assert faulty.label == "anomalous"
    assert taught.method_name == ("memory" if name == "auto" else name)
    taught.save(tmp_path / "part.anomalens")
    for other in (load_detector(str(tmp_path / "part.anomalens")), pickle.loads(pickle.dumps(taught))):
        result = other.predict(part_with_square(7))
        assert result.score == pytest.approx(faulty.score, rel=1e-6)
        np.testing.assert_allclose(result.anomaly_map, faulty.anomaly_map, rtol=1e-5, atol=1e-6)


def test_levels_are_at_the_depths_asked_for(weights: str) -> None:
    detector = load_detector("anomalydino", weights, size=98)
    pixels = np.random.default_rng(0).standard_normal((2, 3, 98, 126)).astype(np.float32)
    engine: Any = detector.engine
    answer = engine.with_levels((0.5, 1.0)).score_batch(pixels, [0, 1])
    with torch.no_grad():
        expected = engine.network.levels(torch.from_numpy(pixels), (2, 4))
    for level, own in zip(answer.levels, expected, strict=True):
        assert level.shape == (2, 7, 9, 96)
        np.testing.assert_allclose(level, own, atol=1e-6)
    assert not answer.score.any()
    assert not answer.map.any()


def test_the_aspect_is_kept_in_whole_patches(weights: str, caplog: pytest.LogCaptureFixture) -> None:
    detector = load_detector("anomalydino", weights, size=100)
    assert "98 is used" in caplog.text
    assert detector.preprocess.target(300, 400) == (98, 126)
    assert load_detector("anomalydino", weights).preprocess.size == 448


def test_before_it_is_taught_it_finds_nothing_rather_than_calls_all_normal(weights: str) -> None:
    detector = load_detector(backbone=weights)
    assert isinstance(detector.engine, ImageEngine)
    assert detector.method_name == NO_WORDS
    with pytest.raises(ConfigError, match="no words: it finds nothing before it is taught"):
        detector.predict(GOOD[0])


@pytest.mark.parametrize("name", ["anoclip", "winclip", "winclip+", "aprilgan+"])
def test_methods_that_need_words_are_refused(weights: str, name: str) -> None:
    with pytest.raises(ConfigError, match="does not know"):
        load_detector(name, weights)


def test_options_of_words_are_refused(weights: str, tmp_path: Path) -> None:
    for further in ({"checkpoint": "prompts.safetensors"}, {"views": 1}):
        with pytest.raises(ConfigError, match=f"takes no {next(iter(further))}"):
            load_detector("auto", weights, **further)
    detector = load_detector("anomalydino", weights, size=56)
    with pytest.raises(ConfigError, match="leave words_weight out"):
        detector.fit(GOOD, words_weight=0.5)
    with pytest.raises(ConfigError, match="knows images only"):
        export(detector.fit(GOOD, turns=1), tmp_path / "part.onnx", GOOD)


def test_a_folder_is_compared_with_itself(weights: str) -> None:
    detector = load_detector("musc", weights, size=98)
    results = predictions(detector.predict_many([*(coloured_part(number) for number in range(7)), part_with_square(7)]))
    assert int(np.argmax([result.score for result in results])) == 7


def test_other_names_of_the_object_change_nothing(weights: str) -> None:
    plain, named = (load_detector("anomalydino", weights, size=56, **more) for more in ({}, {"object_name": "nut"}))
    assert named.identity.object_name == "nut"
    assert named.fit(GOOD).predict(GOOD[0]).score == plain.fit(GOOD).predict(GOOD[0]).score


def test_a_repository_that_is_not_here_says_so_offline() -> None:
    with pytest.raises(WeightsError, match="offline"):
        load_detector("anomalydino", "facebook/dinov2-small", offline=True)
