"""The shipped prompts belong to the shipped backbone; their recipe, in small."""

from pathlib import Path

import numpy as np
import pytest

from anomalens.backbones.bundle import BUNDLED_FILE, read_bundle_info
from anomalens.backbones.weights import load_weights
from anomalens.datasets.layouts import open_dataset
from anomalens.detection.loading import load_detector
from anomalens.learning.training import TrainingPlan
from anomalens.methods.parts import checkpoints
from anomalens.methods.parts.checkpoints import SHIPPED, read_checkpoint
from anomalens_lab import ship as shipped
from anomalens_lab.synthesis import HELD_OUT_FAMILIES

GREY = np.full((64, 64, 3), 90, np.uint8)


def test_the_recipe_leaves_checkpoints_beside_the_backbone(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SHIPPED", tmp_path / "prompts")
    loaded = load_weights(tiny_weights)
    (info,) = shipped.ship(tmp_path, ["anomalyclip"], count=12, plan=TrainingPlan(epochs=1), backbone=loaded)
    assert (info.auxiliary_data, info.licence, info.weights) == (shipped.NAME, "Apache-2.0", loaded.hash)
    families = set(open_dataset(f"mvtec:{tmp_path / 'scenes'}").classes)
    assert families
    assert not families & set(HELD_OUT_FAMILIES)
    path = tmp_path / "prompts" / "anomalyclip.safetensors"
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    prediction = load_detector(checkpoint=path, backbone=str(tiny_weights)).predict(GREY)
    assert prediction.method == "anomalyclip"


def test_fewer_scenes_are_the_first_of_more(tmp_path: Path) -> None:
    """All methods share a folder, and what a method learns from does not depend on which one came first."""
    few = shipped.learned_from(tmp_path / "few", 3, 64)
    assert len(shipped.learned_from(tmp_path / "many", 5, 64)) == 5
    again = shipped.learned_from(tmp_path / "many", 3, 64)
    assert [sample.id for sample in again] == [sample.id for sample in few]


@pytest.mark.parametrize("method", shipped.METHODS)
def test_what_is_shipped_belongs_to_the_bundled_backbone(method: str) -> None:
    """Fails where the backbone's weights were changed and `ship` was not run again."""
    info = read_checkpoint(SHIPPED / f"{method}.safetensors").info
    assert (info.method, info.auxiliary_data) == (method, shipped.NAME)
    assert info.weights == read_bundle_info(BUNDLED_FILE).sha256
