"""`anomalens train` and `anomalens import-checkpoint` from the outside: what is learned is what `detect` then uses."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import published_files
from anomalens.backbones.tower import Clip
from anomalens.cli.app import app
from anomalens.errors import ConfigError, WeightsError
from anomalens.learning.run_files import RunFiles
from anomalens.methods.parts.checkpoints import read_checkpoint


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Grey noise, half of the images with a bright square, in the layout `folders`."""
    root = tmp_path / "My Scans"
    for number in range(6):
        image = np.random.default_rng(number).integers(60, 120, (64, 64, 3), np.uint8)
        mask = np.zeros((64, 64), np.uint8)
        if number % 2:
            mask[10:40, 8 * number : 20 + 8 * number] = 255
            image[mask > 0] = 250
            (root / "masks").mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(root / "masks" / f"{number}.png")
        folder = root / ("anomalous" if number % 2 else "normal")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def learn(data: Path, weights: Path, out: Path, *more: object) -> Result:
    fixed = ("train", "anomalyclip", "--data", f"folders:{data}", "--backbone", weights, "--out", out)
    return run(*fixed, "--epochs", 2, "--device", "cpu", "--set", "n_ctx=5", *more)


def test_train_then_detect_then_evaluate(data: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "learned.safetensors"
    result = learn(data, tiny_weights, out, "--licence", "CC0-1.0", "--seed", 3)
    assert result.exit_code == 0, result.output
    assert "learned from My Scans" in result.stdout
    assert "3 normal, 3 anomalous" in result.stderr
    assert "keeping features in" in result.stderr
    assert "epoch 2 of 2: loss" in result.stderr
    info = read_checkpoint(out).info
    assert (info.method, info.licence, info.seed, info.config["n_ctx"]) == ("anomalyclip", "CC0-1.0", 3, 5)

    detector_flags = ("--checkpoint", out, "--backbone", tiny_weights)
    detected = run("detect", data / "normal", *detector_flags, "--out", tmp_path / "found")
    assert detected.exit_code == 0, detected.output
    assert json.loads((tmp_path / "found" / "run.json").read_text())["settings"]["method"] == "anomalyclip"

    def measure(folder: Path, *more: str) -> Result:
        return run(
            "evaluate",
            "--data",
            f"folders:{folder}",
            *detector_flags,
            "--out",
            tmp_path / "numbers",
            "--eval-size",
            64,
            *more,
        )

    assert isinstance(measure(data).exception, ConfigError)
    renamed = data.rename(tmp_path / "another")
    refused = measure(renamed)
    assert isinstance(refused.exception, ConfigError)
    assert "6 of 6 test images were trained on" in str(refused.exception)
    allowed = measure(renamed, "--allow-same-data")
    assert allowed.exit_code == 0, allowed.output


def test_a_stopped_run_says_how_it_goes_on(
    data: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "learned.safetensors"
    with monkeypatch.context() as patched:
        patched.setattr(RunFiles, "draw", stop)
        stopped = learn(data, tiny_weights, out)
    assert stopped.exit_code == 130
    assert "the same command goes on" in stopped.stderr
    again = learn(data, tiny_weights, out)
    assert again.exit_code == 0, again.output
    assert "epoch 1 of 2" not in again.stderr
    assert "epoch 2 of 2" in again.stderr


def test_other_processes_are_silent(
    data: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    result = learn(data, tiny_weights, tmp_path / "learned.safetensors")
    assert result.exit_code == 0, result.output
    assert result.output == ""


def test_wrong_names(data: Path, tiny_weights: Path, tmp_path: Path) -> None:
    for result in (
        learn(data, tiny_weights, tmp_path / "learned.pth"),
        run("import-checkpoint", tmp_path / "x.pth", "--method", "crane", "--out", tmp_path / "y.pth"),
    ):
        assert isinstance(result.exception, ConfigError)
        assert "a checkpoint is a .safetensors file" in str(result.exception)
    missing = run("import-checkpoint", tmp_path / "x.pth", "--method", "crane", "--out", tmp_path / "y.safetensors")
    assert isinstance(missing.exception, WeightsError)


def test_published_prompts_become_a_checkpoint(tiny_clip: Clip, tiny_weights: Path, tmp_path: Path) -> None:
    content = published_files.prompts(tiny_clip.text.token_embedding.weight.detach(), projections=True)
    path = published_files.saved(tmp_path / "epoch_15.pth", content)
    out = tmp_path / "imported.safetensors"
    refused = run("import-checkpoint", path, "--method", "crane", "-o", out)
    assert "its content is that of anomalyclip, not of 'crane'" in str(refused.exception)
    result = run("import-checkpoint", path, "-o", out, "--name", "visa")
    assert result.exit_code == 0, result.output
    assert "anomalyclip for text width 64" in result.stdout.replace("\n", " ")
    assert "trained on visa" in result.stdout.replace("\n", " ")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    used = run(
        "detect", tmp_path / "a.png", "--checkpoint", out, "--backbone", tiny_weights, "--out", tmp_path / "found"
    )
    assert used.exit_code == 0, used.output


def test_the_package_runs_as_a_module() -> None:
    ran = subprocess.run([sys.executable, "-m", "anomalens", "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("anomalens ")
