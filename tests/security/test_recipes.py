"""Taught parts of strangers: tensors that do not belong together are refused in one line, before an image is seen."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from anomalens.detection.loading import load_detector
from anomalens.detection.recipe import _digest
from anomalens.errors import AnomalensError, ConfigError, WeightsError, one_line
from anomalens.untrusted import read_header
from parts import faulty_part
from security.recipes import taught_part, write_weights

Tensors = dict[str, Any]


def _half(values: Any) -> Any:
    return np.ascontiguousarray(values[..., : values.shape[-1] // 2])


CHANGES: dict[str, Callable[[Any], Any]] = {
    "half": _half,
    "flat": lambda values: values.reshape(-1),
    "empty": lambda values: values[:0],
    "scalar": lambda values: np.zeros((), values.dtype),
    "deep": lambda values: values[None, None, None],
    "NaN": lambda values: np.full(values.shape, np.nan, np.float32),
    "bool": lambda values: values.astype(bool),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


def _use(folder: Path, weights: Path, said: dict[str, Any], tensors: Tensors) -> None:
    """Read a recipe whose hash is that of its tensors, and look at an image with it."""
    path = folder / "a.anomalens"
    text = json.dumps(said | {"sha256": _digest(tensors)})
    path.write_bytes(save(tensors, {"format": "anomalens-recipe", "recipe": text}))
    load_detector(str(path), backbone=str(weights), device="cpu").predict(faulty_part(5))


def _parts() -> tuple[dict[str, Any], Tensors]:
    raw = taught_part()
    return json.loads(read_header(raw)["recipe"]), load(raw)


@pytest.mark.parametrize("change", CHANGES)
def test_tensors_that_do_not_belong_together(change: str, weights: Path, tmp_path: Path) -> None:
    said, tensors = _parts()
    _use(tmp_path, weights, said, tensors)
    refused = []
    for name, values in tensors.items():
        try:
            _use(tmp_path, weights, said, tensors | {name: CHANGES[change](values)})
        except AnomalensError as error:
            refused.append(one_line(error))
    # Some arrays may be changed so without harm.
    assert len(refused) >= 4


def test_a_part_of_another_width_throughout(weights: Path, tmp_path: Path) -> None:
    said, tensors = _parts()
    narrow = {name: _half(values) for name, values in tensors.items() if name.endswith(("rows", "descriptors.0"))}
    with pytest.raises(WeightsError, match="does not fit the features"):
        _use(tmp_path, weights, said, tensors | narrow)


@pytest.mark.parametrize("size", [10**9, 96, 0, -64])
def test_sizes_that_nothing_was_taught_at(size: int, weights: Path, tmp_path: Path) -> None:
    said, tensors = _parts()
    with pytest.raises((WeightsError, ConfigError)):
        _use(tmp_path, weights, said | {"options": said["options"] | {"size": size}}, tensors)
    renamed = {name.replace("64.", f"{size}.", 1): values for name, values in tensors.items()}
    moved = {"sizes": {str(size): said["sizes"]["64"]}, "options": said["options"] | {"size": size}}
    if size != 96:
        with pytest.raises((WeightsError, ConfigError)):
            _use(tmp_path, weights, said | moved, renamed)
