"""`anomalens fit` and `anomalens recipe`, and what goes on with the file, from the outside."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from commands import Command, Ran, runner
from parts import SIDE, coloured_part, faulty_part, good_part, part_with_square, write_parts


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    return runner(capsys, monkeypatch)


@pytest.fixture
def fit(run: Command, tiny_weights: Path) -> Command:
    def with_fixed_flags(*arguments: object) -> Ran:
        return run("fit", "--backbone", tiny_weights, "--method", "anoclip", "--size", 64, *arguments)

    return with_fixed_flags


@pytest.fixture
def nut(fit: Command, tmp_path: Path) -> Path:
    """Return a part that was taught from five photographs."""
    assert fit(write_parts(tmp_path / "good"), "--out", "nut.anomalens", "--object", "nut").code == 0
    return tmp_path / "nut.anomalens"


def shots(folder: Path) -> Path:
    folder.mkdir()
    for name, pixels in (("a", good_part(0)), ("b", faulty_part(9)), ("c", np.zeros((SIDE, SIDE, 3), np.uint8))):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def test_good_photos_become_a_file_that_detects(fit: Command, run: Command, tmp_path: Path) -> None:
    good = write_parts(tmp_path / "good")
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(good / "black.png")
    (good / "broken.png").write_bytes(b"")
    ran = fit(good, "--out", "nut.anomalens", "--object", "nut")
    assert ran.code == 0, ran.err
    assert "taught from 5 good photos by memory, joined with the words of anoclip, on" in ran.out
    assert "(5 good photos: at most 1 in 6 sound images is called anomalous" in ran.out
    assert "written to nut.anomalens (" in ran.out
    assert "anomalens detect PHOTOS --recipe nut.anomalens --out FOLDER" in ran.err
    assert "photos are compared as they lie" in ran.out
    assert f"left out: '{good / 'black.png'}': the image is black" in ran.err
    assert "broken.png" in ran.err


def test_detect_with_a_taught_part(run: Command, nut: Path, tmp_path: Path) -> None:
    ran = run("detect", shots(tmp_path / "shots"), "--recipe", nut, "--out", "out")
    assert ran.code == 0, ran.err
    assert "by words alone" not in ran.err
    found = rows(tmp_path / "out")
    assert [row["label"] for row in found] == ["normal", "anomalous", "unusable"]
    assert found[2]["reason"] == "Not judged: the image is black."
    assert {row["object"] for row in found} == {"nut"}
    assert {row["threshold_source"] for row in found} == {
        "5 good photos: at most 1 in 6 sound images is called anomalous"
    }
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["counts"]["unusable"] == 1
    assert record["settings"]["method"] == "anoclip + memory"
    again = run("detect", tmp_path / "shots", "--recipe", nut, "--out", "out", "--resume")
    assert again.code == 0, again.err
    # A file made by fit may stand in the place of a method too.
    assert run("detect", tmp_path / "shots", "--method", nut, "--out", "out", "--resume").code == 0


def test_what_the_file_settled_cannot_be_asked_for_anew(
    run: Command, nut: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    shots(tmp_path / "shots")
    for flags, reason in (
        (("--size", 128), "its own size"),
        (("--object", "bolt"), "its own object_name"),
        (("--method", "winclip"), "its own method"),
        (("--tile", 40), "its own tile"),
    ):
        ran = run("detect", "shots", "--recipe", nut, "--out", "out", *flags)
        assert ran.code == 2, flags
        assert reason in ran.err
    # The same weights at another place are the same weights.
    moved = tmp_path / "moved.safetensors"
    shutil.copy(tiny_weights, moved)
    assert run("detect", "shots", "--recipe", nut, "--out", "out", "--backbone", moved, "--threshold", 9).code == 0
    ran = run("detect", "shots", "--recipe", nut, "--out", "other", "--backbone", "bundled", "--threshold", 9)
    assert ran.code == 0, "the default is no wish for other weights"


def test_more_photos_extend_a_part(run: Command, nut: Path, tmp_path: Path) -> None:
    more = write_parts(tmp_path / "more", count=4, first=4)  # the first of them is known already
    ran = run("fit", "--add", more, "--out", nut, "--json")
    assert ran.code == 0, ran.err
    facts = json.loads(ran.out)
    assert [Path(photo["name"]).parent.name for photo in facts["photos"]] == ["good"] * 5 + ["more"] * 3
    assert facts["left_out"] == [f"'{more / '4.png'}': a copy of another photo"]
    assert facts["threshold_source"] == "8 good photos: at most 1 in 9 sound images is called anomalous"
    assert facts["object"] == "nut"
    ran = run("fit", "--add", more, "--out", nut, "--object", "bolt")
    assert ran.code == 2
    assert "its own object_name" in ran.err
    ran = run("fit", "--add", more, "--out", "nothing.anomalens")
    assert ran.code == 2
    assert "no such file" in ran.err


def test_what_a_file_knows_is_shown_without_weights(run: Command, nut: Path, tmp_path: Path) -> None:
    ran = run("recipe", "show", nut, "--thumbnails", "sheet.png")
    assert ran.code == 0, ran.err
    for text in ("memory", "anoclip", "nut", "at most 1 in 6", "at 64 pixels", "anomalens 0.", "mean brightness"):
        assert text in ran.out, text
    assert all(str(tmp_path / "good" / f"{number}.png") in ran.out for number in range(5))
    assert Image.open(tmp_path / "sheet.png").size == (3 * 104 + 8, 2 * 118 + 8)
    facts = json.loads(run("recipe", "show", nut, "--json").out)
    assert facts["bytes"] == nut.stat().st_size
    assert (facts["method"], facts["words"], facts["sizes"], facts["roi"]) == ("memory", "anoclip", [64], None)
    assert run("recipe", "show", nut, "--thumbnails", "sheet.gif").code == 2
    assert run("recipe", "show", "nothing.anomalens").code == 2


def test_options_of_either_method(fit: Command, run: Command, tmp_path: Path) -> None:
    good = write_parts(tmp_path / "good")
    mask = np.zeros((10, 10), np.uint8)
    mask[:, 5:] = 255
    Image.fromarray(mask).save("half.png")
    ran = fit(
        good, "--out", "nut.anomalens", "--set", "views=1", "--set", "turns=2", "--set", "words_weight=0",
        "--set", "map_words_weight=0", "--json",
        "--roi", "half.png", "--min-area", 30, "--mm-per-px", 0.1, "--fpr", 0.25, "--seed", 3,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    facts = json.loads(ran.out)
    assert (facts["method_options"]["turns"], facts["words_options"]) == (2, {"views": 1})
    assert (facts["roi"], facts["min_area"], facts["mm_per_px"], facts["seed"]) == (0.5, 30, 0.1, 3)
    assert facts["uses_words"] is False
    assert facts["threshold_source"].endswith("at most 1 in 4 sound images is called anomalous")
    shown = run("recipe", "show", "nut.anomalens").out
    for text in ("of at least 30 pixels, in a region of interest of 50 % of the image, 0.1 mm a pixel", "2 angles"):
        assert text in shown
    assert "words" not in shown.splitlines()[0]
    shots(tmp_path / "shots")
    assert run("detect", "shots", "--recipe", "nut.anomalens", "--out", "out").code == 0
    regions = [region for row in rows(tmp_path / "out") if "regions" in row for region in row["regions"]]
    assert all(region["area"] >= 30 and "area_mm2" in region for region in regions)
    assert all(region["box"][0] >= SIDE // 2 - 2 for region in regions), "only the right half counts"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["good", "--out", "nut.bin"], "ends in .anomalens"),
        (["good", "--out", "no/where/nut.anomalens"], "no folder"),
        (["good"], "--out"),
        (["nowhere", "--out", "nut.anomalens"], "nowhere"),
        (["one", "--out", "nut.anomalens", "--fpr", "0.4"], "at least 2 good photos, found 1"),
        (["good", "--out", "nut.anomalens", "--fpr", "0.01"], "at least 99 good photos, found 5"),
        (["good", "--out", "nut.anomalens", "--fpr", "0"], "between 0 and 1"),
        (["good", "--out", "nut.anomalens", "--set", "nonsense=1"], "nonsense"),
        (["good", "--out", "nut.anomalens", "--set", "turns=99"], "turns 99"),
        (["good", "--out", "nut.anomalens", "--set", "window=two"], "window"),
        (["good", "--out", "nut.anomalens", "--mm-per-px", "0"], "mm_per_px"),
        (["good", "--out", "nut.anomalens", "--min-area", "-1"], "min-area"),
    ],
)
def test_wrong_usage_is_refused_before_any_work(
    fit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], reason: str
) -> None:
    write_parts(tmp_path / "good")
    write_parts(tmp_path / "one", count=1)

    def refuse(*_: object) -> None:
        raise AssertionError("nothing may be loaded")

    monkeypatch.setattr("anomalens.detection.loading.load_detector", refuse)
    ran = fit(*arguments)
    assert ran.code == 2
    assert reason in ran.err
    assert not list(tmp_path.glob("*.anomalens"))


def test_an_unknown_option_is_answered_with_those_of_both_methods(fit: Command, tmp_path: Path) -> None:
    ran = fit(write_parts(tmp_path / "good"), "--out", "nut.anomalens", "--set", "nonsense=1")
    assert "memory with anoclip has: " in ran.err
    assert "words_weight" in ran.err
    assert "views" in ran.err


def test_a_region_of_interest_that_is_none(fit: Command, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    good = write_parts(tmp_path / "good")
    for name, reason in (("black.png", "black everywhere"), ("gone.png", "gone.png")):
        ran = fit(good, "--out", "nut.anomalens", "--roi", name)
        assert ran.code == 2
        assert reason in ran.err
    assert not (tmp_path / "nut.anomalens").exists()


def test_an_odd_photo_is_named(fit: Command, tmp_path: Path) -> None:
    good = write_parts(tmp_path / "good", count=8)
    Image.fromarray(faulty_part(50)).save(good / "odd.png")
    ran = fit(good, "--out", "nut.anomalens")
    assert f"have a look whether they are good: '{good / 'odd.png'}'" in ran.out


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("memory", "dinov2"),
        ("anomalydino", "dinov2"),
        ("patchcore", "clip"),
        ("subspacead", "bundled"),
        ("winclip+", "clip"),
    ],
)
def test_methods_of_papers_on_any_backbone(
    run: Command, tiny_weights: Path, tiny_dinov2: Path, tmp_path: Path, name: str, weights: str
) -> None:
    for folder, photos in (("good", [coloured_part(number) for number in range(3)]), ("new", [part_with_square(7)])):
        (tmp_path / folder).mkdir()
        for number, pixels in enumerate(photos):
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    backbone = {"clip": tiny_weights, "dinov2": tiny_dinov2, "bundled": "bundled"}[weights]
    flags = ("--method", name, "--backbone", backbone, "--size", 112, "--set", "turns=1")
    ran = run("fit", "good", "--out", "part.anomalens", *flags)
    assert ran.code == 0, ran.err
    ran = run("detect", "new", "--recipe", "part.anomalens", "--out", "out")
    assert ran.code == 0, ran.err
    (row,) = rows(tmp_path / "out")
    assert (row["label"], row["method"]) == ("anomalous", name)
