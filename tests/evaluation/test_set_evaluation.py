"""Measuring a method that compares images: each class's test folder is one set."""

from pathlib import Path

import numpy as np
from PIL import Image

from anomalens.datasets.layouts import open_dataset
from anomalens.evaluation.evaluator import EvaluationConfig, evaluate
from toys import make_patches, parts


def write(root: Path, name: str, faulty: int, sound: int, seed: int) -> None:
    """Write a class in the layout of MVTec AD."""
    mask = np.zeros((64, 64), np.uint8)
    mask[16:32, 40:56] = 255
    for number, image in enumerate(parts(faulty + sound, faulty=range(faulty), seed=seed)):
        kind = "square" if number < faulty else "good"
        for folder, picture in (("test", image), ("ground_truth", mask)):
            if (folder, kind) != ("ground_truth", "good"):
                path = root / name / folder / kind / f"{number}{'_mask' if folder == 'ground_truth' else ''}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)


def test_each_class_is_a_set_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "bolt", faulty=2, sound=9, seed=0)
    write(tmp_path, "nut", faulty=1, sound=8, seed=1)
    write(tmp_path, "lonely", faulty=1, sound=0, seed=2)
    detector = make_patches().together(windows=(1,))
    result = evaluate(detector, open_dataset(f"mvtec:{tmp_path}"), EvaluationConfig(size=64, gallery=0))
    for name in ("bolt", "nut"):
        assert result.classes[name]["image_auroc"] == 100
        assert (result.classes[name]["pixel_auroc"] or 0) > 98
    assert result.method == "brightness + musc"
    # One image cannot be compared: it has a row with the reason, and the others are measured all the same.
    (failed,) = result.failed
    assert failed.class_name == "lonely"
    assert "takes at least 2" in (failed.error or "")
    sources = {row.class_name for row in result.rows if row.decision == "anomalous"}
    assert sources == {"bolt", "nut"}
