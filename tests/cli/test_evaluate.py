"""`anomalens evaluate` from the outside."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import Command, runner


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_weights: Path) -> Command:
    command = runner(capsys, monkeypatch)
    fixed = ("--backbone", tiny_weights, "--method", "anoclip", "--size", 64, "--eval-size", 32)
    return lambda *arguments: command("evaluate", *fixed, *arguments)


def folder(root: Path, images: int = 2, masks: bool = True) -> Path:
    noise = np.random.default_rng(0)
    for label in ("normal", "anomalous"):
        (root / label).mkdir(parents=True)
        for i in range(images):
            Image.fromarray(noise.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(root / label / f"{label}{i}.png")
    if masks:
        (root / "masks").mkdir()
        for i in range(images):
            marked = np.zeros((40, 40), np.uint8)
            marked[:9, :9] = 255
            Image.fromarray(marked).save(root / "masks" / f"anomalous{i}.png")
    return root


def test_one_data_set(evaluate: Command, tmp_path: Path) -> None:
    ran = evaluate("--data", f"folders:{folder(tmp_path / 'in')}", "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (content["dataset"], content["method"]) == ("in", "anoclip")
    assert content["protocol"]["weights"]
    assert content["protocol"]["image_size"] == 64
    assert "image auroc" in ran.out
    assert "2 normal, 2 anomalous (2 with mask)" in ran.err
    for name in ("metrics.csv", "scores.parquet", "report.json"):
        assert (tmp_path / "out" / name).is_file()


def test_several_data_sets_have_a_folder_each(evaluate: Command, tmp_path: Path) -> None:
    first, second = folder(tmp_path / "a" / "x"), folder(tmp_path / "b" / "x", masks=False)
    ran = evaluate("--data", first, "--data", second, "--out", tmp_path / "out", "--gallery", 0)
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["00-x", "01-x"]
    content = json.loads((tmp_path / "out" / "01-x" / "metrics.json").read_text())
    assert content["mean"]["pixel_auroc"] is None
    assert not (tmp_path / "out" / "00-x" / "gallery").exists()
    lines = [line.split("\t")[:2] for line in ran.out.splitlines()]
    rows = [[data, name] for data in ("00-x", "01-x") for name in ("x", "mean")]
    assert lines == [["data set", "class"], *rows], "a pipe gets one table"


def test_strict_refuses_faults_and_otherwise_they_are_said(evaluate: Command, tmp_path: Path) -> None:
    (folder(tmp_path / "in") / "masks" / "anomalous1.png").unlink()
    ran = evaluate("--data", tmp_path / "in", "--out", tmp_path / "out", "--strict")
    assert ran.code == 2
    assert "missing_mask" in ran.err
    assert not (tmp_path / "out").exists()
    ran = evaluate("--data", tmp_path / "in", "--out", tmp_path / "out")
    assert ran.code == 0
    assert "1 x missing_mask" in ran.err


def test_failed_images_show_in_the_exit_status(evaluate: Command, tmp_path: Path) -> None:
    path = folder(tmp_path / "in") / "normal" / "normal0.png"
    path.write_bytes(path.read_bytes()[:200])
    ran = evaluate("--data", tmp_path / "in", "--out", tmp_path / "out")
    assert ran.code == 1
    assert "1 images failed" in ran.err
    assert "normal0.png" in ran.err
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["protocol"]["failed_images"] == 1


def test_what_cannot_be_measured_is_said_first(evaluate: Command, tmp_path: Path) -> None:
    good = folder(tmp_path / "good")
    flat = tmp_path / "flat"
    flat.mkdir()
    (good / "normal" / "normal0.png").rename(flat / "a.png")
    ran = evaluate("--data", good, "--data", flat, "--out", tmp_path / "out")
    assert ran.code == 2
    assert "no labelled test image" in ran.err
    assert not (tmp_path / "out").exists()
    assert evaluate("--data", good, "--out", tmp_path / "out", "--limit", 2).code == 2
    (tmp_path / "file").write_text("")
    ran = evaluate("--data", good, "--out", tmp_path / "file")
    assert ran.code == 2
    assert "choose another --out" in ran.err
    ran = evaluate("--data", f"imagenet:{good}", "--out", tmp_path / "out")
    assert ran.code == 2
    assert "is not a layout" in ran.err


def test_few_shots(evaluate: Command, tmp_path: Path) -> None:
    folder(tmp_path / "in" / "nut", images=4)
    (tmp_path / "in" / "bolt" / "normal").mkdir(parents=True)
    folder(tmp_path / "bolt", images=2)
    for label in ("normal", "anomalous"):
        shutil.copytree(tmp_path / "bolt" / label, tmp_path / "in" / "bolt" / label, dirs_exist_ok=True)
    out = tmp_path / "out"
    ran = evaluate(
        "--data", f"folders:{tmp_path / 'in'}", "--out", out, "--shots", 3, "--draws", 2, "--set", "turns=1", "--set",
        "views=1",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    content = json.loads((out / "metrics.json").read_text())
    assert content["method"] == "anoclip + memory"
    nut = content["classes"]["nut"]
    assert (nut["n_normal"], nut["n_anomalous"]) == (1, 4)
    assert nut["image_auroc_std"] is not None
    assert set(nut["decisions"]) == {"found", "missed", "false_alarms", "passed", "unusable"}
    assert sum(nut["decisions"].values()) == 5
    assert [len(entry["photos"]) for entry in content["taught"]["nut"]] == [3, 3]
    assert content["protocol"]["prompts"]["options"]["views"] == 1
    assert "too few" in content["classes"]["bolt"]["reason"]
    assert "not measured: bolt: 2 normal test images, too few to learn from 3" in ran.err
    assert "±" in ran.out
    assert "found" in ran.out
    shown = evaluate("--data", tmp_path / "in", "--out", out, "--shots", 3, "--json")
    rows = json.loads(shown.out)
    assert [row["class"] for row in rows] == ["nut", "bolt", "mean"]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--draws", 3), "--shots"),
        (("--shots", 0), "shots"),
        (("--shots", 2, "--draws", 0), "draws"),
        (("--shots", 2, "--recipe", "nut.anomalens"), "give one of them"),
        (("--shots", 2, "--set", "nonsense=1"), "memory with anoclip has"),
        (("--recipe", "nut.anomalens"), "no such file"),
    ],
)
def test_wrong_usage_of_shots(evaluate: Command, tmp_path: Path, flags: tuple[object, ...], reason: str) -> None:
    ran = evaluate("--data", folder(tmp_path / "in"), "--out", tmp_path / "out", *flags)
    assert ran.code == 2
    assert reason in ran.err
    assert not (tmp_path / "out" / "metrics.json").exists()
