"""A folder compared with itself from the command line: `detect --method musc`, `--together`, `fit --mixed`."""

import json
from pathlib import Path

import pytest
from PIL import Image

from commands import Command, runner
from toys import parts


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    return runner(capsys, monkeypatch)


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    folder = tmp_path / "shots"
    folder.mkdir()
    for number, image in enumerate(parts(12, faulty=[4])):
        Image.fromarray(image).save(folder / f"{number:02d}.png")
    return folder


def test_a_folder_is_compared_with_itself(run: Command, shots: Path, tiny_weights: Path, tmp_path: Path) -> None:
    flags = ("--backbone", tiny_weights, "--size", 64, "--out", "out")
    ran = run("detect", shots, "--method", "musc", *flags)
    assert ran.code == 0, ran.err
    assert "12 images are compared with each other" in ran.err
    assert "from the 12 images of this set" in ran.out
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert {row["method"] for row in rows} == {"musc"}
    assert max(rows, key=lambda row: row["score"])["path"] == str(shots / "04.png")
    again = run("detect", shots, "--together", "yes", *flags, "--resume")
    assert again.code == 0, again.err
    (shots / "11.png").unlink()
    ran = run("detect", shots, "--method", "musc", *flags, "--resume")
    assert ran.code == 2
    assert "cannot resume" in ran.err


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--method", "musc", "--engine", "ray"), "musc compares every image with others of the whole set"),
        (("--together", "yes", "--engine", "ray"), "--engine ray hands images to workers that never see the whole set"),
        (("--method", "musc", "--tile", 32), "not tiles"),
        (("--method", "musc", "--set", "views=1"), "unknown option 'views'"),
    ],
)
def test_what_does_not_fit_is_refused(
    run: Command, shots: Path, tiny_weights: Path, flags: tuple[object, ...], reason: str
) -> None:
    ran = run("detect", shots, "--backbone", tiny_weights, "--size", 64, "--out", "out", *flags)
    assert ran.code == 2
    assert reason in ran.err


def test_other_commands_refuse_it(run: Command, shots: Path, tiny_weights: Path) -> None:
    flags = ("--method", "musc", "--backbone", tiny_weights, "--size", 64)
    ran = run("calibrate", "--normals", shots, "--fpr", 0.1, "--out", "line.json", *flags)
    assert ran.code == 2
    assert "no calibration carries over" in ran.err
    ran = run("export", "--out", "model.onnx", *flags)
    assert ran.code == 2
    assert "export another method" in ran.err
    ran = run("fit", shots, "--out", "part.anomalens", *flags)
    assert ran.code == 2
    assert "learns nothing" in ran.err


def test_a_part_is_learned_from_an_unsorted_folder(run: Command, shots: Path, tiny_weights: Path) -> None:
    flags = ("--backbone", tiny_weights, "--size", 64, "--method", "anoclip", "--out", "part.anomalens")
    ran = run("fit", shots, "--mixed", *flags)
    assert ran.code == 0, ran.err
    assert f"left out: {shots / '04.png'}: unlike the others" in ran.err
    assert "provided that those chosen from the unlabelled photos are all sound" in ran.out
    (shots / "04.png").unlink()
    ran = run("fit", shots, "--mixed", *flags)
    assert "none of the 11 photos is unlike the others" in ran.err
    ran = run("fit", shots, "--mixed", "--add", *flags)
    assert ran.code == 2
    assert "--add takes good photos only" in ran.err


def test_it_is_listed(run: Command) -> None:
    listed = {row["name"]: row["learns"] for row in json.loads(run("methods", "--json").out)}
    assert listed["musc"] == "nothing, compares a folder"
    assert listed["memory"] == "good photos"
