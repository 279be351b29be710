"""The shipped prompts belong to the shipped backbone; their recipe, in small."""

from pathlib import Path

import pytest

from anomalens.backbones.weights import load_weights
from anomalens.datasets.layouts import open_dataset
from anomalens.detection.loading import load_detector
from anomalens.learning.training import TrainingPlan
from anomalens.methods.parts import checkpoints
from anomalens.methods.parts.checkpoints import SHIPPED, read_checkpoint
from anomalens_lab import ship as shipped
from anomalens_lab.synthesis import HELD_OUT_FAMILIES
from toys import grey


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
    found = load_detector(checkpoint=path, backbone=str(tiny_weights)).predict(grey(90))
    assert found.method == "anomalyclip"


@pytest.mark.parametrize("method", shipped.METHODS)
def test_what_is_shipped_belongs_to_the_bundled_backbone(method: str) -> None:
    """Fails where the backbone's weights were changed and `anomalens_lab.ship` was not run again."""
    info = read_checkpoint(SHIPPED / f"{method}.safetensors").info
    assert (info.method, info.auxiliary_data) == (method, shipped.NAME)
    detector = load_detector(method, size=64)
    assert info.weights == detector.identity.weights
    assert 0 <= detector.predict(grey(90)).score <= 1
