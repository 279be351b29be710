"""Every reference method from photographs to predictions: taught, saved, loaded, pickled, made a graph."""

import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anomalens.backbones.bundle import save_bundle
from anomalens.backbones.tower import Clip
from anomalens.backbones.weights import load_weights
from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector
from anomalens.engines.taught import TaughtEngine, join
from anomalens.errors import ConfigError
from anomalens.export.exporter import export
from anomalens.methods import base
from anomalens.methods.parts.checkpoints import Checkpoint, CheckpointInfo, save_checkpoint
from anomalens.methods.references.reference_method import Words, list_reference_methods
from parts import coloured_part, part_with_square
from toys import predictions

SIDE = 96
GOOD = [coloured_part(number) for number in range(3)]
FAULTY = part_with_square(7)
BLACK = slice(SIDE // 3, SIDE // 2)
# Few turns, because each is another pass.
FEWER: dict[str, dict[str, Any]] = {"subspacead": {"turns": 2}, "anomalydino": {"turns": 4}}
NAMES = [entry.name for entry in list_reference_methods()]
DISTANCES = ("anomalydino", "patchcore", "subspacead")
"""Those that leave words out unless asked."""


@pytest.fixture(scope="module")
def checkpoint(tiny_clip: Clip, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Maps of APRIL-GAN that say the same of every patch, so that its map is that of the photographs."""
    path = tmp_path_factory.mktemp("learned") / "aprilgan.safetensors"
    method = base.create("aprilgan", tiny_clip.config)
    generator = torch.Generator().manual_seed(0)
    learned = {
        name: torch.randn(value.shape, generator=generator) if name.endswith("bias") else torch.zeros_like(value)
        for name, value in method.state_dict().items()
    }
    weights = load_weights(tiny_weights)
    info = CheckpointInfo("aprilgan", {}, weights.name, weights.hash, "none", "none")
    save_checkpoint(path, Checkpoint(info, learned))
    return str(path)


@pytest.fixture(scope="module")
def teach(tiny_weights: Path, checkpoint: str) -> Any:
    """A function that teaches a detector by a method's name, once for each name."""

    @cache
    def taught(name: str) -> Detector:
        further = {"checkpoint": checkpoint} if name == "aprilgan+" else {}
        detector = load_detector(name, str(tiny_weights), size=SIDE, **further)
        return detector.fit(GOOD, **FEWER.get(name, {}))

    return taught


@pytest.mark.parametrize("name", NAMES)
def test_a_pasted_square_is_the_maximum_and_anomalous(teach: Any, name: str) -> None:
    result = teach(name).predict(FAULTY)
    assert result.label == "anomalous"
    heat = result.anomaly_map
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    # The middle of the hottest cell lies in the square, or in a patch of 16 pixels that it touches.
    for place in ((row + 0.5) * SIDE / heat.shape[0], (column + 0.5) * SIDE / heat.shape[1]):
        assert BLACK.start - 8 <= place <= BLACK.stop + 8
    assert result.score > max(teach(name).predict(photo).score for photo in GOOD)


@pytest.mark.parametrize("name", ["anomalydino", "patchcore"])
def test_a_photograph_that_was_taught_scores_nothing(teach: Any, name: str) -> None:
    result = teach(name).predict(GOOD[1])
    assert result.score == 0
    assert not result.anomaly_map.any()


@pytest.mark.parametrize("name", ["winclip+", "aprilgan+"])
def test_words_alone_speak_of_a_photograph_that_was_taught(teach: Any, name: str) -> None:
    taught = teach(name)
    words = taught.engine.words.score_batch(taught.prepare(GOOD[1]).pixels[0][0][None], [0])
    assert taught.predict(GOOD[1]).score == pytest.approx(words.score[0] / 2, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_neither_order_nor_batch_changes_a_score(teach: Any, name: str) -> None:
    taught = teach(name)
    images = [FAULTY, *GOOD, coloured_part(9)]
    alone = [taught.predict(image) for image in images]
    mixed = predictions(taught.replace(options=taught.options.replace(batch_size=3)).predict_many(images[::-1]))
    # This method scores in units of a small deviation: a distance's rounding of 1e-7 is some hundred times as large.
    rounding = 1e-4 if name == "memory" else 1e-5
    for single, together in zip(alone, mixed[::-1], strict=True):
        assert single.score == pytest.approx(together.score, abs=rounding, rel=rounding)
        # A photo that was taught lies at distance 0 from itself: there a rounding of 1e-7 becomes its root.
        np.testing.assert_allclose(single.anomaly_map, together.anomaly_map, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_saved_loaded_and_pickled_it_says_the_same(teach: Any, checkpoint: str, tmp_path: Path, name: str) -> None:
    taught = teach(name)
    taught.save(tmp_path / "part.anomalens")
    further = {"checkpoint": checkpoint} if name == "aprilgan+" else {}
    for other in (load_detector(str(tmp_path / "part.anomalens"), **further), pickle.loads(pickle.dumps(taught))):
        assert other.settings == taught.settings
        for image in (FAULTY, coloured_part(9)):
            expected, result = taught.predict(image), other.predict(image)
            assert (result.label, result.threshold) == (expected.label, expected.threshold)
            assert result.score == pytest.approx(expected.score, abs=1e-6, rel=1e-6)
            np.testing.assert_allclose(result.anomaly_map, expected.anomaly_map, atol=1e-6, rtol=1e-6)


class Comparison(torch.nn.Module):
    """What a graph of a taught detector does behind the tower."""

    def __init__(self, engine: TaughtEngine) -> None:
        super().__init__()
        self.method, self.taught = engine.method, engine.sizes[SIDE].moved(torch.empty(0))

    def forward(self, score: Tensor, heat: Tensor, *levels: Tensor) -> tuple[Tensor, ...]:
        return tuple(join(Words(score, heat), levels, self.method, self.taught))


@pytest.mark.parametrize("name", NAMES)
def test_as_a_graph_it_says_the_same(teach: Any, name: str) -> None:
    """The number of images is open; NumPy is what the detector itself computes with."""
    engine = teach(name).engine
    pixels = np.random.default_rng(0).standard_normal((3, 3, SIDE, SIDE)).astype(np.float32)
    seen, expected = engine.words.score_batch(pixels, [0, 1, 2]), engine.score_batch(pixels, [0, 1, 2])
    inputs = tuple(torch.from_numpy(np.ascontiguousarray(part)) for part in (seen.score, seen.map, *seen.levels))
    shapes = ({0: torch.export.Dim("batch")},) * 2
    with torch.no_grad():
        example = tuple(part[:2] for part in inputs)
        traced = torch.export.export(
            Comparison(engine), example, dynamic_shapes=(*shapes, shapes[:1] * len(seen.levels))
        )
        answers = traced.module()(*inputs)
    for part, answer in zip((expected.score, expected.map, expected.score_map), answers, strict=False):
        np.testing.assert_allclose(answer.numpy(), part, atol=1e-5, rtol=1e-4)


def test_what_no_graph_can_do_is_refused(tiny_weights: Path, tmp_path: Path) -> None:
    for name, options in (("anomalydino", {"mask": True}), ("patchcore", {"reweight": 9})):
        taught = load_detector(name, str(tiny_weights), size=64).fit(GOOD, turns=1, **options)
        with pytest.raises(ConfigError, match="cannot be exported like this"):
            export(taught, tmp_path / "part.onnx", [FAULTY])


@pytest.mark.parametrize("name", DISTANCES)
def test_words_join_where_they_are_asked_for(teach: Any, tiny_weights: Path, name: str) -> None:
    alone = teach(name)
    joined = load_detector(name, str(tiny_weights), size=SIDE).fit(GOOD, words_weight=0.5, turns=1)
    assert alone.method_name == name
    assert joined.method_name == f"anoclip + {name}"
    assert joined.predict(FAULTY).label == "anomalous"
    assert joined.predict(GOOD[1]).score < joined.calibration.threshold
    # In deviations a photograph that was taught is less than ordinary.
    assert joined.predict(GOOD[1]).anomaly_map.mean() < 0


def test_turned_copies_know_a_turned_part(tiny_weights: Path) -> None:
    """A quarter turn of a square image is exact, so that the turned photograph itself was taught."""
    turned = np.rot90(GOOD[0]).copy()
    detector = load_detector("anomalydino", str(tiny_weights), size=SIDE)
    assert detector.fit(GOOD, turns=8).predict(turned).score == 0
    assert detector.fit(GOOD, turns=1).predict(turned).label == "anomalous"


@pytest.mark.parametrize("name", NAMES)
def test_a_single_photograph_promises_nothing_and_finds_something(
    tiny_weights: Path, checkpoint: str, name: str
) -> None:
    further = {"checkpoint": checkpoint} if name == "aprilgan+" else {}
    taught = load_detector(name, str(tiny_weights), size=SIDE, **further).fit(GOOD[:1], **FEWER.get(name, {}))
    assert "no rate of false alarms can be promised" in taught.calibration.source
    assert taught.predict(GOOD[0]).label == "normal"
    assert np.isfinite(taught.calibration.threshold)
    assert taught.predict(FAULTY).score > taught.predict(GOOD[0]).score
    if name in ("anomalydino", "subspacead"):
        assert taught.predict(FAULTY).label == "anomalous"


def test_a_method_with_words_of_its_own_needs_them(tiny_weights: Path) -> None:
    detector = load_detector("anoclip", str(tiny_weights), size=SIDE)
    with pytest.raises(ConfigError, match="winclip"):
        detector.replace(options=detector.options.replace(method="winclip+")).fit(GOOD)
    with pytest.raises(ConfigError, match="two scales"):
        load_detector("winclip+", str(tiny_weights), size=SIDE, scales=(2,)).fit(GOOD)


@pytest.mark.parametrize("name", ["anomalydino", "patchcore", "subspacead", "winclip+"])
def test_the_bundled_backbone_is_taught(name: str) -> None:
    taught = load_detector(name, size=128).fit(GOOD, turns=1)
    assert taught.predict(FAULTY).label == "anomalous"
    assert taught.predict(FAULTY).score > taught.predict(coloured_part(9)).score


def test_weights_in_a_file_of_other_sizes_need_no_quarter_of_blocks(tmp_path: Path, tiny_clip: Clip) -> None:
    """Depths that fall into one block of a shallow tower are read from that block."""
    path = tmp_path / "tiny.safetensors"
    save_bundle(path, tiny_clip, licence="none", version="0")
    levels = load_detector("subspacead", str(path), size=64).engine.with_levels((0.01, 0.02, 1.0))
    answer = levels.score_batch(np.zeros((1, 3, 64, 64), np.float32), [0])
    np.testing.assert_array_equal(answer.levels[0], answer.levels[1])
    assert len(answer.levels) == 3
