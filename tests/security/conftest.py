"""Fixtures shared by the tests against hostile input."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalens.backbones.tower import Clip
from anomalens.datasets.layouts import open_dataset
from anomalens.evaluation.evaluator import EvaluationConfig, evaluate
from commands import runner
from toys import make

run = pytest.fixture(runner)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four normal and four anomalous images with masks, in the layout of MVTec."""
    folder = tmp_path_factory.mktemp("data") / "nut"
    for part in ("test/good", "test/hole", "ground_truth/hole"):
        (folder / part).mkdir(parents=True)
    chance = np.random.default_rng(0)
    for number in range(4):
        # With a grain, because a plain sheet is no photograph to be judged.
        good, spot = (chance.integers(20, 60, (64, 64, 3), np.uint8) for _ in range(2))
        Image.fromarray(good).save(folder / "test" / "good" / f"{number}.png")
        spot[: 32 + number, :32] = 220
        Image.fromarray(spot).save(folder / "test" / "hole" / f"{number}.png")
        truth = (spot[..., 0] > 100).astype(np.uint8) * 255
        Image.fromarray(truth).save(folder / "ground_truth" / "hole" / f"{number}_mask.png")
    return folder.parent


@pytest.fixture(scope="session")
def evaluated(tiny_clip: Clip, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `evaluate` wrote."""
    out = tmp_path_factory.mktemp("evaluated")
    evaluate(make(tiny_clip), open_dataset(dataset), EvaluationConfig(size=32, gallery=1)).write(out)
    return out
