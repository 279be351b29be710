"""`anomalens calibrate`, and `detect --calibration`, from the outside."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import Command, Ran, runner


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_weights: Path) -> Command:
    command = runner(capsys, monkeypatch)
    fixed = ("--backbone", tiny_weights, "--method", "anoclip", "--size", 64)

    def with_fixed_flags(*arguments: object) -> Ran:
        return command(arguments[0], *fixed, *arguments[1:])

    return with_fixed_flags


@pytest.fixture
def normals(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0)
    (tmp_path / "normals").mkdir()
    for i in range(9):
        Image.fromarray(noise.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "normals" / f"{i}.png")
    return tmp_path / "normals"


def test_normals_to_rows_with_p_values(run: Command, normals: Path, tmp_path: Path) -> None:
    ran = run("calibrate", "--normals", normals, "--fpr", 0.1, "--out", tmp_path / "c.json")
    assert ran.code == 0, ran.err
    assert "with probability at most 0.1" in ran.out
    assert "exchangeable" in ran.out
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["made_from"]["n_normal"] == 9
    ran = run("detect", normals, "--calibration", tmp_path / "c.json", "--out", tmp_path / "out", "--maps", "npy")
    assert ran.code == 0, ran.err
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert sorted(row["p_value"] for row in rows) == pytest.approx([(i + 1) / 10 for i in range(1, 10)])
    assert {row["label"] for row in rows} == {"normal"}  # 0.1 of 10: the largest score itself is the threshold
    assert {row["threshold"] for row in rows} == {content["calibration"]["threshold"]}
    assert rows[0]["threshold_source"] == "9 normal images: at most 1 in 10 sound images is called anomalous"
    assert all(row["regions"] == [] for row in rows)


def test_a_threshold_given_by_hand_goes_first(run: Command, normals: Path, tmp_path: Path) -> None:
    run("calibrate", "--normals", normals, "--fpr", 0.1, "--out", tmp_path / "c.json")
    more = ("--calibration", tmp_path / "c.json", "--threshold", 0.25)
    assert run("detect", normals / "0.png", *more, "--out", tmp_path / "out").code == 0
    row = json.loads((tmp_path / "out" / "predictions.jsonl").read_text())
    assert (row["threshold"], row["threshold_source"]) == (0.25, "given by the user")
    assert 0 < row["p_value"] <= 1


def test_other_settings_are_refused(run: Command, normals: Path, tmp_path: Path) -> None:
    run("calibrate", "--normals", normals, "--fpr", 0.1, "--out", tmp_path / "c.json")
    calibrated = ("detect", normals, "--out", tmp_path / "out", "--calibration", tmp_path / "c.json")
    for change, reason in (
        (("--size", 32), "size was 64 then, 32 now"),
        (("--method", "winclip"), "method was anoclip then, winclip now"),
        (("--tile", 20), "--tile was not given then, 20 now"),
        (("--dtype", "bfloat16"), "dtype was float32 then, bfloat16 now"),
    ):
        ran = run(*calibrated, *change)
        assert ran.code == 2
        assert reason in ran.err.replace("\n", " ")
    ran = run("detect", normals, "--out", tmp_path / "out", "--calibration", tmp_path / "nothing.json")
    assert ran.code == 2
    assert "nothing.json" in ran.err


def test_too_few_normals(run: Command, normals: Path, tmp_path: Path) -> None:
    ran = run("calibrate", "--normals", normals, "--out", tmp_path / "c.json")
    assert ran.code == 2
    assert "--fpr 0.01 needs at least 99 normal images, found 9" in ran.err
    assert not (tmp_path / "c.json").exists()
    (normals / "8.png").write_bytes(b"")
    ran = run("calibrate", "--normals", normals, "--fpr", 0.1, "--out", tmp_path / "c.json")
    assert ran.code == 2
    assert "1 more could not be read" in ran.err.replace("\n", " ")


def test_labels(run: Command, normals: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "anomalous").mkdir(parents=True)
    normals.rename(data / "normal")
    faulty = np.random.default_rng(99).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    faulty[10:30, 10:30] = (255, 0, 0)
    Image.fromarray(faulty).save(data / "anomalous" / "a.png")
    for by in ("f1", "recall", "cost"):
        ran = run("calibrate", "--data", data, "--by", by, "--out", tmp_path / "c.json")
        assert ran.code == 0, ran.err
        assert "of 1 anomalous missed" in ran.out
        assert json.loads((tmp_path / "c.json").read_text())["made_from"]["rule"] == by


def test_wrong_usage(run: Command, normals: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    assert "either --normals" in run("calibrate", "--out", out).err
    assert "either --normals" in run("calibrate", "--normals", normals, "--data", normals, "--out", out).err
    photo = normals / "0.png"
    before = photo.read_bytes()
    assert "no image" in run("calibrate", "--normals", normals, "--fpr", 0.1, "--out", photo).err
    assert photo.read_bytes() == before
    assert "is no folder" in run("calibrate", "--normals", normals, "--out", tmp_path / "no" / "c.json").err
    assert "between 0 and 1" in run("calibrate", "--normals", normals, "--fpr", 3, "--out", out).err
    ran = run("calibrate", "--normals", normals, "--fpr", 0.1, "--out", tmp_path)
    assert ran.code == 2
    assert "cannot write" in ran.err
