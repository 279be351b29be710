"""What photographs taught, as a graph: the memory is carried as constants, and the file says what the detector says."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anomalens.backbones.bundle import save_bundle
from anomalens.backbones.config import ClipConfig, TextConfig, VisionConfig
from anomalens.backbones.tower import Clip
from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector
from anomalens.errors import ConfigError
from anomalens.export.exporter import LIMIT, export
from exports import one_export_each
from parts import coloured_part, part_with_square
from toys import predictions

SIDE = 64
GOOD = [coloured_part(number) for number in range(3)]
IMAGES = [part_with_square(7), GOOD[1], coloured_part(9)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write a tower of two blocks for 4 x 4 patches: tracing takes as long as there are blocks."""
    torch.manual_seed(0)
    vision = VisionConfig(image_size=SIDE, patch=16, width=64, layers=2, heads=1)
    clip = Clip(ClipConfig(vision, TextConfig(32, 1, 1), joint=32, activation="gelu")).eval().requires_grad_(False)
    path = tmp_path_factory.mktemp("weights") / "two.safetensors"
    save_bundle(path, clip, licence="none", version="0")
    return str(path)


@pytest.fixture(scope="module")
def teach(weights: str) -> Any:
    """Teach by each method once."""

    @cache
    def taught(name: str) -> Detector:
        return load_detector(name, weights, size=SIDE).fit(GOOD, turns=1)

    return taught


@pytest.fixture(scope="module", autouse=True)
def _one_export_a_method() -> Iterator[None]:
    """Export once for both formats."""
    with one_export_each(lambda network: type(network.reference)):
        yield


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("name", ["auto", "anomalydino"])
def test_a_taught_part_is_the_same_from_a_file(teach: Any, tmp_path: Path, name: str, suffix: str) -> None:
    pytest.importorskip("onnxruntime" if suffix == ".onnx" else "openvino")
    taught, out = teach(name), tmp_path / f"part{suffix}"
    report = export(taught, out, IMAGES)
    assert report.passed
    assert max(report.difference.map, report.difference.score) <= LIMIT
    other = load_detector(str(out), batch_size=2)
    assert other.settings == taught.settings
    images = predictions(taught.predict(IMAGES))
    # Of the range of all maps: what is joined with words is in deviations, hundreds of them where a part is black.
    bound = 1e-5 * max(1.0, *(float(np.ptp(image.anomaly_map)) for image in images))
    for expected, result in zip(images, predictions(other.predict(IMAGES)), strict=True):
        assert (result.label, result.threshold, result.method) == (expected.label, expected.threshold, expected.method)
        assert result.score == pytest.approx(expected.score, abs=bound)
        np.testing.assert_allclose(result.anomaly_map, expected.anomaly_map, atol=bound)
    assert predictions(other.predict(IMAGES))[0].label == "anomalous"
    # What is unlike anything that was taught is not judged by a file either.
    noise = np.random.default_rng(0).integers(0, 256, GOOD[0].shape, dtype=np.uint8)
    assert other.predict(noise).label == taught.predict(noise).label == "unusable"


def test_a_file_learns_nothing(teach: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    export(teach("anomalydino"), tmp_path / "part.onnx", IMAGES)
    with pytest.raises(ConfigError):
        load_detector(str(tmp_path / "part.onnx")).fit(GOOD)


def test_further_sizes_are_refused(weights: str, tmp_path: Path) -> None:
    taught = load_detector("memory", weights, size=SIDE, extra_sizes=(80,)).fit(GOOD, turns=1)
    with pytest.raises(ConfigError, match="at the one size it was taught at"):
        export(taught, tmp_path / "part.onnx", IMAGES)
