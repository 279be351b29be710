"""`anomalens data ...` from the outside."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalens.datasets.layouts import open_dataset
from commands import Command, runner


@pytest.fixture
def data(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    command = runner(capsys, monkeypatch)
    return lambda *arguments: command("data", *arguments)


def picture(path: Path, marked: bool = False, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[0, 0] = 255 if marked else 0
    Image.fromarray(pixels).save(path)
    return path


def whole(root: Path) -> Path:
    picture(root / "part" / "test" / "good" / "0.png")
    picture(root / "part" / "test" / "hole" / "1.png")
    picture(root / "part" / "ground_truth" / "hole" / "1_mask.png", marked=True)
    return root


def test_list_names_every_benchmark(data: Command) -> None:
    ran = data("list")
    assert ran.code == 0
    for word in ("mvtec", "TN3K", "elpv", "CC BY-NC-SA 4.0", "467/1258"):
        assert word in ran.out


def test_list_one_says_where_to_get_it(data: Command) -> None:
    ran = data("list", "MVTec-AD")
    assert ran.code == 0
    assert "https://www.mvtec.com" in ran.out
    assert "bottle, cable" in ran.out
    ran = data("list", "imagenet")
    assert ran.code == 2
    assert "not in the catalogue" in ran.err


def test_check_a_whole_set(data: Command, tmp_path: Path) -> None:
    ran = data("check", f"mvtec:{whole(tmp_path)}")
    assert ran.code == 0, ran.err
    assert "no fault found" in ran.out
    assert "1 normal, 1 anomalous (1 with mask)" in ran.out


def test_check_reports_faults_with_count_and_examples(data: Command, tmp_path: Path) -> None:
    whole(tmp_path)
    for number in range(2, 10):
        picture(tmp_path / "part" / "test" / "hole" / f"{number}.png")
    picture(tmp_path / "part" / "ground_truth" / "hole" / "2_mask.png", marked=True, size=(9, 9))
    ran = data("check", tmp_path, "--examples", 2)
    assert ran.code == 1
    assert "7 x missing_mask" in ran.out
    assert "... and 5 more" in ran.out
    assert "mask is 9 x 9, image '2.png' is 6 x 4" in ran.out


def test_check_deep_reads_what_masks_say(data: Command, tmp_path: Path) -> None:
    picture(whole(tmp_path) / "part" / "ground_truth" / "hole" / "1_mask.png", marked=False)
    assert data("check", tmp_path).code == 0
    ran = data("check", tmp_path, "--deep")
    assert ran.code == 1
    assert "empty_mask" in ran.out


def test_check_against_the_catalogue(data: Command, tmp_path: Path) -> None:
    ran = data("check", whole(tmp_path), "--benchmark", "btad")
    assert ran.code == 1
    assert "differs: classes missing: 01, 02, 03" in ran.out
    assert "found 1/1, stated 451/290" in ran.out
    assert "fault" not in ran.out
    ran = data("check", tmp_path / "nowhere", "--benchmark", "imagenet")
    assert "not in the catalogue" in ran.err


def test_check_what_is_no_data_set(data: Command, tmp_path: Path) -> None:
    ran = data("check", tmp_path / "nowhere")
    assert (ran.code, ran.out) == (2, "")
    assert "no such file or folder" in ran.err
    assert "expected one of: mvtec" in ran.err


def test_prepare_prints_what_to_evaluate(data: Command, tmp_path: Path) -> None:
    for folder in ("no", "yes"):
        picture(tmp_path / folder / "1.png")
    ran = data("prepare", "brainmri", tmp_path)
    assert (ran.code, ran.out.strip()) == (1, f"meta:{tmp_path}"), ran.err
    assert "differs: test images normal/anomalous: found 1/1, stated 98/155" in ran.err
    assert len(list(open_dataset(ran.out.strip()).samples())) == 2


def test_prepare_elpv_needs_only_a_target(data: Command, tmp_path: Path) -> None:
    pytest.importorskip("elpv_dataset", reason="needs the package elpv-dataset")
    ran = data("prepare", "elpv", "--out", tmp_path)
    assert (ran.code, ran.out.strip()) == (0, f"manifest:{tmp_path / 'elpv.csv'}"), ran.err


def test_prepare_says_what_is_missing(data: Command, tmp_path: Path) -> None:
    assert "KolektorSDD: https://data.vicos.si" in data("prepare", "ksdd").err
    assert "needs a target folder" in data("prepare", "ksdd", tmp_path).err
    ran = data("prepare", "headct", tmp_path)
    assert ran.code == 2
    assert "labels.csv" in ran.err
