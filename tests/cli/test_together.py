"""A folder compared with itself from the command line: `detect --method musc`, `--together`, `fit --mixed`."""

import json
from pathlib import Path

import pytest
from PIL import Image

from anomalens.detection.detector import Detector
from anomalens.options import LoadOptions
from commands import Command, runner
from toys import make_patches, parts


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
    assert {row["method"] for row in rows} == {"anoclip + musc"}
    assert max(rows, key=lambda row: row["score"])["path"] == str(shots / "04.png")
    again = run("detect", shots, "--together", "yes", *flags, "--resume")
    assert again.code == 0, again.err
    (shots / "11.png").unlink()
    ran = run("detect", shots, "--method", "musc", *flags, "--resume")
    assert ran.code == 2
    assert "cannot resume" in ran.err


def test_the_papers_settings_are_options(run: Command, shots: Path, tiny_weights: Path, tmp_path: Path) -> None:
    words = "words_weight=0 map_words_weight=0"
    settings = f"levels=each standardise=true windows=[1,3,5] top=0 others=0 {words} position=0 rescore=[1,2,3]"
    flags = [flag for setting in settings.split() for flag in ("--set", setting)]
    ran = run("detect", shots, "--method", "musc", "--backbone", tiny_weights, "--size", 64, "--out", "out", *flags)
    assert ran.code == 0, ran.err
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert {row["method"] for row in rows} == {"musc"}
    assert all(0 <= row["score"] <= 1 for row in rows)


@pytest.mark.parametrize(
    ("further", "said"),
    [
        ((), "12 images look like one part: compared with each other (--together no judges each by itself)"),
        (("--min-area", 4), "12 images look like one part"),
        (("--together", "no"), None),
        (("--threshold", 0.5), None),
        (("--method", "winclip"), None),
    ],
)
def test_a_folder_of_one_kind_of_part_is_compared_unless_anything_else_was_asked_for(
    run: Command, shots: Path, monkeypatch: pytest.MonkeyPatch, further: tuple[object, ...], said: str | None
) -> None:
    def load(options: LoadOptions) -> Detector:
        return make_patches().replace(options=options)

    monkeypatch.setattr("anomalens.detection.loading.load_detector", load)
    ran = run("detect", shots, "--out", "out", *further)
    assert ran.code == 0, ran.err
    assert ("look like one part" in ran.err) is (said is not None)
    assert said is None or said in ran.err
    for path in list(shots.iterdir())[:1]:
        path.unlink()
    assert "look like one part" not in run("detect", shots, "--out", "fewer", *further).err


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
    assert f"left out: '{shots / '04.png'}': among the 30 in 100 least like the others" in ran.err
    assert "from 12 unsorted photos, 8 of them learned" in ran.out
    for further, reason in (("--add", "--add takes good photos only"), ("--fpr=0.2", "leave out --fpr or --mixed")):
        ran = run("fit", shots, "--mixed", further, *flags)
        assert ran.code == 2
        assert reason in ran.err


def test_it_is_listed(run: Command) -> None:
    listed = {row["name"]: row["learns"] for row in json.loads(run("methods", "--json").out)}
    assert listed["musc"] == "nothing, compares a folder"
    assert listed["memory"] == "good photos"
