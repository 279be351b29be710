"""Every method as a graph: the same predictions from ONNX Runtime and OpenVINO, and nothing kept that differs."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anomalens.backbones.config import ClipConfig, TextConfig, VisionConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip
from anomalens.datasets.layouts import open_dataset
from anomalens.decision.calibration import Calibration
from anomalens.decision.pooling import ScorePooling
from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector
from anomalens.engines.contract import Identity
from anomalens.engines.exported import ExportedEngine
from anomalens.engines.torch_engine import TorchEngine
from anomalens.errors import ConfigError
from anomalens.export import exporter as module
from anomalens.export import gate, graph
from anomalens.export.exporter import LIMIT, Difference, export
from anomalens.images.normalisation import CLIP_MEAN, CLIP_STD
from anomalens.images.preprocessing import Preprocess
from anomalens.methods import base
from anomalens.options import LoadOptions
from exports import one_export_each
from toys import predictions, torch_engine

SIDE = 48
# What is unrolled in a graph, made short; nothing else of the methods changes.
SHORT: dict[str, dict[str, Any]] = {
    "anoclip": {"views": 1},
    "anoclip+": {"views": 1, "steps": 2},
    "tokenclip": {"iterations": 4},
    "adaclip": {"clusters": 1, "iterations": 3},
    "winclip": {"scales": (2,)},
}
NAMES = [entry.name for entry in base.list_methods()]
IMAGES = [np.random.default_rng(i).integers(0, 256, (50, 60, 3), dtype=np.uint8) for i in range(3)]


@pytest.fixture(scope="module")
def small() -> Clip:
    """Make two blocks for 3 x 3 patches; the position table has another grid."""
    torch.manual_seed(0)
    vision = VisionConfig(image_size=64, patch=16, width=64, layers=2, heads=1)
    return Clip(ClipConfig(vision, TextConfig(32, 1, 1), joint=32, activation="gelu")).eval().requires_grad_(False)


@pytest.fixture(scope="module", autouse=True)
def _one_export_a_method() -> Iterator[None]:
    """Export once for both formats; weights and sizes are the same in all of this file."""
    with one_export_each(lambda network: (network.any_size, type(network.method), repr(network.method.config))):
        yield


def build(clip: Clip, name: str, config: LoadOptions | None = None, **options: Any) -> Detector:
    torch.manual_seed(2)
    method = base.create(name, clip.config, **{**SHORT.get(name, {}), **options}).eval()
    engine = TorchEngine(clip, method, PromptEncoder(clip), Identity(name, "small", "abc"))
    calibration = Calibration(0.4, 0.3, (0.0, 1.0), "by hand")
    sizes = Preprocess(
        SIDE, CLIP_MEAN, CLIP_STD, interpolation=method.interpolation, geometry=method.geometry, multiple=16
    )
    return Detector(engine, sizes, calibration, config or LoadOptions(), ScorePooling(0.25))


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("name", NAMES)
def test_every_method_is_the_same_from_a_file(small: Clip, tmp_path: Path, name: str, suffix: str) -> None:
    detector, out = build(small, name), tmp_path / f"model{suffix}"
    if torch_engine(detector).method.export_traits(SIDE).unexportable:
        with pytest.raises(ConfigError, match="cannot be exported"):
            export(detector, out, IMAGES)
        return
    report = export(detector, out, IMAGES)
    assert report.passed
    assert report.difference.map <= LIMIT
    assert report.difference.score <= LIMIT
    other = load_detector(str(out), batch_size=2)
    assert other.settings == detector.settings
    for expected, result in zip(predictions(detector.predict(IMAGES)), predictions(other.predict(IMAGES)), strict=True):
        assert result.score == pytest.approx(expected.score, abs=LIMIT)
        assert (result.threshold, result.method, result.backbone) == (
            expected.threshold,
            expected.method,
            expected.backbone,
        )
    single = predictions(load_detector(str(out), batch_size=1).predict(IMAGES))
    together = predictions(load_detector(str(out), batch_size=3).predict(IMAGES))
    for alone, batched in zip(single, together, strict=True):
        assert alone.score == pytest.approx(batched.score, abs=1e-5)
        assert np.allclose(alone.anomaly_map, batched.anomaly_map, atol=LIMIT * np.ptp(batched.anomaly_map))
    assert {p.name for p in tmp_path.iterdir()} == {"model.onnx", "model.onnx.json"} or suffix == ".xml"


def test_many_views_are_run_a_few_images_at_a_time(small: Clip, tmp_path: Path) -> None:
    detector = build(small, "anoclip", views=22)
    assert export(detector, tmp_path / "v.onnx", IMAGES).passed
    other = load_detector(str(tmp_path / "v.onnx"), batch_size=3)
    assert isinstance(other.engine, ExportedEngine)
    assert other.engine.card.batch_limit == 2
    scores, expected = ([p.score for p in predictions(d.predict(IMAGES))] for d in (other, detector))
    assert scores == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"name": "anoclip", "geometry": "wide"}, "keeps the aspect"),
        ({"name": "anoclip+", "carry_optimizer": True}, "memory from image to image"),
        ({"name": "crane+", "batch_threshold": True}, "whole batch"),
    ],
)
def test_what_cannot_be_a_graph_says_why(small: Clip, tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        export(build(small, **options), tmp_path / "a.onnx", IMAGES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("name", ["anoclip", "crane+"])  # both ways to resize positions, with and without a blur
def test_one_graph_for_any_size(small: Clip, tmp_path: Path, name: str, suffix: str) -> None:
    detector, out = build(small, name), tmp_path / f"model{suffix}"
    assert export(detector, out, IMAGES, any_size=True).passed
    assert load_detector(str(out)).preprocess.size == SIDE
    for side in (64, 112):
        expected = predictions(resized(detector, side).predict(IMAGES))
        result = predictions(load_detector(str(out), size=side).predict(IMAGES))
        for a, b in zip(expected, result, strict=True):
            assert b.anomaly_map.shape == (side, side)
            assert b.score == pytest.approx(a.score, abs=LIMIT)
            assert np.allclose(b.anomaly_map, a.anomaly_map, atol=LIMIT * np.ptp(a.anomaly_map))
    with pytest.raises(ConfigError, match="use 96 or 112"):
        load_detector(str(out), size=100)


def test_several_looks_leave_the_size_open(small: Clip, tmp_path: Path) -> None:
    detector, out = build(small, "anoclip").replace(extra_sizes=(64,)), tmp_path / "a.onnx"
    assert export(detector, out, IMAGES).passed
    assert load_detector(str(out)).extra_sizes == (64,)
    assert load_detector(str(out), extra_sizes=0).extra_sizes == ()
    result = predictions(load_detector(str(out)).predict(IMAGES))
    for a, b in zip(predictions(detector.predict(IMAGES)), result, strict=True):
        assert np.allclose(b.anomaly_map, a.anomaly_map, atol=LIMIT * np.ptp(a.anomaly_map))


def resized(detector: Detector, side: int) -> Detector:
    return detector.replace(preprocess=replace(detector.preprocess, size=side))


@pytest.mark.parametrize("name", NAMES)
def test_methods_of_one_size_say_why(small: Clip, tmp_path: Path, name: str) -> None:
    detector = build(small, name)
    reason = torch_engine(detector).method.export_traits(SIDE).one_size
    if reason:
        with pytest.raises(ConfigError, match=reason):
            export(detector, tmp_path / "a.onnx", IMAGES, any_size=True)
        assert not list(tmp_path.iterdir())
    else:
        module._exportable(detector, any_size=True)


def test_tiles_work_as_they_do_in_torch(small: Clip, tmp_path: Path) -> None:
    detector = build(small, "anoclip")
    assert export(detector, tmp_path / "a.onnx", IMAGES).passed
    image = np.random.default_rng(9).integers(0, 256, (100, 150, 3), dtype=np.uint8)
    expected = build(small, "anoclip", LoadOptions(tile=48)).predict(image)
    result = load_detector(str(tmp_path / "a.onnx"), tile=48).predict(image)
    assert result.anomaly_map.shape == expected.anomaly_map.shape == (100, 150)
    assert np.allclose(result.anomaly_map, expected.anomaly_map, atol=1e-5)


def test_a_graph_that_differs_is_not_kept(small: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.onnx").write_bytes(b"what stood there")
    monkeypatch.setattr(module, "LIMIT", -1.0)
    assert not export(build(small, "anoclip"), tmp_path / "a.onnx", IMAGES).passed
    assert (tmp_path / "a.onnx").read_bytes() == b"what stood there"
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]


def test_a_tie_may_turn_few_pixels_where_the_method_says_so(small: Clip) -> None:
    close = Difference(images=1, map=0.004, score=0.0, beyond=0.003)
    assert not close.passed
    assert replace(close, allowed=module.SWITCHED).passed
    assert not replace(close, allowed=module.SWITCHED, beyond=0.02).passed
    assert not replace(close, allowed=module.SWITCHED, score=0.01).passed
    assert not Difference(1, float("nan"), 0.0, 1.0, module.SWITCHED).passed
    assert {name for name in NAMES if torch_engine(build(small, name)).method.export_traits(SIDE).switches} == {
        "tokenclip"
    }


def test_int8_passes_its_gate_or_is_not_kept(small: Clip, tmp_path: Path) -> None:
    detector, exact, out = build(small, "anoclip"), tmp_path / "exact.onnx", tmp_path / "int8.onnx"
    export(detector, exact, IMAGES)
    mask = np.zeros((256, 256), bool)
    mask[100:140, 60:200] = True
    labelled = [(image, mask) for image in IMAGES]
    refused = export(detector, out, IMAGES, labelled=labelled, limits=gate.Gate(-1.0, -1.0))
    assert refused.verdict is not None
    assert not refused.passed
    assert not out.exists()
    kept = export(detector, out, IMAGES, labelled=labelled, limits=gate.Gate(1.0, 1.0))
    assert kept.passed
    assert out.stat().st_size < exact.stat().st_size
    rounded = load_detector(str(out))
    assert rounded.settings["dtype"] == "int8"
    exact_map, rounded_map = (part.predict(IMAGES[0]).anomaly_map for part in (detector, rounded))
    assert np.abs(rounded_map - exact_map).max() < 0.02 * np.ptp(exact_map)
    made = json.loads((tmp_path / "int8.onnx.json").read_text())["made"]
    assert made["int8"]["images"] == 3


def test_int8_needs_defects_to_be_judged_on(small: Clip, tmp_path: Path) -> None:
    labelled = [(image, np.zeros((256, 256), bool)) for image in IMAGES]
    with pytest.raises(ConfigError, match="show no defect"):
        export(build(small, "anoclip"), tmp_path / "a.onnx", IMAGES, labelled=labelled)
    with pytest.raises(ConfigError, match="ONNX Runtime"):
        export(build(small, "anoclip"), tmp_path / "a.xml", IMAGES, labelled=labelled)
    assert not list(tmp_path.iterdir())


def test_a_graph_of_one_size_leaves_the_detector_as_it_is(small: Clip) -> None:
    table = small.visual.positional_embedding
    network = graph.Graph(
        torch_engine(build(small, "anoclip")), Preprocess(SIDE, mean=(0, 0, 0), std=(1, 1, 1), multiple=16)
    )
    assert network.clip.visual.positional_embedding.shape == (1 + 3 * 3, 64)
    assert small.visual.positional_embedding is table
    assert table.shape == (1 + 4 * 4, 64)
    assert network.clip.visual.proj is small.visual.proj  # weights are shared, not copied


def test_wrong_arguments_are_named(small: Clip, tmp_path: Path) -> None:
    detector = build(small, "anoclip")
    with pytest.raises(ConfigError, match=r"\.onnx"):
        export(detector, tmp_path / "a.pt", IMAGES)
    with pytest.raises(ConfigError, match="no image"):
        export(detector, tmp_path / "a.onnx", [])
    export(detector, tmp_path / "a.onnx", IMAGES)
    with pytest.raises(ConfigError, match="exported one already"):
        export(load_detector(str(tmp_path / "a.onnx")), tmp_path / "b.onnx", IMAGES)


def test_bundled_scenes_are_whole_and_half_of_them_are_faulty() -> None:
    dataset = open_dataset(gate.SCENES, deep=True)
    assert dataset.faults == ()
    labels = [sample.label for sample in dataset.samples("test")]
    assert (labels.count(0), labels.count(1)) == (22, 22)
    assert sum(path.stat().st_size for path in dataset.root.rglob("*") if path.is_file()) < 3_000_000
    faulty = [bool(mask.any()) for _, mask in gate.labelled_images(gate.SCENES, 32)]
    assert len(faulty) == 32
    assert 12 <= sum(faulty) <= 20


def test_a_data_set_for_the_gate(tmp_path: Path) -> None:
    for part, name in (("test/good", "0.png"), ("test/hole", "0.png"), ("test/hole", "1.png"), ("train/good", "0.png")):
        (tmp_path / "nut" / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[0]).save(tmp_path / "nut" / part / name)
    (tmp_path / "nut" / "ground_truth" / "hole").mkdir(parents=True)
    mask = np.zeros(IMAGES[0].shape[:2], np.uint8)
    mask[10:30, 10:30] = 255
    Image.fromarray(mask).save(tmp_path / "nut" / "ground_truth" / "hole" / "0_mask.png")
    labelled = gate.labelled_images(f"mvtec:{tmp_path}", 10)
    assert sorted(bool(mask.any()) for _, mask in labelled) == [False, True]  # without a mask nothing can be judged
    assert len(gate.labelled_images(f"mvtec:{tmp_path}", 1)) == 1
