"""The demo shows what comes out, on photographs that may be shown, and judges none that it was taught."""

import runpy
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from anomalens import load_detector
from anomalens.files import digest

ROOT = Path(__file__).parent.parent
NUTS = ROOT / "examples/hazelnuts/peeled_hazelnut"
ORIGINALS = ROOT.parent / "shared/data/peeled_hazelnut/peeled_hazelnut"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_no_taught_photograph_is_judged() -> None:
    taught, judged = (
        [digest(path.read_bytes()) for path in sorted((NUTS / part).rglob("*.jpg"))] for part in ("train", "test")
    )
    assert (len(set(taught)), len(set(judged))) == (4, 19)
    assert not set(taught) & set(judged)


def test_photographs_were_chosen_by_their_names_alone() -> None:
    if not ORIGINALS.is_dir():
        pytest.skip("the whole set of photographs is not there to compare with")
    assert names(NUTS / "train/good") == names(ORIGINALS / "train/good")[:4]
    for part in ("test/good", "test/colour", "ground_truth/colour"):
        assert names(NUTS / part) == names(ORIGINALS / part)[::2]


def test_the_demo_compares_words_alone_with_what_was_taught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("train/good/17.jpg", "train/good/18.jpg", "test/good/04.jpg", "test/colour/00.jpg")
    for name in few:
        (tmp_path / "data/nut" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(NUTS / name, tmp_path / "data/nut" / name)
    out = tmp_path / "out"
    arguments = ["hazelnuts.py", "--data", f"mvtec:{tmp_path / 'data'}", "--columns", "2", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(str(ROOT / "examples/hazelnuts.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "taught from 2 good photos" in printed
    assert "false alarms" in printed
    assert Image.open(out / "hazelnuts.png").height > 400
    detector = load_detector(str(out / "hazelnut.anomalens"))
    assert detector.lesson is not None
    assert [Path(photo.name).name for photo in detector.lesson.photos] == ["17.jpg", "18.jpg"]
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count('<img src="data:image/jpeg;base64,') == 2 + 2 * 3
    assert "default-src 'none'" in page
