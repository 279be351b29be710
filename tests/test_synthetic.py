"""The builder of synthetic weights gives the stored fingerprints, and the same numbers as the reference script."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import golden
import synthetic

METHODS = ("anoclip", "anomalyclip", "aprilgan", "crane", "winclip")


@pytest.mark.parametrize("method", METHODS)
def test_fingerprints(method: str) -> None:
    figures = golden.load(method)
    weights = synthetic.state_dict(figures["clip"])
    for name, first in figures["fingerprints"].items():
        np.testing.assert_allclose(weights[name].flatten()[:3].numpy(), first, rtol=0, atol=1e-7, err_msg=name)


@pytest.fixture(scope="session")
def reference(shared: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("synthetic_clip", shared / "golden" / "synthetic_clip.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_are_the_references(shared: Path) -> None:
    for method in METHODS:
        stored = (shared / "golden" / f"{method}.json").read_bytes()
        assert (golden.FOLDER / f"{method}.json").read_bytes() == stored, method


def test_weights_are_the_references(reference: ModuleType) -> None:
    cfg = golden.load("anoclip")["clip"] | {"vision_layers": 2, "text_layers": 1}
    expected = reference.state_dict(cfg)
    weights = synthetic.state_dict(cfg)
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        assert np.array_equal(weights[name].numpy(), value), name


def test_inputs_are_the_references(reference: ModuleType) -> None:
    normal = {"dist": "normal", "seed": 3, "shape": [2, 5], "scale": 2.0, "shift": 0.3}
    uniform = {"dist": "uniform", "seed": 4, "shape": [7], "low": -1.0, "high": 3.0}
    for rule in (normal, uniform):
        assert np.array_equal(synthetic.make(rule), reference.make(rule))
    made, expected = synthetic.prompts(seed=7, width=8), reference.prompts(seed=7, width=8)
    assert np.array_equal(made["ctx_pos"], expected["ctx_pos"])
    assert np.array_equal(made["ctx_neg"], expected["ctx_neg"])
    assert all(np.array_equal(a, b) for a, b in zip(made["deep"], expected["deep"], strict=True))
    rects = [[1, 4, 2, 6], None]
    assert np.array_equal(synthetic.masks(rects, 8), reference.masks(rects, 8))
    for pair in zip(synthetic.linear_stages(5, 4, 6), reference.linear_stages(5, 4, 6), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(*pair, strict=True))
    for mine_, theirs_ in (
        (synthetic.adapter_init(5, 4, 6), reference.adapter_init(5, 4, 6)),
        (synthetic.text_pair(5, 4, 6), reference.text_pair(5, 4, 6)),
    ):
        assert all(np.array_equal(a, b) for a, b in zip(mine_, theirs_, strict=True))
    assert np.array_equal(synthetic.token_noise(9, 2, [3, 4]), reference.token_noise(9, 2, (3, 4)))
    assert np.array_equal(synthetic.pad_ids([[1, 2], [3]]).numpy(), reference.pad_ids([[1, 2], [3]]))
    assert synthetic.digest(["a", "ü"]) == reference.digest(["a", "ü"])
    assert synthetic.digest(np.arange(6).reshape(2, 3)) == reference.digest(np.arange(6).reshape(2, 3))


def test_compare_judges_as_the_reference(reference: ModuleType) -> None:
    entry = golden.load("crane")["values"]["g"]
    size = int(np.prod(entry["shape"]))
    array = np.random.RandomState(0).standard_normal(entry["shape"])
    exact = {"shape": list(array.shape), "atol": 1e-3, "index": list(range(size)), "value": array.reshape(-1).tolist()}
    exact |= reference.stats(array)
    for candidate in (array, array + 5e-4, array + 5e-3, np.where(array == array.max(), np.nan, array), array[:1]):
        assert synthetic.compare(exact, candidate)[0] == reference.compare(exact, candidate)[0]
    assert synthetic.compare(exact, array)[0]
    assert not synthetic.compare(exact, array + 5e-3)[0]
