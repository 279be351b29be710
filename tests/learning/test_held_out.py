"""What is held out of the auxiliary data is never learned from, and its numbers are those of evaluation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalens.backbones.weights import LoadedWeights, load_weights
from anomalens.datasets.layouts import Dataset, Sample, open_dataset
from anomalens.detection.loading import load_detector
from anomalens.errors import ConfigError
from anomalens.evaluation.evaluator import EvaluationConfig, evaluate
from anomalens.files import file_key
from anomalens.learning.held_out import split
from anomalens.learning.training import TrainingPlan, train
from anomalens.methods.parts.checkpoints import read_checkpoint


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Make one class, eight normal images and eight with a bright square."""
    root = tmp_path_factory.mktemp("held") / "scans"
    for number in range(16):
        image = np.random.default_rng(number).integers(60, 120, (64, 64, 3), np.uint8)
        folder = root / ("anomalous" if number % 2 else "normal")
        if number % 2:
            mask = np.zeros((64, 64), np.uint8)
            mask[2 * number : 20 + 2 * number, 10:40] = 255
            image[mask > 0] = 240
            (root / "masks").mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(root / "masks" / f"{number}.png")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    return open_dataset(f"folders:{root}")


@pytest.fixture(scope="module")
def loaded(tiny_weights: Path) -> LoadedWeights:
    return load_weights(tiny_weights)


def test_a_split_is_stratified_seeded_and_whole(dataset: Dataset) -> None:
    samples = list(dataset.samples())
    learned, held_out = split(samples, 0.25, 1)
    assert sorted(learned + held_out) == list(range(16))
    assert [sum(samples[i].label == label for i in held_out) for label in (0, 1)] == [2, 2]
    assert split(samples, 0.25, 1) == (learned, held_out)
    assert split(samples, 0.25, 2) != (learned, held_out)
    assert split(samples, 0.0, 1) == (list(range(16)), [])
    two = [replace(s, class_name="other") if i < 8 else s for i, s in enumerate(samples)]
    assert len({samples[i].label for i in split(two, 0.25, 1)[1]}) == 2


def test_a_share_that_leaves_no_image_is_refused(dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="leaves no"):
        split(list(dataset.samples()), 0.01, 0)


def test_metrics_are_those_of_evaluation_on_the_same_images(
    dataset: Dataset, loaded: LoadedWeights, tiny_weights: Path, tmp_path: Path
) -> None:
    samples, out = list(dataset.samples()), tmp_path / "x.safetensors"
    plan = TrainingPlan(epochs=2, hold_out=0.5, seed=4)
    info = train("anomalyclip", samples, loaded, out, auxiliary_data="a", plan=plan, cache=tmp_path / "cache")
    _, held_out = split(samples, 0.5, 4)
    kept: list[Sample] = [samples[i] for i in held_out]
    checkpoint = read_checkpoint(out)
    assert len(checkpoint.images) == info.training["images"] == 8
    assert not checkpoint.images & {file_key(s.image) for s in kept}
    part = replace(dataset, classes={"scans": tuple(kept)})
    detector = load_detector(checkpoint=out, backbone=str(tiny_weights), batch_size=1)
    evaluated = evaluate(detector, part, EvaluationConfig(size=64, gallery=0)).classes["scans"]
    measured = info.metrics["held_out"]
    assert measured["image_auroc"] == pytest.approx(evaluated["image_auroc"], abs=1.0)
    assert measured["pixel_auroc"] == pytest.approx(evaluated["pixel_auroc"], abs=1.0)
    assert checkpoint.info.metrics == info.metrics


def test_what_is_held_out_changes_nothing_of_what_is_learned(
    dataset: Dataset, loaded: LoadedWeights, tmp_path: Path
) -> None:
    """Other pixels in the held-out images, the same parameters."""
    samples = list(dataset.samples())
    _, held_out = split(samples, 0.5, 111)
    other = {s.image: tmp_path / f"{i}.png" for i, s in enumerate(samples) if i in held_out}
    for path in other.values():
        Image.new("RGB", (64, 64), (200, 20, 20)).save(path)
    changed = [replace(s, image=other.get(s.image, s.image)) for s in samples]
    learned = []
    for name, part in (("one", samples), ("two", changed)):
        out = tmp_path / f"{name}.safetensors"
        plan = TrainingPlan(epochs=1, hold_out=0.5)
        train("anomalyclip", part, loaded, out, auxiliary_data="a", plan=plan, cache=tmp_path / "cache")
        learned.append(read_checkpoint(out).learned)
    assert all(torch.allclose(value, learned[1][name], atol=1e-6) for name, value in learned[0].items())
