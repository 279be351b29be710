"""The shipped graph does the main job as PyTorch does it, and PyTorch is not even imported."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomalens import ConfigError, MissingExtraError, WeightsError, load_detector
from anomalens.backbones.bundle import BUNDLED_FILE
from anomalens.decision.calibration import bundled_calibration
from anomalens.detection.detector import Detector
from anomalens.engines import choice, light
from anomalens.engines.light import LightEngine
from anomalens.engines.taught import TaughtEngine
from anomalens.engines.torch_engine import TorchEngine
from anomalens.export import exporter
from anomalens.options import LoadOptions
from anomalens.prediction import Prediction
from toys import parts, predictions

DEFAULT = bundled_calibration().best

METHODS = sorted(bundled_calibration().graphs)
SCENES = BUNDLED_FILE.parent / "scenes"
WASHERS = sorted(SCENES.glob("washer/test/**/*.jpg"))
SOME = sorted(SCENES.glob("*/test/**/*.jpg"))[::11]


@pytest.fixture(scope="module")
def in_torch() -> Detector:
    return load_detector(engine="torch", size=112)


@pytest.fixture(scope="module")
def on_graph() -> Detector:
    return load_detector(engine="onnx", size=112)


@pytest.fixture(scope="module")
def expected() -> list[Prediction]:
    return predictions(load_detector(engine="torch").predict_many(SOME))


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_scenes_have_the_map_and_the_score_that_pytorch_gives_them(engine: str, expected: list[Prediction]) -> None:
    detector = load_detector(engine=engine)
    assert detector.engine.runtime == engine
    low, high = detector.calibration.heat_range
    for prediction, answer in zip(expected, predictions(detector.predict_many(SOME)), strict=True):
        assert abs(prediction.score - answer.score) <= 1e-5
        assert np.abs(prediction.anomaly_map - answer.anomaly_map).max() <= 1e-5 * (high - low)


@pytest.mark.parametrize("method", METHODS)
def test_every_shipped_graph_gives_a_photograph_what_pytorch_gives_it(method: str) -> None:
    graph, torch = (load_detector(method, engine=engine, size=112) for engine in ("auto", "torch"))
    assert isinstance(graph.engine, LightEngine)
    assert (graph.settings, graph.identity, graph.calibration) == (torch.settings, torch.identity, torch.calibration)
    expected, answer = (each.predict(WASHERS[0]) for each in (torch, graph))
    low, high = graph.calibration.heat_range
    assert abs(expected.score - answer.score) <= 1e-5
    assert np.abs(expected.anomaly_map - answer.anomaly_map).max() <= 1e-5 * (high - low)


@pytest.mark.parametrize("options", [{}, {"size": 336}, {"extra_sizes": (0,)}, {"tile": 300}, {"object_name": "nut"}])
def test_both_engines_stand_in_the_same_settings_and_calibration(options: dict[str, Any]) -> None:
    graph, torch = (load_detector(engine=engine, **options) for engine in ("auto", "torch"))
    assert isinstance(graph.engine, LightEngine)
    assert isinstance(torch.engine, TorchEngine)
    assert (graph.settings, graph.identity, graph.calibration) == (torch.settings, torch.identity, torch.calibration)
    assert (graph.preprocess, graph.pooling, graph.extra_sizes) == (torch.preprocess, torch.pooling, torch.extra_sizes)


def test_batches_threads_and_copies_change_nothing(on_graph: Detector) -> None:
    pixels = np.random.default_rng(0).normal(size=(3, 3, 96, 96)).astype(np.float32)
    whole = on_graph.engine.score_batch(pixels, (0, 1, 2))
    shared = on_graph.engine.score_batch(pixels[1:], (1, 2), sharing=on_graph.engine.parallel)
    copied = pickle.loads(pickle.dumps(on_graph.engine.with_levels())).score_batch(pixels[:1], (0,))
    np.testing.assert_allclose(whole.map[1:], shared.map, atol=1e-6)
    np.testing.assert_allclose(whole.map[:1], copied.map, atol=1e-6)
    assert not whole.levels
    assert [level.shape for level in copied.levels] == [(1, 12, 12, 40), (1, 6, 6, 64), (1, 3, 3, 64)]


def test_a_part_taught_with_one_engine_is_the_same_with_the_other(
    in_torch: Detector, on_graph: Detector, tmp_path: Path
) -> None:
    for name, detector in (("torch", in_torch), ("onnx", on_graph)):
        detector.fit(WASHERS[2:]).save(tmp_path / f"{name}.anomalens")
    by_torch, *others = (
        load_detector(str(tmp_path / f"{name}.anomalens"), engine=engine).predict(WASHERS[0])
        for name, engine in (("torch", "torch"), ("torch", "onnx"), ("onnx", "torch"), ("onnx", "onnx"))
    )
    # Maps of taught parts are in deviations from ordinary, tens of them for a defect.
    reach = float(np.ptp(by_torch.anomaly_map))
    for prediction in others:
        assert abs(prediction.score - by_torch.score) <= 1e-5 * reach
        assert abs(prediction.threshold - by_torch.threshold) <= 1e-5 * reach
        assert np.abs(prediction.anomaly_map - by_torch.anomaly_map).max() <= 1e-5 * reach


def test_a_set_is_compared_alike_by_both_engines(in_torch: Detector, on_graph: Detector) -> None:
    images = parts(12, faulty=(3,))
    by_torch, by_graph = (predictions(each.together().predict_many(images)) for each in (in_torch, on_graph))
    # Features of a set are kept in half precision, whose last digit may fall otherwise.
    reach = max(float(np.ptp(prediction.anomaly_map)) for prediction in by_torch)
    for prediction, answer in zip(by_torch, by_graph, strict=True):
        assert abs(prediction.score - answer.score) <= 1e-4 * reach
        assert np.abs(prediction.anomaly_map - answer.anomaly_map).max() <= 1e-3 * reach


MAIN_JOB = """
import sys
from importlib.machinery import PathFinder

found = PathFinder.find_spec
hidden = {"torch", "tokenizers", "huggingface_hub"}
PathFinder.find_spec = lambda name, *where: None if name in hidden else found(name, *where)

import anomalens
assert not {"numpy", "onnxruntime", "scipy"} & set(sys.modules), "importing it is cheap"
from anomalens.cli import main
sys.argv[1:] = sys.stdin.read().split("|")
main()
"""


def without_pytorch(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a command in a process that cannot import PyTorch."""
    return subprocess.run(
        [sys.executable, "-c", MAIN_JOB],
        input="|".join(map(str, arguments)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_the_main_job_needs_no_pytorch(tmp_path: Path) -> None:
    part, words, taught = tmp_path / "part.anomalens", tmp_path / "words", tmp_path / "taught"
    for arguments in (
        ("detect", WASHERS[0], "--out", words, "--json"),
        ("fit", *WASHERS[2:], "--out", part),
        ("detect", WASHERS[1], "--recipe", part, "--out", taught, "--json"),
    ):
        ran = without_pytorch(*arguments)
        assert ran.returncode == 0, ran.stderr
    refused = without_pytorch("detect", WASHERS[0], "--method", "winclip", "--out", tmp_path / "other")
    assert refused.returncode == 2
    reason = "the method 'winclip' needs PyTorch, which is not installed; run: pip install 'anomalens[torch]'"
    assert reason in " ".join(refused.stderr.split())
    listed = without_pytorch("methods")
    assert "patchcore" in listed.stdout
    assert "the list of methods that go by words needs PyTorch" in " ".join(listed.stderr.split())
    assert "error: this command needs PyTorch" in without_pytorch("backbones").stderr
    assert json.loads((words / "run.json").read_text())["engine"] == "onnx"
    assert json.loads((taught / "predictions.jsonl").read_text())["label"] in ("normal", "anomalous")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"method": "winclip"}, "the method 'winclip'"),
        ({"backbone": "ViT-B-16"}, "the backbone 'ViT-B-16'"),
        ({"checkpoint": "mine.safetensors"}, "a checkpoint"),
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"device": "cuda"}, "the device 'cuda'"),
        ({"method_options": {"sigma": 2.0}}, "sigma=2.0"),
        ({"size": 32}, "a size of 32 pixels"),
        ({"extra_sizes": (8192,)}, "a size of 8192 pixels"),
    ],
)
def test_what_the_graph_cannot_do_is_done_by_pytorch_or_named(options: dict[str, Any], reason: str) -> None:
    assert light.graph_for(LoadOptions(**options)) == reason
    with pytest.raises(ConfigError, match=rf"the engine 'onnx' .* does not serve {reason}"):
        choice.load_engine(LoadOptions(engine="onnx", **options))


@pytest.mark.parametrize("options", [{"method": "winclip"}, {"engine": "torch"}])
def test_a_missing_pytorch_is_named_with_the_command_to_type(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("image_engine", "torch_engine"):
        monkeypatch.delitem(sys.modules, f"anomalens.engines.{name}", raising=False)
        monkeypatch.delattr(f"anomalens.engines.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"needs PyTorch, .* run: pip install 'anomalens\[torch\]'"):
        load_detector(**options)
    assert isinstance(load_detector().engine, LightEngine), "the default goes on"


def test_an_unknown_option_of_the_method_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"unknown option 'sigm' \(did you mean 'sigma'\?\)"):
        load_detector(sigm=2)
    assert isinstance(load_detector("anomalyclip", sigma=4.0, taps=(-1,)).engine, LightEngine), "asked for as it is"


def test_pytorch_computes_on_a_gpu_unless_another_engine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_has_gpu_for_torch", lambda: True)
    assert isinstance(load_detector().engine, TorchEngine)
    assert isinstance(load_detector(device="cpu").engine, LightEngine)
    assert isinstance(load_detector(engine="onnx").engine, LightEngine)


@pytest.mark.parametrize("name", [f"{DEFAULT}.onnx", "weights.safetensors"])
def test_a_damaged_or_missing_file_is_refused(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for file in (f"{DEFAULT}.onnx", "weights.safetensors", f"prompts/{DEFAULT}.safetensors"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copyfile(light.FOLDER / file, tmp_path / file)
    monkeypatch.setattr(light, "FOLDER", tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{name}: damaged.*reinstall anomalens"):
        load_detector()
    (tmp_path / name).unlink()
    with pytest.raises(WeightsError, match=rf"{name}: No such file"):
        load_detector()


def test_what_the_graph_computes_is_exported_from_pytorch(on_graph: Detector) -> None:
    words, taught = exporter._in_torch(on_graph), exporter._in_torch(on_graph.fit(WASHERS[2:]))
    assert isinstance(words.engine, TorchEngine)
    assert isinstance(taught.engine, TaughtEngine)
    assert isinstance(taught.engine.words, TorchEngine)
