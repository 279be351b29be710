"""`anomalens inspect` from the outside: the answer, the picture, the exit status."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalens.images.sources import find_images
from commands import Command, runner
from parts import write_parts


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    return runner(capsys, monkeypatch)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    path = tmp_path / "photos" / "nut.jpg"
    path.parent.mkdir()
    Image.fromarray(noise).save(path)
    return path


def test_one_answer_and_one_picture(run: Command, photo: Path, tmp_path: Path) -> None:
    ran = run("inspect", photo, "--threshold", -1)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("ANOMALOUS: ")
    for name in ("confidence", "score", "regions", "picture"):
        assert f"{name}\t" in ran.out
    assert Image.open(tmp_path / "nut-inspected.png").size == (120, 90)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nut-inspected.png", "photos"]


def test_the_exit_status_follows_the_label(run: Command, photo: Path, tmp_path: Path) -> None:
    black = tmp_path / "photos" / "black.png"
    Image.new("RGB", (90, 90)).save(black)
    assert run("inspect", photo, "--threshold", -1, "--fail-on", "anomalous").code == 1
    assert run("inspect", photo, "--threshold", 9, "--fail-on", "anomalous").code == 0
    assert run("inspect", photo, "--threshold", -1, "--fail-on", "unusable").code == 0
    # What cannot be judged does not pass for sound.
    assert run("inspect", black).code == 0
    assert run("inspect", black, "--fail-on", "anomalous").code == 1
    assert run("inspect", black, "--fail-on", "unusable").code == 1
    assert "UNUSABLE: Not judged: " in run("inspect", black).out


def test_json_holds_the_whole_prediction(run: Command, photo: Path, tmp_path: Path) -> None:
    ran = run("inspect", photo, "--json", "--out", tmp_path / "x.PNG")
    answer = json.loads(ran.out)
    assert (answer["path"], answer["picture"]) == (str(photo), str(tmp_path / "x.PNG"))
    assert answer["label"] in ("normal", "anomalous")


def test_its_picture_is_no_input_later(run: Command, photo: Path, tmp_path: Path) -> None:
    run("inspect", photo)
    (tmp_path / "nut-inspected.png").rename(photo.with_name("nut-inspected.png"))
    # A photograph that happens to have such a name is one.
    Image.new("RGB", (30, 30)).save(photo.with_name("mine-inspected.png"))
    listing = find_images([photo.parent])
    assert [path.name for path in listing.images] == ["mine-inspected.png", "nut.jpg"]
    assert sum(listing.left_out.values()) == 1


def test_a_taught_part(run: Command, tmp_path: Path) -> None:
    write_parts(tmp_path / "good", 4)
    ran = run("fit", tmp_path / "good", "--out", "nut.anomalens", "--size", 112)
    assert ran.code == 0, ran.err
    ran = run("inspect", next((tmp_path / "good").glob("*.png")), "--recipe", "nut.anomalens")
    assert ran.code == 0, ran.err
    assert "method\tcrane + memory on bundled" in ran.out


def test_bad_input_is_a_line(run: Command, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    Image.new("RGB", (40, 40)).save(tmp_path / "own.png")
    for arguments, reason in (
        ((tmp_path / "text.jpg",), "text.jpg"),
        ((tmp_path / "nothing.jpg",), "nothing.jpg"),
        ((photo.parent,), "inspect takes one image"),
        ((photo, "--out", "x.jpg"), "is a .png file"),
        ((photo, "--out", "no/x.png"), "cannot write no/x.png"),
        ((tmp_path / "own.png", "--out", "own.png"), "would take the place of the image"),
    ):
        ran = run("inspect", *arguments)
        assert ran.code == 2, arguments
        assert reason in ran.err
        assert "Traceback" not in ran.err


def test_the_picture_is_opened_on_request(run: Command, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", lambda path: opened.append(path))
    assert run("inspect", photo, "--open").code == 0
    assert opened == ["nut-inspected.png"]
