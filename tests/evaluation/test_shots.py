"""Classes taught from a few good photographs before they are measured: what is drawn, what is told of it."""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalens.datasets.layouts import open_dataset
from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector
from anomalens.errors import ConfigError, InputError
from anomalens.evaluation.evaluator import EvaluationConfig, evaluate, steps
from anomalens.evaluation.shots import draw, draws
from anomalens.evaluation.stored import read_evaluation
from anomalens.metrics.summary import SUMMARY_KEYS
from anomalens.reporting.evaluation_page import write_report
from parts import SIDE, faulty_part, good_part


@pytest.fixture(scope="module")
def detector(tiny_weights: Path) -> Detector:
    return load_detector("anoclip", str(tiny_weights), size=64)


def part(root: Path, name: str, train: int = 0, normal: int = 3, faulty: int = 2) -> Path:
    """Write a class of MVTec's layout: training photographs are numbered from 0, those of the test from 100 on."""
    folder = root / name
    for place, numbers, photo in (
        ("train/good", range(train), good_part),
        ("test/good", range(100, 100 + normal), good_part),
        ("test/hole", range(200, 200 + faulty), faulty_part),
    ):
        (folder / place).mkdir(parents=True)
        for number in numbers:
            Image.fromarray(photo(number)).save(folder / place / f"{number}.png")
    (folder / "ground_truth" / "hole").mkdir(parents=True)
    for number in range(200, 200 + faulty):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[96:104, 50:90] = 255
        Image.fromarray(mask).save(folder / "ground_truth" / "hole" / f"{number}_mask.png")
    return root


def config(shots: int = 2, draws: int = 1, **more: Any) -> EvaluationConfig:
    return EvaluationConfig(size=32, gallery=1, shots=shots, draws=draws, **more)


def test_training_images_are_drawn_without_replacement_by_seed(tmp_path: Path) -> None:
    samples = open_dataset(part(tmp_path, "nut", train=9)).classes["nut"]
    chosen = draws(samples, 4, 3)
    assert [each.seed for each in chosen] == [0, 1, 2]
    for each in chosen:
        names = [sample.id for sample in each.photos]
        assert len(set(names)) == 4
        assert all(name.startswith("nut/train/good/") for name in names)
        assert [sample.split for sample in each.tests] == ["test"] * 5
    assert len({each.photos for each in chosen}) == 3
    assert chosen == draws(samples, 4, 3)


def test_without_training_images_normals_leave_the_test(tmp_path: Path) -> None:
    samples = open_dataset(part(tmp_path, "nut", normal=5)).classes["nut"]
    chosen = draw(samples, 3, seed=1)
    assert all(sample.id.startswith("nut/test/good/") for sample in chosen.photos)
    assert len(chosen.tests) == 2 + 2
    assert not set(chosen.photos) & set(chosen.tests)
    with pytest.raises(InputError, match="5 normal test images, too few to learn from 6"):
        draw(samples, 6, seed=0)


def test_means_and_deviations_over_draws(detector: Detector, tmp_path: Path) -> None:
    data = open_dataset(part(part(tmp_path / "in", "bolt", train=5), "nut", normal=6))
    seen: list[int] = []
    settings = config(shots=3, draws=3)
    evaluation = evaluate(detector, data, settings, progress=lambda: seen.append(1), fit_options={"turns": 1})
    assert len(seen) == steps(data, settings) == 3 * (3 + 5) + 3 * (3 + 3 + 2)
    assert evaluation.method == "anoclip + memory"
    content = evaluation.to_dict()
    for name, normal in (("bolt", 3), ("nut", 3)):
        row, by_draw = content["classes"][name], evaluation.by_draw[name]
        assert (row["n_normal"], row["n_anomalous"]) == (normal, 2)
        for key in SUMMARY_KEYS:
            values = [float(numbers[key] or 0) for numbers in by_draw]
            assert row[key] == pytest.approx(mean(values))
            assert row[f"{key}_std"] == pytest.approx(stdev(values))
        assert sum(row["decisions"].values()) == pytest.approx(normal + 2)
        taught = content["taught"][name]
        assert [entry["seed"] for entry in taught] == [0, 1, 2]
        assert all(len(entry["photos"]) == 3 and entry["options"]["turns"] == 1 for entry in taught)
    assert content["mean_std"].keys() == content["mean"].keys()
    assert (content["protocol"]["shots"], content["protocol"]["draws"]) == (3, 3)
    assert [row.draw for row in evaluation.rows].count(2) == 10
    evaluation.write(tmp_path / "out")
    assert read_evaluation(tmp_path / "out").rows == evaluation.rows
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == json.loads(json.dumps(content))
    columns = (tmp_path / "out" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert "image_auroc_std" in columns
    assert "false_alarms" in columns
    page = write_report(tmp_path / "out").read_text(encoding="utf-8")
    assert "taught from 3 good photos drawn at random, 3 times" in page
    assert f"{len({row.path for row in evaluation.rows})} images in 2 classes" in page
    assert "±" in page
    assert '<h2 id="decisions">' in page


def test_a_class_that_cannot_be_taught_is_a_row_with_the_reason(detector: Detector, tmp_path: Path) -> None:
    root = part(part(part(tmp_path / "in", "bolt", normal=0), "nut", train=3), "washer", train=2)
    for path in (root / "washer" / "train" / "good").iterdir():
        Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(path)
    evaluation = evaluate(detector, open_dataset(root), config(shots=2))
    content = evaluation.to_dict()
    assert list(content["classes"]) == ["nut", "bolt", "washer"]
    assert content["classes"]["bolt"]["reason"] == "0 normal test images, too few to learn from 2"
    assert content["classes"]["bolt"]["image_auroc"] is None
    assert "black" in content["classes"]["washer"]["reason"]
    assert content["mean"]["image_auroc"] == content["classes"]["nut"]["image_auroc"]
    assert content["classes"]["nut"]["image_auroc_std"] is None, "one draw says nothing of deviations"
    evaluation.write(tmp_path / "out")
    lines = (tmp_path / "out" / "metrics.csv").read_text().splitlines()
    assert lines[0].endswith(",reason")
    assert any("too few to learn from 2" in line for line in lines)
    assert "too few to learn from 2" in write_report(tmp_path / "out").read_text(encoding="utf-8")


def test_no_class_can_be_taught(detector: Detector, tmp_path: Path) -> None:
    evaluation = evaluate(detector, open_dataset(part(tmp_path / "in", "nut", normal=1)), config(shots=4))
    evaluation.write(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert content["classes"]["nut"]["reason"].startswith("1 normal test images")
    assert set(content["mean"].values()) == {None}
    assert "too few" in write_report(tmp_path / "out").read_text(encoding="utf-8")


def test_class_names_and_reference_methods(detector: Detector, tmp_path: Path, tiny_weights: Path) -> None:
    data = open_dataset(part(tmp_path, "nut", train=3))
    weights = {"words_weight": 0.0, "map_words_weight": 0.0}
    evaluation = evaluate(detector, data, config(class_names=True), fit_options=weights)
    assert evaluation.method == "memory"
    assert evaluation.protocol["prompts"]["object"] == "class name"
    other = load_detector("anomalydino", str(tiny_weights), size=64)
    assert "anomalydino" in evaluate(other, data, config()).method


def test_a_taught_part_is_measured_as_it_is(detector: Detector, tmp_path: Path) -> None:
    data = open_dataset(part(tmp_path, "nut", train=3))
    taught = detector.fit([good_part(number) for number in range(3)])
    evaluation = evaluate(taught, data, EvaluationConfig(size=32))
    assert evaluation.method == "anoclip + memory"
    assert "taught" not in evaluation.to_dict()
    evaluation.write(tmp_path / "out")
    assert "(3 good photos: at most 1 in 4 sound images" in write_report(tmp_path / "out").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="measured as it is"):
        evaluate(taught, data, config())
    flattering = detector.fit([good_part(number) for number in (1, 100, 101)])
    with pytest.raises(ConfigError, match="2 of 5 test images are among the 3 photos"):
        evaluate(flattering, data, EvaluationConfig(size=32))
    evaluate(flattering, data, EvaluationConfig(size=32, allow_same_data=True))


@pytest.mark.parametrize(
    ("changes", "reason"), [({"shots": -1}, "shots"), ({"draws": 0}, "draws"), ({"shots": 1.5}, "shots")]
)
def test_numbers_that_make_no_sense(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        EvaluationConfig(**changes)
